"""`keyfit-publish check`."""

from pathlib import Path
from typing import Any

import click
import msgspec

from keyfit.errors import DataError, Outcome, UserError
from keyfit.model.result import Message, OperationResult
from keyfit.publisher.cli import common
from keyfit.publisher.output import done
from keyfit.publisher.packagechecks import checks_options, read_checks, told
from keyfit.publisher.workplace import EXISTING, checked_brands


@click.command
@click.argument("drivers", type=EXISTING, default=Path("drivers"))
@click.option("--package", "packages", nargs=2, type=(str, EXISTING), multiple=True, metavar="BRAND/ID FILE",
              help="Look into a package file too, as add does, and print what is in it.")
@checks_options
@common
def command(drivers: Path, packages: tuple[tuple[str, Path], ...], blocklists: tuple[Path, ...],
            roots: Path | None) -> OperationResult:
    """See whether brand data is sound; every fault is told with file and line.

    Example: keyfit-publish check drivers --package acme/acme-deb acme_1.0_amd64.deb
    """
    checks = read_checks(drivers, blocklists, roots)
    brands, warnings = checked_brands(drivers)
    problems = [msgspec.structs.asdict(p) for p in warnings]
    messages = [Message(level="warning", code="lint", text=f"{p.path}:{p.line}: {p.text}") for p in warnings]
    data: dict[str, Any] = {"brands": len(brands), "problems": problems,
                            "blocked_drivers": len(checks.blocklist) if checks.blocklist else 0}
    lines = [f"{len(brands)} brands are sound ({len(warnings)} warnings)."]
    if packages:
        data["packages"] = []
    faults: list[Message] = []
    for name, file in packages:
        row, said, found, notes = _look(brands, name, file, checks)
        data["packages"].append(row)
        lines += said
        faults += [Message(level="error", code="problem", text=text) for text in found]
        messages += [Message(level="warning", code="package-content", text=text) for text in notes]
    result = done("check", data, *lines, warnings=tuple(messages))
    if not faults:
        return result
    head = Message(level="error", code="package-content", text=f"Expected sound packages, found {len(faults)} problems.",
                   hint="Correct the brand data if it is wrong about a file; a file that does what is refused cannot be"
                   " published.")
    return msgspec.structs.replace(result, outcome=Outcome.USAGE, messages=(*result.messages, head, *faults))


def _look(brands: Any, name: str, file: Path, checks: Any) -> tuple[dict[str, Any], list[str], tuple[str, ...], tuple[str, ...]]:
    """(JSON, lines, problems, notes) of one package file."""
    from keyfit.publisher.contents import look
    from keyfit.publisher.packages import check_kind, find_package

    brand_name, _, package_id = name.partition("/")
    if not package_id:
        raise UserError("no-such-package", f"Expected BRAND/ID, came {name!a}.",
                        hint="For example: --package acme/acme-deb acme_1.0_amd64.deb")
    try:
        brand, package = find_package(brands, brand_name, file.name, package_id)
        check_kind(package, file)
        verdict = look(brand, package, file, checks)
    except DataError as error:
        found = error.problems or (f"{file.name}: {error.message}",)
        return {"package": name, "file": file.name, "report": None, "problems": found, "notes": ()}, [], found, ()
    row = {"package": name, "file": file.name, "report": msgspec.to_builtins(verdict.report), "problems": verdict.problems,
           "notes": verdict.notes}
    return row, list(told(verdict, file.name)), verdict.problems, verdict.notes
