"""Looks at a package file in a child process, and takes whatever becomes of the child as an answer (security H2)."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from keyfit.core.text import clean
from keyfit.errors import DataError, UserError
from keyfit.publisher.inspection.limits import MAX_ANSWER_BYTES, TIMEOUT_S
from keyfit.publisher.inspection.reports import Answer, Report
from keyfit.strictjson import decode

GRACE_S = 10.0
"""How long the child may take to end once it has answered."""
CHILD = (sys.executable, "-P", "-W", "ignore", "-m", "keyfit.publisher.inspection")
_WINDOWS_FLAGS = 0x08000000 if sys.platform == "win32" else 0
"""CREATE_NO_WINDOW."""
_KEPT = ("SYSTEMROOT", "WINDIR") if sys.platform == "win32" else ()


def inspect(kind: str, file: Path, roots: Path | None = None, *, name: str = "", child: Sequence[str] = CHILD,
            timeout_s: float = TIMEOUT_S) -> Report:
    """Look at a file.

    Args:
        kind: of a package with a file, as in `keyfit.model.catalog.PackageKind`.
        file: the package file.
        roots: certificates in PEM that signatures may lead to.
        name: how the file is called in messages, if not by its own name.
        child: program and first arguments that start the child.
        timeout_s: how long it may take.

    Raises:
        DataError: code "package-content": it is not in the form of its kind, or looking at it failed.
        UserError: it cannot be opened.
    """
    try:
        with file.open("rb") as opened:
            return _ask([*child, kind, *([str(roots.absolute())] if roots else [])], opened, name or file.name, timeout_s)
    except OSError as error:
        raise UserError("no-such-file", f"{file} cannot be read: {error.strerror or error}.") from error


def _ask(command: Sequence[str], opened: BinaryIO, name: str, timeout_s: float) -> Report:
    environment = {key: value for key, value in os.environ.items() if key.upper() in _KEPT}
    with subprocess.Popen(command, stdin=opened, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment,
                          cwd=Path(sys.executable).anchor, start_new_session=True,
                          creationflags=_WINDOWS_FLAGS) as running:
        data: list[bytes] = []
        reading = threading.Thread(target=_read, args=(running, data), daemon=True)
        reading.start()
        reading.join(timeout_s)
        late = reading.is_alive()
        stays = not late and len(data[0]) <= MAX_ANSWER_BYTES and not _ended(running)
        if late or running.poll() is None:
            _end(running)
        reading.join(GRACE_S)
        code = running.returncode
    if late:
        raise _refused(name, f"it was not looked through within {timeout_s:.0f} seconds")
    if len(data[0]) > MAX_ANSWER_BYTES:
        raise _refused(name, f"the report has more than {MAX_ANSWER_BYTES} bytes")
    if stays:
        raise _refused(name, "the reader did not end after its answer: the file may be made to break readers")
    if code:
        raise _refused(name, f"the reader {_cause(code)}: the file may be made to break readers")
    try:
        decoded = decode(data[0], Answer, max_bytes=MAX_ANSWER_BYTES)
    except ValueError as error:
        raise _refused(name, f"the reader gave no usable report: {error}") from error
    if decoded.report is None:
        raise _refused(name, clean(decoded.malformed, 400) or "the reader gave no report")
    return decoded.report


def _read(running: "subprocess.Popen[bytes]", data: list[bytes]) -> None:
    """All that the child says, as far as it may; the rest is never taken into memory."""
    data.append(running.stdout.read(MAX_ANSWER_BYTES + 1) if running.stdout is not None else b"")


def _ended(running: "subprocess.Popen[bytes]") -> bool:
    try:
        running.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        return False
    return True


def _end(running: "subprocess.Popen[bytes]") -> None:
    """The child and what it started; it touches no device, so it may be ended at any moment."""
    if sys.platform == "win32":
        running.kill()
    else:
        with suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
    running.wait()


def _cause(code: int) -> str:
    if code < 0:
        try:
            return f"was ended by {signal.Signals(-code).name}"
        except ValueError:
            return f"was ended by signal {-code}"
    return f"failed with exit code {code}"


def _refused(name: str, problem: str) -> DataError:
    return DataError("package-content", f"Expected a sound package, {name} is refused.", (f"{name}: {problem}",),
                     hint="The file is damaged, is something else under that name, or is not to be trusted.")
