"""The keys that this publisher knows: `keyring.json` in the keys directory says which there are and where each one's
private half lies.

A private half is a PEM file in the keys directory (encrypted or not, readable by its owner alone), something that
securesystemslib reaches by an address (`hsm:` a PKCS#11 device, `awskms:`, `gcpkms:`, `azurekms:`, `hv:` a cloud's key
service), or somewhere else altogether: then only the public half is here, and its owner signs on another machine.
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from msgspec import Struct

from keyfit.errors import HostError, StorageError, UserError
from keyfit.privatefiles import write_private

if TYPE_CHECKING:
    from securesystemslib.signer import Key

FILE_NAME = "keyring.json"
SCHEMES = ("ed25519", "ecdsa", "ml-dsa")
"""Kinds of key that can be made here: Ed25519, ECDSA on P-384, ML-DSA-65 (post-quantum)."""
REMOTE = ("hsm", "awskms", "gcpkms", "azurekms", "hv")
"""Address schemes that are passed on to securesystemslib (its `securesystemslib.signer`, version 1.6)."""
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,79}\Z")
_MAX_PEM_BYTES = 20_000

AskSecret = Callable[[str], bytes]
"""Asks for the secret that is named: "passphrase" of the key files, or "pin" of a PKCS#11 device."""


class Signs(Protocol):
    """A key that can sign: securesystemslib's Signer, or ours around one."""

    @property
    def public_key(self) -> Any:
        """The public half."""

    def sign(self, payload: bytes) -> Any:
        """A signature."""


class KeyEntry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key. `location` is "file:<name>" below the keys directory, an address, or "" if it is somebody else's."""

    name: str
    keyid: str
    location: str
    public: dict[str, Any]

    @property
    def owner(self) -> str:
        """The role whose key it is, by its name: "root-1" is one of "root"."""
        return re.sub(r"-\d+(-pq)?\Z", "", self.name)

    def key(self) -> "Key":
        """The public half."""
        from securesystemslib.signer import Key

        return Key.from_dict(self.keyid, dict(self.public))


