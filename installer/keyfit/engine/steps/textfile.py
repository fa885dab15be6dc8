"""A file of our own that a step writes: shared by the kinds whose whole effect is one file."""

import base64
import hashlib

from keyfit.engine.steps.base import Detected, State
from keyfit.errors import HostError
from keyfit.ports import Host

MAX_BYTES = 1_000_000


def detect(host: Host, path: str, content: bytes) -> Detected:
    """Satisfied if the file is exactly so. What was there before is kept whole."""
    old = host.read_bytes(path, MAX_BYTES)
    before: State = {"old": encoded(old),
                     "made": list(host.missing_directories(path))}
    return Detected(satisfied=old == content, before=before)


def expect(content: bytes) -> State:
    """What will be there."""
    return {"sha256": hashlib.sha256(content).hexdigest()}


def write(host: Host, path: str, before: State, content: bytes) -> State:
    """Write it and read it back.

    Raises:
        HostError: "not-written" if it does not read as written, "changed-meanwhile" if it is no longer as before.
    """
    host.write_bytes(path, content, expected=decoded(before["old"]))
    if host.read_bytes(path, MAX_BYTES) != content:
        raise HostError("not-written", f"{path} does not hold what was written to it.", hint="Check the disk.")
    return expect(content)


def undo(host: Host, path: str, before: State, after: State, content: bytes) -> str:
    """Put the old file back, if the present one is still ours; else leave it."""
    kept = host.settle(path)
    now = host.read_bytes(path, MAX_BYTES)
    old = decoded(before["old"])
    ours = now == content or (now is not None and hashlib.sha256(now).hexdigest() == after.get("sha256"))
    if now is not None and now != old and not ours:
        return f"{path} was changed by somebody else since, so it was left as it is"
    if old is not None and now != old:
        host.write_bytes(path, old, expected=now)
    if old is None:
        if now is not None:
            host.remove_file(path, expected=now)
        host.remove_empty_directories(path, before["made"])
    return kept


def decoded(text: str | None) -> bytes | None:
    """A file's content as it is written down; None if there was no file."""
    return None if text is None else base64.b64decode(text)


def encoded(data: bytes | None) -> str | None:
    """A file's content to be written down."""
    return None if data is None else base64.b64encode(data).decode()
