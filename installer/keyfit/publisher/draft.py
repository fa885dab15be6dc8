"""A change of a repository before it is published: the new versions of roles, and the signatures collected so far.

A draft is complete when every role in it has the signatures that its delegator asks for. First come the roles that name
things (root, targets, bins ...); the snapshot is made when they are complete, and the timestamp when the snapshot is. So
keys on several machines can be used one after another, and a refresh may go in between.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from msgspec import Struct
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Key,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    SuccinctRoles,
    TargetFile,
    Targets,
    Timestamp,
)

from keyfit.errors import HostError
from keyfit.publisher.repository import TOP_ROLES, PublisherRepository, role_of
from keyfit.publisher.roles import APP_PATHS, BIN_PREFIX, DRIVER_PATHS, brand_role, is_bin, kind_of, parent_of
from keyfit.trust.metadata import SIGNED_AT

Sign = Callable[[str, bytes], Any]
"""(key id, bytes) -> signature, or None if that key is not here."""


class Missing(Struct, frozen=True, kw_only=True):
    """What a role still lacks: `needed` more signatures, by any of `keyids`. `by` is the root that asks for it: "" for
    the role's own delegator, "old root" for the root before this change."""

    role: str
    needed: int
    keyids: tuple[str, ...]
    by: str = ""


