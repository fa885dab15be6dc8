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
    before: State = {"old": None if old is None else base64.b64encode(old).decode(),
                     "made": list(host.missing_directories(path))}
    return Detected(satisfied=old == content, before=before)


def write(host: Host, path: str, content: bytes) -> State:
    """Write it and read it back.

    Raises:
        HostError: "not-written" if it does not read as written.
    """
    host.write_bytes(path, content)
    if host.read_bytes(path, MAX_BYTES) != content:
        raise HostError("not-written", f"{path} does not hold what was written to it.", hint="Check the disk.")
    return {"sha256": hashlib.sha256(content).hexdigest()}


def undo(host: Host, path: str, before: State, content: bytes) -> str:
    """Put the old file back, if the present one is still ours; else leave it."""
    now = host.read_bytes(path, MAX_BYTES)
    old = None if before["old"] is None else base64.b64decode(before["old"])
    if now is not None and now not in (old, content):
        return f"{path} was changed by somebody else since, so it was left as it is"
    if old is not None and now != old:
        host.write_bytes(path, old)
    if old is None:
        host.remove_file(path)
        host.remove_empty_directories(path, before["made"])
    return ""
