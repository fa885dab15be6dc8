"""Programs that a test starts and that say when they are ready."""

import os
import select
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

WAIT_S = 10


class Started:
    """A program that was started, and has said `ready` in what it writes.

    What it writes later is read in a thread, so that it never waits for a reader; `said` has all of it at any moment.

    Args:
        command: program and arguments.
        ready: words that are waited for, on standard output or standard error.

    Raises:
        RuntimeError: it ended, or said nothing of the kind for `WAIT_S`.
    """

    def __init__(self, command: Sequence[str | Path], ready: str) -> None:
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if self._process.stdout is None:
            raise RuntimeError("there is no pipe")
        self._pipe = self._process.stdout.fileno()
        self._said = b""
        self._ended = False
        self._reading = threading.Lock()
        until = time.monotonic() + WAIT_S
        while ready.encode() not in self._said:
            if not self._read(max(until - time.monotonic(), 0)):
                self.stop()
                raise RuntimeError(f"{Path(command[0]).name} did not start: {self._said.decode()}")
        threading.Thread(target=self._read_on, daemon=True).start()

    @property
    def pid(self) -> int:
        """Of its first process."""
        return self._process.pid

    def said(self) -> str:
        """All that it has written until now."""
        while self._read(0):
            pass
        return self._said.decode()

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(WAIT_S)

    def _read_on(self) -> None:
        while not self._ended:
            select.select([self._pipe], [], [])
            self._read(0)

    def _read(self, wait_s: float) -> bool:
        """True if something came."""
        with self._reading:
            if not select.select([self._pipe], [], [], wait_s)[0]:
                return False
            came = os.read(self._pipe, 65_536)
            self._said += came
            self._ended = not came
            return not self._ended
