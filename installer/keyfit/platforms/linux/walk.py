"""Finds a path below a root without ever leaving it, whatever somebody else does to the tree meanwhile.

Security D3. The kernel is asked about one component at a time, relative to the directory that is already held open, and
never follows a symbolic link itself. Links are read from the descriptor of the link and followed here, with the root as
"/", so that a tree with merged directories (/lib -> usr/lib) works and a link to /etc stays inside the tree.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath

from msgspec import Struct

from keyfit.errors import HostError
from keyfit.platforms.linux.posix import posix

MAX_LINKS = 40
"""As many as the kernel follows (path_resolution(7))."""


class Place(Struct, frozen=True, kw_only=True):
    """Where a path leads.

    Attributes:
        directory: descriptor of the directory that holds the entry.
        name: the entry's name in it; "." for the root itself.
        found: descriptor of the entry (O_PATH: good for fstat and as a directory to start from), None if it is not there.
    """

    directory: int
    name: str
    found: int | None

    @property
    def is_directory(self) -> bool:
        """True if there is a directory."""
        return self.found is not None and stat.S_ISDIR(os.fstat(self.found).st_mode)


@contextmanager
def walk(root: str, path: str, *, follow_last: bool = True, make: int | None = None) -> Iterator[Place | None]:
    """Yield the place of an absolute path as the machine below `root` sees it; None if a directory on the way is missing.

    Args:
        root: an existing directory.
        path: absolute; ".." stops at the root.
        follow_last: follow a symbolic link in the last place.
        make: create missing directories with this mode, whatever the umask.

    Raises:
        HostError: code "link-loop".
        OSError: a component is no directory or may not be searched.
    """
    walker = _Walker(root, path, follow_last=follow_last, make=make)
    try:
        yield walker.place()
    finally:
        walker.close()


class _Walker:
    def __init__(self, root: str, path: str, *, follow_last: bool, make: int | None) -> None:
        self._path = path
        self._follow_last = follow_last
        self._make = make
        self._pending = _parts(path)
        self._links = 0
        self._leaf: int | None = None
        self._chain = [os.open(root, posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)]
        self._names = ["."]

    def close(self) -> None:
        for handle in (*self._chain, *(() if self._leaf is None else (self._leaf,))):
            os.close(handle)
        self._chain, self._leaf = [], None

    def place(self) -> Place | None:
        while self._pending:
            part = self._pending.pop(0)
            if part == "..":
                self._up()
                continue
            try:
                entry = self._open(part)
            except FileNotFoundError:
                if not self._pending:
                    return Place(directory=self._chain[-1], name=part, found=None)
                if self._make is None:
                    return None
                entry = self._make_directory(part, self._make)
            if self._take(part, entry):
                return Place(directory=self._chain[-1], name=part, found=entry)
        return self._directory_place()

    def _take(self, part: str, entry: int) -> bool:
        """Go on from `entry`; True if it is the last one and no directory."""
        kind = os.fstat(entry).st_mode
        if stat.S_ISLNK(kind) and (self._pending or self._follow_last):
            try:
                self._follow(os.readlink("", dir_fd=entry))
            finally:
                os.close(entry)
            return False
        if stat.S_ISDIR(kind):
            self._chain.append(entry)
            self._names.append(part)
            return False
        self._leaf = entry
        if self._pending:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), self._path)
        return True

    def _directory_place(self) -> Place:
        """The path led to a directory that is now the last of the chain."""
        if len(self._chain) == 1:
            return Place(directory=self._chain[0], name=".", found=self._chain[0])
        return Place(directory=self._chain[-2], name=self._names[-1], found=self._chain[-1])

    def _follow(self, target: str) -> None:
        self._links += 1
        if self._links > MAX_LINKS:
            raise HostError("link-loop", f"{self._path} runs into a loop of symbolic links.",
                            hint="Look at the links in this path and remove the one that leads back.")
        if target.startswith("/"):
            while len(self._chain) > 1:
                self._up()
        self._pending = [*_parts(target), *self._pending]

    def _up(self) -> None:
        if len(self._chain) > 1:
            os.close(self._chain.pop())
            self._names.pop()

    def _open(self, part: str) -> int:
        return os.open(part, posix.O_PATH | posix.O_NOFOLLOW | posix.O_CLOEXEC, dir_fd=self._chain[-1])

    def _make_directory(self, part: str, mode: int) -> int:
        try:
            again(lambda: os.mkdir(part, mode, dir_fd=self._chain[-1]))
        except FileExistsError:
            return self._open(part)
        made = os.open(part, os.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC,
                       dir_fd=self._chain[-1])
        try:
            posix.fchmod(made, mode)
        finally:
            os.close(made)
        sync_directory(self._chain[-1])
        return self._open(part)


def again(call: Callable[[], None]) -> None:
    """Make a call again that a signal cut off; Python does that by itself only for calls that may wait."""
    while True:
        try:
            return call()
        except InterruptedError:
            continue


def sync_directory(directory: int) -> None:
    """Make what was done in a directory last. One that may be changed but not listed cannot be synced; that is borne."""
    try:
        handle = os.open(".", os.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC, dir_fd=directory)
    except PermissionError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _parts(path: str) -> list[str]:
    return [part for part in PurePosixPath(path).parts if part.strip("/") not in ("", ".")]
