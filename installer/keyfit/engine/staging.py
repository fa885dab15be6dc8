"""Where files wait to be installed: a directory that only the administrator can write, filled while the bytes are hashed.

What is installed is the very file that was hashed: no other user has a name for it, and its handle stays open until the change
is over (security C4, D1, D2, D4). Every payload gets a new file; nothing is ever reused.
"""

import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path, PurePath

from keyfit.errors import BusyError, StorageError, TrustError
from keyfit.model.catalog import Payload
from keyfit.privatefiles import (
    FileLock,
    foreign_influence,
    make_parents,
    open_private,
    private_directory,
    require_own,
    storage_error,
    unsafe,
)

FOLDER = "staging"
LOCK = "lock"
ENTER_WAIT_S = 10.0
CHUNK_BYTES = 1_048_576


class Staging:
    """A staging directory for one change; a context manager. What an interrupted change left is removed when the next begins.

    Args:
        state_dir: Keyfit's own, where the directory is made.

    Raises:
        HostError: code "state-dir-writable": somebody else may change `state_dir` or what leads to it.
        StorageError: it cannot be made.
    """

    def __init__(self, state_dir: Path) -> None:
        self._base = state_dir / FOLDER
        self._folder = self._base / secrets.token_hex(8)
        self._lock = FileLock(self._folder / LOCK, 0.0)
        self._files: dict[str, tuple[Path, int]] = {}

    def __enter__(self) -> "Staging":
        try:
            make_parents(self._base)
        except OSError as error:
            raise storage_error(error, self._base.parent, "make the directory") from error
        require_own(self._base.parent)
        with FileLock(self._base / LOCK, ENTER_WAIT_S):  # so that nobody takes a folder without its lock yet for abandoned
            self._remove_abandoned()
            try:
                self._lock.__enter__()
            except BaseException:
                _remove(self._folder)
                raise
        return self

    def __exit__(self, *_: object) -> None:
        for held in self._files.values():
            os.close(held[1])
        self._lock.__exit__(None, None, None)
        _remove(self._folder)

    def holds(self, payload: Payload) -> Path | None:
        """The file of a payload that was taken, after a look whether it is still the same one.

        Raises:
            StorageError: code "unsafe-file": it is not.
        """
        if payload.sha256 not in self._files:
            return None
        path, handle = self._files[payload.sha256]
        held, named = os.fstat(handle), path.lstat()
        if held.st_nlink != 1 or (held.st_dev, held.st_ino) != (named.st_dev, named.st_ino):
            raise unsafe(path, "it was replaced or linked since it was checked")
        return path

    def take(self, payload: Payload, chunks: Iterable[bytes]) -> Path:
        """Write the bytes into a new file and hash them on the way.

        Raises:
            TrustError: they are not the signed ones; code "payload-hash" or "payload-too-long".
            StorageError: disk full or not writable.
        """
        name = PurePath(payload.file).name
        if name != payload.file or name in ("", ".", "..", LOCK):
            raise TrustError("manifest-invalid", f"Expected the plain name of a file, came {payload.file!a}.",
                             hint="Tell the publisher of this repository.")
        inner = self._folder / secrets.token_hex(8)
        path = inner / name
        try:
            private_directory(inner)
            handle = open_private(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        except OSError as error:
            raise storage_error(error, path, "make") from error
        try:
            fill(handle, path, payload, chunks)
        except BaseException:
            os.close(handle)
            _remove(inner)
            raise
        self._files[payload.sha256] = path, handle
        return path

    def tidy(self) -> None:
        """Remove what interrupted changes left.

        Raises:
            BusyError, StorageError: it cannot be looked at now.
        """
        with FileLock(self._base / LOCK, 0.0):
            self._remove_abandoned()

    def _remove_abandoned(self) -> None:
        """Folders whose process is gone: the lock in them ends with it."""
        for folder in sorted(path for path in self._base.iterdir() if path.name != LOCK):
            with suppress(BusyError, StorageError):
                with FileLock(folder / LOCK, 0.0):
                    pass
                _remove(folder)


def remove_abandoned(state_dir: Path) -> None:
    """Remove what interrupted changes left, as far as no change is going on and that can be done."""
    staging = Staging(state_dir)
    with suppress(OSError, BusyError, StorageError):
        if (state_dir / FOLDER).is_dir() and not foreign_influence(state_dir):
            staging.tidy()


def fill(handle: int, path: Path, payload: Payload, chunks: Iterable[bytes]) -> None:
    """Write the bytes of a payload to an open file, hash them on the way, and have them on disk.

    Raises:
        TrustError: they are not the signed ones; code "payload-hash" or "payload-too-long".
        StorageError: disk full or not writable.
    """
    digest, size = hashlib.sha256(), 0
    try:
        for chunk in chunks:
            size += len(chunk)
            if size > payload.length_bytes:
                raise TrustError("payload-too-long", f"Expected {payload.length_bytes} bytes of {payload.file}, more came.",
                                 hint="Nothing was installed. Try again; if it stays so, tell the publisher.")
            digest.update(chunk)
            rest = memoryview(chunk)
            while rest:
                rest = rest[os.write(handle, rest):]
        os.fsync(handle)
    except OSError as error:
        raise storage_error(error, path, "write") from error
    if size != payload.length_bytes or digest.hexdigest() != payload.sha256:
        raise TrustError("payload-hash", f"Expected {payload.file} with the signed hash {payload.sha256[:16]}…, other bytes"
                         " came.", hint="Nothing was installed. Try again; if it stays so, tell the publisher.")


def chunks_of(path: Path) -> Iterator[bytes]:
    """The content of a downloaded file, from one open handle.

    Raises:
        StorageError: it cannot be read, is a link or has several names, or belongs to somebody else.
    """
    try:
        handle = open_private(path, os.O_RDONLY)
    except OSError as error:
        raise storage_error(error, path, "read") from error
    with os.fdopen(handle, "rb", buffering=0) as file:
        try:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
        except OSError as error:
            raise storage_error(error, path, "read") from error


def _remove(folder: Path) -> None:
    """A folder of ours with files and one level of folders in it. It lies where only we may write, so no name in it changes
    meanwhile; a name that is neither is left."""
    with suppress(OSError):
        for entry in list(os.scandir(folder)):
            if entry.is_dir(follow_symlinks=False):
                for inner in list(os.scandir(entry)):
                    Path(inner).unlink()
                Path(entry).rmdir()
            else:
                Path(entry).unlink()
        folder.rmdir()
