"""Signing keys as files, one ed25519 key a role, readable by their owner only."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from keyfit.errors import DataError, StorageError

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner, Key

ROLES = ("root", "targets", "drivers", "bins", "snapshot", "timestamp")
"""Who signs what: see `publisher.repository`."""


class KeyFolder:
    """The keys of a publisher.

    Args:
        password: encrypts the files, or None to leave them plain.
    """

    def __init__(self, folder: Path, password: bytes | None = None) -> None:
        self._folder = folder
        self._password = password

    def create(self) -> None:
        """Make a key for every role.

        Raises:
            DataError: there are keys already.
            StorageError: they cannot be written.
        """
        if self._folder.exists():
            raise DataError("keys-exist", f"{self._folder} is there already; keys are never overwritten.",
                            hint="Choose another folder for a new repository.")
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        protection: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if self._password is not None:
            protection = serialization.BestAvailableEncryption(self._password)
        try:
            self._folder.mkdir(mode=0o700, parents=True)
            for role in ROLES:
                pem = Ed25519PrivateKey.generate().private_bytes(
                    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)
                handle = os.open(self._folder / f"{role}.pem", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(handle, "wb") as file:
                    file.write(pem)
        except OSError as error:
            raise StorageError("cannot-write", f"{self._folder} cannot be written: {error.strerror}.") from error

    def signer(self, role: str) -> "CryptoSigner":
        """The signer of a role.

        Raises:
            DataError: its key is not there, is damaged, or the password is wrong.
        """
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
        from securesystemslib.signer import CryptoSigner

        path = self._folder / f"{role}.pem"
        try:
            private = load_pem_private_key(path.read_bytes(), self._password)
        except OSError as error:
            raise DataError("key-missing", f"The key {path} cannot be read: {error.strerror}.",
                            hint="Use the folder that `keyfit-publish init` made.") from error
        except (ValueError, TypeError) as error:
            raise DataError("key-unreadable", f"The key {path} cannot be used: {error}.",
                            hint="Give its password with --password-file.") from error
        return CryptoSigner(private)

    def public(self, role: str) -> "Key":
        """The public key of a role."""
        key: Key = self.signer(role).public_key
        return key
