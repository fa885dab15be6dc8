"""The command line: `keyfit`. Commands are imported when they are called, so that each starts as fast as it can."""

from typing import Any

import click

from keyfit import __version__
from keyfit.commandgroup import LazyGroup
from keyfit.errors import KeyfitError, Outcome
from keyfit.model.result import Message, OperationResult
from keyfit.ui.options import Options, common, merge
from keyfit.ui.output import emit, exit_code, failure
from keyfit.ui.session import Compose, OpenLog, Session

COMMANDS = {
    "devices": "the tokens plugged in, what they need and whether it is there",
    "plan": "what install would change and why, without changing anything",
    "install": "install the driver of the token that is plugged in",
    "apply": "carry out a saved plan and nothing else",
    "verify": "prove that the token works, or name the first broken link",
    "certificate": "the certificate on the token and where to get one",
    "uninstall": "take back all that was installed for a brand",
    "repair": "make the machine match the record again",
    "update": "are there newer drivers for what is installed",
    "history": "what was done when, with what result",
    "recover": "finish or take back an interrupted change",
}
"""Command -> one line for the list. Each lies in `keyfit.ui.commands.<name>` as `command`."""
__all__ = ["COMMANDS", "Session", "cli", "run"]


@click.group(cls=LazyGroup, table=COMMANDS, package="keyfit.ui.commands",
             context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="keyfit")
@common
@click.pass_obj
def cli(session: Session, /, **given: Any) -> None:
    """Recognises a USB crypto token, installs its driver from signed data and proves that it works.

    Example: keyfit install
    """
    merge(session.options, given)


def run(arguments: list[str], options: Options, compose: Compose, open_log: OpenLog | None = None) -> int:
    """Run one command and return its exit code. The only place where errors become text."""
    session = Session(options, compose, open_log)
    options.json = "--json" in arguments
    command = next((a for a in arguments if a in COMMANDS), "keyfit")
    try:
        code = cli.main(arguments, prog_name="keyfit", standalone_mode=False, obj=session)
        return code if isinstance(code, int) else 0
    except KeyfitError as error:
        if error.outcome is Outcome.INTERNAL:
            session.crashed(command, error)
        return _finish(session, failure(command, error, options.lang))
    except click.exceptions.Abort:
        return _finish(session, _ended(command, Outcome.CANCELLED, "cancelled", "Cancelled; nothing was changed."))
    except KeyboardInterrupt:
        return _finish(session, _ended(command, Outcome.CANCELLED, "cancelled", "Cancelled."))
    except click.ClickException as error:
        hint = f"See `{error.ctx.command_path} --help`." if isinstance(error, click.UsageError) and error.ctx else ""
        return _finish(session, _ended(command, Outcome.USAGE, "usage", error.format_message(), hint))
    except BrokenPipeError:
        return 0
    except Exception as error:  # noqa: BLE001 - the one place where a fault of our own becomes a message
        return _finish(session, _bug(session, command, error, verbose=options.verbose or "--verbose" in arguments))


def _finish(session: Session, result: OperationResult) -> int:
    return emit(session.ended(result, exit_code(result.outcome)), session.options)


def _bug(session: Session, command: str, error: Exception, *, verbose: bool) -> OperationResult:
    """A fault of Keyfit's own, without what it was working on: that may hold names of the user's."""
    from keyfit.ui.crash import frames

    report = session.crashed(command, error)
    lines = frames(error)
    where = " ".join(line.strip() for line in lines[:2])
    there = f" and what {report} says of it" if report else ""
    messages = [Message(level="error", code="internal", text=f"Keyfit made a mistake: {where}.",
                        hint=f"Please report this line{there}. If a change was under way: sudo keyfit recover")]
    if verbose:
        messages += [Message(level="error", code="traceback", text=line) for line in lines]
    return OperationResult(command=command, outcome=Outcome.INTERNAL, messages=tuple(messages))


def _ended(command: str, outcome: Outcome, code: str, text: str, hint: str = "") -> OperationResult:
    return OperationResult(command=command, outcome=outcome,
                           messages=(Message(level="error", code=code, text=text, hint=hint),))
