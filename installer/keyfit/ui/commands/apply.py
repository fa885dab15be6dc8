"""keyfit apply."""

from pathlib import Path
from typing import Any

import click

from keyfit.app import install as use_case
from keyfit.ui.cli import Session
from keyfit.ui.commands.install import reporter
from keyfit.ui.commands.plan import render_result
from keyfit.ui.options import common, merge, source_option
from keyfit.ui.output import emit


@click.command(epilog="Example: keyfit apply plan.json")
@click.argument("plan_file", type=click.Path(path_type=Path))
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--no-handoff", is_flag=True, help="Do not open the bank's page.")
@source_option
@common
@click.pass_obj
def command(session: Session, /, plan_file: Path, yes: bool, no_handoff: bool, **given: Any) -> int:
    """Carry out a saved plan and nothing else; refused if it no longer fits the machine or the signed data."""
    options = session.options
    merge(options, given)
    context = session.compose(options, reporter(options, yes=yes, silent=False))
    result = use_case.apply(context, plan_file, hand_off=not no_handoff, language=options.lang)
    return emit(result, options, render_result)
