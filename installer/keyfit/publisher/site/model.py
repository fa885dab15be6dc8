"""What the site is made from, and in which languages."""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from keyfit.model.catalog import Brand, Match, Model, Revocation, Texts
from keyfit.publisher.compile import Payloads
from keyfit.publisher.site.branding import Branding

DeviceKey = tuple[int, int | None]
"""Vendor and product id; None for a match that claims the whole vendor."""


class Tongue(Struct, frozen=True, kw_only=True):
    """A language of the site.

    Attributes:
        key: as in brand data and in the name of the catalogue file.
        folder: first part of the pages' addresses.
        tag: BCP 47 tag for `lang`.
    """

    key: str
    folder: str
    tag: str


TONGUES = (Tongue(key="zh_CN", folder="zh", tag="zh-CN"), Tongue(key="en", folder="en", tag="en"))


class Program(Struct, frozen=True, kw_only=True):
    """A setup program that the site offers.

    `address` is relative to the site's root, or a whole https address. `system` is "" for one that its name does not tell.
    """

    file: str
    system: str
    address: str
    sha256: str
    length_bytes: int


class Site(Struct, frozen=True, kw_only=True):
    """Everything that the pages are made from.

    Attributes:
        payloads: driver files that may be installed; revoked ones are not among them.
        withdrawn: brand -> what was revoked of it, newest last.
        minimum: brand -> lowest sequence that may be installed.
        base_url: https address of the site's root with a slash at the end, or "".
        logo: the logo's file name below `assets/`, or "".
    """

    brands: Sequence[Brand]
    payloads: Payloads
    programs: Sequence[Program]
    branding: Branding
    withdrawn: Mapping[str, tuple[Revocation, ...]] = {}
    minimum: Mapping[str, int] = {}
    base_url: str = ""
    logo: str = ""


class Claim(Struct, frozen=True, kw_only=True):
    """A model that claims a device id, with those of its matches that do."""

    brand: Brand
    model: Model
    matches: tuple[Match, ...]


def claims(brands: Sequence[Brand]) -> dict[DeviceKey, tuple[Claim, ...]]:
    """Which models claim which ids, sorted by id; matches by class alone are left out."""
    found: dict[DeviceKey, list[Claim]] = {}
    for brand in brands:
        for model in brand.model:
            for key, matches in _by_id(model).items():
                found.setdefault(key, []).append(Claim(brand=brand, model=model, matches=tuple(matches)))
    return {key: tuple(found[key]) for key in sorted(found, key=lambda k: (k[0], -1 if k[1] is None else k[1]))}


def _by_id(model: Model) -> Mapping[DeviceKey, list[Match]]:
    ids: dict[DeviceKey, list[Match]] = {}
    for match in model.match:
        if match.id_vendor is not None:
            ids.setdefault((match.id_vendor, match.id_product), []).append(match)
    return ids


def revoked_whole(site: Site, brand: Brand) -> bool:
    """True if the very version of the brand's data that the site is made from may not be installed."""
    return brand.sequence < site.minimum.get(brand.brand, 0) or any(
        one.sequence == brand.sequence for one in site.withdrawn.get(brand.brand, ()))


def brands_of(row: Sequence[Claim]) -> tuple[Brand, ...]:
    """The brands of some claims, each once."""
    return tuple({claim.brand.brand: claim.brand for claim in row}.values())


def id_name(key: DeviceKey) -> str:
    """As people read it: 096E:0807, or 096E for a whole vendor."""
    vendor, product = key
    return f"{vendor:04X}" if product is None else f"{vendor:04X}:{product:04X}"


def id_slug(key: DeviceKey) -> str:
    """As it stands in addresses: 096e-0807, or 096e."""
    return id_name(key).lower().replace(":", "-")


def said(texts: Texts, language: str) -> tuple[str, str]:
    """(text, its language): in `language`, else its base language, else English, else the first there is."""
    for key in (language, language.split("_")[0], "en"):
        if key in texts:
            return texts[key], key
    return next(((text, key) for key, text in texts.items()), ("", language))
