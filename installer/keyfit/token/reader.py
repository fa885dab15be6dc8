"""The adaptor behind `ports.TokenReader`: asks a child process, and takes whatever becomes of it as an answer."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

from msgspec import Struct

from keyfit.core.text import clean
from keyfit.errors import HostError
from keyfit.invoker import invoking_user
from keyfit.model.certificate import ModuleReport, Reader
from keyfit.ports import EventLog
from keyfit.strictjson import decode
from keyfit.token.protocol import MAX_ANSWER_BYTES, ReadersAnswer, failed, safe_readers, safe_report

TIMEOUT_S = 30.0
"""Slow tokens take up to ten seconds to list their objects; three times that."""
GRACE_S = 5.0
"""How long a child may take to end once it has answered or was asked to end."""

KEPT = ("HOME", "LANG", "LANGUAGE", "USER", "LOGNAME")
KEPT_PREFIXES = ("XDG_", "LC_")
KEPT_ON_WINDOWS = ("SYSTEMROOT", "WINDIR", "SYSTEMDRIVE", "PROGRAMDATA", "PROGRAMFILES", "APPDATA", "LOCALAPPDATA",
                   "USERPROFILE", "TEMP", "TMP")
"""Variables that a module may need to find its settings; everything else of the caller's environment stays out, above
all what makes a process load other code (LD_*, DYLD_*, PYTHON*)."""
PATH = "/usr/bin:/bin"

_WINDOWS_FLAGS = 0x08000200 if sys.platform == "win32" else 0
"""CREATE_NO_WINDOW and CREATE_NEW_PROCESS_GROUP (learn.microsoft.com, Process Creation Flags). There, as with a session
of its own elsewhere, Ctrl-C in the terminal does not reach the child in the middle of an exchange with the card."""

HINTS = {
    "no-library": "Install the system's PC/SC library: on Debian and Ubuntu the packages libpcsclite1 and pcscd.",
    "no-daemon": "Start the PC/SC service: `systemctl start pcscd.socket`; on Windows the service SCardSvr.",
    "no-access": "Your account may not use smart cards here: log in at the computer itself, or ask the administrator "
                 "for a polkit rule for org.debian.pcsc-lite.access_pcsc.",
    "failed": "Restart the PC/SC service: `systemctl restart pcscd`; then unplug the token and plug it in again.",
}


class _Ended(Struct, frozen=True):
    """How a child ended: its answer, or why there is none."""

    answer: bytes = b""
    error: str = ""


class ChildTokenReader:
    """PC/SC and PKCS#11 through a child process for every question.

    Args:
        child_command: program and first arguments that start `keyfit.token.child`.
        timeout_s: how long a child may take to answer.
        grace_s: how long it may take to end after it was asked to.
        extra_environment: variables set for the child beside the allow-list.
        log: notes when the child has to run as the administrator although a user has called.
    """

    def __init__(self, *, child_command: Sequence[str] = (sys.executable, "-P", "-m", "keyfit.token.child"),
                 timeout_s: float = TIMEOUT_S, grace_s: float = GRACE_S,
                 extra_environment: Mapping[str, str] | None = None, log: EventLog | None = None) -> None:
        self._command = tuple(child_command)
        self._timeout_s, self._grace_s = timeout_s, grace_s
        self._extra = dict(extra_environment or {})
        self._log = log
        self._user = invoking_user()
        self._tried = False

    def readers(self) -> tuple[Reader, ...]:
        """Readers that the PC/SC daemon lists.

        Raises:
            HostError: code "pcsc-unavailable"; the hint says whether the library, the daemon or the right is missing.
        """
        answer = self._readers()
        if answer.error == "no-access" and self._user is not None:
            self._stay_administrator()
            answer = self._readers()
        self._tried = True
        if answer.error:
            raise _unavailable(_SAYS[answer.error] + f" ({clean(answer.detail)})", answer.error)
        return safe_readers(answer.readers)

    def _readers(self) -> ReadersAnswer:
        ended = self._ask("readers")
        if ended.error:
            raise _unavailable(f"Listing the readers failed: it {ended.error}.", "failed")
        try:
            return decode(ended.answer, ReadersAnswer, max_bytes=MAX_ANSWER_BYTES)
        except ValueError as error:
            raise _unavailable(f"Listing the readers gave no usable answer: {_short(error)}.", "failed") from error

    def _stay_administrator(self) -> None:
        """polkit lets local, active users use smart cards; one who works from afar is refused, root is not. What a module then
        does with the card it can do as root only."""
        if self._log is not None:
            self._log.event("warning", "token-child-as-administrator", reason="the PC/SC service refuses the user that called")
        self._user = None

    def load_module(self, path: str) -> ModuleReport:
        """Load a PKCS#11 module and report its slots and certificates; whatever goes wrong is in the report."""
        if not PurePath(path).is_absolute() or "\0" in path:
            return failed(path, "the path of a module has to be absolute")
        if self._user is not None and not self._tried:
            with contextlib.suppress(HostError):
                self.readers()  # says as whom PC/SC can be asked; the module itself cannot tell why it sees no reader
        ended = self._ask("module", path)
        if ended.error:
            return failed(path, f"it {ended.error}")
        try:
            report = decode(ended.answer, ModuleReport, max_bytes=MAX_ANSWER_BYTES)
        except ValueError as error:
            return failed(path, f"it gave no usable answer: {_short(error)}")
        return safe_report(report, path)

    def _ask(self, *arguments: str) -> _Ended:
        user = self._user
        as_user = () if user is None else ("--user", str(user.uid))
        environment = child_environment(os.environ, {**({} if user is None else user.environment), **self._extra})
        try:
            child = subprocess.Popen([*self._command, *as_user, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                     stderr=subprocess.DEVNULL, env=environment,
                                     cwd=Path(sys.executable).anchor, start_new_session=True,
                                     creationflags=_WINDOWS_FLAGS)
        except OSError as error:
            return _Ended(error=f"could not be started: {error.strerror}")
        answer = _Answer(child)
        if not answer.wait(self._timeout_s):
            return _Ended(error=self._stop(child))
        if answer.too_long:
            self._end(child)
            return _Ended(error=f"answered with more than {MAX_ANSWER_BYTES} bytes")
        if answer.complete:
            self._end(child)
            return _Ended(answer=answer.data)
        # The output was closed without an answer: the process has ended or is about to.
        code = self._end(child)
        return _Ended(error=_cause(code))

    def _stop(self, child: "subprocess.Popen[bytes]") -> str:
        """Ask a silent child to end. It is never ended by force: that would leave the card's reader stuck."""
        said = f"did not answer within {self._timeout_s:.0f} seconds"
        if os.name == "posix":
            child.terminate()
        if self._end(child) is None:
            return said + " and was left alone"
        return said

    def _end(self, child: "subprocess.Popen[bytes]") -> int | None:
        try:
            return child.wait(self._grace_s)
        except subprocess.TimeoutExpired:
            return None


class _Answer:
    """Reads one line from a child in a thread of its own, so that waiting has an end on every system. The line's end
    is the answer's end: a program that the module started may keep the pipe open for ever."""

    def __init__(self, child: "subprocess.Popen[bytes]") -> None:
        self.data = b""
        self._child = child
        self._thread = threading.Thread(target=self._read, name="keyfit-token-answer", daemon=True)
        self._thread.start()

    @property
    def complete(self) -> bool:
        return self.data.endswith(b"\n")

    @property
    def too_long(self) -> bool:
        return len(self.data) > MAX_ANSWER_BYTES

    def wait(self, timeout_s: float) -> bool:
        """True if the child answered or closed its output in time."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _read(self) -> None:
        stream = self._child.stdout
        if stream is not None:
            with stream:
                self.data = stream.readline(MAX_ANSWER_BYTES + 1)


def child_environment(caller: Mapping[str, str], extra: Mapping[str, str]) -> dict[str, str]:
    """The environment of the child: what is on the allow-list, a fixed PATH, and `extra`."""
    windows = sys.platform == "win32"
    kept = {k: v for k, v in caller.items()
            if k in KEPT or k.startswith(KEPT_PREFIXES) or (windows and k.upper() in KEPT_ON_WINDOWS)}
    path = {} if windows else {"PATH": PATH}
    return {**kept, **path, **extra}


_SAYS = {
    "no-library": "The PC/SC library is not installed",
    "no-daemon": "The PC/SC service does not answer",
    "no-access": "The PC/SC service refuses this user",
    "failed": "PC/SC failed",
}


def _unavailable(message: str, why: str) -> HostError:
    return HostError("pcsc-unavailable", message, hint=HINTS[why])


def _short(error: ValueError) -> str:
    return clean(str(error), 200)


def _cause(code: int | None) -> str:
    if code is None:
        return "closed its output without an answer"
    if code < 0:
        return f"crashed ({_signal_name(-code)})"
    if code > 0xFFFF:
        return f"crashed (0x{code:08X})"
    return f"ended without an answer (exit code {code})"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
