"""keyfit history."""

from typing import Any

import click

from keyfit.app import maintain
from keyfit.model.result import OperationResult
from keyfit.ui.cli import Session
from keyfit.ui.options import common, merge
from keyfit.ui.output import emit
from keyfit.ui.reporters import SilentReporter


@click.command(epilog="Example: keyfit history")
@common
@click.pass_obj
def command(session: Session, /, **given: Any) -> int:
    """What was done when, from which signed version, with what result."""
    merge(session.options, given)
    context = session.compose(session.options, SilentReporter(False))
    return emit(maintain.history(context), session.options, render)


def render(result: OperationResult) -> str:
    """One line a change, oldest first."""
    entries = result.data["history"]
    if not entries:
        return "Nothing was done yet."
    return "\n".join(f"{e['started']}  {e['verb']:<9} {e['brand']:<24} {e['result']:<12} {e['target']}"
                     f" number {e['sequence']}" for e in entries)
