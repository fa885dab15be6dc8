"""Every file of the site, from its pages to its sitemap. Pure: same site in, same bytes out."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import escape
from msgspec import Struct, structs

from keyfit.model.catalog import Brand, Package, Payload, Revocation
from keyfit.publisher.compile import Payloads
from keyfit.publisher.site.changes import Group, Item, changes
from keyfit.publisher.site.colours import style_sheet
from keyfit.publisher.site.model import (
    TONGUES,
    Claim,
    DeviceKey,
    Program,
    Site,
    Tongue,
    brands_of,
    claims,
    id_name,
    id_slug,
    revoked_whole,
    said,
)
from keyfit.publisher.site.pictures import FORMS, form_of
from keyfit.publisher.site.places import Place, places
from keyfit.publisher.site.programs import FOLDER, sums
from keyfit.publisher.site.render import Page, environment, render
from keyfit.publisher.site.search import id_index

ASSETS = Path(__file__).parent / "assets"
CHANGE_KINDS = ("package", "package-file", "archive", "ccid-list-entry", "udev-rule", "kernel-module-blacklist", "service",
                "p11-kit-module", "firefox-policy", "nss-module")
"""Every kind of change, in the order in which a plan makes them."""


class DriverFile(Struct, frozen=True, kw_only=True):
    """A driver file that brand data declares; `payload` is None if this repository does not offer it."""

    brand: Brand
    package: Package
    payload: Payload | None
    address: str = ""


class Told(Struct, frozen=True, kw_only=True):
    """A brand with all that its pages say."""

    brand: Brand
    form: str
    groups: tuple[Group, ...]
    files: tuple[DriverFile, ...]
    ids: tuple[DeviceKey, ...]
    withdrawn: tuple[Revocation, ...] = ()
    revoked: bool = False

    @property
    def systems(self) -> tuple[str, ...]:
        """Systems on which there is something to install, or to set up."""
        return () if self.revoked else tuple(dict.fromkeys(group.system for group in self.groups if group.anything))


class Block(Struct, frozen=True, kw_only=True):
    """Changes of one kind and for one reason, told together."""

    kind: str
    component: str
    reason: dict[str, str]
    elevated: bool
    items: tuple[Item, ...]


def blocks(items: Sequence[Item]) -> tuple[Block, ...]:
    """Put changes of one kind and for one reason together, in the order in which they come first."""
    found: dict[tuple[object, ...], list[Item]] = {}
    for item in items:
        found.setdefault((item.kind, item.component, item.reason, item.elevated), []).append(item)
    return tuple(Block(kind=row[0].kind, component=row[0].component, reason=dict(row[0].reason), elevated=row[0].elevated,
                       items=tuple(row)) for row in found.values())


def build(site: Site) -> Iterator[tuple[str, bytes]]:
    """(path, bytes) of every file but the programs, in a fixed order."""
    engine = environment()
    made: list[str] = []
    for page in pages(site):
        made.append(page.path)
        yield page.path, render(engine, site, page)
    for path in sorted(ASSETS.rglob("*")):
        if path.is_file():
            yield f"assets/{path.relative_to(ASSETS).as_posix()}", path.read_bytes()
    yield "assets/colours.css", style_sheet(site.branding.colour, site.branding.colour_dark).encode()
    yield "ids.json", id_index(claims(site.brands), site.brands)
    copied = [program for program in site.programs if not _elsewhere(program)]
    if copied:
        yield f"{FOLDER}/SHA256SUMS", sums(copied)
    if site.base_url:
        yield "sitemap.xml", _sitemap(site.base_url, [path for path in made if path != "404.html"])


def pages(site: Site) -> Iterator[Page]:
    """Every page, in every language."""
    where = places(site.brands)
    told = {brand.brand: _told(site, brand, where) for brand in site.brands}
    ids = claims(site.brands)
    yield Page(path="index.html", template="landing.html", tongue=TONGUES[-1], values={})
    if site.base_url:  # shown at any depth, so its links have to be whole
        yield Page(path="404.html", template="notfound.html", tongue=TONGUES[-1], values={})
    for tongue in TONGUES:
        common = {"told": told, "order": _order(told, tongue), "id_name": id_name, "id_slug": id_slug, "ids": ids,
                  "brands_of": brands_of, "blocks": blocks}
        yield from _general(common, tongue, told, site)
        for name, one in told.items():
            yield _page(f"brand/{name}.html", "brand.html", tongue, common | {"one": one, "restarts": _restarts(one.brand)})
        for key, row in ids.items():
            yield _page(f"id/{id_slug(key)}.html", "id.html", tongue,
                        common | {"key": key, "claimed": _by_brand(row, told, site, key, where)})


def _general(common: Mapping[str, Any], tongue: Tongue, told: Mapping[str, Told], site: Site) -> Iterator[Page]:
    files = [file for one in told.values() for file in one.files if file.payload is not None]
    yield _page("index.html", "home.html", tongue, common)
    yield _page("brands.html", "brands.html", tongue, common)
    yield _page("pictures.html", "pictures.html", tongue, dict(common) | {"shelves": _shelves(site, common["order"])})
    yield _page("numbers.html", "numbers.html", tongue, common)
    yield _page("changes.html", "changes.html", tongue, dict(common) | {"kinds": CHANGE_KINDS})
    copied = any(not _elsewhere(program) for program in site.programs)
    yield _page("check.html", "check.html", tongue, dict(common) | {"files": files, "copied": copied})


def _page(path: str, template: str, tongue: Tongue, values: Mapping[str, Any]) -> Page:
    return Page(path=f"{tongue.folder}/{path}", template=template, tongue=tongue, values=values,
                twins={other.folder: f"{other.folder}/{path}" for other in TONGUES})


def _told(site: Site, brand: Brand, where: Sequence[Place]) -> Told:
    ids: dict[DeviceKey, None] = {}
    for match in (m for model in brand.model for m in model.match):
        if match.id_vendor is not None:
            ids[(match.id_vendor, match.id_product)] = None
    return Told(brand=brand, form=form_of(brand, None, site.branding.forms), groups=changes(brand, site.payloads, where),
                files=tuple(_files(brand, site.payloads, site.branding.repository)), ids=tuple(ids),
                withdrawn=site.withdrawn.get(brand.brand, ()), revoked=revoked_whole(site, brand))


def _elsewhere(program: Program) -> bool:
    return program.address.startswith("https://")


def _restarts(brand: Brand) -> bool:
    """True if a vendor's installer is known to ask for a restart."""
    return any(code.meaning == "restart-required" for package in brand.package for code in package.return_codes)


