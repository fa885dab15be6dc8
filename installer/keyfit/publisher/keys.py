"""The publisher's signing keys: one ed25519 PEM file each under `DIR/keys`, readable by its owner alone.

File names are `<role>-<number>.pem`. A key that lies elsewhere (on a stick in a safe) is simply not there; whoever signs
puts it back for the time being. Public halves are in the signed metadata.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from keyfit.errors import HostError, UserError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from securesystemslib.signer import CryptoSigner

ROLES = ("root", "targets", "drivers", "bins", "snapshot", "timestamp")
"""Whose keys there are. "bins" signs the hash bins that `drivers` delegates to."""
_THRESHOLD = re.compile(r"([a-z]+)=([0-9]{1,2})/([0-9]{1,2})\Z")
_MAX_KEYS = 15

AskPassphrase = Callable[[], bytes]


class Threshold(Struct, frozen=True, kw_only=True):
    """How many of how many keys a role needs."""

    needed: int
    keys: int


DEFAULT_THRESHOLDS: Mapping[str, Threshold] = {
    "root": Threshold(needed=2, keys=3),
    "targets": Threshold(needed=2, keys=3),
    "drivers": Threshold(needed=2, keys=3),
    "bins": Threshold(needed=1, keys=1),
    "snapshot": Threshold(needed=1, keys=1),
    "timestamp": Threshold(needed=1, keys=1),
}
"""Two persons for what lasts, one machine for what is renewed often (security K1: at least 2 of 3 at the start)."""


def parse_thresholds(texts: tuple[str, ...]) -> dict[str, Threshold]:
    """Read `--threshold ROLE=NEEDED/KEYS` over the defaults.

    Raises:
        UserError: not of this form, no such role, or more needed than there are.
    """
    thresholds = dict(DEFAULT_THRESHOLDS)
    for text in texts:
        found = _THRESHOLD.fullmatch(text)
        if found is None or found.group(1) not in ROLES:
            raise UserError("bad-threshold", f"Expected ROLE=NEEDED/KEYS such as root=3/5, came {text!a}.",
                            hint=f"Roles are {', '.join(ROLES)}.")
        needed, keys = int(found.group(2)), int(found.group(3))
        if not 1 <= needed <= keys <= _MAX_KEYS:
            raise UserError("bad-threshold", f"Expected 1 to {_MAX_KEYS} keys and no more needed than there are, came"
                            f" {text!a}.", hint="For example root=3/5.")
        thresholds[found.group(1)] = Threshold(needed=needed, keys=keys)
    return thresholds


class KeyStore:
    """The keys in one directory. The passphrase is asked for once, when the first encrypted key is met."""

    def __init__(self, folder: Path, ask_passphrase: AskPassphrase | None = None) -> None:
        self._folder = folder
        self._ask = ask_passphrase
        self._passphrase: bytes | None = None
        self._signers: dict[str, list[CryptoSigner]] = {}

    def create(self, thresholds: Mapping[str, Threshold], passphrase: bytes | None = None) -> None:
        """Make new keys for every role; `passphrase` encrypts their files.

        Raises:
            HostError: there are keys already, or they cannot be written.
        """
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import (
            BestAvailableEncryption,
            Encoding,
            KeySerializationEncryption,
            NoEncryption,
            PrivateFormat,
        )

        encryption: KeySerializationEncryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
        try:
            self._folder.mkdir(mode=0o700, parents=True)
            for role, threshold in thresholds.items():
                for number in range(1, threshold.keys + 1):
                    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
                    path = self._folder / f"{role}-{number}.pem"
                    path.touch(mode=0o600, exist_ok=False)
                    path.write_bytes(pem)
        except FileExistsError as error:
            raise HostError("keys-exist", f"Expected no keys yet, {error.filename} is there already.",
                            hint="Choose another directory; keys are never overwritten.") from error
        except OSError as error:
            raise HostError("cannot-write", f"The keys cannot be written to {self._folder}: {error.strerror}.") from error
        self._passphrase = passphrase

    def signers(self, role: str) -> list["CryptoSigner"]:
        """The signers of a role whose keys are here, in the order of their numbers.

        Raises:
            UserError: a key file is readable by others, damaged, or its passphrase is wrong.
        """
        from securesystemslib.signer import CryptoSigner

        if role not in self._signers:
            paths = sorted(self._folder.glob(f"{role}-*.pem"), key=lambda p: (len(p.name), p.name))
            self._signers[role] = [CryptoSigner(self._private_key(path)) for path in paths]
        return self._signers[role]

    def _private_key(self, path: Path) -> "Ed25519PrivateKey":
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            if path.stat().st_mode & 0o077:
                raise UserError("key-file-open", f"Expected {path} to be readable by its owner alone, it is not.",
                                hint=f"chmod 600 {path}, after finding out who has read it.")
            pem = path.read_bytes()
            key = load_pem_private_key(pem, self._passphrase_for(pem))
            if not isinstance(key, Ed25519PrivateKey):
                raise ValueError("it is no ed25519 key")
        except OSError as error:
            raise UserError("key-file", f"The key {path} cannot be read: {error.strerror}.") from error
        except (ValueError, TypeError) as error:
            raise UserError("key-file", f"The key {path} cannot be opened: wrong passphrase, or a damaged file.",
                            hint="Give the passphrase with --passphrase-file FILE, or type it when asked.") from error
        return key

    def _passphrase_for(self, pem: bytes) -> bytes | None:
        if b"ENCRYPTED" not in pem:
            return None
        if self._passphrase is None:
            if self._ask is None:
                raise UserError("passphrase-needed", "The keys are encrypted and no passphrase was given.",
                                hint="Use --passphrase-file FILE.")
            self._passphrase = self._ask()
        return self._passphrase
