"""keyfit recover."""

from typing import Any

import click

from keyfit.app import maintain
from keyfit.ui.cli import Session
from keyfit.ui.commands.install import reporter
from keyfit.ui.options import common, merge
from keyfit.ui.output import emit


@click.command(epilog="Example: keyfit recover")
@common
@click.pass_obj
def command(session: Session, /, **given: Any) -> int:
    """Finish or take back an interrupted change."""
    options = session.options
    merge(options, given)
    context = session.compose(options, reporter(options, yes=True, silent=False))
    return emit(maintain.recover(context), options)