def _files(brand: Brand, payloads: Payloads, repository: str | None) -> Iterator[DriverFile]:
    for package in brand.package:
        if package.kind == "distribution":
            continue
        payload = payloads.get((brand.brand, package.id))
        address = f"{repository.rstrip('/')}/payloads/{payload.path}" if repository and payload else ""
        if payload is None and package.payload is not None and package.payload.mirrors:
            payload, address = package.payload, package.payload.mirrors[0]
        yield DriverFile(brand=brand, package=package, payload=payload, address=address)


def _order(told: Mapping[str, Told], tongue: Tongue) -> tuple[Told, ...]:
    """By name as readers of that language see it; the class drivers, which are no brand, last."""
    return tuple(sorted(told.values(), key=lambda one: (
        one.brand.class_driver, said(one.brand.names, tongue.key)[0].casefold(), one.brand.brand)))


def _shelves(site: Site, order: Sequence[Told]) -> tuple[tuple[str, tuple[tuple[Told, tuple[str, ...]], ...]], ...]:
    """(shape, ((brand, names of its models of that shape or () for all), ...)) of every shape that something has."""
    shelves: dict[str, list[tuple[Told, tuple[str, ...]]]] = {form: [] for form in FORMS}
    for one in order:
        by_form: dict[str, list[str]] = {}
        for model in one.brand.model:
            by_form.setdefault(form_of(one.brand, model, site.branding.forms), []).append(model.name)
        for form, names in (by_form or {one.form: []}).items():
            shelves[form].append((one, () if len(by_form) < 2 else tuple(names)))
    return tuple((form, tuple(rows)) for form, rows in shelves.items() if rows)


def _by_brand(row: Sequence[Claim], told: Mapping[str, Told], site: Site, key: DeviceKey,
              where: Sequence[Place]) -> tuple[tuple[Told, tuple[Claim, ...], str], ...]:
    """(brand with what this very device needs, its claims, shape) for each brand that claims an id."""
    found = []
    for brand in brands_of(row):
        one = told[brand.brand]
        vendor, product = key
        groups = changes(brand, site.payloads, where, (vendor, product)) if product is not None else one.groups
        own = tuple(claim for claim in row if claim.brand.brand == brand.brand)
        found.append((structs.replace(one, groups=groups), own, form_of(brand, own[0].model, site.branding.forms)))
    return tuple(found)


def _sitemap(base_url: str, paths: Sequence[str]) -> bytes:
    """Sitemap protocol 0.9 (sitemaps.org); at most 50 000 addresses are allowed in one file."""
    rows = "".join(f"<url><loc>{escape(base_url + path)}</loc></url>\n" for path in paths[:50_000])
    return ('<?xml version="1.0" encoding="UTF-8"?>\n<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n'
            f"{rows}</urlset>\n").encode()
