"""One module more in the user's NSS database, which Chromium reads.

The list of modules is the text file pkcs11.txt in the database's folder; entries are only ever appended or taken out, the rest is
kept to the byte. As root, the database is that of the user who asked for the rights.
"""

import base64
import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from keyfit.core import nssmodules
from keyfit.engine.steps.base import Detected, Fetch, State
from keyfit.errors import HostError, StorageError
from keyfit.model.plan import NssModule
from keyfit.ports import Host

NEWER_DATABASE = ".local/share/pki/nssdb"
"""Where Chromium looks from version 146 on, unless ~/.pki/nssdb is there (Chromium, crypto/nss_util)."""

_posix: Any = os
"""The module `os`, typed loosely: on Windows it lacks `geteuid` and its like, and none of them is called there."""
BESIDE = ".pkcs11.txt.keyfit"
"""Name of the file that is written beside the list before it is renamed."""


class Kind:
    """See `base.StepKind`."""

    def detect(self, change: NssModule, host: Host) -> Detected:
        """Is the module listed?"""
        path = _list(change, host)
        old = _read(path)
        made = [str(p) for p in (path.parent, *path.parent.parents) if not p.exists()]
        return Detected(satisfied=old is not None and nssmodules.has(old, change.name, change.module),
                        before={"old": None if old is None else base64.b64encode(old).decode(), "file": str(path),
                                "made": made, "user": _invoking_user()})

    def apply(self, change: NssModule, host: Host, before: State, fetch: Fetch) -> State:
        """Append it; a database that is not there yet is begun with NSS's own module."""
        path = Path(before["file"])
        old = _read(path)
        new = nssmodules.add(old if old is not None else nssmodules.empty(str(path.parent)), change.name, change.module)
        with _as_user(before["user"]):
            _replace(path, new)
        return {}

    def undo(self, change: NssModule, host: Host, before: State, after: State) -> str:
        """Take out our entry; a database that we began and nobody used is deleted."""
        path = Path(before["file"])
        with _as_user(before["user"]):
            path.with_name(BESIDE).unlink(missing_ok=True)
            now = _read(path)
            if now is None:
                _remove_folders(before)
                return ""
            new = nssmodules.remove(now, change.name, change.module)
            untouched = before["old"] is None and new == nssmodules.empty(str(path.parent))
            if untouched and len(list(path.parent.iterdir())) == 1:
                path.unlink()
                _remove_folders(before)
            elif new != now:
                _replace(path, new)
        return ""


def _remove_folders(before: State) -> None:
    """Those that this step made, innermost first, as far as they are empty."""
    for folder in before["made"]:
        try:
            Path(folder).rmdir()
        except OSError:
            break


def _list(change: NssModule, host: Host) -> Path:
    home = host.real_path(_home())
    older = home / change.database
    return (older if older.is_dir() or not (home / NEWER_DATABASE).is_dir() else home / NEWER_DATABASE) / "pkcs11.txt"


def _home() -> str:
    """Home of the user who asked, even if sudo or pkexec made us root."""
    user = _invoking_user()
    return str(user[2]) if user is not None else str(Path.home())


def _invoking_user() -> tuple[int, int, str] | None:
    """(uid, gid, home) of the ordinary user behind a root process; None if there is none."""
    if os.name != "posix" or _posix.geteuid() != 0:
        return None
    pwd: Any = importlib.import_module("pwd")

    for name in ("SUDO_UID", "PKEXEC_UID"):
        value = os.environ.get(name, "")
        if value.isascii() and value.isdigit() and 0 < int(value) < 2**31:
            try:
                account = pwd.getpwuid(int(value))
            except KeyError:
                continue
            return account.pw_uid, account.pw_gid, account.pw_dir
    return None


def _read(path: Path) -> bytes | None:
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HostError("cannot-read", f"{path} cannot be read: {error.strerror}.") from error
    with os.fdopen(handle, "rb") as file:
        return file.read(nssmodules.MAX_BYTES)


@contextmanager
def _as_user(user: tuple[int, int, str] | list[Any] | None) -> Iterator[None]:
    """Act as the user whose database it is: root must not follow links in a home directory (security D3, D4, D6)."""
    if user is None or _posix.geteuid() != 0:
        yield
        return
    _posix.setegid(user[1])
    _posix.seteuid(user[0])
    try:
        yield
    finally:
        _posix.seteuid(0)
        _posix.setegid(0)


def _replace(path: Path, data: bytes) -> None:
    beside = path.with_name(BESIDE)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        beside.unlink(missing_ok=True)
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise StorageError("cannot-write", f"{path} cannot be written: {error.strerror}.",
                           hint="Close the browser and run this again.") from error
