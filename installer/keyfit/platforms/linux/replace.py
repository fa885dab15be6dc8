"""Replaces, makes and removes single files so that nothing gets lost: neither by a power cut nor of what somebody else writes at
that very moment (security D3, D4, D7).

The new content is written to a name beside the file and brought to the disk. Then the kernel swaps the two names
(RENAME_EXCHANGE, renameat2(2)), and only now is what came out held against what the caller had read; if it is something else, the
names are swapped back. A file that was not there is made by a rename that does not replace (RENAME_NOREPLACE). What a sudden end
leaves says itself what it is:

    .NAME.keyfit-new      being written: ours, whatever is in it
    .NAME.keyfit-OLD-NEW  swapped with NAME, or about to be: whoever's hash is neither OLD nor NEW is somebody else's
    .NAME.keyfit-OLD-gone taken away from NAME: somebody else's if its hash is not OLD

OLD and NEW are the first half of the SHA-256 of the content. `settle` brings a directory back in order by these names.
"""

import errno
import hashlib
import os
import re
import stat
from collections.abc import Callable
from typing import Any

from keyfit.errors import HostError, StorageError
from keyfit.platforms.linux.posix import posix
from keyfit.platforms.linux.walk import Place, again, sync_directory

NOREPLACE, EXCHANGE = 1, 2
"""linux/fs.h, RENAME_NOREPLACE and RENAME_EXCHANGE."""
UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP})
"""What file systems without these say (renameat2(2)); ENOSYS also stands for a C library without the call."""
CONTENT_ATTRIBUTES = frozenset({"security.ima", "security.evm"})
"""Extended attributes that sign the old content (Linux, Documentation/ABI/testing/ima_policy, evm); not carried over."""
GONE = "gone"
_LEFTOVER = re.compile(r"([0-9a-f]{32})-([0-9a-f]{32}|gone)")
_READ_BYTES = 1 << 20


def replace(path: str, place: Place, data: bytes, mode: int, expected: bytes | None) -> None:
    """Write `data` to a place that now holds `expected`, or nothing if that is None.

    Owner, mode and extended attributes (security labels, access lists) of an existing file are kept.

    Raises:
        HostError: code "changed-meanwhile": it holds something else; nothing was changed.
        StorageError: code "not-a-file".
        OSError: it cannot be written; nothing was changed.
    """
    settle(path, place)
    old = os.fstat(place.found) if place.found is not None else None
    if old is not None and not stat.S_ISREG(old.st_mode):
        raise StorageError("not-a-file", f"{path} is not a regular file, so it is not replaced.",
                           hint="Look at what it is and move it away.")
    if (old is None) is not (expected is None):
        raise _changed(path)
    new = _beside(place.name, "new")
    labels = _write(place, new, data, mode, old)
    try:
        if expected is None:
            _rename_new(path, place, new, place.name)
        else:
            swap = _beside(place.name, f"{_digest(expected)}-{_digest(data)}")
            _rename_new(path, place, new, swap)
            _swap(path, place, swap, lambda: _is(place, swap, expected) and _labels_at(place, swap) == labels,
                  lambda: _is(place, place.name, expected))
    except BaseException:
        _discard(place, new)
        raise
    sync_directory(place.directory)


def remove(path: str, place: Place, expected: bytes) -> None:
    """Remove a file that holds `expected`. A symbolic link goes itself, not what it points to.

    Raises:
        HostError: code "changed-meanwhile": it holds something else and is left alone.
        OSError: it cannot be removed.
    """
    settle(path, place)
    kind = _kind(place, place.name)
    if kind is None:
        return
    if stat.S_ISLNK(kind):
        again(lambda: os.unlink(place.name, dir_fd=place.directory))
    else:
        gone = _beside(place.name, f"{_digest(expected)}-{GONE}")
        _rename_new(path, place, place.name, gone)
        if not _is(place, gone, expected):
            _rename_new(path, place, gone, place.name)
            raise _changed(path)
        _discard(place, gone)
    sync_directory(place.directory)


def settle(path: str, place: Place) -> str:
    """Put right what a replacement or a removal that was cut off left beside a file.

    Returns:
        "" or what was left lying there because somebody else wrote it, one line.
    """
    prefix = _beside(place.name, "")
    kept = [kept for name in _names(place) if name.startswith(prefix)
            for kept in [_settle(place, name, name.removeprefix(prefix))] if kept]
    return f"{', '.join(kept)} beside {path} stayed, because somebody else wrote it" if kept else ""


def _settle(place: Place, name: str, tag: str) -> str:
    match = _LEFTOVER.fullmatch(tag)
    if tag == "new":
        _discard(place, name)
        return ""
    if match is None:
        return ""  # somebody else's name
    old, new = match.groups()
    found = _hash(place, name)
    if found in (old, new):
        _discard(place, name)
        return ""
    try:
        if new == GONE:
            _rename(place, name, place.name, NOREPLACE)
            return ""
        if _hash(place, place.name) == new and _swap_back(place, name, new):
            return ""
    except OSError as error:
        if error.errno not in {*UNSUPPORTED, errno.EEXIST, errno.ENOENT}:
            raise
    return name


def _swap_back(place: Place, name: str, ours: str) -> bool:
    """Give the file back what was swapped out of it; False if that is no longer possible, because it was written again."""
    _rename(place, name, place.name, EXCHANGE)
    if _hash(place, name) == ours:
        _discard(place, name)
        return True
    _rename(place, name, place.name, EXCHANGE)
    return False


