"""keyfit update. What nothing has changed for never gets here: see `keyfit.ui.quick`."""

from typing import Any

import click

from keyfit.app import update as use_case
from keyfit.ui.cli import Session
from keyfit.ui.options import common, merge
from keyfit.ui.output import emit
from keyfit.ui.reporters import SilentReporter


@click.command(epilog="Example: keyfit update --check")
@click.option("--check", is_flag=True, help="Only look; changes nothing and needs no rights.")
@click.option("--exit-code", is_flag=True, help="With --check: exit with 100 if there are newer drivers.")
@common
@click.pass_obj
def command(session: Session, /, check: bool, exit_code: bool, **given: Any) -> int:
    """Are there newer drivers for what is installed?"""
    merge(session.options, given)
    if not check:
        return emit(use_case.update(), session.options)
    context = session.compose(session.options, SilentReporter(False))
    return emit(use_case.check(context, exit_code=exit_code, language=session.options.lang), session.options)
