"""Writes the signed repository: a folder of static files that any https server can serve.

`root` delegates to `targets`, that (terminating) to `drivers`, that to 1024 hash bins, which name the manifests. The
number of bins can never be changed for clients that have seen it: TUF refuses a snapshot that lacks a role it had
(specification 1.0.34, 5.5.5). Consistent snapshots: nothing but `timestamp.json` is ever overwritten, and that comes
last, by a rename, so that a reader sees the old repository or the new one.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from msgspec import Struct
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    SuccinctRoles,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

from keyfit.errors import HostError, StorageError, TrustError, UserError
from keyfit.publisher.keys import KeyStore, Threshold
from keyfit.trust.metadata import SIGNED_AT

BIN_BITS = 10
"""2 ** 10 bins: about 13 kB for a first contact with 100 000 manifests, and 16 000 bins would cost 41 kB of snapshot."""
BIN_PREFIX = "drivers"
LIFE_DAYS: Mapping[str, int] = {"root": 365, "targets": 180, "drivers": 180, "bins": 90, "snapshot": 30, "timestamp": 3}
"""How long a role's signature counts. What is signed by people lasts; what a machine signs is renewed daily."""
TARGET_PATHS = ("usb/*/*", "brand/*/*")
"""What `drivers` may name (TUF path patterns match segment by segment)."""


class Published(Struct, frozen=True, kw_only=True):
    """What a release or refresh did. `expires` is role -> ISO 8601; for "bins" the earliest."""

    targets: int
    changed_targets: int
    changed_bins: int
    versions: dict[str, int]
    expires: dict[str, str]


