"""Files that only we may write, of the trusted data and of the record: private directories, no links, one lock, atomic
replacement (security D2, D3)."""

import errno
import os
import stat
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from keyfit.errors import BusyError, HostError, StorageError

_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
"""O_NONBLOCK keeps a planted FIFO from blocking us; it means nothing for regular files. Windows has neither."""
_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


def storage_error(error: OSError, path: Path, doing: str) -> StorageError:
    """An OSError as the error that a user sees."""
    if error.errno in _FULL:
        return StorageError("disk-full", f"There is no room left for {path}.",
                            hint="Make room on that disk and try again; what was downloaded is kept.")
    if error.errno == errno.ELOOP:
        return unsafe(path, "it is a symbolic link")
    return StorageError("cannot-write", f"Cannot {doing} {path}: {error.strerror or error}.",
                        hint="Check that the disk is writable and who may write there.")


def unsafe(path: Path, why: str) -> StorageError:
    """The error for something that another user may have planted."""
    return StorageError("unsafe-file", f"Expected a private file or directory at {path}, but {why}.",
                        hint="Remove it, after finding out who put it there.")


def private_directory(path: Path) -> None:
    """Make a directory for us alone, or check the one that is there.

    Raises:
        StorageError: it cannot be made, is a link or no directory, or another user may change it.
    """
    try:
        make_parents(path)
        path.mkdir(mode=0o700, exist_ok=True)
        status = path.lstat()
    except OSError as error:
        raise storage_error(error, path, "make the directory") from error
    if not stat.S_ISDIR(status.st_mode):
        raise unsafe(path, "it is no directory")
    if sys.platform != "win32":
        if status.st_uid not in (0, os.geteuid()):
            raise unsafe(path, f"it belongs to user {status.st_uid}")
        if status.st_mode & 0o022:
            raise unsafe(path, "others may write there")


def make_parents(path: Path) -> None:
    """Make the directories above `path`. The machine's are for everyone to look into, whatever the administrator's umask: what
    is installed here can be read by every user. A user's own are made as the user's umask says.

    Raises:
        OSError.
    """
    for parent in reversed(path.parents):
        if not parent.exists():
            parent.mkdir(mode=0o755, exist_ok=True)
            if sys.platform != "win32" and os.geteuid() == 0:
                parent.chmod(0o755)


def open_private(path: Path, flags: int) -> int:
    """Open a file of ours: regular, with one name, not reached over a link. New files get mode 0600.

    Raises:
        OSError: as from `os.open`.
        StorageError: code "unsafe-file".
    """
    handle = os.open(path, flags | _NOFOLLOW, 0o600)
    status = os.fstat(handle)
    why = ""
    if not stat.S_ISREG(status.st_mode):
        why = "it is no regular file"
    elif status.st_nlink != 1:
        why = f"it has {status.st_nlink} names"
    elif sys.platform != "win32" and status.st_uid not in (0, os.geteuid()):
        why = f"it belongs to user {status.st_uid}"
    if why:
        os.close(handle)
        raise unsafe(path, why)
    return handle


def read_private(path: Path, max_bytes: int) -> bytes | None:
    """Content of a file of ours, or None if there is none.

    Raises:
        StorageError: it is not safe to read, too large, or cannot be read.
    """
    try:
        with os.fdopen(open_private(path, os.O_RDONLY), "rb") as file:
            data = file.read(max_bytes + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error(error, path, "read") from error
    if len(data) > max_bytes:
        raise unsafe(path, f"it has more than {max_bytes} bytes")
    return data


def write_private(path: Path, data: bytes) -> None:
    """Replace a file of ours, so that after a power cut either the old or the new content is there.

    Raises:
        StorageError: disk full or not writable.
    """
    import tempfile  # here, because it costs as much start-up time as the rest of this module

    name: Path | None = None
    try:
        handle, made = tempfile.mkstemp(dir=path.parent, prefix=path.name + ".")
        name = Path(made)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        name.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        if name is not None:
            with suppress(OSError):
                name.unlink()
        raise storage_error(error, path, "write") from error


def sync_directory(path: Path) -> None:
    """Make a rename last. Windows has no such call for directories."""
    if sys.platform != "win32":
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def foreign_influence(path: Path, owners: Collection[int] | None = None) -> str:
    """Why others could exchange what lies at `path`: "" if only its owners can, who are the administrator and this user unless
    others are named by number.

    A directory that everybody writes to but in which only owners remove (sticky, as /tmp) may be on the way to it. So may links,
    if the same holds for them and for where they lie.
    """
    if os.name != "posix":
        return ""  # Windows: the directory's own access list says it; see the adaptor
    mine = owners if owners is not None else {0, os.geteuid()}  # type: ignore[attr-defined,unused-ignore]
    here = path.resolve()
    for place in _way_to(path.absolute()):
        status = place.lstat()
        if status.st_uid not in mine:
            return f"{place} belongs to user {status.st_uid}"
        shared = not stat.S_ISLNK(status.st_mode) and status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if shared and (place == here or not status.st_mode & stat.S_ISVTX):
            return f"others may write to {place}"
    return ""


def _way_to(path: Path) -> Iterator[Path]:
    """Every directory and every link that is met when an absolute path that resolves is followed."""
    here, pending = Path(path.anchor), list(path.parts[1:])
    yield here
    while pending:
        part = pending.pop(0)
        if part == "..":
            here = here.parent
            continue
        yield here / part
        if (here / part).is_symlink():
            target = (here / part).readlink()
            pending[:0] = target.parts[1:] if target.is_absolute() else target.parts
            here = Path(target.anchor) if target.is_absolute() else here
        else:
            here = here / part


def require_own(state_dir: Path) -> None:
    """See that nobody else can exchange the state directory (security D1).

    Raises:
        HostError: code "state-dir-writable".
    """
    problem = foreign_influence(state_dir)
    if problem:
        raise HostError("state-dir-writable", f"What is kept in {state_dir} cannot be relied on: {problem}.",
                        hint="Correct its owner and mode, or give another --state-dir.")


class FileLock:
    """One process at a time. The lock is the kernel's (flock, or a locked byte on Windows) and ends with its process;
    the file stays, since removing it would let two processes hold two locks.

    Args:
        busy: code of the error if another process keeps it for longer than `wait_s`.

    Raises:
        BusyError: another process kept it for longer than `wait_s`.
    """

    _POLL_S = 0.05

    def __init__(self, path: Path, wait_s: float, busy: str = "repository-busy") -> None:
        self._path = path
        self._wait_s = wait_s
        self._busy = busy
        self._handle = -1

    def __enter__(self) -> "FileLock":
        private_directory(self._path.parent)
        try:
            self._handle = open_private(self._path, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise storage_error(error, self._path, "open") from error
        until = time.monotonic() + self._wait_s
        while not _try_lock(self._handle):
            if time.monotonic() >= until:
                os.close(self._handle)
                long = f", and has been for {self._wait_s:.0f} s" if self._wait_s else ""
                raise BusyError(self._busy, f"Another Keyfit process is using {self._path.parent}{long}.",
                                hint="Wait for it to finish, or end it, and try again.")
            time.sleep(self._POLL_S)  # neither flock nor LockFile can wait with a limit
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        os.close(self._handle)  # which also gives the lock back


if sys.platform == "win32":
    import msvcrt

    def _try_lock(handle: int) -> bool:
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
else:
    import fcntl

    def _try_lock(handle: int) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