class Keyring:
    """The keys in one directory. Secrets are asked for once each, when first needed."""

    def __init__(self, folder: Path, ask: AskSecret | None = None) -> None:
        self.folder = folder
        self._ask = ask
        self._secrets: dict[str, bytes] = {}
        self._entries: list[KeyEntry] | None = None
        self._signers: dict[str, Signs] = {}

    def entries(self) -> list[KeyEntry]:
        """Every key, in the order in which they were added.

        Raises:
            HostError: the keyring is damaged.
        """
        if self._entries is None:
            try:
                self._entries = msgspec.json.decode((self.folder / FILE_NAME).read_bytes(), type=list[KeyEntry])
            except FileNotFoundError:
                self._entries = []
            except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
                raise HostError("keyring-damaged", f"{self.folder / FILE_NAME} cannot be read: {error}.") from error
        return self._entries

    def of(self, owner: str) -> list[KeyEntry]:
        """The keys of a role, in the order of their numbers."""
        return [entry for entry in self.entries() if entry.owner == owner]

    def next_name(self, owner: str, suffix: str = "") -> str:
        """A name that no key has or had."""
        numbers = [int(m.group(1)) for e in self.entries() if (m := re.match(rf"{re.escape(owner)}-(\d+)", e.name))]
        return f"{owner}-{max(numbers, default=0) + 1}{suffix}"

    def make(self, name: str, scheme: str = "ed25519", passphrase: bytes | None = None) -> KeyEntry:
        """Make a new key file; `passphrase` encrypts it.

        Raises:
            HostError: there is such a file already, or it cannot be written.
        """
        from cryptography.hazmat.primitives import serialization
        from securesystemslib.signer import SSlibKey

        private = _generate(scheme)
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if passphrase:
            encryption = serialization.BestAvailableEncryption(passphrase)
            self._secrets["passphrase"] = passphrase
        pem = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        path = self.folder / f"{name}.pem"
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.touch(mode=0o600, exist_ok=False)
            path.write_bytes(pem)
        except FileExistsError as error:
            raise HostError("keys-exist", f"Expected no keys yet, {error.filename} is there already.",
                            hint="Choose another directory; keys are never overwritten.") from error
        except OSError as error:
            raise StorageError("cannot-write", f"The key {path} cannot be written: {error.strerror}.",
                               hint="Check the disk's room and who may write there.") from error
        return self._add(name, SSlibKey.from_crypto(private.public_key()), f"file:{path.name}")

    def use(self, name: str, where: str) -> KeyEntry:
        """Take a key in that is there already.

        Args:
            where: a PEM file with a public or private key (a private one stays where it is and is not copied: only its
                public half is noted), or an address such as "hsm:2?label=keyfit".

        Raises:
            UserError: it is no key that can be used.
        """
        if _is_remote(where):
            key, location = self._import(where), where
        else:
            key, location = _public_from_file(Path(where), self._secret), ""
        if any(entry.keyid == key.keyid for entry in self.entries()):
            raise UserError("key-known", f"The key {where} is in this keyring already.",
                            hint="One key may not count twice; use another.")
        return self._add(name, key, location)

    def has(self, keyid: str) -> bool:
        """True if the private half of a key can be used from here."""
        return any(entry.keyid == keyid and self._is_here(entry) for entry in self.entries())

    def signer(self, keyid: str) -> "Signs | None":
        """What signs with a key, or None if its private half is not here.

        Raises:
            UserError: a key file is readable by others, damaged, or its passphrase is wrong.
        """
        if keyid not in self._signers:
            entry = next((e for e in self.entries() if e.keyid == keyid), None)
            if entry is None or not self._is_here(entry):
                return None
            self._signers[keyid] = self._open(entry)
        return self._signers[keyid]

    def lend(self, where: str, wanted: Iterable[KeyEntry]) -> tuple[str, "Signs"]:
        """A key that is not in the keyring, for one signing: (keyid, what signs with it).

        Args:
            where: a private PEM file, or an address; of addresses, `wanted` says which public key belongs to it.

        Raises:
            UserError: it is no key that can be used.
        """
        if not _is_remote(where):
            signer = _file_signer(Path(where), self._secret)
        else:
            known = next((e for e in wanted if e.location == where), None)
            key = known.key() if known is not None else self._import(where)
            signer = _remote_signer(where, key, self._secret)
        return signer.public_key.keyid, signer

    def _add(self, name: str, key: "Key", location: str) -> KeyEntry:
        if not _NAME.fullmatch(name):
            raise UserError("key-name", f"Expected a key name of small letters, digits and dashes, came {name!a}.")
        entry = KeyEntry(name=name, keyid=key.keyid, location=location, public=key.to_dict())
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._entries = [*self.entries(), entry]
        write_private(self.folder / FILE_NAME, msgspec.json.format(msgspec.json.encode(self._entries)))
        return entry

    def _is_here(self, entry: KeyEntry) -> bool:
        scheme, _, rest = entry.location.partition(":")
        return scheme in REMOTE or (scheme == "file" and (self.folder / rest).exists())

    def _open(self, entry: KeyEntry) -> "Signs":
        scheme, _, rest = entry.location.partition(":")
        if scheme != "file":
            return _remote_signer(entry.location, entry.key(), self._secret)
        signer = _file_signer(self.folder / rest, self._secret)
        if signer.public_key.keyid != entry.keyid:
            raise UserError("key-file", f"Expected the key {entry.name} in {self.folder / rest}, it is another one.",
                            hint="Put the right file back.")
        return signer

    def _import(self, address: str) -> "Key":
        if not address.startswith("hsm:"):
            raise UserError("key-address", f"Only the owner of {address} can say what its public key is.",
                            hint="Give the public key as a PEM file with --key, then use the address to sign.")
        return _import_from_device(address, self._secret)

    def _secret(self, kind: str) -> bytes:
        if kind not in self._secrets:
            if self._ask is None:
                raise UserError("passphrase-needed", f"The keys need a {kind} and none was given.",
                                hint=f"Use --{kind}-file FILE.")
            self._secrets[kind] = self._ask(kind)
        return self._secrets[kind]


