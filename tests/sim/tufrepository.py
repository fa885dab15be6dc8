"""A TUF repository of which every byte can be had the way a test wants it: written as files, for any server to serve.

Unlike `SignedRepository` it knows nothing of Keyfit's layout, and nothing keeps it from publishing nonsense. Roles are
python-tuf's own objects in `roles`; what is changed there is seen by clients after the next `publish` of that role.
"""

import hashlib
import json
from collections.abc import Callable
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

from securesystemslib.signer import CryptoSigner
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

TOP = ("root", "targets", "snapshot", "timestamp")


class TufRepository:
    """The four top-level roles with one key each, published as version 1."""

    def __init__(self, folder: Path, *, consistent: bool = True, days: int = 30) -> None:
        self.folder = folder
        self.later = datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)
        self.hashes_in_meta = False
        self.signers: dict[str, list[CryptoSigner]] = {}
        self.published: dict[str, list[bytes]] = {}
        self.root = Root(expires=self.later, consistent_snapshot=consistent)
        self.timestamp = Timestamp(expires=self.later)
        self.snapshot = Snapshot(expires=self.later)
        self.targets = Targets(expires=self.later)
        self.roles: dict[str, Any] = {"root": self.root, "timestamp": self.timestamp, "snapshot": self.snapshot,
                                      "targets": self.targets}
        (folder / "metadata").mkdir(parents=True)
        for role in TOP:
            self.add_key(role)
        self.publish(*TOP)

    @property
    def trusted_root(self) -> bytes:
        """What clients are given first."""
        return self.published["root"][0]

    def add_key(self, role: str, signer: CryptoSigner | None = None) -> CryptoSigner:
        """One more key, which signs from now on."""
        signer = signer or CryptoSigner.generate_ed25519()
        self.root.add_key(signer.public_key, role)
        self.signers.setdefault(role, []).append(signer)
        return signer

    def rotate(self, role: str) -> None:
        """Another key instead of those that were there."""
        for keyid in list(self.root.roles[role].keyids):
            self.root.revoke_key(keyid, role)
        self.signers[role] = []
        self.add_key(role)

    def publish(self, *roles: str, change: Callable[[bytes], bytes] = bytes) -> None:
        """Sign the next version of roles, in this order, and write them. `change` falsifies what was signed."""
        for role in roles:
            signed = self.roles[role]
            if role in self.published:
                signed.version += 1
            self.put(role, change(self.sign(role)))

    def publish_all(self, *roles: str) -> None:
        """Roles, and what has to follow so that clients see them."""
        self.publish(*roles, *(role for role in ("snapshot", "timestamp") if role not in roles))

    def sign(self, role: str) -> bytes:
        """The role as it is now, signed by its keys."""
        metadata = Metadata(deepcopy(self.roles[role]))
        for signer in self.signers[role]:
            metadata.sign(signer, append=True)
        return metadata.to_bytes()

    def put(self, role: str, data: bytes, *, number: int | None = None) -> None:
        """Write bytes as a role's newest version and let the role above name it."""
        version = self.roles[role].version
        self.published.setdefault(role, []).append(data)
        meta = MetaFile(version, len(data), {"sha256": hashlib.sha256(data).hexdigest()}) if self.hashes_in_meta \
            else MetaFile(version)
        if role == "snapshot":
            self.timestamp.snapshot_meta = meta
        elif role not in TOP or role == "targets":
            self.snapshot.meta[f"{role}.json"] = meta
        with_number = role == "root" or (self.root.consistent_snapshot and role != "timestamp")
        name = quote(role, safe="") + ".json"
        (self.folder / "metadata" / (f"{number or version}.{name}" if with_number else name)).write_bytes(data)

    def withdraw(self, name: str) -> None:
        """A file is no longer served."""
        (self.folder / "metadata" / name).unlink()

    def delegate(self, parent: str, role: str, *, paths: list[str] | None = None, terminating: bool = False,
                 trusts: CryptoSigner | None = None) -> Targets:
        """A role below another one, with a key of its own; the same role may have several parents. `trusts` is the key
        that this parent names instead."""
        child = self.roles.setdefault(role, Targets(expires=self.later))
        above: Targets = self.roles[parent]
        above.delegations = above.delegations or Delegations({}, {})
        assert above.delegations.roles is not None
        above.delegations.roles[role] = DelegatedRole(role, [], 1, terminating, paths=["*"] if paths is None else paths)
        if role not in self.signers:
            self.signers[role] = [CryptoSigner.generate_ed25519()]
        above.add_key((trusts or self.signers[role][0]).public_key, role)
        return child

    def delegate_bins(self, parent: str, bits: int, prefix: str) -> list[str]:
        """Succinct hash bins (TAP 15) with one key."""
        signer = CryptoSigner.generate_ed25519()
        bins = SuccinctRoles([], 1, bits, prefix)
        self.roles[parent].delegations = Delegations({}, succinct_roles=bins)
        self.roles[parent].add_key(signer.public_key)
        for name in bins.get_roles():
            self.roles[name] = Targets(expires=self.later)
            self.signers[name] = [signer]
        return list(bins.get_roles())

    def add_target(self, role: str, path: str, data: bytes, hashes: tuple[str, ...] = ("sha256",)) -> TargetFile:
        """Sign a file, with the next `publish` of the role, and serve it under every name that it may be asked for by."""
        info = TargetFile.from_data(path, data, list(hashes))
        self.roles[role].targets[path] = info
        self.serve_target(info, data)
        return info

    def serve_target(self, info: TargetFile, data: bytes) -> None:
        """Serve these bytes for a target, whatever was signed."""
        for name in info.get_prefixed_paths() if self.root.consistent_snapshot else [info.path]:
            file = self.folder / "targets" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)


def edited(change: Callable[[dict[str, Any]], None]) -> Callable[[bytes], bytes]:
    """For `publish`: change the signed JSON without signing it anew."""
    def apply(data: bytes) -> bytes:
        content = json.loads(data)
        change(content)
        return json.dumps(content).encode()
    return apply
