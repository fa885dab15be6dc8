"""The files of installed packages, kept to go back to: an upgrade that fails, is cut off or does not work is taken back by
installing the old file again.

They lie in a directory that only the administrator can use, each under its SHA-256, and are hashed again before they are used
(security D1, D2).
"""

import hashlib
import os
import secrets
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from keyfit.engine.staging import chunks_of, fill
from keyfit.errors import StorageError
from keyfit.model.catalog import Payload
from keyfit.privatefiles import open_private, private_directory, storage_error, sync_directory

FOLDER = "kept"


class Kept:
    """The files kept in a state directory. Only who holds the journal's lock changes them."""

    def __init__(self, state_dir: Path) -> None:
        self._folder = state_dir / FOLDER

    def keep(self, payload: Payload, source: Path) -> None:
        """Copy a file, hashed on the way; after a power cut it is there whole or not at all.

        Raises:
            TrustError: it is not the signed one.
            StorageError: disk full or not writable.
        """
        if self.holds(payload.sha256) is not None:
            return
        private_directory(self._folder)
        path, new = self._folder / payload.sha256, self._folder / f".{secrets.token_hex(8)}"
        try:
            handle = open_private(new, os.O_RDWR | os.O_CREAT | os.O_EXCL)
            try:
                fill(handle, new, payload, chunks_of(source))
            finally:
                os.close(handle)
            new.replace(path)
            sync_directory(self._folder)
        except OSError as error:
            raise storage_error(error, path, "write") from error
        finally:
            with suppress(OSError):
                new.unlink()

    def holds(self, sha256: str) -> Path | None:
        """The file with this hash; None if it is not there, is not what it was, or others may have touched it."""
        path, digest = self._folder / sha256, hashlib.sha256()
        if not self._folder.exists():
            return None
        try:
            private_directory(self._folder)
            for chunk in chunks_of(path):
                digest.update(chunk)
        except StorageError:
            return None
        return path if digest.hexdigest() == sha256 else None

    def tidy(self, needed: Collection[str]) -> None:
        """Remove all others, as far as that is possible; nothing depends on it."""
        if self._folder.is_symlink() or not self._folder.is_dir():
            return
        with suppress(OSError):
            for path in sorted(self._folder.iterdir()):
                if path.name not in needed:
                    with suppress(OSError):
                        path.unlink()
            if not needed:
                self._folder.rmdir()