class PublisherRepository:
    """One repository folder and the keys that sign it.

    Args:
        folder: gets `metadata/`, `targets/` and `payloads/`.
        now: the time that dates are reckoned from.
    """

    def __init__(self, folder: Path, keys: KeyStore, now: Callable[[], datetime] | None = None) -> None:
        self.folder = folder
        self.now = now or (lambda: datetime.now(UTC))
        self._metadata = folder / "metadata"
        self._keys = keys
        self._serializer = JSONSerializer(compact=True)
        self._loaded: dict[str, Metadata[Any]] = {}
        self._pending: dict[str, Metadata[Any]] = {}

    # -- what publishers do ---------------------------------------------------------------------------------------

    def create(self, thresholds: Mapping[str, Threshold], bin_bits: int = BIN_BITS) -> Published:
        """Make the first version of every role, with no targets yet.

        Raises:
            HostError: there is a repository already.
            UserError: a key is missing.
        """
        if self._metadata.exists():
            raise HostError("repository-exists", f"Expected no repository yet, {self._metadata} is there already.",
                            hint="Choose another directory.")
        root = Root(expires=self._expiry("root"), consistent_snapshot=True)
        for role in ("root", "targets", "snapshot", "timestamp"):
            for signer in self._keys.signers(role):
                root.add_key(signer.public_key, role)
            root.roles[role].threshold = thresholds[role].needed
        self._pending["root"] = Metadata(root)
        self._pending["targets"] = Metadata(self._delegating_targets(thresholds))
        self._pending["drivers"] = Metadata(self._delegating_drivers(thresholds, bin_bits))
        for name in self._bin_names():
            self._pending[name] = Metadata(Targets(expires=self._expiry("bins")))
        snapshot, timestamp = Snapshot(expires=self._expiry("snapshot")), Timestamp(expires=self._expiry("timestamp"))
        snapshot.version = timestamp.version = 0  # publishing makes it 1
        self._pending["snapshot"], self._pending["timestamp"] = Metadata(snapshot), Metadata(timestamp)
        return self._publish(0)

    def release(self, targets: Mapping[str, bytes]) -> Published:
        """Publish exactly these targets. Bins that change, or have less than half of their life left, are signed anew.

        Args:
            targets: target path -> content.

        Raises:
            UserError: a key is missing.
            StorageError: not writable.
        """
        by_bin: dict[str, dict[str, TargetFile]] = {name: {} for name in self._bin_names()}
        succinct = self._succinct()
        for path, data in targets.items():
            by_bin[succinct.get_role_for_target(path)][path] = TargetFile.from_data(path, data, ["sha256"])
        changed = 0
        for name, wanted in by_bin.items():
            bin_ = self._load(name)
            differing = {p for p in wanted.keys() | bin_.signed.targets.keys()
                         if wanted.get(p) != bin_.signed.targets.get(p)}
            if differing or self._is_ageing(bin_.signed, "bins"):
                bin_.signed.targets = wanted
                self._renew(name, bin_)
            for path in sorted(differing & wanted.keys()):
                self._write_target(path, targets[path])
            changed += len(differing)
        for name in ("targets", "drivers"):
            if self._is_ageing(self._load(name).signed, name):
                self._renew(name, self._load(name))
        return self._publish(changed)

    def refresh(self) -> Published:
        """Sign a new timestamp, and a new snapshot if half of its life is over: every new snapshot is downloaded by
        every client."""
        return self._publish(0)

    # -- delegation -----------------------------------------------------------------------------------------------

    def _delegating_targets(self, thresholds: Mapping[str, Threshold]) -> Targets:
        signers = self._keys.signers("drivers")
        drivers = DelegatedRole("drivers", [s.public_key.keyid for s in signers], thresholds["drivers"].needed,
                                terminating=True, paths=list(TARGET_PATHS))
        delegations = Delegations({s.public_key.keyid: s.public_key for s in signers}, {"drivers": drivers})
        return Targets(expires=self._expiry("targets"), delegations=delegations)

    def _delegating_drivers(self, thresholds: Mapping[str, Threshold], bin_bits: int) -> Targets:
        signers = self._keys.signers("bins")
        bins = SuccinctRoles([s.public_key.keyid for s in signers], thresholds["bins"].needed, bin_bits, BIN_PREFIX)
        delegations = Delegations({s.public_key.keyid: s.public_key for s in signers}, succinct_roles=bins)
        return Targets(expires=self._expiry("drivers"), delegations=delegations)

    def _succinct(self) -> SuccinctRoles:
        drivers: Targets = self._load("drivers").signed
        delegations = drivers.delegations
        if delegations is None or delegations.succinct_roles is None:
            raise HostError("repository-damaged", "Expected hash bins below the role drivers, there are none.")
        return delegations.succinct_roles

    def _bin_names(self) -> Iterable[str]:
        return self._succinct().get_roles()

    # -- versions and signatures ----------------------------------------------------------------------------------

    def _load(self, name: str) -> Metadata[Any]:
        """A role as it will be published: what is pending, or else the newest version on disk."""
        known = self._pending.get(name) or self._loaded.get(name)
        if known is not None:
            return known
        path = self._path(name, self._version(name))
        try:
            loaded: Metadata[Any] = Metadata.from_bytes(path.read_bytes())
        except OSError as error:
            raise HostError("no-repository-here", f"Expected a repository in {self.folder}, {path.name} cannot be read:"
                            f" {error.strerror}.", hint="Make one with keyfit-publish init.") from error
        except RepositoryError as error:
            raise HostError("repository-damaged", f"{path} is no metadata: {error}.") from error
        self._loaded[name] = loaded
        return loaded

    def _version(self, name: str) -> int:
        """The newest version: from the snapshot chain for what it lists, from file names for root."""
        if name == "timestamp":
            return 0
        if name == "snapshot":
            return int(self._load("timestamp").signed.snapshot_meta.version)
        if name == "root":
            return max((int(p.name.split(".")[0]) for p in self._metadata.glob("*.root.json")), default=1)
        return int(self._load("snapshot").signed.meta[f"{name}.json"].version)

    def _renew(self, name: str, metadata: Metadata[Any]) -> None:
        metadata.signed.version += 1
        metadata.signed.expires = self._expiry(_key_role(name))
        self._pending[name] = metadata

    def _is_ageing(self, signed: Any, role: str) -> bool:
        """Half of the life is over."""
        return bool(signed.expires - self.now() < timedelta(days=LIFE_DAYS[role]) / 2)

    def _expiry(self, role: str) -> datetime:
        return self.now().replace(microsecond=0) + timedelta(days=LIFE_DAYS[role])

    def _sign(self, name: str) -> bytes:
        """Sign a pending role with every key of it that is here, and see that it is enough.

        Raises:
            UserError: code "keys-missing".
        """
        metadata = self._pending[name]
        metadata.signatures.clear()
        for signer in self._keys.signers(_key_role(name)):
            metadata.sign(signer, append=True)
        parent = self._load(_parent(name)).signed
        try:
            parent.verify_delegate(name, metadata.signed_bytes, metadata.signatures)
        except RepositoryError as error:
            raise UserError("keys-missing", f"Too few keys of the role {_key_role(name)} are here: {error}.",
                            hint="Put the missing key files into the keys directory and try again.") from error
        return metadata.to_bytes(self._serializer)

    # -- writing --------------------------------------------------------------------------------------------------

    def _publish(self, changed_targets: int) -> Published:
        """Sign what is pending and write it; last, the timestamp. Nothing is written before all is signed."""
        try:
            signed, bins = self._sign_pending()
            for name, data in signed.items():
                if name != "timestamp":
                    self._write_new(self._path(name, self._pending[name].signed.version), data)
            if hasattr(os, "sync"):
                os.sync()  # once for all the new files, before the one that refers to them
            self._write_over(self._path("timestamp", 0), signed["timestamp"])
            return self._summary(changed_targets, bins)
        finally:
            self._pending.clear()
            self._loaded.clear()

    def _sign_pending(self) -> tuple[dict[str, bytes], int]:
        """(role -> signed bytes, how many of them are bins)."""
        self._check_root_life()
        signed = {name: self._sign(name) for name in self._pending if name not in ("snapshot", "timestamp")}
        listed = [name for name in signed if name != "root"]
        snapshot = self._load("snapshot")
        if listed or self._is_ageing(snapshot.signed, "snapshot"):
            for name in listed:
                snapshot.signed.meta[f"{name}.json"] = MetaFile(self._pending[name].signed.version)
            self._renew("snapshot", snapshot)
            signed["snapshot"] = self._sign("snapshot")
        timestamp = self._load("timestamp")
        if "snapshot" in signed:
            data = signed["snapshot"]
            timestamp.signed.snapshot_meta = MetaFile(snapshot.signed.version, len(data),
                                                      {"sha256": hashlib.sha256(data).hexdigest()})
        timestamp.signed.unrecognized_fields[SIGNED_AT] = self.now().replace(microsecond=0).isoformat()
        self._renew("timestamp", timestamp)
        signed["timestamp"] = self._sign("timestamp")
        return signed, sum(1 for name in listed if _key_role(name) == "bins")

    def _check_root_life(self) -> None:
        expires = self._load("root").signed.expires
        if expires <= self.now():
            raise TrustError("root-expired", f"The root of this repository expired on {expires:%Y-%m-%d}; no client would"
                             " accept what it signs.", hint="A new root has to be signed first.")

    def _summary(self, changed_targets: int, changed_bins: int) -> Published:
        names = ("root", "targets", "drivers", "snapshot", "timestamp")
        loaded = {name: self._load(name).signed for name in names}
        bins = [self._load(name).signed for name in self._bin_names()]
        expires = {name: signed.expires for name, signed in loaded.items()} | {"bins": min(b.expires for b in bins)}
        return Published(targets=sum(len(b.targets) for b in bins), changed_targets=changed_targets,
                         changed_bins=changed_bins, versions={name: s.version for name, s in loaded.items()},
                         expires={name: moment.isoformat() for name, moment in expires.items()})

    def _path(self, name: str, version: int) -> Path:
        return self._metadata / ("timestamp.json" if name == "timestamp" else f"{version}.{name}.json")

    def _write_target(self, path: str, data: bytes) -> None:
        folder, _, name = path.rpartition("/")
        self._write_new(self.folder / "targets" / folder / f"{hashlib.sha256(data).hexdigest()}.{name}", data)

    def _write_new(self, path: Path, data: bytes) -> None:
        """Files that nothing refers to yet may be written in place."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        except OSError as error:
            raise StorageError("cannot-write", f"{path} cannot be written: {error.strerror}.",
                               hint="Nothing was published; clients still see the version before.") from error

    def _write_over(self, path: Path, data: bytes) -> None:
        fresh = path.with_name(path.name + ".new")
        self._write_new(fresh, data)
        try:
            with fresh.open("rb") as file:
                os.fsync(file.fileno())
            fresh.replace(path)
        except OSError as error:
            raise StorageError("cannot-write", f"{path} cannot be replaced: {error.strerror}.",
                               hint="Nothing was published; clients still see the version before.") from error


def _key_role(name: str) -> str:
    return "bins" if name.startswith(BIN_PREFIX + "-") else name


def _parent(name: str) -> str:
    if name == "drivers":
        return "targets"
    return "drivers" if name.startswith(BIN_PREFIX + "-") else "root"
