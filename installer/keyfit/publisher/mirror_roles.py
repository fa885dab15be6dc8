"""The verified tree of target roles of a repository, role by role, through python-tuf's public parts.

The top of it (root, timestamp, snapshot, targets) comes from the client's own workflow. Here each delegated role is held
against the snapshot and against the role that delegates to it, as the client does (specification 1.0.34, 5.6 and 5.6.7).
"""

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar

from msgspec import Struct
from tuf.api import exceptions as tuf
from tuf.api.metadata import Metadata, Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.ngclient import UpdaterConfig

from keyfit.trust.manifests import TARGET_NAME

Delegator = Root | Targets
Check = Callable[[bytes], Targets]
"""Bytes -> the verified role; raises if they are not the right ones."""
Get = Callable[[str, int, Check], Targets]
"""(file name, most bytes, what to do with the bytes) -> what that gave."""
Delegated = tuple[str, str, Delegator]
"""(role, the role that delegates to it, that role's content)"""
A = TypeVar("A")
B = TypeVar("B")
_ROLE_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,120}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_CONFIG = UpdaterConfig()
LONGEST_WALK = _CONFIG.max_delegations
ROOT_BYTES = _CONFIG.root_max_length


class Each(Protocol):
    """Does a piece of work for every item, several at a time if it likes; results in the order of the items."""

    def __call__(self, work: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
        """Do it."""


class Listed(Struct, frozen=True, kw_only=True):
    """A target as a role lists it."""

    path: str
    length_bytes: int
    sha256: str

    @property
    def file(self) -> str:
        """The file's path in the repository: its name begins with its hash (specification, section 6.2)."""
        folder, slash, name = self.path.rpartition("/")
        return f"targets/{folder}{slash}{self.sha256}.{name}"


class Top(Struct, frozen=True, kw_only=True):
    """The verified top of a repository, and the very bytes that it came as."""

    root: Root
    timestamp: Timestamp
    snapshot: Snapshot
    targets: Targets
    files: dict[str, bytes]

    @classmethod
    def read(cls, folder: Path) -> "Top":
        """From the folder of a client that has just refreshed.

        Raises:
            OSError, tuf.api.exceptions.RepositoryError: it has not.
        """
        data = {role: (folder / f"{role}.json").read_bytes() for role in ("root", "timestamp", "snapshot", "targets")}
        signed: dict[str, Any] = {role: Metadata.from_bytes(content).signed for role, content in data.items()}
        files = {role_file(role, signed[role].version): content for role, content in data.items()}
        return cls(files=files, **signed)

    def is_signed_under(self, root: Root) -> bool:
        """True if the keys of `root` signed all of it but the root."""
        try:
            for data in (data for name, data in self.files.items() if not name.endswith(".root.json")):
                metadata: Metadata[Any] = Metadata.from_bytes(data)
                root.verify_delegate(metadata.signed.type, metadata.signed_bytes, metadata.signatures)
        except tuf.RepositoryError:
            return False
        return True


class RoleTree:
    """The roles below a verified top.

    Args:
        get: fetches a metadata file; it is asked for again when a role is, so it had better keep them.
        now: the time against which expiry is checked.
    """

    def __init__(self, top: Top, get: Get, now: datetime) -> None:
        self._top = top
        self._get = get
        self._now = now
        self._known: dict[tuple[str, str], Targets] = {}

    def names(self) -> tuple[str, ...]:
        """The roles that the top-level targets delegates to."""
        return tuple(self._children(self._top.targets))

    def every(self, each: Each) -> Iterator[tuple[str, list[Listed]]]:
        """Every role with the targets in it that its delegator lets it name.

        Raises:
            tuf.api.exceptions.RepositoryError: a role is not what was signed.
        """
        level: list[Delegated] = [("targets", "root", self._top.root)]
        seen = {("targets", "root")}
        while level:
            below: list[Delegated] = []
            for (name, _, delegator), role in zip(level, each(self._verified, level), strict=True):
                yield name, [listed(path, info) for path, info in role.targets.items() if _may_name(delegator, name, path)]
                for child in self._children(role):
                    if (child, name) not in seen:
                        seen.add((child, name))
                        below.append((child, name, role))
            level = below

    def find(self, path: str) -> Listed | None:
        """The target that a client gets for `path`, if any; loads the roles that a client would load (5.6.7)."""
        waiting: list[Delegated] = [("targets", "root", self._top.root)]
        visited: set[str] = set()
        while waiting and len(visited) <= LONGEST_WALK:
            name, parent, delegator = waiting.pop()
            if name in visited:
                continue
            role = self._remembered(name, parent, delegator)
            if path in role.targets:
                return listed(path, role.targets[path])
            visited.add(name)
            children: list[Delegated] = []
            for child, terminating in role.delegations.get_roles_for_target(path) if role.delegations else ():
                children.append((child, name, role))
                if terminating:
                    waiting.clear()
                    break
            waiting += reversed(children)
        return None

    def _remembered(self, name: str, parent: str, delegator: Delegator) -> Targets:
        if (name, parent) not in self._known:
            self._known[name, parent] = self._verified((name, parent, delegator))
        return self._known[name, parent]

    def _verified(self, which: Delegated) -> Targets:
        name, _, delegator = which
        if name == "targets":
            return self._top.targets
        if not _ROLE_NAME.fullmatch(name):
            raise tuf.RepositoryError(f"a role has the name {name!a}")
        listed = self._top.snapshot.meta.get(f"{name}.json")
        if listed is None:
            raise tuf.RepositoryError(f"the snapshot does not list {name}.json")

        def check(data: bytes) -> Targets:
            listed.verify_length_and_hashes(data)
            metadata = Metadata[Targets].from_bytes(data)
            if not isinstance(metadata.signed, Targets):
                raise tuf.RepositoryError(f"{name} has the type {metadata.signed.type}")
            delegator.verify_delegate(name, metadata.signed_bytes, metadata.signatures)
            if metadata.signed.version != listed.version:
                raise tuf.BadVersionNumberError(f"expected version {listed.version} of {name}, came"
                                                f" {metadata.signed.version}")
            if metadata.signed.is_expired(self._now):
                raise tuf.ExpiredMetadataError(f"{name} expired on {metadata.signed.expires:%Y-%m-%d}")
            return metadata.signed

        return self._get(role_file(name, listed.version), listed.length or _CONFIG.targets_max_length, check)

    def _children(self, role: Targets) -> list[str]:
        if role.delegations is None:
            return []
        succinct = role.delegations.succinct_roles
        if succinct is None:
            return list(role.delegations.roles or ())
        if succinct.number_of_bins > len(self._top.snapshot.meta):
            raise tuf.RepositoryError(f"the snapshot does not list all {succinct.number_of_bins} hash bins")
        return list(succinct.get_roles())


def role_file(role: str, version: int) -> str:
    """Name of a metadata file in a repository with consistent snapshots."""
    return "timestamp.json" if role == "timestamp" else f"{version}.{role}.json"


def listed(path: str, info: TargetFile) -> Listed:
    """A target that can be a file of ours.

    Raises:
        tuf.api.exceptions.RepositoryError: its name or hash cannot be.
    """
    sha256 = info.hashes.get("sha256", "")
    if not TARGET_NAME.fullmatch(path) or "//" in path or path.endswith("/"):
        raise tuf.RepositoryError(f"a target has the name {path!a}")
    if not _SHA256.fullmatch(sha256):
        raise tuf.RepositoryError(f"the target {path} has no SHA-256")
    return Listed(path=path, length_bytes=info.length, sha256=sha256)


def _may_name(delegator: Delegator, role: str, path: str) -> bool:
    """True if a client would take `path` from this role."""
    if isinstance(delegator, Root) or delegator.delegations is None:
        return True
    return any(name == role for name, _ in delegator.delegations.get_roles_for_target(path))


def roots_before(get: Callable[[str, int], bytes | None], trusted: bytes) -> dict[str, bytes]:
    """The roots that led to the trusted one, so that clients with an older one can follow: file name -> bytes.

    Each has signed the next one, down to version 1 or to the first that the origin does not have.

    Args:
        get: (file name, most bytes) -> bytes, or None if there is no such file.

    Raises:
        tuf.api.exceptions.RepositoryError: one of them did not sign the next.
    """
    roots: dict[str, bytes] = {}
    after = Metadata[Root].from_bytes(trusted)
    for version in range(after.signed.version - 1, 0, -1):
        name = role_file("root", version)
        data = get(name, ROOT_BYTES)
        if data is None:
            break
        before = Metadata[Root].from_bytes(data)
        if not isinstance(before.signed, Root) or before.signed.version != version:
            raise tuf.BadVersionNumberError(f"{name} is not root {version}")
        before.signed.verify_delegate("root", before.signed_bytes, before.signatures)
        before.signed.verify_delegate("root", after.signed_bytes, after.signatures)
        roots[name], after = data, before
    return roots
