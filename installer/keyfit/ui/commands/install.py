"""keyfit install."""

import sys
from typing import Any

import click

from keyfit.app import install as use_case
from keyfit.model.plan import Part
from keyfit.model.result import OperationResult
from keyfit.ports import Reporter
from keyfit.ui.cli import Session
from keyfit.ui.commands.plan import render_result
from keyfit.ui.options import Options, common, merge, part_option, source_option
from keyfit.ui.output import emit
from keyfit.ui.reporters import SilentReporter, TerminalReporter, WaitingReporter


@click.command(epilog="Example: keyfit install --yes")
@click.argument("brand", required=False)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--silent", is_flag=True, help="No question, no window, no browser; needs BRAND.")
@click.option("--dry-run", is_flag=True, help="Show the plan and stop.")
@click.option("--no-handoff", is_flag=True, help="Do not open the bank's page.")
@part_option
@source_option
@common
@click.pass_obj
def command(session: Session, /, brand: str | None, yes: bool, silent: bool, dry_run: bool, no_handoff: bool,
            part: Part | None, **given: Any) -> int:
    """Detect the token, show the plan, ask once, patch, install, prove that it works, hand off."""
    options = session.options
    merge(options, given)
    context = session.compose(options, reporter(options, yes=yes, silent=silent))
    result = use_case.install(context, brand, silent=silent, dry_run=dry_run, hand_off=not no_handoff,
                              language=options.lang, part=part or "all")
    return emit(result, options, _text(silent))


def reporter(options: Options, *, yes: bool, silent: bool) -> Reporter:
    """Who is told what goes on."""
    if silent:
        return SilentReporter(True)
    if options.json or options.quiet or not sys.stdout:
        return WaitingReporter(yes)
    return TerminalReporter(answer=yes, verbose=options.verbose)


def _text(silent: bool) -> Any:
    def render(result: OperationResult) -> str:
        return "" if silent else render_result(result)

    return render