class Draft:
    """New versions of roles of one repository.

    Attributes:
        roles: role -> metadata with the signatures so far.
        files: target path -> content that is new.
    """

    def __init__(self, repository: PublisherRepository, roles: Mapping[str, Metadata[Any]] | None = None) -> None:
        self.repository = repository
        self.roles: dict[str, Metadata[Any]] = dict(roles or {})
        self.files: dict[str, bytes] = {}
        self.changed_targets = 0
        self.targets: int | None = None
        self._bytes: dict[str, bytes] = {}
        self._checked: set[str] = set()

    # -- what is changed ------------------------------------------------------------------------------------------

    def edit(self, role: str) -> Any:
        """The next version of a role, to be changed; made when first asked for."""
        if role not in self.roles:
            self._begin(role, self.repository.load(role))
        metadata = self.roles[role]
        metadata.signatures.clear()
        self._bytes.pop(role, None)
        self._checked.discard(role)
        return metadata.signed

    def now(self, role: str) -> Any:
        """A role as it will be: from this draft, or else as it is published."""
        return self.roles[role].signed if role in self.roles else self.repository.load(role).signed

    def create(self, keys: Mapping[str, list[Key]], thresholds: Mapping[str, int]) -> None:
        """The first version of every role, without targets.

        Args:
            keys, thresholds: by owner (see `roles.Layout.owners`).
        """
        layout, expiry = self.repository.layout, self.repository.expiry
        root = Root(expires=expiry("root"), consistent_snapshot=True)
        for role in TOP_ROLES:
            owner = layout.owners[role]
            for key in keys[owner]:
                root.add_key(key, role)
            root.roles[role].threshold = thresholds[owner]
        self.roles["root"] = Metadata(root)
        names = (["app"] if layout.has_app else []) + ["drivers"]
        delegated = {name: _delegated(name, keys[layout.owners[name]], thresholds[layout.owners[name]]) for name in names}
        all_keys = {key.keyid: key for name in names for key in keys[layout.owners[name]]}
        self.roles["targets"] = Metadata(Targets(expires=expiry("targets"), delegations=Delegations(all_keys, delegated)))
        owner = layout.owners["bins"]
        bins = SuccinctRoles([k.keyid for k in keys[owner]], thresholds[owner], layout.bin_bits, BIN_PREFIX)
        delegations = Delegations({k.keyid: k for k in keys[owner]}, succinct_roles=bins)
        self.roles["drivers"] = Metadata(Targets(expires=expiry("drivers"), delegations=delegations))
        for name in (*(["app"] if layout.has_app else []), *bins.get_roles()):
            self.roles[name] = Metadata(Targets(expires=expiry(name)))

    def set_targets(self, wanted: Mapping[str, bytes]) -> None:
        """Publish exactly these targets, but those of `app`. What ages is signed anew.

        Args:
            wanted: target path -> content.
        """
        by_role: dict[str, dict[str, bytes]] = {r: {} for r in self.repository.target_roles() if r != "app"}
        for path, data in wanted.items():
            by_role[self.role_of(path)][path] = data
        for role, targets in by_role.items():
            old = self.now(role).targets
            changes: dict[str, bytes | None] = {p: d for p, d in targets.items() if not _same(old.get(p), d)}
            changes |= {p: None for p in old if p not in targets}
            self._change(role, changes)
            if role not in self.roles and self.repository.is_ageing(role):
                self.edit(role)
        for role in ("targets", "drivers", *(["app"] if self.repository.layout.has_app else [])):
            if role not in self.roles and self.repository.is_ageing(role):
                self.edit(role)
        self.targets = len(wanted)

    def change_targets(self, changes: Mapping[str, bytes | None]) -> None:
        """Publish these targets beside what there is; None removes one. Only their roles are read and signed."""
        by_role: dict[str, dict[str, bytes | None]] = {}
        for path, data in changes.items():
            by_role.setdefault(self.role_of(path), {})[path] = data
        for role, wanted in by_role.items():
            old = self.now(role).targets
            self._change(role, {p: d for p, d in wanted.items()
                                if (p in old if d is None else not _same(old.get(p), d))})

    def role_of(self, target: str) -> str:
        """The role that will have to sign a target, with the delegations of this draft."""
        return role_of(target, self.now("targets"), self._succinct())

    def delegate(self, brand: str, keys: list[Key], threshold: int) -> None:
        """Give a brand a role of its own, before `drivers`; it gets no targets yet."""
        role = brand_role(brand)
        targets = self.edit("targets")
        delegated = dict(targets.delegations.roles)
        drivers = delegated.pop("drivers")
        delegated[role] = _delegated(role, keys, threshold)
        targets.delegations.roles = delegated | {"drivers": drivers}
        targets.delegations.keys.update({key.keyid: key for key in keys})
        if self.repository.version(role):  # a role that was there once goes on counting
            self.edit(role)
        else:
            self.roles[role] = Metadata(Targets(expires=self.repository.expiry(role)))

    def end_delegation(self, brand: str) -> None:
        """Take a brand's role away. It stays in the snapshot: TUF lets no role vanish from there."""
        targets = self.edit("targets")
        targets.delegations.roles.pop(brand_role(brand))
        _forget_unused_keys(targets.delegations)

    def set_keys(self, owner: str, keys: list[Key], threshold: int) -> None:
        """Give an owner's roles new keys, and sign those roles with them."""
        layout = self.repository.layout
        roles = [r for r, o in layout.owners.items() if o == owner] or [owner]
        for role in roles:
            if role in TOP_ROLES:
                self._set_root_keys(role, keys, threshold)
            elif role == "bins":
                self._set_bin_keys(keys, threshold)
            else:
                self._set_delegated_keys(role, keys, threshold)

    # -- signatures -----------------------------------------------------------------------------------------------

    def missing(self) -> list[Missing]:
        """What the roles of this draft still lack; empty if what is there can be followed by the next stage."""
        lacking: list[Missing] = []
        for role in self.roles:
            if role not in self._checked:
                found = list(self._missing(role))
                lacking += found
                if not found:
                    self._checked.add(role)
        return lacking

    def sign(self, sign: Sign) -> None:
        """Add the signatures that are still needed, with the keys that are here.

        Raises:
            UserError: a key cannot be used.
        """
        for role in self.roles:
            for keyset in self._keysets(role):
                self._sign_with(role, keyset, sign)

    def complete(self, sign: Sign) -> list[Missing]:
        """Sign, go on to the snapshot and the timestamp as far as the keys here allow, and say what is lacking."""
        self.repository.check_root_life(self.now("root").expires)
        for stage in ("names", "snapshot", "timestamp"):
            if stage == "snapshot":
                self._add_snapshot()
            elif stage == "timestamp":
                self._add_timestamp()
            self.sign(sign)
            lacking = self.missing()
            if lacking:
                return lacking
        return []

    def take_signatures(self, other: Mapping[str, Metadata[Any]]) -> int:
        """Add the signatures of the same roles and versions from a copy; returns how many were new and good."""
        taken = 0
        for role, copy in other.items():
            mine = self.roles.get(role)
            if mine is None or copy.signed != mine.signed:
                continue
            for keyid, signature in copy.signatures.items():
                if keyid not in mine.signatures and self._is_good(role, signature):
                    mine.signatures[keyid] = signature
                    self._checked.discard(role)
                    taken += 1
        return taken

    def wanted_keys(self) -> dict[str, dict[str, Key]]:
        """role -> the keys that may sign it."""
        return {role: {k: key for d, name in self._keysets(role) for k, key in _keys_of(d, name).items()}
                for role in self.roles}

    def root_goes_last(self) -> bool:
        """True if clients with the root before this change accept what this change signs, so that the new root may be
        shown after the timestamp and no moment is without a repository for anybody."""
        if "root" not in self.roles or self.roles["root"].signed.version == 1:
            return False
        old = self.repository.root()
        return all(_result(old, role, self._data(role), self.roles[role]).verified
                   for role in TOP_ROLES if role != "root" and role in self.roles)

    # -- within ---------------------------------------------------------------------------------------------------

    def _begin(self, role: str, published: Metadata[Any]) -> None:
        # not by to_dict: it shares its lists of keys with what is published
        copy: Metadata[Any] = Metadata.from_bytes(self.repository.serialize(published))
        copy.signatures.clear()
        copy.signed.version += 1
        copy.signed.expires = self.repository.expiry(role)
        self.roles[role] = copy

    def _change(self, role: str, changes: Mapping[str, bytes | None]) -> None:
        if not changes:
            return
        signed = self.edit(role)
        for path, data in changes.items():
            if data is None:
                signed.targets.pop(path, None)
            else:
                signed.targets[path] = TargetFile.from_data(path, data, ["sha256"])
                self.files[path] = data
        self.changed_targets += len(changes)

    def _succinct(self) -> SuccinctRoles:
        bins = self.now("drivers").delegations.succinct_roles
        if bins is None:
            raise HostError("repository-damaged", "Expected hash bins below the role drivers, there are none.")
        succinct: SuccinctRoles = bins
        return succinct

    def _set_root_keys(self, role: str, keys: list[Key], threshold: int) -> None:
        root = self.edit("root")
        for keyid in list(root.roles[role].keyids):
            if keyid not in {key.keyid for key in keys}:
                root.revoke_key(keyid, role)
        for key in keys:
            root.add_key(key, role)
        root.roles[role].threshold = threshold
        if role == "targets":
            self.edit(role)
        elif role == "snapshot":
            self._add_snapshot(anew=True)

    def _set_bin_keys(self, keys: list[Key], threshold: int) -> None:
        delegations = self.edit("drivers").delegations
        delegations.succinct_roles.keyids = [key.keyid for key in keys]
        delegations.succinct_roles.threshold = threshold
        delegations.keys = {key.keyid: key for key in keys}
        for name in self._succinct().get_roles():
            self.edit(name)

    def _set_delegated_keys(self, role: str, keys: list[Key], threshold: int) -> None:
        delegations = self.edit("targets").delegations
        delegations.roles[role].keyids = [key.keyid for key in keys]
        delegations.roles[role].threshold = threshold
        delegations.keys.update({key.keyid: key for key in keys})
        _forget_unused_keys(delegations)
        self.edit(role)

    def _keysets(self, role: str) -> Iterable[tuple[Any, str]]:
        """(delegator, role name) whose thresholds matter. For a top-level role under a new root, the old root's is
        wished for: see `root_goes_last`."""
        if role == "root":
            yield self.roles["root"].signed, "root"
            if self.roles["root"].signed.version > 1:
                yield self.repository.root(), "root"
            return
        yield self.now(parent_of(role)), role
        if role in TOP_ROLES and "root" in self.roles and self.roles["root"].signed.version > 1:
            yield self.repository.root(), role

    def _missing(self, role: str) -> Iterable[Missing]:
        for number, (delegator, name) in enumerate(self._keysets(role)):
            if number and role != "root":
                return  # the old root's wish
            result = _result(delegator, name, self._data(role), self.roles[role])
            if not result.verified:
                yield Missing(role=role, needed=result.threshold - len(result.signed),
                              keyids=tuple(result.unsigned), by="old root" if number else "")

    def _sign_with(self, role: str, keyset: tuple[Any, str], sign: Sign) -> None:
        delegator, name = keyset
        metadata, data = self.roles[role], self._data(role)
        delegated = delegator.get_delegated_role(name)
        lacking = delegated.threshold - sum(1 for k in delegated.keyids if k in metadata.signatures)
        for keyid in delegated.keyids:
            if (lacking <= 0 and role != "root") or keyid in metadata.signatures:
                continue
            signature = sign(keyid, data)
            if signature is not None:
                metadata.signatures[keyid] = signature
                self._checked.discard(role)
                lacking -= 1

    def _is_good(self, role: str, signature: Any) -> bool:
        from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError

        for delegator, name in self._keysets(role):
            key = _keys_of(delegator, name).get(signature.keyid)
            if key is not None:
                try:
                    key.verify_signature(signature, self._data(role))
                except (UnverifiedSignatureError, VerificationError):
                    return False
                return True
        return False

    def _data(self, role: str) -> bytes:
        """The bytes that are signed."""
        if role not in self._bytes:
            self._bytes[role] = self.roles[role].signed_bytes
        return self._bytes[role]

    def _add_snapshot(self, *, anew: bool = False) -> None:
        listed = [r for r in self.roles if r not in ("root", "snapshot", "timestamp")]
        first = "root" in self.roles and self.roles["root"].signed.version == 1
        published = None if first else self.repository.load("snapshot").signed
        if "snapshot" in self.roles:
            if all(self.roles["snapshot"].signed.meta[f"{r}.json"].version == self.roles[r].signed.version for r in listed):
                return
        elif first:
            self.roles["snapshot"] = Metadata(Snapshot(expires=self.repository.expiry("snapshot")))
        elif not (listed or anew or (published is not None and self.repository.is_ageing("snapshot"))):
            return
        signed = self.edit("snapshot")
        for role in listed:
            signed.meta[f"{role}.json"] = MetaFile(self.roles[role].signed.version)

    def _add_timestamp(self) -> None:
        if "timestamp" not in self.roles and "root" in self.roles and self.roles["root"].signed.version == 1:
            self.roles["timestamp"] = Metadata(Timestamp(expires=self.repository.expiry("timestamp")))
        already = "timestamp" in self.roles and self.roles["timestamp"].signatures
        if already:
            return
        signed = self.edit("timestamp")
        if "snapshot" in self.roles:
            data = self.repository.serialize(self.roles["snapshot"])
            signed.snapshot_meta = MetaFile(self.roles["snapshot"].signed.version, len(data),
                                            {"sha256": hashlib.sha256(data).hexdigest()})
        signed.unrecognized_fields[SIGNED_AT] = self.repository.now().replace(microsecond=0).isoformat()


