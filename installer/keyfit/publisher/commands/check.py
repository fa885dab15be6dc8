"""`keyfit-publish check`."""

from pathlib import Path

import click
from msgspec import structs

from keyfit.model.result import Message, OperationResult
from keyfit.publisher.cli import common
from keyfit.publisher.output import done
from keyfit.publisher.workplace import EXISTING, checked_brands


@click.command
@click.argument("drivers", type=EXISTING, default=Path("drivers"))
@common
def command(drivers: Path) -> OperationResult:
    """See whether brand data is sound; every fault is told with file and line.

    Example: keyfit-publish check drivers
    """
    brands, warnings = checked_brands(drivers)
    problems = [structs.asdict(p) for p in warnings]
    return done("check", {"brands": len(brands), "problems": problems},
                f"{len(brands)} brands are sound ({len(warnings)} warnings).",
                warnings=tuple(Message(level="warning", code="lint", text=str(p)) for p in warnings))
