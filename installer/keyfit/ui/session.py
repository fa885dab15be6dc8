"""One run of the command line: its options, the ports made from them, and the log of a run that changes something."""

from collections.abc import Callable
from contextlib import suppress

import click
from msgspec.structs import replace

from keyfit import __version__
from keyfit.app.context import Context
from keyfit.errors import KeyfitError
from keyfit.model.result import Message, OperationResult
from keyfit.ports import EventLog, Reporter, RunLog
from keyfit.ui.options import Options

LOGGED = ("install", "apply", "uninstall", "repair", "recover", "update")
"""The commands that change something; the others keep no log, and do not even load the code for it."""
ONLY_LOOK = ("dry_run", "check")
"""Options with which these change nothing either."""

Compose = Callable[[Options, Reporter, EventLog | None], Context]
OpenLog = Callable[[Options, str], RunLog]
"""Options and command -> the log."""


class Session:
    """What the commands share.

    Args:
        compose: makes the ports.
        open_log: makes the log, when it is first needed; None for runs without one.
    """

    def __init__(self, options: Options, compose: Compose, open_log: OpenLog | None = None) -> None:
        self.options = options
        self._compose = compose
        self._open_log = open_log
        self._log: RunLog | None = None

    def compose(self, options: Options, reporter: Reporter) -> Context:
        """Make the ports; a command that changes something is logged from here on."""
        click_context = click.get_current_context()
        command = click_context.info_name or ""
        if command in LOGGED and not any(click_context.params.get(name) for name in ONLY_LOOK):
            self._begin(command)
        if self._log is None:
            return self._compose(options, reporter, None)
        from keyfit.ui.logged import LoggedReporter

        return self._compose(options, LoggedReporter(reporter, self._log), self._log)

    def ended(self, result: OperationResult, code: int) -> OperationResult:
        """Log how it ended; returns the result with a warning beside it if there is no log of it."""
        log = self._log
        if log is None:
            return result
        errors = [f"{m.code}: {m.text}" for m in result.messages if m.level == "error" and m.code != "traceback"]
        codes = [m.code for m in result.messages if m.level != "error"]
        log.event("error" if errors else "info", "run-ended", outcome=result.outcome.value, exit_code=code, errors=errors,
                  said=codes)
        if not log.problem:
            return result
        told = Message(level="warning", code="no-log", text=log.problem,
                       hint="The command itself is not affected. Look at what is there, and who put it there.")
        return replace(result, messages=(*result.messages, told))

    def crashed(self, command: str, error: Exception) -> str:
        """Write a report of a fault of Keyfit's own; returns where it is, or "" if it could not be written."""
        if self._log is None:
            self._begin(command)
        if self._log is None:
            return ""
        from keyfit.ui.crash import frames

        self._log.event("error", "crash", version=__version__, frames=frames(error))
        return "" if self._log.problem else self._log.where

    def _begin(self, command: str) -> None:
        if self._open_log is None or self._log is not None:
            return
        with suppress(KeyfitError):  # a tree that is not there: the command will say so itself
            self._log = self._open_log(self.options, command)
            self._log.event("info", "run-begun", version=__version__)