def count_bins(roles: Iterable[str]) -> int:
    """How many of the roles are hash bins."""
    return sum(1 for role in roles if is_bin(role))


def _delegated(role: str, keys: list[Key], threshold: int) -> DelegatedRole:
    kind = kind_of(role)
    paths = {"app": APP_PATHS, "drivers": DRIVER_PATHS, "brand": (f"brand/{role.removeprefix('brand-')}/*",)}[kind]
    return DelegatedRole(role, [key.keyid for key in keys], threshold, terminating=True, paths=list(paths))


def _forget_unused_keys(delegations: Delegations) -> None:
    used = {keyid for role in (delegations.roles or {}).values() for keyid in role.keyids}
    delegations.keys = {keyid: key for keyid, key in delegations.keys.items() if keyid in used}


def _keys_of(delegator: Any, role: str) -> dict[str, Key]:
    try:
        return {keyid: delegator.get_key(keyid) for keyid in delegator.get_delegated_role(role).keyids}
    except (RepositoryError, ValueError):
        return {}


def _result(delegator: Any, role: str, data: bytes, metadata: Metadata[Any]) -> Any:
    return delegator.get_verification_result(role, data, metadata.signatures)


def _same(old: TargetFile | None, data: bytes) -> bool:
    return (old is not None and old.length == len(data)
            and old.hashes.get("sha256") == hashlib.sha256(data).hexdigest())
