"""From brand data and facts to a plan."""

import msgspec
import pytest

from keyfit.core.conditions import fits, version_holds
from keyfit.core.plan import draft, finish, identities, plan_id
from keyfit.model.catalog import CcidListEntry, Condition, Conflict, Service
from keyfit.model.plan import DistributionPackages, PackageFile, Part
from tests.sim.brands import LINUX, SOURCES, a_brand, a_device, a_match, a_module, a_package, facts

ENTRY = CcidListEntry(id="entry", id_vendor=0x1234, id_product=1, friendly_name="Acme One", on=LINUX,
                      reason={"en": "libccid does not know it"}, sources=SOURCES)
SERVICE = Service(id="pcscd", unit="pcscd.socket", on=LINUX, reason={"en": "PC/SC"}, sources=SOURCES)
BRAND = a_brand("acme", a_match(id_vendor=0x1234, id_product=1),
                package=(a_package("pcscd"), a_package("libacme"), a_package("libacme", "deb", id="libacme-file")),
                patch=(ENTRY, SERVICE), module=(a_module(),))


def test_packages_come_first_then_patches_then_registration() -> None:
    made = finish(draft(BRAND, None, a_device(), facts(browsers=("firefox", "chromium")), target="t", installed={}), ())

    assert [s.kind for s in made.steps] == [
        "distribution-package", "ccid-list-entry", "service", "p11-kit-module", "firefox-policy", "nss-module"]
    assert made.steps[0].change == DistributionPackages(manager="apt", names=("pcscd", "libacme"))
    assert all(s.reason and s.undo and s.action for s in made.steps)


@pytest.mark.parametrize("offline", [False, True])
def test_every_step_is_in_exactly_one_part(offline: bool) -> None:
    brand = msgspec.structs.replace(BRAND, package=(*BRAND.package, a_package("opensc", component="module")))
    machine = facts(browsers=("firefox", "chromium"))

    def kinds(part: Part) -> list[str]:
        made = draft(brand, None, None, machine, target="t", installed={}, part=part, offline=offline)
        assert finish(made, ()).part == part
        changes = [s.change for s in made.steps]
        return [key for c in changes for key in identities(c)]

    assert sorted(kinds("system") + kinds("driver")) == sorted(kinds("all"))
    assert kinds("system") == ["package:pcscd", *([] if offline else ["package:libacme"]), "reader:1234:0001",
                               "service:pcscd.socket"]


def test_two_parts_are_two_plans_even_if_neither_has_a_step() -> None:
    parts: tuple[Part, ...] = ("all", "system", "driver")
    made = [draft(BRAND, None, None, facts(), target="t", installed={}, part=part) for part in parts]

    assert len({finish(each, {s.id for s in each.steps}).id for each in made}) == 3


def test_into_a_tree_the_file_is_taken_and_what_needs_a_running_system_is_left_out() -> None:
    tree = facts(root="/tmp/tree", package_managers=("dpkg",), running_services=False)

    made = finish(draft(BRAND, None, a_device(), tree, target="t", installed={}), ())

    changes = [s.change for s in made.steps]
    assert isinstance(changes[0], PackageFile)
    assert changes[0].name == "libacme"
    assert [s.kind for s in made.steps] == ["package-file", "ccid-list-entry", "p11-kit-module"]
    assert any("pcscd" in text for text in made.satisfied)
    assert made.blocked == ()


def test_what_is_there_already_is_left_out_and_named() -> None:
    made = finish(draft(BRAND, None, a_device(), facts(), target="t", installed={}), {"packages"})

    assert "packages" not in [s.id for s in made.steps]
    assert any("pcscd, libacme" in text and "already" in text for text in made.satisfied)


def test_a_brand_without_a_package_for_this_system_is_blocked() -> None:
    only_windows = a_brand("acme", package=(a_package("x", "msi", on=Condition(system="windows")),))

    made = finish(draft(only_windows, None, None, facts(), target="t", installed={}), ())

    assert [b.code for b in made.blocked] == ["no-driver-for-system"]
    assert "debian 12 on amd64" in made.blocked[0].text


