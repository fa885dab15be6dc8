"""The options and words that `check` and `add` share: what package files are held against, and how a report is told."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from keyfit.publisher.contents import Checks, Verdict
    from keyfit.publisher.inspection.reports import Report, SignatureReport

F = TypeVar("F", bound=Callable[..., Any])
_FILE = click.Path(path_type=Path, dir_okay=False, exists=True)


def checks_options(function: F) -> F:
    """Add `--blocklist` and `--roots`."""
    function = click.option("--roots", type=_FILE, metavar="FILE", help="Root certificates (PEM) that vendors' signatures"
                            " may lead to, instead of this system's.")(function)
    return click.option("--blocklist", "blocklists", type=_FILE, metavar="FILE", multiple=True,
                        help="A list of vulnerable drivers besides DRIVERS/blocklist.toml: Microsoft's block rules (XML) or"
                        " the JSON of loldrivers.io.")(function)


def read_checks(drivers: Path, blocklists: tuple[Path, ...], roots: Path | None) -> "Checks":
    """What package files are held against.

    Raises:
        DataError: a block list is none.
    """
    from keyfit.publisher.blocklist import FILE_NAME, load_blocklist
    from keyfit.publisher.contents import Checks

    own = drivers / FILE_NAME
    found = [load_blocklist(path) for path in (*((own,) if own.is_file() else ()), *blocklists)]
    if not found:
        return Checks(roots=roots)
    whole = found[0]
    for other in found[1:]:
        whole = whole.joined(other)
    return Checks(blocklist=whole, roots=roots)


def told(verdict: "Verdict", name: str) -> Iterator[str]:
    """A report in words, one line each."""
    from keyfit.publisher.inspection import reports

    report = verdict.report
    if report is None:
        return
    match report:
        case reports.DebReport() | reports.RpmReport():
            yield f"{name}: package {report.name} {report.version} for {report.architecture}"
            yield f"  scripts: {', '.join(report.scripts) or 'none'}"
        case reports.ExeReport():
            yield f"{name}: program {report.binary.product} {', '.join(report.binary.versions)} for {report.binary.machine}"
        case reports.MsiReport():
            yield f"{name}: {report.product} {report.version} of {report.manufacturer} for {report.architecture}"
            yield from (f"  runs {action}" for action in report.actions)
        case reports.InfReport():
            yield f"{name}: driver of {', '.join(report.providers)}, {', '.join(report.versions)}"
            yield f"  class: {', '.join(report.classes)}"
            yield from (f"  for {one}" for one in report.hardware_ids)
        case reports.PkgReport():
            yield f"{name}: installer of {', '.join(report.components)}"
            yield f"  scripts: {', '.join(report.scripts) or 'none'}; ticket: {'attached' if report.stapled else 'none'}"
        case _:
            yield f"{name}: archive"
    yield f"  files: {len(report.files)}" if report.files else "  files: unknown"
    yield from _signed(report)


def _signed(report: "Report") -> Iterator[str]:
    from keyfit.publisher.inspection import reports

    if isinstance(report, reports.ExeReport):
        yield from _signature(report.binary.signature)
    elif isinstance(report, reports.MsiReport | reports.InfReport | reports.PkgReport):
        yield from _signature(report.signature)


def _signature(signature: "SignatureReport | None") -> Iterator[str]:
    if signature is None or not signature.subject:
        yield "  signed: no"
        return
    yield f"  signed by subject: {signature.subject}"
    yield f"  signed by issuer: {signature.issuer}"
    if signature.team_id:
        yield f"  developer team: {signature.team_id}"
    yield f"  time-stamp: {signature.signed_at or 'none'}"
