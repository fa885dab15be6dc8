"""Which part of a repository a mirror has, told by the names of targets and by what is in their manifests."""

import re
from collections.abc import Iterator, Sequence

import msgspec
from msgspec import Struct

from keyfit.errors import TrustError
from keyfit.model.catalog import (
    AppManifest,
    Architecture,
    Brand,
    Payload,
    SystemName,
    app_target,
    brand_target,
    device_target,
    grant_target,
)
from keyfit.publisher.compile import claimed_ids, platforms
from keyfit.trust.manifests import decode_manifest

_PLATFORM = re.compile(r"(?:usb/[0-9a-f]{4}/[0-9a-f]{4}-|brand/[^/]+/|app/)([a-z0-9]+)-([a-z0-9]+)\.json\Z")


class Choice(Struct, frozen=True, kw_only=True):
    """What is wanted; empty means all of it.

    With brands, a device's manifest is wanted if one of them claims the device. Such a manifest may name other brands too;
    it is one signed file and comes as it is.
    """

    brands: tuple[str, ...] = ()
    systems: tuple[SystemName, ...] = ()
    architectures: tuple[Architecture, ...] = ()

    def takes(self, target: str) -> bool:
        """True unless the target is for a kind of machine that is not wanted."""
        found = _PLATFORM.match(target)
        if found is None:
            return True
        system, architecture = found.groups()
        return ((not self.systems or system in self.systems)
                and (not self.architectures or architecture in self.architectures))

    def brand_targets(self) -> Iterator[str]:
        """Where the manifests of the chosen brands would be."""
        for brand in self.brands:
            for system, architecture in self._platforms():
                yield brand_target(brand, system, architecture)

    def grant_targets(self) -> Iterator[str]:
        """Where the publisher would have said what the chosen brands may do with keys of their own."""
        return (grant_target(brand) for brand in self.brands)

    def other_targets(self) -> Iterator[str]:
        """What belongs to the chosen brands besides: their grants, and the versions of Keyfit itself."""
        yield from self.grant_targets()
        for system, architecture in self._platforms():
            yield app_target(system, architecture)

    def device_targets(self, brands: Sequence[Brand]) -> Iterator[str]:
        """Where the manifests of the devices would be that these brands claim."""
        for device in sorted({device for brand in brands for device in claimed_ids(brand)}):
            for system, architecture in self._platforms():
                yield device_target(*device, system, architecture)

    def _platforms(self) -> Iterator[tuple[SystemName, Architecture]]:
        return ((system, architecture) for system, architecture in platforms()
                if self.takes(app_target(system, architecture)))


def contents(target: str, data: bytes) -> tuple[tuple[Brand, ...], tuple[Payload, ...]]:
    """The brands in a verified target and the files that they need; nothing for a target of another kind.

    Raises:
        TrustError: code "manifest-invalid".
    """
    if target.startswith(("usb/", "brand/")):
        manifest = decode_manifest(data, target)
        brands = (*manifest.brands, *(staged.brand for staged in manifest.staged))
        return brands, tuple(package.payload for brand in brands for package in brand.package if package.payload)
    if target.startswith("app/"):
        try:
            return (), (msgspec.json.decode(data, type=AppManifest).payload,)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise TrustError("manifest-invalid", f"Expected a version of Keyfit in {target}, came: {error}.",
                             hint="Update keyfit-publish; if it is the newest version, tell the publisher.") from error
    return (), ()
