"""What the site says will be changed is what the planner answers, and machines that are alike stand together."""

from pathlib import Path
from typing import Any

import pytest

from keyfit.core.conditions import version_holds
from keyfit.core.plan import draft
from keyfit.model.catalog import Architecture, Brand, CcidListEntry, Condition, Model, Payload, Pkcs11Module
from keyfit.model.plan import DistributionPackages
from keyfit.publisher.brandfile import load_brands
from keyfit.publisher.compile import cut
from keyfit.publisher.site.build import blocks
from keyfit.publisher.site.changes import Group, changes
from keyfit.publisher.site.places import places
from tests.sim.brands import SOURCES, a_brand, a_match, a_package

DRIVERS = Path(__file__).parents[3] / "drivers"
ARCHITECTURES: tuple[Architecture, ...] = ("amd64", "arm64")
DEBIANS = Condition(system="linux", distribution=("debian",))


def on(distribution: str, **fields: Any) -> Condition:
    return Condition(system="linux", distribution=(distribution,), **fields)


def groups(brand: Brand, device: tuple[int, int] | None = None) -> tuple[Group, ...]:
    return changes(brand, {}, places([brand]), device)


def said(group: Group) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(item.kind, item.subject, item.models) for item in group.items]


def where(group: Group) -> tuple[str, ...]:
    return tuple(name for name, _ in group.distributions)


def test_machines_with_the_same_changes_stand_together() -> None:
    brand = a_brand("acme", package=(a_package("pcscd", on=Condition(system="linux", distribution=("debian", "ubuntu"))),
                                     a_package("pcsc-lite", id="f", on=on("fedora"))))

    debians, fedora, others, windows, macos = groups(brand)

    assert (where(debians), said(debians)) == (("debian", "ubuntu"), [("package", "pcscd", ())])
    assert (where(fedora), said(fedora)) == (("fedora",), [("package", "pcsc-lite", ())])
    assert where(others) == ("",)
    assert [group.system for group in (windows, macos)] == ["windows", "macos"]
    assert not any(group.anything for group in (others, windows, macos))
    assert all(group.architectures == () for group in (debians, fedora, others))


def test_what_is_for_debian_is_for_ubuntu_too() -> None:
    brand = a_brand("acme", package=(a_package("pcscd", on=on("debian")), a_package("more", on=on("ubuntu"))))

    found = {where(group): [item.subject for item in group.items] for group in groups(brand) if group.anything}

    assert found == {("debian",): ["pcscd"], ("ubuntu",): ["pcscd", "more"]}


def test_paths_of_architectures_are_told_in_one_place() -> None:
    """The same module under three paths is one change; a package for one architecture alone makes a group."""
    modules = tuple(Pkcs11Module(id=f"m-{name}", name="Acme", path=f"/usr/lib/{name}/acme.so", sources=SOURCES,
                                 register=("firefox", "chromium"), on=Condition(system="linux", architecture=(name,)))
                    for name in ARCHITECTURES)
    (together, rest, *_) = groups(a_brand("acme", package=(a_package("pcscd"),), module=modules))

    assert (together.architectures, rest.architectures) == (("amd64", "arm64"), ("i386",))
    firefox = next(item for item in together.items if item.kind == "firefox-policy")
    assert firefox.where == ("/etc/firefox/policies/policies.json", "/usr/lib/amd64/acme.so", "/usr/lib/arm64/acme.so")
    nss = next(item for item in together.items if item.kind == "nss-module")
    assert (nss.elevated, firefox.elevated) == (False, True)


def test_versions_that_make_a_difference_are_told_apart() -> None:
    brand = a_brand("acme", package=(a_package("old", on=on("debian", version="<12")),
                                     a_package("new", id="new", on=on("debian", version=">=12,<14"))))

    found = {versions: [item.subject for item in group.items] for group in groups(brand)
             for name, versions in group.distributions if name == "debian"}

    assert found == {"<12": ["old"], ">=12,<14": ["new"], ">=14": []}


