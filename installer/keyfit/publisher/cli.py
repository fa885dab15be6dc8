"""The command line of `keyfit-publish`, and what its commands share. Each command lies in `commands/<name>.py` as
`command` and is imported when it is used."""

import os
import sys
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

import click
from msgspec import Struct

from keyfit import __version__
from keyfit.commandgroup import LazyGroup
from keyfit.errors import EXIT_CODES, KeyfitError, Outcome
from keyfit.model.result import OperationResult
from keyfit.publisher.output import emit, ended, failure

F = TypeVar("F", bound=Callable[..., Any])

COMMANDS = {
    "init": "make keys and an empty signed repository",
    "check": "see whether brand data is sound",
    "add": "put a driver package file into a brand",
    "release": "compile the brand data, and publish it or leave a signing request",
    "sign": "add signatures to a signing request",
    "refresh": "sign a new timestamp, and a new snapshot when it ages",
    "status": "what expires when, and who must sign what",
    "rollout": "which share of the machines gets a newer version",
    "revoke": "a version that may not be installed any more",
    "delegate": "give a brand its own keys",
    "rotate": "change a role's keys",
    "mirror": "copy a repository, whole or in part, or renew the copy",
    "bundle": "press a signed offline kit: a folder, a zip file or an image for a disc",
    "site": "make the static download site",
    "serve": "serve the repository from this machine, for development",
}
"""Command -> one line for the list."""


class Session(Struct):
    """What the common options said, and which command runs."""

    json: bool = False
    quiet: bool = False
    command: str = "keyfit-publish"


def common(function: F) -> F:
    """Add the options that may stand before or after the command."""
    for option in (click.option("--quiet", is_flag=True, expose_value=False, callback=_set, help="Print errors only."),
                   click.option("--json", is_flag=True, expose_value=False, callback=_set,
                                help="Print one JSON document and nothing else.")):
        function = option(function)
    return function


def _set(context: click.Context, option: click.Parameter, value: bool) -> None:
    session: Session = context.ensure_object(Session)
    if value and option.name:
        setattr(session, option.name, True)
    if context.parent is not None and context.info_name:
        session.command = context.info_name


@click.group(cls=LazyGroup, table=COMMANDS, package="keyfit.publisher.commands",
             context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="keyfit-publish")
@common
def cli() -> None:
    """Checks brand data, signs it and publishes it as a folder of static files.

    Example: keyfit-publish init /srv/keyfit
    """


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code. The only place where errors become text."""
    session = Session(json="--json" in arguments)
    try:
        result = cli.main(arguments, prog_name="keyfit-publish", standalone_mode=False, obj=session)
        if not isinstance(result, OperationResult) or not result.command:
            return result if isinstance(result, int) else 0
    except KeyfitError as error:
        result = failure(session.command, error)
    except (click.exceptions.Abort, KeyboardInterrupt):
        result = ended(session.command, Outcome.CANCELLED, "cancelled", "Cancelled.")
    except click.ClickException as error:
        hint = f"See `{error.ctx.command_path} --help`." if isinstance(error, click.UsageError) and error.ctx else ""
        result = ended(session.command, Outcome.USAGE, "usage", error.format_message(), hint)
    except Exception as error:  # noqa: BLE001 - the one place where a fault of our own becomes a message
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{type(error).__name__} in {frame.name}, {frame.filename.rsplit('/keyfit/', 1)[-1]}:{frame.lineno}"
        result = ended(session.command, Outcome.INTERNAL, "internal", f"Keyfit made a mistake: {where}: {error}",
                       "Please report this line. What is served is as it was before.")
    try:
        return emit(result, as_json=session.json, quiet=session.quiet)
    except BrokenPipeError:  # whoever reads has had enough; the exit code still says how it ended
        sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for what is left to be flushed
        return EXIT_CODES[result.outcome][sys.platform == "win32"]
