"""Files of the machine below a root: no symbolic link leads out of it, and what is written is there whole or not at all.

Security D3, D7: every component of a path is opened on its own; links are followed by hand, inside the root only.
"""

import errno
import fnmatch
import os
import secrets
import stat
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from keyfit.errors import HostError, StorageError
from keyfit.platforms.linux.posix import posix

MAX_LINKS = 40
"""As many as the kernel follows (path_resolution(7))."""
STORAGE_ERRNOS = {errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.ENOTDIR}


class RootedFiles:
    """File operations on absolute paths as the machine below `root` sees them."""

    def __init__(self, root: str) -> None:
        self.root = root

    def real_path(self, path: str) -> Path:
        """Where `path` lies for this process, links followed inside the root.

        Raises:
            HostError: too many links.
        """
        base = Path(self.root)
        pending = [part for part in PurePosixPath(path).parts if part not in ("/", ".")]
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
                pending = [p for p in target.parts if p not in ("/", ".")] + pending
            else:
                here.append(part)
        return base.joinpath(*here)

    def read_bytes(self, path: str, max_bytes: int) -> bytes | None:
        """See `ports.Host.read_bytes`."""
        real = self.real_path(path)
        try:
            handle = os.open(real, os.O_RDONLY | posix.O_CLOEXEC | posix.O_NOFOLLOW | posix.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise HostError("cannot-read", f"{path} cannot be read: {error.strerror}.") from error
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise HostError("not-a-file", f"{path} is not a regular file.")
            data = file.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise HostError("file-too-large", f"{path} is larger than {max_bytes} bytes.")
        return data

    def write_bytes(self, path: str, data: bytes, mode: int) -> None:
        """See `ports.Host.write_bytes`."""
        real = self.real_path(path)
        try:
            real.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            self._replace(real, data, mode)
        except OSError as error:
            raise storage_error(path, error) from error

    def remove_file(self, path: str) -> None:
        """See `ports.Host.remove_file`. A link in the last place is removed itself, not what it points to."""
        pure = PurePosixPath(path)
        real = self.real_path(str(pure.parent)) / pure.name
        try:
            real.unlink(missing_ok=True)
            _sync_directory(real.parent)
        except FileNotFoundError:
            return
        except OSError as error:
            raise storage_error(path, error) from error

    def remove_empty_directories(self, path: str, made: Sequence[str]) -> None:
        """See `ports.Host.remove_empty_directories`."""
        for directory in sorted(made, key=len, reverse=True):
            if str(PurePosixPath(path)).startswith(directory):
                try:
                    self.real_path(directory).rmdir()
                except OSError:
                    return  # not empty any more, or gone: somebody else's now

    def missing_directories(self, path: str) -> tuple[str, ...]:
        """See `ports.Host.missing_directories`."""
        parents = [str(p) for p in reversed(PurePosixPath(path).parents) if str(p) != "/"]
        return tuple(p for p in parents if not self.real_path(p).is_dir())

    def exists(self, path: str) -> bool:
        """See `ports.Host.exists`."""
        return self.real_path(path).exists()

    def glob(self, directory: str, pattern: str) -> tuple[str, ...]:
        """See `ports.Host.glob`."""
        try:
            names = os.listdir(self.real_path(directory))  # noqa: PTH208
        except OSError:
            return ()
        return tuple(f"{directory}/{name}" for name in sorted(names) if fnmatch.fnmatchcase(name, pattern))

    def _replace(self, real: Path, data: bytes, mode: int) -> None:
        """Write beside, sync, rename: the name always leads to the whole old or the whole new content."""
        old = _stat(real)
        if old is not None and not stat.S_ISREG(old.st_mode):
            raise HostError("not-a-file", f"{real} is not a regular file, so it is not replaced.")
        beside = real.parent / f".{real.name}.{secrets.token_hex(6)}.keyfit"
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | posix.O_CLOEXEC | posix.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                posix.fchmod(file.fileno(), stat.S_IMODE(old.st_mode) if old else mode)
                if old is not None and (old.st_uid, old.st_gid) != (posix.geteuid(), posix.getegid()):
                    posix.fchown(file.fileno(), old.st_uid, old.st_gid)
                if old is not None:
                    _copy_attributes(real, file.fileno())
                os.fsync(file.fileno())
            beside.rename(real)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        _sync_directory(real.parent)


def storage_error(path: str, error: OSError) -> StorageError:
    """What went wrong with a file, and what to do."""
    hints = {
        errno.ENOSPC: "Free some disk space and run the same command again.",
        errno.EDQUOT: "Free some of your disk quota and run the same command again.",
        errno.EROFS: "The file system is read-only; mount it writable, or choose another place.",
        errno.EACCES: "Run it with administrator rights, or choose another place.",
        errno.EPERM: "Run it with administrator rights, or choose another place.",
    }
    code = "disk-full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "cannot-write"
    return StorageError(code, f"{path} cannot be written: {error.strerror}.",
                        hint=hints.get(error.errno or 0, "Check the disk."))


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except FileNotFoundError:
        return None


def _copy_attributes(source: Path, target: int) -> None:
    """Extended attributes carry security labels; a file system without them has none to keep."""
    if not hasattr(posix, "listxattr"):
        return
    try:
        for name in posix.listxattr(source, follow_symlinks=False):
            posix.setxattr(target, name, posix.getxattr(source, name, follow_symlinks=False))
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.EPERM):
            raise


def _sync_directory(path: Path) -> None:
    try:
        handle = os.open(path, os.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
