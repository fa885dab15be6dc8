"""keyfit certificate."""

from typing import Any

import click

from keyfit.app import certificate as use_case
from keyfit.model.result import OperationResult
from keyfit.ui.cli import Session
from keyfit.ui.commands.install import reporter
from keyfit.ui.options import common, merge
from keyfit.ui.output import emit

DEFAULT_WAIT_S = 1800.0
"""Half an hour: time to log in at the bank and to be called away once."""


@click.command(epilog="Example: keyfit certificate --open --wait")
@click.argument("brand", required=False)
@click.option("--open", "open_page", is_flag=True, help="Open the bank's page in the browser.")
@click.option("--wait", is_flag=True, help="Return when the new certificate is on the token.")
@click.option("--timeout", type=click.FloatRange(min=1.0), default=DEFAULT_WAIT_S, metavar="SECONDS",
              help="How long --wait waits (1800).")
@common
@click.pass_obj
def command(session: Session, /, brand: str | None, open_page: bool, wait: bool, timeout: float, **given: Any) -> int:
    """State of the certificate on the token, the PIN rules, and where to get a certificate."""
    options = session.options
    merge(options, given)
    context = session.compose(options, reporter(options, yes=False, silent=False))
    result = use_case.certificate(context, brand, open_page=open_page, wait_s=timeout if wait else None,
                                  language=options.lang)
    return emit(result, options, render)


def render(result: OperationResult) -> str:
    """PIN rules and the way to the certificate."""
    pin, page = result.data["pin"], result.data["hand_off"]
    lines = []
    if pin["state"] not in ("unknown", "ok"):
        lines.append(f"PIN: {pin['state'].replace('-', ' ')}")
    if "advice" in pin:
        lines.append(f"PIN rule: {pin['min_length']} to {pin['max_length']} characters. {pin['advice']}")
    if page:
        lines += [f"{page['bank']}: {page['page']}", f"  {page['steps']}"]
        lines += [f"  {what}: {page[what]}" for what in ("forgotten", "lost", "replacement") if page[what]]
    return "\n".join(lines)
