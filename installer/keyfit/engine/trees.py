"""Folders of ours, written and removed through directory handles, so that nobody can turn a path of them elsewhere meanwhile.

Security D3, D4: the kernel is asked about one name at a time, relative to a directory that is already open, and follows no
symbolic link; new files have to be new; removed are single names that the caller gives, never a tree.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

_os: Any = os
"""The module `os`, typed loosely: on Windows it lacks these flags, and nothing here is called there."""
FOLDER_MODE = 0o755
MAX_LISTED = 5


class Other:
    """Stands for something that is no regular file of ours to look into: a link, a folder, a device, another file's name."""


Found = str | type[Other] | None
"""The SHA-256 of a file in hex, `Other`, or None if there is nothing."""


@contextmanager
def opened(path: Path, *, make: bool = False) -> Iterator[int | None]:
    """A handle on a directory; None if it is not there.

    Args:
        path: absolute, links in it already followed.
        make: create what is missing.

    Raises:
        OSError: a part of it is no directory, or is a link now.
    """
    with _Chain(os.open(path.anchor, _flags())) as chain:
        yield chain.down(path.parts[1:], make=make)


def open_folder(parent: int, name: str) -> int:
    """A handle on a folder in `parent`; the caller closes it.

    Raises:
        OSError: there is none, or something else.
    """
    return os.open(name, _flags(), dir_fd=parent)


def make_folder(parent: int, name: str) -> None:
    """Create a folder that has to be new, mode 0755 whatever the umask.

    Raises:
        OSError: it is there already, or it cannot be made.
    """
    os.mkdir(name, FOLDER_MODE, dir_fd=parent)
    handle = os.open(name, _flags(), dir_fd=parent)
    try:
        _os.fchmod(handle, FOLDER_MODE)
    finally:
        os.close(handle)


def write_file(folder: int, name: str, pieces: Iterable[bytes], mode: int) -> None:
    """Create a file that has to be new below `folder`, and the folders that its name needs.

    Raises:
        OSError: it is there already, or it cannot be written.
    """
    with _Chain(os.dup(folder)) as chain:
        parts = PurePosixPath(name).parts
        parent = chain.down(parts[:-1], make=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _os.O_NOFOLLOW | _os.O_CLOEXEC
        handle = os.open(parts[-1], flags, 0o600, dir_fd=parent)
        with os.fdopen(handle, "wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            _os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())


def sync(folder: int, names: Iterable[str]) -> None:
    """Have the entries of the folders that `names` lie in, and of `folder`, on the disk.

    Raises:
        OSError: the disk fails.
    """
    for each in folders_of(names):
        with _Chain(os.dup(folder)) as chain:
            handle = chain.down(PurePosixPath(each).parts)
            if handle is not None:
                os.fsync(handle)
    os.fsync(folder)


def move_new(source: int, target: int, name: str) -> None:
    """Give the file `name` below `source` the same name below `target`, where it has to be new.

    Raises:
        OSError: it is there already, or the file system does not do it.
    """
    parts = PurePosixPath(name).parts
    with _Chain(os.dup(source)) as before, _Chain(os.dup(target)) as after:
        here, there = before.down(parts[:-1]), after.down(parts[:-1], make=True)
        os.link(parts[-1], parts[-1], src_dir_fd=here, dst_dir_fd=there, follow_symlinks=False)
        os.unlink(parts[-1], dir_fd=here)
        if there is not None:
            os.fsync(there)


def look(folder: int, name: str) -> Found:
    """What is at a name below `folder`."""
    return _at(folder, name, None)


def remove_file(folder: int, name: str, sha256: str | None) -> bool:
    """Remove a regular file below `folder`, if its content has this hash; whatever it holds if that is None.

    Returns:
        False if there is something else, which was left alone.

    Raises:
        OSError: it cannot be removed.
    """
    found = _at(folder, name, lambda parent, last: os.unlink(last, dir_fd=parent), sha256)
    return found is None or (found is not Other and (sha256 is None or found == sha256))


def remove_folders(folder: int, names: Iterable[str]) -> None:
    """Remove the folders below `folder` that `names` lie in, as far as they are empty."""
    for each in sorted(folders_of(names), key=lambda one: -one.count("/")):
        with _Chain(os.dup(folder)) as chain, suppress(OSError):
            parts = PurePosixPath(each).parts
            os.rmdir(parts[-1], dir_fd=chain.down(parts[:-1]))


def folders_of(names: Iterable[str]) -> set[str]:
    """All folders that names lie in, without the outermost."""
    return {str(parent) for name in names for parent in PurePosixPath(name).parents if parent.name}


def listing(folder: int, prefix: str = "") -> list[str]:
    """Names of what is below `folder`, the first few; links are named and not followed."""
    found: list[str] = []
    for name in sorted(os.listdir(folder)):
        try:
            inner = os.open(name, _flags(), dir_fd=folder)
        except OSError:
            found.append(prefix + name)
        else:
            try:
                below = listing(inner, f"{prefix}{name}/") if prefix.count("/") < MAX_LISTED else []
            finally:
                os.close(inner)
            found += below or [f"{prefix}{name}/"]
        if len(found) >= MAX_LISTED:
            break
    return found[:MAX_LISTED]


class _Chain:
    """A way down from a directory, every step of it held open. Takes `start` over."""

    def __init__(self, start: int) -> None:
        self._handles = [start]

    def __enter__(self) -> "_Chain":
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            os.close(handle)

    def down(self, parts: Iterable[str], *, make: bool = False) -> int | None:
        for part in parts:
            try:
                self._enter(part)
            except FileNotFoundError:
                if not make:
                    return None
                with suppress(FileExistsError):  # somebody else was faster; what it is, the opening says
                    make_folder(self._handles[-1], part)
                self._enter(part)
        return self._handles[-1]

    def _enter(self, part: str) -> None:
        self._handles.append(os.open(part, _flags(), dir_fd=self._handles[-1]))


def _at(folder: int, name: str, act: Callable[[int, str], None] | None, expected: str | None = None) -> Found:
    """What is at a name; `act(parent, last part)` is called if it is a regular file with the expected hash (None: any), and
    is still the one that was looked into."""
    parts = PurePosixPath(name).parts
    with _Chain(os.dup(folder)) as chain:
        try:
            parent = chain.down(parts[:-1])
            if parent is None:
                return None
            handle = os.open(parts[-1], os.O_RDONLY | _os.O_NOFOLLOW | _os.O_NONBLOCK | _os.O_CLOEXEC, dir_fd=parent)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO):
                return Other
            raise
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                return Other
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if act is not None and (expected is None or found == expected):
            now = os.stat(parts[-1], dir_fd=parent, follow_symlinks=False)
            if (now.st_dev, now.st_ino) != (status.st_dev, status.st_ino):
                return Other
            act(parent, parts[-1])
        return found


def _flags() -> int:
    return int(os.O_RDONLY | _os.O_DIRECTORY | _os.O_NOFOLLOW | _os.O_CLOEXEC)