@pytest.mark.parametrize("asked", [">=12", "<12", "==12", ">12", "<=12", ">=11,<12.5", "==11.2"])
def test_versions_cover_everything_once(asked: str) -> None:
    """Every version lies in exactly one of the ranges, and the range's own version stands for it."""
    brand = a_brand("acme", package=(a_package("one", on=on("debian", version=asked)),))
    ranges = {place.versions: place.facts.version for place in places([brand]) if place.distribution == "debian"}

    for version in ("1", "11", "11.1", "11.2", "11.3", "12", "12.4", "12.5", "13", "99"):
        (within,) = [text for text in ranges if version_holds(text, version)]
        assert version_holds(asked, version) == version_holds(asked, ranges[within])


def test_a_change_for_some_models_names_them() -> None:
    brand = a_brand("acme", package=(a_package("pcscd", id="pcscd"), a_package("extra", id="extra")), model=(
        Model(id="one", name="One", packages=("pcscd",), match=(a_match(id_vendor=1, id_product=1),)),
        Model(id="two", name="Two", packages=("pcscd", "extra"), match=(a_match(id_vendor=1, id_product=2),)),
        Model(id="three", name="Three")))

    assert said(groups(brand)[0]) == [("package", "pcscd", ()), ("package", "extra", ("Two", "Three"))]
    assert said(groups(brand, (1, 1))[0]) == [("package", "pcscd", ())]


def test_a_patch_for_one_device_is_told_for_that_device() -> None:
    patches = tuple(CcidListEntry(id=f"p{n}", id_vendor=1, id_product=n, friendly_name="X", on=DEBIANS,
                                  reason={"en": "not listed"}, sources=SOURCES) for n in (1, 2))
    brand = a_brand("acme", package=(a_package("pcscd"),), patch=patches, model=(
        Model(id="one", name="One", match=(a_match(id_vendor=1, id_product=1),)),
        Model(id="two", name="Two", match=(a_match(id_vendor=1, id_product=2),))))

    debian = groups(brand)[0]
    assert said(debian)[1:] == [("ccid-list-entry", "0001:0001", ("One",)), ("ccid-list-entry", "0001:0002", ("Two",))]
    assert debian.items[1].reason == (("en", "not listed"),)
    assert said(groups(brand, (1, 2))[0])[1:] == [("ccid-list-entry", "0001:0002", ())]
    (packages, entries) = blocks(debian.items)
    assert [len(packages.items), len(entries.items)] == [1, 2]


def test_a_driver_file_counts_only_if_it_is_there() -> None:
    brand = a_brand("acme", package=(a_package("acme", "deb", payload=None, version="1.0"),))
    payload = Payload(file="acme.deb", sha256="5" * 64, length_bytes=9)

    assert not any(group.anything for group in groups(brand))
    (group,) = [g for g in changes(brand, {("acme", "acme-deb"): payload}, places([brand])) if g.anything]
    assert said(group) == [("package-file", "acme 1.0", ())]
    assert group.items[0].where == ("acme.deb",)


def test_the_site_and_the_planner_agree_on_the_real_brands() -> None:
    """For every brand and every kind of machine: the packages on the page are those of the plan."""
    brands = load_brands(DRIVERS)
    everywhere = places(brands)
    compared = 0
    for brand in brands:
        found = changes(brand, {}, everywhere)
        for place in everywhere:
            (group,) = [g for g in found if g.system == place.system and (place.distribution, place.versions)
                        in g.distributions and place.facts.architecture in (g.architectures or (place.facts.architecture,))]
            told = {item.subject for item in group.items if item.kind == "package"}
            planned = set()
            for model in brand.model:
                made = draft(cut(brand, place.system, place.facts.architecture, {}), model, None, place.facts, target="",
                             installed={})
                if not any(blocked.code in ("no-driver-for-system", "brand-without-driver") for blocked in made.blocked):
                    planned |= {name for step in made.steps if isinstance(step.change, DistributionPackages)
                                for name in step.change.names}
            assert told == planned, (brand.brand, place)
            compared += len(told)
    assert compared > 500
