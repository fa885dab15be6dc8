"""The publisher's side of the signed repository: a folder of static files.

Layout: `metadata/` (TUF, consistent snapshots), `targets/` (manifests), `payloads/` (driver packages, by hash).
Roles: root -> targets -> `drivers` (terminating) -> 1024 succinct hash bins, so that a client fetches a few kilobytes
whatever the number of devices (TUF TAP 15). A release writes new files first and timestamp.json last, by rename: a client sees
the old release or the new one, never a mixture.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from keyfit.errors import DataError, StorageError
from keyfit.model.catalog import Payload
from keyfit.publisher.keys import KeyFolder

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner
    from tuf.api.metadata import Metadata, Root, Snapshot, TargetFile, Targets, Timestamp

DEFAULT_BIN_BITS = 10
"""1024 bins. Clients cannot follow a later change of this number, so it is chosen once."""
BIN_PREFIX = "drivers-bin"
DRIVER_PATHS = ["usb/*/*", "brand/*/*"]
LIFETIMES_DAYS = {"root": 365, "targets": 180, "drivers": 180, "bins": 90, "snapshot": 30, "timestamp": 3}
"""How long each role's metadata is valid."""
RENEW_BEFORE_DAYS = 30
"""A release signs a bin anew, unchanged though it is, when it has less than this left."""

T = TypeVar("T", "Root", "Targets", "Snapshot", "Timestamp")


