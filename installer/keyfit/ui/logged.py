"""Notes in the log what use cases tell the user."""

from typing import Literal

from keyfit.ports import EventLog, Reporter


class LoggedReporter:
    """Passes everything on; stages, steps, what the user was asked and what came of it go into the log as well."""

    def __init__(self, reporter: Reporter, log: EventLog) -> None:
        self._reporter = reporter
        self._log = log

    def stage(self, text: str) -> None:
        """Note it and pass it on."""
        self._log.event("info", "stage", text=text)
        self._reporter.stage(text)

    def step(self, step_id: str, state: Literal["start", "done", "skip", "undo", "failed"], text: str) -> None:
        """Note it and pass it on."""
        self._log.event("error" if state == "failed" else "info", "step", id=step_id, state=state, text=text)
        self._reporter.step(step_id, state, text)

    def progress(self, what: str, done: int, total: int) -> None:
        """Only pass it on: it comes many times a second."""
        self._reporter.progress(what, done, total)

    def wait(self, kind: str, text: str) -> None:
        """Note what is waited for and pass it on."""
        self._log.event("info", "wait", kind=kind)
        self._reporter.wait(kind, text)

    def confirm(self, text: str) -> bool:
        """Note what was asked and whether the answer was yes; not what was typed."""
        self._log.event("info", "asked", question=text.splitlines())
        answer = self._reporter.confirm(text)
        self._log.event("info", "answered", yes=answer)
        return answer
