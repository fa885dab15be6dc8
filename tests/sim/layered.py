"""A repository in Keyfit's layout, signed with python-tuf alone and not by the publisher's code: the client is held against
the layout as it is written down, and anybody's key can be stolen.

root -> targets -> (terminating, in this order) app, brand-<brand> for brands with keys of their own, drivers -> hash bins.
"""

import hashlib
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from tuf.api.metadata import SuccinctRoles

from keyfit.model.catalog import Brand, Grant, Manifest, Payload, Staged, brand_target, device_target, grant_target
from keyfit.trust.metadata import SIGNED_AT
from keyfit.trust.repository import TufRepository
from tests.sim.repository import IMPATIENT
from tests.sim.tufrepository import TufRepository as TufFiles

DRIVER_PATHS = ["usb/*/*", "brand/*/*", "grant/*"]


class LayeredRepository:
    """See the module's text.

    Args:
        folder: gets `metadata`, `targets` and `payloads`.
        delegated: brands with keys of their own.
        days: until everything expires; the root lasts for `root_days`.
    """

    def __init__(self, folder: Path, *delegated: str, days: int = 30, root_days: int = 3650, bits: int = 2) -> None:
        self.folder = folder
        self.url = folder.as_uri() + "/"
        self.files = TufFiles(folder, days=root_days)
        self.files.later = datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)
        for role in (self.files.targets, self.files.snapshot, self.files.timestamp):
            role.expires = self.files.later
        self.trusted_root = self.files.trusted_root
        self.files.delegate("targets", "app", paths=["app/*"], terminating=True)
        for brand in delegated:
            self.files.delegate("targets", f"brand-{brand}", paths=[f"brand/{brand}/*"], terminating=True)
        drivers = self.files.delegate("targets", "drivers", paths=DRIVER_PATHS, terminating=True)
        self.bins = self.files.delegate_bins("drivers", bits, "b")
        assert drivers.delegations is not None
        self._succinct: SuccinctRoles | None = drivers.delegations.succinct_roles
        self.publish()

    def put(self, *signed: Manifest | Grant) -> None:
        """Sign these by whoever has to, and publish."""
        for each in signed:
            self.sign_as(self.owner(each.path), each.path, each)
        self.publish()

    def sign_as(self, role: str, path: str, content: Manifest | Grant | bytes) -> None:
        """Sign a target with the keys of any role; to be seen after the next `publish`."""
        data = content if isinstance(content, bytes) else msgspec.json.encode(content)
        self.files.add_target(role, path, data)

    def remove(self, path: str) -> None:
        """A target is no longer signed."""
        del self.files.roles[self.owner(path)].targets[path]
        self.publish()

    def publish(self, signed_at: datetime | None = None) -> None:
        """Sign everything anew."""
        self.files.timestamp.unrecognized_fields[SIGNED_AT] = (signed_at or datetime.now(UTC)).isoformat(timespec="seconds")
        self.files.publish(*(r for r in self.files.roles if r not in ("root", "snapshot", "timestamp")))
        self.files.publish("snapshot", "timestamp")

    def owner(self, path: str) -> str:
        """The role that signs a target of this path."""
        first, _, rest = path.partition("/")
        brand = rest.split("/")[0]
        if first == "brand" and f"brand-{brand}" in self.files.roles:
            return f"brand-{brand}"
        assert self._succinct is not None
        return "app" if first == "app" else self._succinct.get_role_for_target(path)

    def add_payload(self, name: str, data: bytes) -> Payload:
        """Store a driver file and describe it."""
        payload = Payload(file=name, sha256=hashlib.sha256(data).hexdigest(), length_bytes=len(data))
        path = self.payload_file(payload)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return payload

    def payload_file(self, payload: Payload) -> Path:
        """Where it lies."""
        return self.folder / "payloads" / payload.path

    def client(self, folder: Path, *urls: str, **options: Any) -> TufRepository:
        """A client of this repository with its own directories below `folder`."""
        options = {"limits": IMPATIENT, "trusted_root": self.trusted_root} | options
        return TufRepository(urls=urls or (self.url,), metadata_dir=folder / "metadata", cache_dir=folder / "cache", **options)


def by_name(*brands: Brand, path: str = "", staged: tuple[Staged, ...] = (), **fields: Any) -> Manifest:
    """The manifest of a brand asked for by name, for linux-amd64."""
    named = brands[0] if brands else staged[0].brand
    return Manifest(keyfit=1, path=path or brand_target(named.brand, "linux", "amd64"), system="linux",
                    architecture="amd64", brands=brands, staged=staged, **fields)


def by_device(id_vendor: int, id_product: int, *brands: Brand, **fields: Any) -> Manifest:
    """The manifest of a device, for linux-amd64."""
    return Manifest(keyfit=1, path=device_target(id_vendor, id_product, "linux", "amd64"), system="linux",
                    architecture="amd64", brands=brands, **fields)


def a_grant(brand: str, **fields: Any) -> Grant:
    """What a brand with its own keys may do."""
    return Grant(keyfit=1, path=grant_target(brand), brand=brand, **fields)


def swap(path: Path, data: bytes) -> None:
    """Another file under the same name, as on a stick that is changed while it is plugged in."""
    fresh = path.with_name("fresh")
    fresh.write_bytes(data)
    os.replace(fresh, path)
