"""The signed repository on the publisher's disk: a folder of static files that any https server can serve.

Consistent snapshots: nothing but `timestamp.json` is ever overwritten, and that comes last, by a rename, so that a reader
sees the old repository or the new one. What rarely changes, and the timestamp, also lies there compressed (`.json.gz`), for
servers that send such files as they are. Snapshot and hash bins, which change with every release, are left to the server, so
that a small change writes little.
"""

import gzip
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from msgspec import Struct
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, SuccinctRoles, Targets
from tuf.api.serialization.json import JSONSerializer

from keyfit.errors import HostError, StorageError, TrustError
from keyfit.publisher.roles import BRAND_PREFIX, ONLINE, Layout, brand_role, is_bin, kind_of

TOP_ROLES = ("root", "targets", "snapshot", "timestamp")


class Published(Struct, frozen=True, kw_only=True):
    """What was published. `expires` is role -> ISO 8601. `targets` is None if only a part was looked at."""

    changed_targets: int
    changed_bins: int
    versions: dict[str, int]
    expires: dict[str, str]
    targets: int | None = None


class PublisherRepository:
    """One repository folder.

    Args:
        folder: has `metadata/`, `targets/` and `payloads/`.
        now: the time that dates are reckoned from.
    """

    def __init__(self, folder: Path, layout: Layout = ONLINE, now: Callable[[], datetime] | None = None) -> None:
        self.folder = folder
        self.layout = layout
        self.now = now or (lambda: datetime.now(UTC))
        self._metadata = folder / "metadata"
        self._loaded: dict[str, Metadata[Any]] = {}
        self._serializer = JSONSerializer(compact=True)

    # -- reading --------------------------------------------------------------------------------------------------

    def exists(self) -> bool:
        """True if something was ever published here."""
        return self._metadata.exists()

    def load(self, role: str) -> Metadata[Any]:
        """The newest published version of a role. Not to be changed.

        Raises:
            HostError: there is no repository, or it is damaged.
        """
        if role not in self._loaded:
            path = self.path_of(role, self.version(role))
            try:
                self._loaded[role] = Metadata.from_bytes(path.read_bytes())
            except OSError as error:
                raise HostError("no-repository-here", f"Expected a repository in {self.folder}, {path.name} cannot be"
                                f" read: {error.strerror}.", hint="Make one with keyfit-publish init.") from error
            except RepositoryError as error:
                raise HostError("repository-damaged", f"{path} is no metadata: {error}.") from error
        return self._loaded[role]

    def version(self, role: str) -> int:
        """The newest version: from the snapshot for what it lists, from file names for root; 0 if there is none."""
        if role == "timestamp":
            return 0  # its file has no version in its name
        if role == "snapshot":
            return int(self.load("timestamp").signed.snapshot_meta.version)
        if role == "root":
            return max((int(p.name.split(".")[0]) for p in self._metadata.glob("*.root.json")), default=1)
        listed = self.load("snapshot").signed.meta.get(f"{role}.json")
        return int(listed.version) if listed is not None else 0

    def root(self) -> Root:
        """The newest root."""
        signed: Root = self.load("root").signed
        return signed

    def succinct(self) -> SuccinctRoles:
        """The hash bins."""
        drivers: Targets = self.load("drivers").signed
        if drivers.delegations is None or drivers.delegations.succinct_roles is None:
            raise HostError("repository-damaged", "Expected hash bins below the role drivers, there are none.")
        return drivers.delegations.succinct_roles

    def bin_names(self) -> Iterable[str]:
        """Every hash bin."""
        return self.succinct().get_roles()

    def delegated_brands(self) -> list[str]:
        """The brands that sign with keys of their own."""
        delegations = self.load("targets").signed.delegations
        roles = delegations.roles if delegations is not None and delegations.roles is not None else {}
        return [role.removeprefix(BRAND_PREFIX) for role in roles if role.startswith(BRAND_PREFIX)]

    def role_of(self, target: str) -> str:
        """The role that has to sign a target path."""
        return role_of(target, self.load("targets").signed, self.succinct())

    def target(self, path: str) -> bytes | None:
        """The published content of a target, or None.

        Raises:
            HostError: its file is gone or has other bytes.
        """
        info = self.load(self.role_of(path)).signed.targets.get(path)
        if info is None:
            return None
        file = self.folder / target_file(path, info.hashes["sha256"])
        try:
            data = file.read_bytes()
            info.verify_length_and_hashes(data)
        except (OSError, RepositoryError) as error:
            raise HostError("repository-damaged", f"Expected the target {path} in {file}: {error}.",
                            hint="Release everything again.") from error
        return data

    def targets(self) -> Iterable[str]:
        """Every target path. Reads every role: slow for a large repository."""
        for role in self.target_roles():
            yield from self.load(role).signed.targets

    def target_roles(self) -> list[str]:
        """Every role that may have targets."""
        brands = [brand_role(brand) for brand in self.delegated_brands()]
        return [*(["app"] if self.layout.has_app else []), *brands, *self.bin_names()]

    def is_ageing(self, role: str) -> bool:
        """True if half of the role's life is over."""
        life = timedelta(days=self.layout.life_days[kind_of(role)])
        return bool(self.load(role).signed.expires - self.now() < life / 2)

    def expiry(self, role: str) -> datetime:
        """When a role that is signed now will expire."""
        return self.now().replace(microsecond=0) + timedelta(days=self.layout.life_days[kind_of(role)])

    def check_root_life(self, expires: datetime) -> None:
        """See that clients would still accept the root.

        Raises:
            TrustError: code "root-expired".
        """
        if expires <= self.now():
            raise TrustError("root-expired", f"The root of this repository expired on {expires:%Y-%m-%d}; no client would"
                             " accept what it signs.", hint="Sign a new root: keyfit-publish rotate DIR root")

    def path_of(self, role: str, version: int) -> Path:
        """The file of a role's version."""
        return self._metadata / ("timestamp.json" if role == "timestamp" else f"{version}.{role}.json")

    def serialize(self, metadata: Metadata[Any]) -> bytes:
        """Metadata as it is written."""
        return metadata.to_bytes(self._serializer)

    # -- writing --------------------------------------------------------------------------------------------------

    def publish(self, roles: Mapping[str, Metadata[Any]], new_targets: Path, *, root_first: bool) -> None:
        """Write verified roles; the timestamp and, unless `root_first`, the root come last.

        Args:
            roles: with the timestamp among them.
            new_targets: folder of target files, which are moved into the repository.

        Raises:
            StorageError: a file cannot be written. Readers still see the version before.
        """
        try:
            self._move_targets(new_targets)
            for role, metadata in roles.items():
                if role not in ("timestamp", "root"):
                    self._write_role(role, metadata)
            if hasattr(os, "sync"):
                os.sync()  # once for all the new files, before those that refer to them
            late = ("root", "timestamp") if root_first else ("timestamp", "root")
            for role in late:
                if role in roles:
                    self._write_role(role, roles[role])
        finally:
            self._loaded.clear()

    def summary(self, changed_targets: int, changed_bins: int, targets: int | None) -> Published:
        """What there is now."""
        names = [name for name in ("root", "targets", *(["app"] if self.layout.has_app else []), "drivers", "snapshot",
                                   "timestamp")]
        loaded = {name: self.load(name).signed for name in names}
        expires = {name: signed.expires for name, signed in loaded.items()}
        if targets is not None:
            expires["bins"] = min(self.load(name).signed.expires for name in self.bin_names())
        return Published(targets=targets, changed_targets=changed_targets, changed_bins=changed_bins,
                         versions={name: signed.version for name, signed in loaded.items()},
                         expires={name: moment.isoformat() for name, moment in expires.items()})

    def _move_targets(self, new_targets: Path) -> None:
        for file in sorted(new_targets.rglob("*")) if new_targets.exists() else ():
            if file.is_file():
                final = self.folder / "targets" / file.relative_to(new_targets)
                try:
                    final.parent.mkdir(parents=True, exist_ok=True)
                    file.replace(final)
                except OSError as error:
                    raise cannot_publish(final, error) from error

    def _write_role(self, role: str, metadata: Metadata[Any]) -> None:
        data = self.serialize(metadata)
        path = self.path_of(role, metadata.signed.version)
        if not is_bin(role) and role != "snapshot":
            _write_file(path.with_name(path.name + ".gz"), compressed(data))
        _write_file(path, data)


