"""The log: lines appended to a file that only its owner may read, renamed away when it is full (security D5, I2).

Every operation works on a name in a directory that is held open. What is there already keeps its owner and mode; what another
user could have put there (a link, a second name of a file, somebody else's file, a FIFO) is left alone, and the log does
without.
"""

import errno
import importlib
import os
import stat
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from keyfit import places
from keyfit.core.logline import line
from keyfit.errors import KeyfitError, StorageError
from keyfit.platforms.linux.identity import private_values
from keyfit.platforms.linux.posix import posix
from keyfit.platforms.linux.walk import walk
from keyfit.ports import LogLevel

NAME = "keyfit.log"
MAX_FILE_BYTES = 1_000_000
OLD_FILES = 4
"""keyfit.log.1 is the newest of them. All files together have at most five megabytes."""
MAX_RUN_BYTES = 1_000_000
"""What one process may write, so that one cannot push out what earlier ones wrote. Errors may take as much again."""
LOOKS, LOOK_AGAIN_S = 5, 0.002
"""How often, and how long apart, a last line is looked at that is not whole."""
_FLAGS = os.O_RDWR | os.O_APPEND | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_CLOEXEC
"""O_NONBLOCK so that a planted FIFO blocks nobody."""


class FileLog:
    """Appends events; a `ports.EventLog`.

    Args:
        open_directory: gives a descriptor of the directory; called at the first event.
        where: path of the file, for people and for reports of theirs: without the user's name.
        command: the command that is running.
        redact: takes what is private out of a text.
        traffic: also keep what programs said.
        max_bytes: of one file.

    Attributes:
        where: as given.
        problem: why the first event that could not be written was not; "" if all were.
    """

    def __init__(self, open_directory: Callable[[], int], where: str, *, command: str, redact: Callable[[str], str],
                 traffic: bool = False, max_bytes: int = MAX_FILE_BYTES) -> None:
        self.where = where
        self.problem = ""
        self._open_directory = open_directory
        self._directory = -1
        self._command = command
        self._redact = redact
        self._traffic = traffic
        self._max_bytes = max_bytes
        self._written = 0
        self._limited = False

    def event(self, level: LogLevel, name: str, **fields: object) -> None:
        """See `ports.EventLog`."""
        if level == "traffic" and not self._traffic:
            return
        now = datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        data = line(time=now, level=level, name=name, pid=os.getpid(), command=self._command, fields=fields,
                    redact=self._redact)
        if self._written + len(data) > MAX_RUN_BYTES * (2 if level == "error" else 1):
            if not self._limited:
                self._limited = True
                self.event("error", "log-limit", bytes=MAX_RUN_BYTES)
            return
        self._written += len(data)
        try:
            self._append(data)
        except OSError as error:
            self.problem = self.problem or f"{self.where} cannot be written: {error.strerror}."
        except KeyfitError as error:
            self.problem = self.problem or error.message

    def close(self) -> None:
        """Give the directory back."""
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1

    def _append(self, data: bytes) -> None:
        if self._directory < 0:
            self._directory = self._open_directory()
        handle = self._open()
        try:
            size = os.fstat(handle).st_size
            if size and size + len(data) > self._max_bytes:
                handle = self._rotated(handle)
                size = os.fstat(handle).st_size
            if size + len(data) > 2 * self._max_bytes:
                raise StorageError("log-full", f"{self.where} is full and could not be renamed.")
            if _ends_in_a_line(handle):  # a disk was full, or a run cut off
                data = b"\n" + data
            os.write(handle, data)
        finally:
            os.close(handle)

    def _open(self) -> int:
        """The file, made if it is not there.

        Raises:
            StorageError: it is not ours alone.
        """
        try:
            handle = os.open(NAME, _FLAGS | os.O_CREAT, 0o600, dir_fd=self._directory)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise self._refused("it is a symbolic link") from error
            raise
        status = os.fstat(handle)
        why = ""
        if not stat.S_ISREG(status.st_mode):
            why = "it is no regular file"
        elif status.st_nlink != 1:
            why = f"it has {status.st_nlink} names"
        elif status.st_uid != posix.geteuid():
            why = f"it belongs to user {status.st_uid}"
        if why:
            os.close(handle)
            raise self._refused(why)
        return handle

    def _rotated(self, handle: int) -> int:
        """Rename the full file away and return the one to go on with, which is the same one if another process is just doing
        that; `handle` is closed if it is not returned.

        Raises:
            OSError: it could not be renamed; `handle` is still open.
        """
        fcntl: Any = importlib.import_module("fcntl")  # which not every system has that this file is checked on
        lock = os.open(".", os.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC, dir_fd=self._directory)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return handle
            if _same(os.fstat(handle), os.stat(NAME, dir_fd=self._directory, follow_symlinks=False)):
                for number in range(OLD_FILES, 0, -1):
                    self._rename(f"{NAME}.{number - 1}" if number > 1 else NAME, f"{NAME}.{number}")
            fresh = self._open()
        finally:
            os.close(lock)
        os.close(handle)
        return fresh

    def _rename(self, old: str, new: str) -> None:
        try:
            os.rename(old, new, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        except FileNotFoundError:
            pass  # there are not that many yet

    def _refused(self, why: str) -> StorageError:
        return StorageError("log-unsafe", f"There is no log of this run: expected a file of our own at {self.where}, but {why}.")


def event_log(root: str, command: str, *, traffic: bool) -> FileLog:
    """The machine's log below `root` for an administrator or a tree of one's own, else the user's own log.

    Args:
        root: "/" or an absolute path of an existing directory.
        command: what is running, for example "install" or "helper".
        traffic: also keep what programs said.
    """
    from keyfit.core.redact import redactor

    redact = redactor(private_values())
    if places.is_elevated() or root != "/":
        where = root.rstrip("/") + places.LOG_DIR
        return FileLog(lambda: machine_directory(root), redact(f"{where}/{NAME}"), command=command, redact=redact,
                       traffic=traffic)
    folder = places.user_log_dir()
    return FileLog(lambda: user_directory(folder), redact(f"{folder}/{NAME}"), command=command, redact=redact, traffic=traffic)


def machine_directory(root: str) -> int:
    """Descriptor of the machine's log directory, made with mode 0700 if it is not there.

    Raises:
        OSError: it cannot be made or opened.
        StorageError: another user may write there.
    """
    with walk(root, places.LOG_DIR, follow_last=False, make=0o755) as place:
        if place is None:  # cannot be: what is missing was made
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return _private_child(place.directory, place.name, root.rstrip("/") + places.LOG_DIR)


def user_directory(folder: str) -> int:
    """Descriptor of the user's log directory; what is missing of the way is made with mode 0700 (XDG base directory
    specification).

    Raises:
        OSError, StorageError: as `machine_directory`.
    """
    path = Path(folder)
    for parent in reversed(path.parents):
        if not parent.exists():
            parent.mkdir(mode=0o700, exist_ok=True)
    handle = os.open(path.parent, os.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
    try:
        return _private_child(handle, path.name, folder)
    finally:
        os.close(handle)


def _private_child(parent: int, name: str, shown: str) -> int:
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        pass
    try:
        handle = os.open(name, os.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC, dir_fd=parent)
    except OSError as error:
        if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            raise
        raise _unsafe(shown, "it is no directory") from error
    status = os.fstat(handle)
    why = ""
    if status.st_uid not in (0, posix.geteuid()):
        why = f"it belongs to user {status.st_uid}"
    elif status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        why = "others may write there"
    if why:
        os.close(handle)
        raise _unsafe(shown, why)
    return handle


def _unsafe(shown: str, why: str) -> StorageError:
    return StorageError("log-unsafe", f"There is no log of this run: expected a directory of our own at {shown}, but {why}.")


def _ends_in_a_line(handle: int) -> bool:
    """True if the last line is not whole. Another process may be writing it, which is a matter of microseconds."""
    for _ in range(LOOKS):
        size = os.fstat(handle).st_size
        if not size or posix.pread(handle, 1, size - 1) == b"\n":
            return False
        time.sleep(LOOK_AGAIN_S)
    return True


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
