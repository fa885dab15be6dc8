"""Files of the machine below a root: no symbolic link leads out of it, and what is written is there whole or not at all.

Security D3, D4, D7: every operation works on a name relative to a directory that `walk` holds open, so that a tree that is
changed meanwhile cannot redirect it; nothing is removed but single names.
"""

import errno
import fnmatch
import os
import stat
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from keyfit.errors import HostError, StorageError
from keyfit.platforms.linux.posix import posix
from keyfit.platforms.linux.replace import remove, replace, settle
from keyfit.platforms.linux.walk import MAX_LINKS, Place, again, walk

SOMEBODY_ELSES = (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY, errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""Why a directory that Keyfit made is left to others: something lies in it, or it is none any more."""


class RootedFiles:
    """File operations on absolute paths as the machine below `root` sees them."""

    def __init__(self, root: str) -> None:
        self.root = root

    def real_path(self, path: str) -> Path:
        """Where `path` lies for this process now, links followed inside the root. For handing to programs; the operations
        here do not use it.

        Raises:
            HostError: too many links.
        """
        base = Path(self.root)
        pending = [part for part in PurePosixPath(path).parts if part not in ("/", "//")]
        here: list[str] = []
        links = 0
        while pending:
            part = pending.pop(0)
            if part == "..":
                here = here[:-1]
                continue
            candidate = base.joinpath(*here, part)
            if candidate.is_symlink():
                links += 1
                if links > MAX_LINKS:
                    raise HostError("link-loop", f"{path} runs into a loop of symbolic links.")
                target = PurePosixPath(candidate.readlink())
                if target.is_absolute():
                    here = []
                pending = [p for p in target.parts if p not in ("/", "//")] + pending
            else:
                here.append(part)
        return base.joinpath(*here)

    def read_bytes(self, path: str, max_bytes: int) -> bytes | None:
        """See `ports.Host.read_bytes`."""
        try:
            with walk(self.root, path) as place:
                if place is None or place.found is None:
                    return None
                return _read(path, place, max_bytes)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise HostError("cannot-read", f"{path} cannot be read: {error.strerror}.",
                            hint="Look at its owner and mode.") from error

    def write_bytes(self, path: str, data: bytes, mode: int, *, expected: bytes | None) -> None:
        """See `ports.Host.write_bytes`."""
        try:
            with walk(self.root, path, make=0o755 if mode & 0o077 else 0o700) as place:
                if place is not None:
                    replace(path, place, data, mode, expected)
        except OSError as error:
            raise storage_error(path, error) from error

    def remove_file(self, path: str, *, expected: bytes) -> None:
        """See `ports.Host.remove_file`."""
        try:
            with walk(self.root, path, follow_last=False) as place:
                if place is not None:
                    remove(path, place, expected)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise storage_error(path, error) from error

    def settle(self, path: str) -> str:
        """See `ports.Host.settle`."""
        try:
            kept = []
            for follow in (False, True):  # what was written lies beside the file that a link leads to
                with walk(self.root, path, follow_last=follow) as place:
                    kept += [settle(path, place)] if place is not None else []
            return next((text for text in kept if text), "")
        except (FileNotFoundError, NotADirectoryError):
            return ""
        except OSError as error:
            raise storage_error(path, error) from error

    def remove_empty_directories(self, path: str, made: Sequence[str]) -> None:
        """See `ports.Host.remove_empty_directories`."""
        mine = {PurePosixPath(directory) for directory in made}
        pure = PurePosixPath(path)
        for directory in (d for d in (pure, *pure.parents) if d in mine):
            try:
                with walk(self.root, str(directory), follow_last=False) as place:
                    if place is not None and place.found is not None:
                        _rmdir(place)
            except OSError as error:
                if error.errno in SOMEBODY_ELSES:
                    return
                raise storage_error(str(directory), error) from error

    def missing_directories(self, path: str) -> tuple[str, ...]:
        """See `ports.Host.missing_directories`."""
        parents = [str(p) for p in reversed(PurePosixPath(path).parents) if p.name]
        return tuple(p for p in parents if not self._is_directory(p))

    def exists(self, path: str) -> bool:
        """See `ports.Host.exists`. What may not be looked at counts as not there."""
        try:
            with walk(self.root, path) as place:
                return place is not None and place.found is not None
        except OSError:
            return False

    def glob(self, directory: str, pattern: str) -> tuple[str, ...]:
        """See `ports.Host.glob`."""
        try:
            with walk(self.root, directory) as place:
                if place is None or not place.is_directory:
                    return ()
                names = _list(place)
        except OSError:
            return ()
        return tuple(f"{directory.rstrip('/')}/{name}" for name in sorted(names) if fnmatch.fnmatchcase(name, pattern))

    def _is_directory(self, path: str) -> bool:
        try:
            with walk(self.root, path) as place:
                return place is not None and place.is_directory
        except OSError:
            return False


def storage_error(path: str, error: OSError) -> StorageError:
    """What went wrong with a file, and what to do."""
    hints = {
        errno.ENOSPC: "Free some disk space and run the same command again.",
        errno.EDQUOT: "Free some of your disk quota and run the same command again.",
        errno.EROFS: "The file system is read-only; mount it writable, or choose another place.",
        errno.EACCES: "Run it with administrator rights, or choose another place.",
        errno.EPERM: "Run it with administrator rights, or choose another place.",
        errno.ENOTDIR: "A file stands where a directory is needed; move it away.",
        errno.EISDIR: "A directory stands where a file is needed; move it away.",
    }
    code = "disk-full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "cannot-write"
    return StorageError(code, f"{path} cannot be written: {error.strerror}.",
                        hint=hints.get(error.errno or 0, "Check the disk."))


def _rmdir(place: Place) -> None:
    again(lambda: os.rmdir(place.name, dir_fd=place.directory))


def _read(path: str, place: Place, max_bytes: int) -> bytes:
    handle = _open_for_reading(place)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise HostError("not-a-file", f"{path} is not a regular file.", hint="Look at what it is and move it away.")
    with os.fdopen(handle, "rb") as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise HostError("file-too-large", f"{path} is larger than {max_bytes} bytes.",
                        hint="A file of this kind is never that large; look at what it is.")
    return data


def _open_for_reading(place: Place) -> int:
    flags = os.O_RDONLY | posix.O_CLOEXEC | posix.O_NOFOLLOW | posix.O_NONBLOCK
    return os.open(place.name, flags, dir_fd=place.directory)


def _list(place: Place) -> list[str]:
    handle = os.open(".", os.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC, dir_fd=place.found)
    try:
        return os.listdir(handle)  # noqa: PTH208 - of a descriptor
    finally:
        os.close(handle)