def role_of(target: str, targets: Targets, bins: SuccinctRoles) -> str:
    """The role that has to sign a target path, by what `targets` delegates to and the hash bins of `drivers`."""
    first, _, rest = target.partition("/")
    if first == "app":
        return "app"
    own = brand_role(rest.partition("/")[0])
    roles = targets.delegations.roles if targets.delegations is not None else None
    return own if first == "brand" and own in (roles or {}) else bins.get_role_for_target(target)


def compressed(data: bytes) -> bytes:
    """Gzip without a date, so that the same content has the same bytes."""
    return gzip.compress(data, 9, mtime=0)


def target_file(path: str, sha256: str) -> str:
    """Where a target lies below the repository's folder (TUF specification 1.0.34, section 6.2)."""
    folder, _, name = path.rpartition("/")
    return f"targets/{folder}/{sha256}.{name}"


def write_targets(folder: Path, targets: Mapping[str, bytes]) -> None:
    """Write targets' contents under the names that they are served by. One that is there already is left alone: it may be
    being read. Plain os calls, since there may be a hundred thousand.

    Args:
        folder: stands for the repository's `targets/`.

    Raises:
        StorageError: one cannot be written.
    """
    made: set[str] = set()
    base = str(folder)
    for path, data in targets.items():
        file = os.path.join(base, target_file(path, hashlib.sha256(data).hexdigest())[len("targets/"):])  # noqa: PTH118
        try:
            directory = file.rpartition("/")[0]
            if directory not in made:
                os.makedirs(directory, exist_ok=True)  # noqa: PTH103
                made.add(directory)
            _write_target(file, data)
        except OSError as error:
            raise cannot_publish(Path(file), error) from error