def _generate(scheme: str) -> Any:
    if scheme == "ml-dsa":
        from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey

        return MLDSA65PrivateKey.generate()
    if scheme == "ecdsa":
        from cryptography.hazmat.primitives.asymmetric import ec

        return ec.generate_private_key(ec.SECP384R1())
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.generate()


def _is_remote(where: str) -> bool:
    return where.partition(":")[0] in REMOTE


def _read_pem(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_PEM_BYTES)
    except OSError as error:
        raise UserError("key-file", f"The key {path} cannot be read: {error.strerror}.") from error


def _public_from_file(path: Path, secret: AskSecret) -> "Key":
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from securesystemslib.signer import SSlibKey

    pem = _read_pem(path)
    if b"PRIVATE KEY" in pem:
        mine: Key = _file_signer(path, secret).public_key
        return mine
    try:
        key: Key = SSlibKey.from_crypto(load_pem_public_key(pem))
    except ValueError as error:
        raise UserError("key-file", f"Expected a public or private key in PEM form in {path}: {error}.",
                        hint="openssl pkey -in key.pem -pubout -out public.pem") from error
    return key


def _file_signer(path: Path, secret: AskSecret) -> "Signs":
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from securesystemslib.signer import CryptoSigner

    pem = _read_pem(path)
    if path.stat().st_mode & 0o077:
        raise UserError("key-file-open", f"Expected {path} to be readable by its owner alone, it is not.",
                        hint=f"chmod 600 {path}, after finding out who has read it.")
    passphrase = secret("passphrase") if b"ENCRYPTED" in pem else None
    try:
        return CryptoSigner(load_pem_private_key(pem, passphrase))
    except (ValueError, TypeError) as error:
        raise UserError("key-file", f"The key {path} cannot be opened: wrong passphrase, a damaged file, or a kind of key"
                        " that cannot sign.", hint="Give the passphrase with --passphrase-file FILE, or type it when"
                        " asked.") from error


def _remote_signer(address: str, key: "Key", secret: AskSecret) -> "Signs":
    from securesystemslib.exceptions import Error
    from securesystemslib.signer import Signer

    try:
        return _Told(Signer.from_priv_key_uri(address, key, lambda kind: secret(kind).decode()), address)
    except (ValueError, Error, ImportError, OSError) as error:
        raise _not_reached(address, error) from error


def _import_from_device(address: str, secret: AskSecret) -> "Key":
    from urllib.parse import parse_qsl, urlsplit

    from securesystemslib.exceptions import Error
    from securesystemslib.signer import HSMSigner

    parts = urlsplit(address)
    try:
        number = int(parts.path) if parts.path else None
        return HSMSigner.import_(number, dict(parse_qsl(parts.query)).get("label"), lambda kind: secret(kind).decode())[1]
    except (ValueError, Error, OSError) as error:
        raise _not_reached(address, error) from error
    except Exception as error:
        if _is_pkcs11(error):
            raise _not_reached(address, error) from error
        raise


def _is_pkcs11(error: Exception) -> bool:
    """python-pkcs11's own exceptions have no common base class outside its module, which may not be installed."""
    return type(error).__module__.startswith("pkcs11")


def _not_reached(address: str, error: Exception) -> UserError:
    what = str(error) or type(error).__name__
    return UserError("key-not-reached", f"The key {address} cannot be used: {what}.",
                     hint="For hsm: set PYKCS11LIB to the device's PKCS#11 module, check the label, the key's number and"
                     " the PIN. For a cloud's key: log in with its own tools first.")


class _Told:
    """A signer of another house, whose errors are told in our words."""

    def __init__(self, signer: "Signs", address: str) -> None:
        self._signer = signer
        self._address = address
        self.public_key = signer.public_key

    def sign(self, payload: bytes) -> Any:
        """Sign.

        Raises:
            UserError: code "key-not-reached".
        """
        try:
            return self._signer.sign(payload)
        except Exception as error:  # each cloud's library has exceptions of its own
            raise _not_reached(self._address, error) from error