def _swap(path: str, place: Place, swap: str, came_out: Callable[[], bool], is_there: Callable[[], bool]) -> None:
    """Exchange the names; the file is left as somebody else wrote it if not the expected one came out."""
    ours = _hash(place, swap)
    try:
        _rename(place, swap, place.name, EXCHANGE)
    except FileNotFoundError as error:
        _discard(place, swap)
        raise _changed(path) from error
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            _discard(place, swap)
            raise
        if not is_there():  # the best that such a file system offers: look, then replace
            _discard(place, swap)
            raise _changed(path) from error
        again(lambda: os.rename(swap, place.name, src_dir_fd=place.directory, dst_dir_fd=place.directory))
        return
    if came_out():
        _discard(place, swap)
        return
    _swap_back(place, swap, ours)
    raise _changed(path)


def _rename_new(path: str, place: Place, source: str, target: str) -> None:
    """Rename to a name that must not be there.

    Raises:
        HostError: code "changed-meanwhile": it is there.
    """
    try:
        _rename(place, source, target, NOREPLACE)
    except FileExistsError as error:
        raise _changed(path) from error
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        _link_new(path, place, source, target)


def _link_new(path: str, place: Place, source: str, target: str) -> None:
    """The same with a second name, which no file system lets replace anything."""
    try:
        again(lambda: os.link(source, target, src_dir_fd=place.directory, dst_dir_fd=place.directory, follow_symlinks=False))
    except FileExistsError as error:
        raise _changed(path) from error
    except OSError as error:
        if error.errno not in {*UNSUPPORTED, errno.EPERM, errno.EMLINK}:
            raise
        if _kind(place, target) is not None:
            raise _changed(path) from error
        again(lambda: os.rename(source, target, src_dir_fd=place.directory, dst_dir_fd=place.directory))
        return
    _discard(place, source)


def _rename(place: Place, source: str, target: str, flags: int) -> None:
    """renameat2(2), which the module `os` lacks."""
    import ctypes  # here, because most commands write nothing

    call: Any = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    while True:
        if call is None:
            number = errno.ENOSYS
        elif call(place.directory, os.fsencode(source), place.directory, os.fsencode(target), flags) == 0:
            return
        else:
            number = ctypes.get_errno()
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number), target)


def _write(place: Place, name: str, data: bytes, mode: int, old: os.stat_result | None) -> object:
    """Write a new file and bring it to the disk; what `_labels` says of the old one, whose labels it now has."""
    _discard(place, name)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | posix.O_CLOEXEC | posix.O_NOFOLLOW
    handle = os.open(name, flags, 0o600, dir_fd=place.directory)
    labels: object = None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            if old is not None:
                labels = _take_over(place, old, file.fileno())
            # after the owner: changing that clears set-id bits
            posix.fchmod(file.fileno(), stat.S_IMODE(old.st_mode) if old else mode)
            os.fsync(file.fileno())
    except BaseException:
        _discard(place, name)
        raise
    return labels


def _take_over(place: Place, old: os.stat_result, target: int) -> object:
    """Give the new file the owner and the extended attributes (security labels, access lists) of the old one."""
    if (old.st_uid, old.st_gid) != (posix.geteuid(), posix.getegid()):
        posix.fchown(target, old.st_uid, old.st_gid)
    labels = _labels_at(place, place.name)
    for name, value in (labels[1] if labels else ()):
        try:
            posix.setxattr(target, name, value)
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EPERM, errno.EACCES):
                raise
    return labels


def _labels_at(place: Place, name: str) -> tuple[tuple[int, int, int], tuple[tuple[str, bytes], ...]] | None:
    """Mode, owner, group and extended attributes; None if they may not be looked at."""
    try:
        handle = _open(place, name)
    except PermissionError:
        return None  # its attributes are as closed to us as its content
    try:
        status = os.fstat(handle)
        names = posix.listxattr(handle)
        return ((status.st_mode, status.st_uid, status.st_gid),
                tuple((n, posix.getxattr(handle, n)) for n in sorted(names) if n not in CONTENT_ATTRIBUTES))
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.ENODATA):
            raise
        return ((status.st_mode, status.st_uid, status.st_gid), ())
    finally:
        os.close(handle)


def _is(place: Place, name: str, data: bytes) -> bool:
    return _hash(place, name) == _digest(data)


def _hash(place: Place, name: str) -> str:
    """As in the names; "" if it is no regular file."""
    try:
        handle = _open(place, name)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
            raise
        return ""
    found = hashlib.sha256()
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return ""
        while part := os.read(handle, _READ_BYTES):
            found.update(part)
    finally:
        os.close(handle)
    return found.hexdigest()[:32]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def _open(place: Place, name: str) -> int:
    flags = os.O_RDONLY | posix.O_CLOEXEC | posix.O_NOFOLLOW | posix.O_NONBLOCK
    return os.open(name, flags, dir_fd=place.directory)


def _kind(place: Place, name: str) -> int | None:
    try:
        return os.stat(name, dir_fd=place.directory, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return None


def _discard(place: Place, name: str) -> None:
    """Remove one name, if it is there."""
    try:
        again(lambda: os.unlink(name, dir_fd=place.directory))
    except FileNotFoundError:
        pass


def _names(place: Place) -> list[str]:
    """What lies beside; in a directory that may not be listed nothing of ours does."""
    try:
        handle = os.open(".", os.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC, dir_fd=place.directory)
    except PermissionError:
        return []
    try:
        return sorted(os.listdir(handle))  # noqa: PTH208 - of a descriptor
    finally:
        os.close(handle)


def _beside(name: str, tag: str) -> str:
    return f".{name}.keyfit-{tag}"


def _changed(path: str) -> HostError:
    return HostError("changed-meanwhile", f"{path} was changed by somebody else at this moment, so it was left as it is.",
                     hint="Look at what else is changing it, then run this again.")
