"""keyfit uninstall."""

from typing import Any

import click

from keyfit.app import maintain
from keyfit.ui.cli import Session
from keyfit.ui.commands.install import reporter
from keyfit.ui.options import common, merge
from keyfit.ui.output import emit


@click.command(epilog="Example: keyfit uninstall yubikey")
@click.argument("brand")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--silent", is_flag=True, help="No question and no output but errors.")
@common
@click.pass_obj
def command(session: Session, /, brand: str, yes: bool, silent: bool, **given: Any) -> int:
    """Take back all that Keyfit put there for a brand; what others put there is left alone."""
    options = session.options
    merge(options, given)
    context = session.compose(options, reporter(options, yes=yes, silent=silent))
    return emit(maintain.uninstall(context, brand, silent=silent), options)