def test_a_conflicting_package_blocks_the_plan() -> None:
    brand = a_brand("acme", package=(a_package("x"),),
                    conflict=(Conflict(package="rival", reason={"en": "holds the token"}, sources=SOURCES),))

    assert [b.code for b in draft(brand, None, None, facts(), target="t", installed={"rival": "1.0"}).blocked] == ["conflict"]
    assert draft(brand, None, None, facts(), target="t", installed={"other": "1.0"}).blocked == ()


def test_a_token_that_shows_a_disc_asks_to_eject_it() -> None:
    brand = a_brand("acme", a_match(id_vendor=0x1234, id_product=1, cd_rom="eject"), package=(a_package("libacme"),))
    disc, token = a_device(classes=(0x08,)), a_device(classes=(0x08, 0x0B))

    waits = [finish(draft(brand, brand.model[0], device, facts(), target="t", installed={}), ()).waits
             for device in (disc, token)]

    assert [[w.kind for w in each] for each in waits] == [["eject"], []]


@pytest.mark.parametrize(("plugged", "waits"), [(True, ["unplug", "plug-in"]), (False, ["plug-in"])])
def test_a_brand_that_wants_its_driver_first_asks_to_unplug(plugged: bool, waits: list[str]) -> None:
    brand = msgspec.structs.replace(BRAND, insert_order="unplug-before-install")

    made = finish(draft(brand, None, a_device() if plugged else None, facts(), target="t", installed={}), ())

    assert [w.kind for w in made.waits] == waits
    assert made.waits[-1].before == "verify"


@pytest.mark.parametrize(("kind", "here", "action", "undo"), [
    ("deb", {}, "Install the package libown 2.0 from libown.deb", "Remove the package libown"),
    ("deb", {"libown": "2.0"}, "Install the package libown 2.0 from libown.deb", "Remove the package libown"),
    ("deb", {"libown": "1.0"}, "Replace the package libown 1.0 with 2.0 from libown.deb", "Go back to libown 1.0"),
    ("rpm", {"libown": "1.0"}, "Install the package libown 2.0 from libown.rpm", "Remove the package libown"),
])
def test_a_package_file_that_replaces_another_version_says_so(kind: str, here: dict[str, str], action: str, undo: str) -> None:
    brand = a_brand("acme", a_match(id_vendor=0x1234, id_product=1), package=(a_package("libown", kind, version="2.0"),))
    machine = facts(package_managers=("dpkg", "rpm"))

    (step,) = draft(brand, None, None, machine, target="t", installed=here).steps

    assert (step.action, step.undo) == (action, undo)


def test_nothing_to_do_asks_for_nothing() -> None:
    brand = msgspec.structs.replace(BRAND, insert_order="unplug-before-install")
    wanted = draft(brand, None, a_device(), facts(), target="t", installed={})

    made = finish(wanted, {s.id for s in wanted.steps})

    assert made.steps == ()
    assert made.waits == ()


def test_the_id_is_the_hash_of_the_content_and_survives_saving() -> None:
    made = finish(draft(BRAND, None, a_device(), facts(), target="t", installed={}), ())
    loaded = msgspec.json.decode(msgspec.json.encode(made), type=type(made))

    assert plan_id(loaded) == made.id
    assert plan_id(msgspec.structs.replace(loaded, sequence=2)) != made.id


@pytest.mark.parametrize(
    ("comparisons", "version", "holds"),
    [("", "", True), (">=12", "12", True), (">=12", "11.9", False), (">=12,<14", "13.1", True),
     (">=12,<14", "14", False), ("==12", "12.0", True), (">=12", "sid", False),
     (">=22.04", "24.04", True), (">=12", "²", False)])
def test_version_comparisons(comparisons: str, version: str, holds: bool) -> None:
    assert version_holds(comparisons, version) is holds


def test_a_condition_on_debian_also_fits_what_is_like_debian() -> None:
    condition = Condition(system="linux", distribution=("debian",), version=">=12")

    assert fits(condition, facts())
    assert not fits(condition, facts(version="11"))
    assert fits(condition, facts(distribution="mint", distribution_like=("debian",), version="6"))
    assert not fits(condition, facts(distribution="fedora", distribution_like=(), version="40"))
