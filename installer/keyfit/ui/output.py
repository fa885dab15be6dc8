"""How a result leaves the program: as text for people, or as one JSON document."""

import sys
from collections.abc import Callable
from typing import Any

import click
import msgspec

from keyfit.errors import EXIT_CODES, DataError, KeyfitError, Outcome, WithdrawnError
from keyfit.model.result import Message, OperationResult
from keyfit.ui.options import Options
from keyfit.ui.session import Session


def exit_code(outcome: Outcome) -> int:
    """The number for this system."""
    posix, windows = EXIT_CODES[outcome]
    return windows if sys.platform == "win32" else posix


def emit(result: OperationResult, options: Options, text: Callable[[OperationResult], str] | None = None) -> int:
    """Print a result and return its exit code. Errors go to stderr, everything else to stdout."""
    code = exit_code(result.outcome)
    context = click.get_current_context(silent=True)
    if context is not None and isinstance(context.obj, Session):
        result = context.obj.ended(result, code)
    if options.json:
        click.echo(msgspec.json.encode(envelope(result)).decode())
        return code
    if text is not None and not options.quiet:
        shown = text(result)
        if shown:
            click.echo(shown)
    for message in result.messages:
        if message.level == "error" or not options.quiet:
            _print_message(message)
    return code


def envelope(result: OperationResult) -> dict[str, Any]:
    """The JSON document of the public interface, version 1."""
    return {
        "keyfit": 1,
        "command": result.command,
        "outcome": result.outcome.value,
        "exit_code": exit_code(result.outcome),
        "data": result.data,
        "messages": [
            {"level": m.level, "code": m.code, "text": m.text, "hint": m.hint} for m in result.messages
        ],
    }


def failure(command: str, error: KeyfitError, language: str = "en") -> OperationResult:
    """An error as a result; what a publisher wrote in several languages is shown in `language`."""
    text = _told(error, language) if isinstance(error, WithdrawnError) else error.message
    lines = [Message(level="error", code=error.code, text=text, hint=error.hint)]
    if isinstance(error, DataError):
        lines += [Message(level="error", code="problem", text=problem) for problem in error.problems]
    return OperationResult(command=command, outcome=error.outcome, messages=tuple(lines))


def _told(error: WithdrawnError, language: str) -> str:
    from keyfit.core.withdrawal import told  # here, because few runs end this way

    return told(error, language)


def _print_message(message: Message) -> None:
    error = message.level != "info"
    prefix = {"error": "Error: ", "warning": "Warning: ", "info": ""}[message.level]
    if message.code == "problem":
        prefix = "  "
    click.echo(prefix + message.text, err=error)
    if message.hint:
        click.echo("  " + message.hint, err=error)