def _write_target(file: str, data: bytes) -> None:
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        with open(file, "rb") as old:
            if old.read(len(data) + 1) == data:
                return
        fresh = file + ".new"  # what a power cut left; its name is its hash, so nothing good can be under it
        with open(fresh, "wb") as new:
            new.write(data)
        os.replace(fresh, file)  # noqa: PTH105
        return
    with os.fdopen(handle, "wb") as new:
        new.write(data)


def cannot_publish(path: Path, error: OSError) -> StorageError:
    """The error for a file that could not be written."""
    return StorageError("cannot-write", f"{path} cannot be written: {error.strerror or error}.",
                        hint="Nothing was published; clients still see the version before.")


def _write_file(path: Path, data: bytes) -> None:
    """Replace or make a file: a reader never sees half of it."""
    fresh = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with fresh.open("wb") as file:
            file.write(data)
            if path.name.startswith("timestamp.") or ".root." in path.name:
                file.flush()
                os.fsync(file.fileno())
        if path.name.startswith("timestamp."):
            _date_after(fresh, path)
        fresh.replace(path)
    except OSError as error:
        raise cannot_publish(path, error) from error


def _date_after(fresh: Path, old: Path) -> None:
    """Date a file in another second than the one it replaces: web servers tell versions apart by second and size, and clients
    that ask whether anything is new rely on that."""
    if old.exists():
        earlier = int(old.stat().st_mtime)
        if int(fresh.stat().st_mtime) <= earlier:
            os.utime(fresh, (earlier + 1, earlier + 1))
