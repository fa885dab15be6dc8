"""Where use cases tell what they are doing: a terminal, or nobody."""

import sys
from typing import TYPE_CHECKING, Literal

import click

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

MARKS = {"start": "  ...", "done": "  done", "skip": "  already so", "undo": "  taken back", "failed": "  FAILED"}


class SilentReporter:
    """Says nothing. `answer` is what it says when asked: what the command line allowed."""

    def __init__(self, answer: bool) -> None:
        self._answer = answer

    def stage(self, text: str) -> None:
        """Ignore it."""

    def step(self, step_id: str, state: Literal["start", "done", "skip", "undo", "failed"], text: str) -> None:
        """Ignore it."""

    def progress(self, what: str, done: int, total: int) -> None:
        """Ignore it."""

    def wait(self, kind: str, text: str) -> None:
        """Ignore it."""

    def confirm(self, text: str) -> bool:
        """Answer what the command line allowed."""
        return self._answer


class WaitingReporter(SilentReporter):
    """For --json and --quiet: says on stderr only what the user has to do with his hands."""

    def wait(self, kind: str, text: str) -> None:
        """Ask on stderr."""
        click.echo(text, err=True)


class TerminalReporter:
    """Tells a person at a terminal, on stdout; downloads get a progress bar if it is a real terminal."""

    def __init__(self, *, answer: bool, verbose: bool) -> None:
        self._answer = answer
        self._verbose = verbose
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def stage(self, text: str) -> None:
        """A heading line."""
        self._end_bar()
        click.echo(f"{text} ...")

    def step(self, step_id: str, state: Literal["start", "done", "skip", "undo", "failed"], text: str) -> None:
        """One line per change of state; the start of a step only with --verbose."""
        self._end_bar()
        if state != "start":
            click.echo(f"{MARKS[state]}: {text}")
        elif self._verbose or sys.stdout.isatty():
            click.echo(f"{MARKS[state]} {text}")

    def progress(self, what: str, done: int, total: int) -> None:
        """A bar on a terminal; nothing in a pipe."""
        if not sys.stdout.isatty() or (self._bar is None and done >= total):
            return  # what is there already needs no bar
        if self._bar is None:
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(TextColumn("  {task.description}", markup=False), BarColumn(), DownloadColumn(),
                                 TimeRemainingColumn())
            self._bar.start()
            self._task = self._bar.add_task(what, total=total)
        if self._task is not None:
            self._bar.update(self._task, completed=done)
        if done >= total:
            self._end_bar()

    def wait(self, kind: str, text: str) -> None:
        """What the user has to do with his hands."""
        self._end_bar()
        click.secho(f">> {text}", bold=True)

    def confirm(self, text: str) -> bool:
        """Ask once; without a terminal the answer is no unless --yes was given."""
        self._end_bar()
        if self._answer:
            return True
        click.echo(text)
        if not sys.stdin.isatty():
            return False
        return click.confirm("Go on?", default=False)

    def _end_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = self._task = None
