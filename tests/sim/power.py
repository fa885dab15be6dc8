"""A power switch shared by the simulated machine and its journal: cuts at the n-th moment, and then nothing works."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from keyfit.engine.journal import Journal


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
    """The real journal on a machine that may lose power just before or just after every commit. What a commit takes to the disk
    the kernel keeps for a process that is killed as well, so that nothing here waits for the disk."""

    def __init__(self, state_dir: Path, power: Power) -> None:
        super().__init__(state_dir)
        self._power = power

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        self._power.tick()
        with super()._writing() as db:
            yield db
        self._power.tick()

    def _connect(self) -> sqlite3.Connection:
        db = super()._connect()
        db.execute("PRAGMA synchronous = OFF")
        return db
