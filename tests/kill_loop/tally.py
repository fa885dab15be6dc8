"""What the kills led to, as a table."""

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass
class Row:
    """Kills of one verb at one kind of moment.

    Attributes:
        kills: how often it was ended.
        old, new: how often the machine was as before, or as after, once `recover` had run.
        recovered: how often `recover` had something to do.
        failures: everything that was not so, one line each.
    """

    where: str
    verb: str
    kills: int = 0
    old: int = 0
    new: int = 0
    recovered: int = 0
    failures: list[str] = field(default_factory=list)


class Tally:
    """Rows by place and verb."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], Row] = {}

    def row(self, where: str, verb: str) -> Row:
        """The row, made if it is new."""
        return self.rows.setdefault((where, verb), Row(where, verb))

    @property
    def failures(self) -> list[str]:
        """Of all rows."""
        return [f"{row.where}, {row.verb}: {text}" for row in self.rows.values() for text in row.failures]

    def table(self) -> str:
        """For people."""
        total = Row("all", "")
        for row in self.rows.values():
            total.kills += row.kills
            total.old += row.old
            total.new += row.new
            total.recovered += row.recovered
            total.failures += row.failures
        lines = [f"{'where':34} {'verb':10} {'kills':>6} {'old':>6} {'new':>6} {'recovered':>10} {'failures':>9}"]
        lines += [_line(row) for row in [*self.rows.values(), total]]
        return "\n".join(lines)


def judge(row: Row, moment: str, *, old: bool, new: bool, open_left: bool, recovered: bool, problems: Iterable[str]) -> None:
    """Count one kill: the machine has to be as before or as after, with nothing left to recover."""
    row.kills += 1
    row.recovered += recovered
    row.old += old
    row.new += new and not old
    if open_left:
        row.failures.append(f"{moment}: one run of recover was not enough")
    if not old and not new:
        row.failures.append(f"{moment}: neither old nor new: {'; '.join(list(problems)[:6])}")


def _line(row: Row) -> str:
    return (f"{row.where:34} {row.verb:10} {row.kills:6} {row.old:6} {row.new:6} {row.recovered:10} {len(row.failures):9}")