class PublisherRepository:
    """A repository below `folder`/repository with its keys in `folder`/keys.

    Args:
        now: the time that expiry dates count from.
    """

    def __init__(self, folder: Path, *, password: bytes | None = None, now: datetime | None = None) -> None:
        self.folder = folder
        self.public = folder / "repository"
        self.keys = KeyFolder(folder / "keys", password)
        self._now = (now or datetime.now(UTC)).replace(microsecond=0)

    def create(self, bin_bits: int = DEFAULT_BIN_BITS) -> None:
        """Make keys and an empty, signed repository.

        Raises:
            DataError: there is one already.
            StorageError: it cannot be written.
        """
        from tuf.api.metadata import Metadata, Root, Snapshot, Timestamp

        if self.public.exists():
            raise DataError("repository-exists", f"{self.public} is there already.", hint="Choose another folder.")
        self.keys.create()
        for name in ("metadata", "targets", "payloads"):
            _make(self.public / name)
        root = Root(consistent_snapshot=True, expires=self._expiry("root"))
        for role in ("root", "targets", "snapshot", "timestamp"):
            root.add_key(self.keys.public(role), role)
        self._write(Metadata(root), "root", "root")
        self._write(Metadata(self._targets_role()), "targets", "targets")
        drivers = self._drivers_role(bin_bits)
        self._write(Metadata(drivers), "drivers", "drivers")
        snapshot, timestamp = Snapshot(expires=self._expiry("snapshot")), Timestamp(expires=self._expiry("timestamp"))
        snapshot.version = timestamp.version = 0
        self._publish(snapshot, timestamp, self._sign_bins(drivers, {}, {}) | {"targets": 1, "drivers": 1})

    def add_payload(self, brand: str, package: str, file: Path) -> Payload:
        """Put a package file into the repository, under its hash.

        Raises:
            StorageError: it cannot be read or stored.
        """
        try:
            with file.open("rb") as source:
                digest = hashlib.file_digest(source, "sha256").hexdigest()
            payload = msgspec.convert({"file": file.name, "sha256": digest, "length_bytes": file.stat().st_size}, Payload)
            target = self.public / "payloads" / payload.path
            target.parent.mkdir(parents=True, exist_ok=True)
            beside = target.with_name(target.name + ".new")
            shutil.copyfile(file, beside)
            beside.replace(target)
        except OSError as error:
            raise _storage(file, error) from error
        known = self.payloads()
        known[brand, package] = payload
        rows = [{"brand": b, "package": p, **msgspec.to_builtins(v)} for (b, p), v in sorted(known.items())]
        _replace(self.folder / "payloads.json", json.dumps(rows, indent=1).encode())
        return payload

    def payloads(self) -> dict[tuple[str, str], Payload]:
        """(brand, package id) -> what was added for it.

        Raises:
            DataError: the list is damaged.
        """
        path = self.folder / "payloads.json"
        if not path.exists():
            return {}
        try:
            rows = json.loads(path.read_bytes())
            return {(r.pop("brand"), r.pop("package")): msgspec.convert(r, Payload) for r in rows}
        except (ValueError, KeyError, AttributeError, msgspec.ValidationError) as error:
            raise DataError("payload-list-damaged", f"{path} is damaged: {error}.", hint="Add the packages again.") from error

    def release(self, manifests: Mapping[str, bytes]) -> int:
        """Publish these manifests and nothing else; returns how many metadata files were signed.

        Raises:
            DataError: there is no repository here.
            StorageError: it cannot be written; readers still see the release before.
        """
        drivers = self._drivers()
        wanted: dict[str, dict[str, TargetFile]] = {}
        for path, data in manifests.items():
            wanted.setdefault(_bin_of(drivers, path), {})[path] = self._store_target(path, data)
        snapshot = self._snapshot()
        versions = {name.removesuffix(".json"): meta.version for name, meta in snapshot.meta.items()}
        changed = self._sign_bins(drivers, wanted, versions)
        self._publish(snapshot, self._timestamp(), {**versions, **changed})
        return len(changed) + 2

    def refresh(self) -> None:
        """Renew snapshot and timestamp.

        Raises:
            DataError, StorageError: as `release`.
        """
        snapshot = self._snapshot()
        versions = {name.removesuffix(".json"): meta.version for name, meta in snapshot.meta.items()}
        self._publish(snapshot, self._timestamp(), versions)

    def _targets_role(self) -> "Targets":
        from tuf.api.metadata import DelegatedRole, Delegations, Targets

        key = self.keys.public("drivers")
        role = DelegatedRole("drivers", [key.keyid], 1, terminating=True, paths=DRIVER_PATHS)
        return Targets(expires=self._expiry("targets"), delegations=Delegations({key.keyid: key}, roles={"drivers": role}))

    def _drivers_role(self, bin_bits: int) -> "Targets":
        from tuf.api.metadata import Delegations, SuccinctRoles, Targets

        key = self.keys.public("bins")
        bins = SuccinctRoles([key.keyid], 1, bin_bits, BIN_PREFIX)
        return Targets(expires=self._expiry("drivers"), delegations=Delegations({key.keyid: key}, succinct_roles=bins))

    def _sign_bins(self, drivers: "Targets", wanted: Mapping[str, "dict[str, TargetFile]"],
                   versions: Mapping[str, int]) -> dict[str, int]:
        """Write every bin whose content changed or that expires soon; name -> new version."""
        from tuf.api.metadata import Metadata, Targets

        if drivers.delegations is None or drivers.delegations.succinct_roles is None:
            raise DataError("repository-malformed", "The role `drivers` has no bins.")
        signed = {}
        renew = self._now + timedelta(days=RENEW_BEFORE_DAYS)
        for name in drivers.delegations.succinct_roles.get_roles():
            version = versions.get(name, 0)
            content = wanted.get(name, {})
            if version:
                old = self._read(f"{version}.{name}.json", Targets)
                if old.targets == content and old.expires > renew:
                    continue
            role = Targets(version=version + 1, expires=self._expiry("bins"), targets=content)
            self._write(Metadata(role), name, "bins")
            signed[name] = version + 1
        return signed

    def _publish(self, snapshot: "Snapshot", timestamp: "Timestamp", versions: Mapping[str, int]) -> None:
        from tuf.api.metadata import Metadata, MetaFile

        snapshot.version += 1
        snapshot.expires = self._expiry("snapshot")
        snapshot.meta = {f"{name}.json": MetaFile(version) for name, version in sorted(versions.items())}
        self._write(Metadata(snapshot), "snapshot", "snapshot")
        timestamp.version += 1
        timestamp.expires = self._expiry("timestamp")
        timestamp.snapshot_meta = MetaFile(snapshot.version)
        self._write(Metadata(timestamp), "timestamp", "timestamp")

    def _write(self, metadata: "Metadata[T]", name: str, key: str) -> None:
        """Sign and write one file; all but the timestamp carry their version in the name."""
        from tuf.api.serialization.json import JSONSerializer

        metadata.sign(self.keys_cached(key))
        data = metadata.to_bytes(JSONSerializer(compact=True))
        prefix = "" if name == "timestamp" else f"{metadata.signed.version}."
        _replace(self.public / "metadata" / f"{prefix}{name}.json", data)

    def keys_cached(self, role: str) -> "CryptoSigner":
        """A role's signer, loaded once: a release signs with the bins' key a thousand times."""
        loaded: dict[str, CryptoSigner] = self.__dict__.setdefault("_signers", {})
        if role not in loaded:
            loaded[role] = self.keys.signer(role)
        return loaded[role]

    def _drivers(self) -> "Targets":
        from tuf.api.metadata import Targets

        return self._read(f"{self._snapshot().meta['drivers.json'].version}.drivers.json", Targets)

    def _snapshot(self) -> "Snapshot":
        from tuf.api.metadata import Snapshot

        return self._read(f"{self._timestamp().snapshot_meta.version}.snapshot.json", Snapshot)

    def _timestamp(self) -> "Timestamp":
        from tuf.api.metadata import Timestamp

        return self._read("timestamp.json", Timestamp)

    def _read(self, name: str, kind: type[T]) -> T:
        from tuf.api.exceptions import RepositoryError
        from tuf.api.metadata import Metadata
        from tuf.api.serialization import DeserializationError

        path = self.public / "metadata" / name
        try:
            signed = Metadata.from_bytes(path.read_bytes()).signed
        except OSError as error:
            raise DataError("no-repository", f"{path} cannot be read: {error.strerror}.",
                            hint="Make a repository with `keyfit-publish init`.") from error
        except (DeserializationError, RepositoryError) as error:
            raise DataError("repository-malformed", f"{path} is malformed: {error}.", hint="Restore it from a backup.") from error
        if not isinstance(signed, kind):
            raise DataError("repository-malformed", f"{path} is not a {kind.__name__.lower()}.")
        return signed

    def _store_target(self, path: str, data: bytes) -> "TargetFile":
        from tuf.api.metadata import TargetFile

        info = TargetFile.from_data(path, data, ["sha256"])
        directory, _, name = path.rpartition("/")
        stored = self.public / "targets" / directory / f"{info.hashes['sha256']}.{name}"
        if not stored.exists():
            _make(stored.parent)
            _replace(stored, data)
        return info

    def _expiry(self, role: str) -> datetime:
        return self._now + timedelta(days=LIFETIMES_DAYS[role])


def _bin_of(drivers: "Targets", path: str) -> str:
    if drivers.delegations is None or drivers.delegations.succinct_roles is None:
        raise DataError("repository-malformed", "The role `drivers` has no bins.")
    return str(drivers.delegations.succinct_roles.get_role_for_target(path))


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _storage(folder, error) from error


def _replace(path: Path, data: bytes) -> None:
    """Write beside and rename, so that a reader sees the whole old or the whole new file."""
    beside = path.with_name(path.name + ".new")
    try:
        with beside.open("wb") as file:
            file.write(data)
            if path.name == "timestamp.json":
                file.flush()
                os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise _storage(path, error) from error


def _storage(path: Path, error: OSError) -> StorageError:
    return StorageError("cannot-write", f"{path} cannot be written or read: {error.strerror}.",
                        hint="Readers still see the release before. Check the disk and the rights.")
