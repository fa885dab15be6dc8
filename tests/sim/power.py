"""A power switch shared by the simulated machine and its journal: cuts at the n-th moment, and then nothing works."""

from pathlib import Path
from typing import Any

from keyfit.engine.journal import Journal
from keyfit.model.plan import Plan


class PowerCut(BaseException):
    """The machine is off. No handler of the program may survive this, so it is no `Exception`."""


class Power:
    """Counts moments. At moment `cut_at` and at every later one the machine is off, until `restore`."""

    def __init__(self, cut_at: int | None = None) -> None:
        self.cut_at = cut_at
        self.moments = 0

    def tick(self) -> None:
        """One moment passes."""
        self.moments += 1
        if self.cut_at is not None and self.moments >= self.cut_at:
            raise PowerCut

    @property
    def was_cut(self) -> bool:
        """True once the machine went off."""
        return self.cut_at is not None and self.moments >= self.cut_at

    def restore(self) -> None:
        """Power is back, and stays."""
        self.cut_at = None
        self.moments = 0


class PoweredJournal(Journal):
    """The real journal on a machine that may lose power just before or just after every commit."""

    def __init__(self, state_dir: Path, power: Power) -> None:
        super().__init__(state_dir)
        self._power = power

    def begin(self, verb: str, plan: Plan) -> int:
        self._power.tick()
        txn = super().begin(verb, plan)
        self._power.tick()
        return txn

    def intend(self, txn: int, seq: int, step_id: str, before: dict[str, Any]) -> None:
        self._power.tick()
        super().intend(txn, seq, step_id, before)
        self._power.tick()

    def done(self, txn: int, seq: int, after: dict[str, Any]) -> None:
        self._power.tick()
        super().done(txn, seq, after)
        self._power.tick()

    def undone(self, txn: int, seq: int, state: str = "undone") -> None:
        self._power.tick()
        super().undone(txn, seq, state)
        self._power.tick()

    def finish(self, txn: int, state: str, message: str = "") -> None:
        self._power.tick()
        super().finish(txn, state, message)
        self._power.tick()

    def mark_removing(self, txn: int) -> None:
        self._power.tick()
        super().mark_removing(txn)
        self._power.tick()
