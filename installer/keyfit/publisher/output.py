"""How a result of `keyfit-publish` leaves the program: text for people, or the JSON document that `keyfit` prints too."""

import sys
from typing import Any

import click
import msgspec

from keyfit.errors import EXIT_CODES, DataError, KeyfitError, Outcome
from keyfit.model.result import Message, OperationResult


def emit(result: OperationResult, *, as_json: bool, quiet: bool = False) -> int:
    """Print a result and return its exit code. Errors and warnings go to stderr."""
    posix, windows = EXIT_CODES[result.outcome]
    code = windows if sys.platform == "win32" else posix
    if as_json:
        click.echo(msgspec.json.encode(_envelope(result, code)).decode())
        return code
    for message in result.messages:
        if message.level == "error" or not quiet:
            prefix = {"error": "Error: ", "warning": "Warning: ", "info": ""}[message.level]
            click.echo(("  " if message.code == "problem" else prefix) + message.text, err=message.level != "info")
            if message.hint:
                click.echo("  " + message.hint, err=message.level != "info")
    return code


def done(command: str, data: dict[str, Any], *lines: str, warnings: tuple[Message, ...] = ()) -> OperationResult:
    """A success with lines for people."""
    told = tuple(Message(level="info", code=command, text=line) for line in lines)
    return OperationResult(command=command, outcome=Outcome.DONE, data=data, messages=warnings + told)


def failure(command: str, error: KeyfitError) -> OperationResult:
    """An error as a result."""
    lines = [Message(level="error", code=error.code, text=error.message, hint=error.hint)]
    if isinstance(error, DataError):
        lines += [Message(level="error", code="problem", text=problem) for problem in error.problems]
    return OperationResult(command=command, outcome=error.outcome, messages=tuple(lines))


def ended(command: str, outcome: Outcome, code: str, text: str, hint: str = "") -> OperationResult:
    """An end that is no KeyfitError: a wrong command line, or the user's own wish."""
    return OperationResult(command=command, outcome=outcome,
                           messages=(Message(level="error", code=code, text=text, hint=hint),))


def _envelope(result: OperationResult, code: int) -> dict[str, Any]:
    return {"keyfit": 1, "command": result.command, "outcome": result.outcome.value, "exit_code": code,
            "data": result.data, "messages": [msgspec.structs.asdict(message) for message in result.messages]}
