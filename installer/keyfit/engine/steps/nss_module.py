"""One module more in the user's NSS database, which Chromium reads.

The list of modules is the text file pkcs11.txt in the database's folder; entries are only ever appended or taken out, the rest is
kept to the byte. As root, the database is that of the user who asked for the rights.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from keyfit.core import nssmodules
from keyfit.engine.steps import textfile
from keyfit.engine.steps.base import Detected, Fetch, State
from keyfit.invoker import invoking_user
from keyfit.model.plan import NssModule
from keyfit.ports import Host

NEWER_DATABASE = ".local/share/pki/nssdb"
"""Where Chromium looks from version 146 on, unless ~/.pki/nssdb is there (Chromium, crypto/nss_util)."""

_posix: Any = os
"""The module `os`, typed loosely: on Windows it lacks `geteuid` and its like, and none of them is called there."""


class Kind:
    """See `base.StepKind`."""

    def detect(self, change: NssModule, host: Host) -> Detected:
        """Is the module listed?"""
        user = _user()
        with _as_user(user):
            path = _list(change, host)
            old = host.read_bytes(path, nssmodules.MAX_BYTES)
            made = list(host.missing_directories(path))
        return Detected(satisfied=old is not None and nssmodules.has(old, change.name, change.module),
                        before={"old": textfile.encoded(old), "file": path, "made": made, "user": user})

    def expect(self, change: NssModule, host: Host, before: State, fetch: Fetch) -> State:
        """The list with the module; a database that is not there yet is begun with NSS's own module."""
        return {"sha256": hashlib.sha256(_new(change, host, before)).hexdigest()}

    def apply(self, change: NssModule, host: Host, before: State, fetch: Fetch) -> State:
        """Write that list."""
        new = _new(change, host, before)
        with _as_user(before["user"]):
            host.write_bytes(before["file"], new, 0o600, expected=textfile.decoded(before["old"]))
        return {"sha256": hashlib.sha256(new).hexdigest()}

    def undo(self, change: NssModule, host: Host, before: State, after: State) -> str:
        """Take out our entry; a database that we began and nobody used is deleted."""
        path, made = _machine_path(host, before["file"]), [_machine_path(host, p) for p in before["made"]]
        folder = path.rsplit("/", 1)[0]
        with _as_user(before["user"]):
            kept = host.settle(path)
            now = host.read_bytes(path, nssmodules.MAX_BYTES)
            if nssmodules.has(textfile.decoded(before["old"]) or b"", change.name, change.module):
                return kept  # it was there before
            if now is None:
                host.remove_empty_directories(path, made)
                return kept
            new = nssmodules.remove(now, change.name, change.module)
            untouched = before["old"] is None and new == nssmodules.empty(str(host.real_path(folder)))
            if untouched and host.glob(folder, "*") == (path,):
                host.remove_file(path, expected=now)
                host.remove_empty_directories(path, made)
            elif new != now:
                host.write_bytes(path, new, 0o600, expected=now)
        return kept


def _new(change: NssModule, host: Host, before: State) -> bytes:
    old = textfile.decoded(before["old"])
    folder = before["file"].rsplit("/", 1)[0]
    base = old if old is not None else nssmodules.empty(str(host.real_path(folder)))
    return nssmodules.add(base, change.name, change.module)


def _list(change: NssModule, host: Host) -> str:
    home = _home()
    older, newer = f"{home}/{change.database}", f"{home}/{NEWER_DATABASE}"
    return f"{older if host.exists(older) or not host.exists(newer) else newer}/pkcs11.txt"


def _machine_path(host: Host, path: str) -> str:
    """A path as the machine sees it; the first versions wrote down where it lies for this process."""
    root = host.facts().root.rstrip("/")
    return path.removeprefix(root) if root and path.startswith(f"{root}/") else path


def _home() -> str:
    """Home of the user who asked, even if sudo or pkexec made us root."""
    user = _user()
    return str(user[2]) if user is not None else str(Path.home())


def _user() -> tuple[int, int, str] | None:
    """(uid, gid, home) of the ordinary user behind a root process; None if there is none."""
    found = invoking_user()
    return None if found is None else (found.uid, found.gid, found.home)


@contextmanager
def _as_user(user: tuple[int, int, str] | list[Any] | None) -> Iterator[None]:
    """Act as the user whose database it is: root must not follow links in a home directory (security D3, D4, D6)."""
    if user is None or _posix.geteuid() != 0:
        yield
        return
    groups = _posix.getgroups()
    _posix.setgroups([])
    _posix.setegid(user[1])
    _posix.seteuid(user[0])
    try:
        yield
    finally:
        _posix.seteuid(0)
        _posix.setegid(0)
        _posix.setgroups(groups)
