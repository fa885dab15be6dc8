"""keyfit verify."""

from typing import Any

import click

from keyfit.app import verify as use_case
from keyfit.ui.cli import Session
from keyfit.ui.commands.plan import chain
from keyfit.ui.options import common, merge
from keyfit.ui.output import emit
from keyfit.ui.reporters import SilentReporter


@click.command(epilog="Example: keyfit verify")
@click.argument("brand", required=False)
@common
@click.pass_obj
def command(session: Session, /, brand: str | None, **given: Any) -> int:
    """Prove that the token works: bus, driver, reader, module, token, each browser; names the first broken link."""
    merge(session.options, given)
    context = session.compose(session.options, SilentReporter(False))
    result = use_case.verify(context, brand)
    return emit(result, session.options, lambda r: chain(r.data["verdict"]))
