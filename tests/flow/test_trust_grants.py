"""A brand with keys of its own (A4): what the bank's word and the brand's come to together, and what a thief of the brand's
key gets for his trouble."""

import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from keyfit.errors import KeyfitError, NetworkError, NoTokenError, TrustError
from keyfit.model.catalog import (
    Brand,
    CcidListEntry,
    Conflict,
    KernelModuleBlacklist,
    Match,
    Model,
    PinRules,
    Revocation,
    Service,
    Staged,
    UdevRule,
    brand_target,
    device_target,
    grant_target,
)
from keyfit.ports import Offer
from keyfit.trust.repository import TufRepository
from tests.sim.brands import LINUX, SOURCES, a_brand, a_hand_off, a_match, a_module, a_package
from tests.sim.layered import LayeredRepository, a_grant, by_device, by_name
from tests.sim.world import with_sequence

IDS = (0x1234, 1)
DEVICE = device_target(*IDS, "linux", "amd64")
OWN = brand_target("acme", "linux", "amd64")
PAGE = "https://www.example.com/certificate"
REASON = {"en": "made up"}


def an_entry(id_vendor: int, id_product: int, name: str = "entry") -> CcidListEntry:
    return CcidListEntry(id=name, id_vendor=id_vendor, id_product=id_product, friendly_name="Acme", on=LINUX,
                         reason=REASON, sources=SOURCES)


ACME = msgspec.structs.replace(
    a_brand("acme", a_match(id_vendor=0x1234, id_product=1), package=(a_package("pcscd"), a_package("acme-driver", "deb")),
            module=(a_module(),), patch=(an_entry(*IDS),), hand_off=a_hand_off(PAGE),
            conflict=(Conflict(package="oldacme", reason=REASON, sources=SOURCES),)),
    sequence=3)
CLAIM = a_brand("acme", a_match(id_vendor=0x1234, id_product=1))
RIVAL = a_brand("rival", a_match(id_vendor=0x1234, id_product=1, product="Rival*"), package=(a_package("librival"),))
GRANT = a_grant("acme", ids=(IDS,), pages=(PAGE,), packages=("oldacme", "pcscd"))


@pytest.fixture
def repository(tmp_path: Path) -> LayeredRepository:
    """Acme signs for itself, within its grant; Rival does not."""
    made = LayeredRepository(tmp_path / "repository", "acme")
    made.put(by_name(ACME), GRANT, by_device(*IDS, CLAIM, RIVAL), by_name(RIVAL))
    return made


def acme(changed: Brand = ACME, **fields: Any) -> Brand:
    return msgspec.structs.replace(changed, **fields)


def offer(client: TufRepository, target: str = DEVICE) -> Offer:
    made = client.offer(target)
    assert made is not None
    return made


def named(client: TufRepository, target: str = DEVICE) -> dict[str, Brand]:
    return {b.brand: b for b in offer(client, target).manifest.brands}


def refused(repository: LayeredRepository, folder: Path, target: str = OWN) -> TrustError:
    with pytest.raises(TrustError) as caught:
        repository.client(folder).manifest(target)
    assert caught.value.hint
    return caught.value


# -- what the two come to together -----------------------------------------------------------------------------------


def test_a4_by_name_the_brands_own_word_counts(repository: LayeredRepository, tmp_path: Path) -> None:
    """A4."""
    assert named(repository.client(tmp_path), OWN) == {"acme": ACME}


def test_a4_for_a_device_the_publisher_says_what_it_is_and_the_brand_what_it_needs(repository: LayeredRepository,
                                                                                  tmp_path: Path) -> None:
    """A4."""
    claim = msgspec.structs.replace(CLAIM, vendor="By the publisher", sequence=77, model=(
        Model(id="one", name="One, by the publisher", match=(a_match(id_vendor=0x1234, id_product=1, product="One*"),)),))
    own = acme(insert_order="unplug-before-install", note={"en": "a note"}, model=(
        Model(id="one", name="One, by the brand", match=(a_match(id_vendor=0x1234),), packages=("acme-driver-deb",),
              patches=("entry",)),), pin=PinRules(min_length=6, max_length=8, advice=REASON, sources=SOURCES))
    repository.put(by_device(*IDS, claim, RIVAL), by_name(own))

    brand = named(repository.client(tmp_path))["acme"]

    (model,) = brand.model
    assert (model.name, model.match) == ("One, by the publisher", claim.model[0].match)
    assert (model.packages, model.patches) == (("acme-driver-deb",), ("entry",))
    assert (brand.vendor, brand.sequence) == ("By the publisher", 3)
    for name in ("package", "module", "patch", "pin", "hand_off", "insert_order", "conflict", "note"):
        assert getattr(brand, name) == getattr(own, name), name


def test_a4_a_model_that_the_brand_does_not_have_needs_all_that_the_brand_has(repository: LayeredRepository,
                                                                             tmp_path: Path) -> None:
    """A4: and the matches of the brand's own models claim nothing."""
    repository.put(by_name(acme(model=(Model(id="other", name="Other", match=(Match(sources=SOURCES, id_vendor=0x9999),),
                                             packages=("pcscd",)),))))

    (model,) = named(repository.client(tmp_path))["acme"].model

    assert (model.id, model.packages, model.patches) == ("one", (), ())
    assert model.match == CLAIM.model[0].match


def test_patches_for_other_devices_are_left_out_unless_the_model_names_them(repository: LayeredRepository,
                                                                           tmp_path: Path) -> None:
    repository.put(a_grant("acme", ids=(IDS, (0x1234, 2), (0x1234, 3)), pages=(PAGE,), packages=("oldacme", "pcscd")),
                   by_name(acme(patch=(an_entry(*IDS, "mine"), an_entry(0x1234, 2, "other"), an_entry(0x1234, 3, "named")),
                                model=(Model(id="one", name="One", patches=("mine", "named")),))))

    assert [p.id for p in named(repository.client(tmp_path))["acme"].patch] == ["mine", "named"]


def test_a5_the_floor_of_a_brand_is_its_own_sequence_not_that_of_the_claim(repository: LayeredRepository,
                                                                          tmp_path: Path) -> None:
    """A5."""
    repository.put(by_device(*IDS, with_sequence(CLAIM, 1000), RIVAL))
    assert named(repository.client(tmp_path))["acme"].sequence == 3
    repository.put(by_name(with_sequence(ACME, 4)))
    assert named(repository.client(tmp_path))["acme"].sequence == 4
    repository.put(by_name(with_sequence(ACME, 3)))

    assert [r.error.code for r in offer(repository.client(tmp_path)).refused] == ["rollback"]


def test_a_staged_version_of_the_brands_own_is_composed_as_well(repository: LayeredRepository, tmp_path: Path) -> None:
    newer = acme(sequence=4, module=())
    repository.put(by_name(ACME, staged=(Staged(brand=newer, share=500),)))

    manifest = offer(repository.client(tmp_path)).manifest

    (staged,) = manifest.staged
    assert (staged.share, staged.brand.sequence, staged.brand.module) == (500, 4, ())
    assert staged.brand.model[0].match == CLAIM.model[0].match


def test_a_device_that_only_the_staged_version_serves(repository: LayeredRepository, tmp_path: Path) -> None:
    """The publisher's manifest says which: it has a claim of the staged version alone."""
    target = device_target(0x1234, 2, "linux", "amd64")
    claim = a_brand("acme", a_match(id_vendor=0x1234, id_product=2))
    repository.put(by_device(0x1234, 2, staged=(Staged(brand=claim, share=10_000),)),
                   by_name(ACME, staged=(Staged(brand=acme(sequence=4), share=500),)))

    manifest = offer(repository.client(tmp_path), target).manifest

    assert manifest.brands == ()
    assert [(s.share, s.brand.sequence) for s in manifest.staged] == [(500, 4)]


@pytest.mark.parametrize(("withdrawal", "code"), [
    ({"minimum": 4}, "below-minimum"),
    ({"revoked": (Revocation(brand="acme", sequence=3, reason=REASON),)}, "revoked")])
@pytest.mark.parametrize("target", [DEVICE, OWN])
def test_a5_the_grant_withdraws_what_the_brand_does_not(repository: LayeredRepository, tmp_path: Path, target: str,
                                                       withdrawal: dict[str, Any], code: str) -> None:
    """A5, J4: the publisher has the last word."""
    repository.put(msgspec.structs.replace(GRANT, **withdrawal))

    assert [r.error.code for r in offer(repository.client(tmp_path), target).refused] == [code]


def test_j4_a_brand_may_withdraw_its_own_versions(repository: LayeredRepository, tmp_path: Path) -> None:
    """J4."""
    repository.put(by_name(ACME, revoked=(Revocation(brand="acme", sequence=3, reason=REASON),)))

    assert [r.error.code for r in offer(repository.client(tmp_path)).refused] == ["revoked"]
    assert [b.brand for b in offer(repository.client(tmp_path)).manifest.brands] == ["rival"]


def test_a_brand_without_data_for_this_system_is_told_so_if_it_is_chosen(repository: LayeredRepository,
                                                                        tmp_path: Path) -> None:
    repository.remove(OWN)

    made = offer(repository.client(tmp_path))

    assert [b.brand for b in made.manifest.brands] == ["rival"]
    ((error, brand),) = [(r.error, r.brand) for r in made.refused]
    assert isinstance(error, NoTokenError)
    assert brand == CLAIM


# -- thieves ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def stolen(repository: LayeredRepository) -> LayeredRepository:
    """The thief holds Acme's key and can have the repository publish what he signs with it."""
    return repository


@pytest.mark.parametrize("target", [
    "brand/rival/linux-arm64.json", "brand/acme/deeper/linux-amd64.json", "usb/9999/0001-linux-amd64.json",
    "app/linux-amd64.json", "grant/rival.json"])
def test_a4_a_brands_key_signs_no_paths_but_its_own(stolen: LayeredRepository, tmp_path: Path, target: str) -> None:
    """A4: whatever stands in the metadata of the brand's role, there is no such target."""
    evil = by_name(with_sequence(RIVAL, 99), path=target)
    stolen.sign_as("brand-acme", target, evil)
    stolen.publish()
    client = stolen.client(tmp_path)

    assert client.manifest(target) is None
    client.refresh()
    assert client._checked(stolen.url).target(target, 1_000_000) is None


@pytest.mark.parametrize("target", [DEVICE, brand_target("rival", "linux", "amd64"), grant_target("acme")])
def test_a4_a_brands_key_replaces_no_target_of_the_publisher(stolen: LayeredRepository, tmp_path: Path,
                                                            target: str) -> None:
    """A4."""
    stolen.sign_as("brand-acme", target, b"evil")
    stolen.publish()
    client = stolen.client(tmp_path)
    client.refresh()

    data = client._checked(stolen.url).target(target, 1_000_000)

    assert data is not None
    assert data != b"evil"


def test_a4_the_drivers_keys_cannot_sign_for_a_brand_with_keys_of_its_own(repository: LayeredRepository,
                                                                         tmp_path: Path) -> None:
    """A4: the brand's role is terminating, and comes first."""
    for role in ("drivers", *repository.bins):
        repository.sign_as(role, brand_target("acme", "linux", "arm64"), by_name(with_sequence(ACME, 99)))
    repository.publish()

    assert repository.client(tmp_path).manifest(brand_target("acme", "linux", "arm64")) is None


EVIL_SERVICE = Service(id="pcscd", unit="pcscd.socket", on=LINUX, reason=REASON, sources=SOURCES)
EXCESSES: dict[str, tuple[dict[str, Any], str]] = {
    "another's id in a list entry": ({"patch": (an_entry(0x5678, 2),)}, "5678:0002"),
    "another's id in a udev rule": ({"patch": (UdevRule(
        id="rule", subsystem="hidraw", id_vendor=0x046D, id_product=0xC31C, on=LINUX, reason=REASON, sources=SOURCES),)},
        "046D:C31C"),
    "kernel modules": ({"patch": (KernelModuleBlacklist(id="k", modules=("pn533",), on=LINUX, reason=REASON,
                                                        sources=SOURCES),)}, "kernel modules"),
    "a phishing page": ({"hand_off": a_hand_off("https://www.examp1e.com/certificate")}, "examp1e"),
    "a page that begins alike": ({"hand_off": a_hand_off(PAGE + "/../../evil")}, "/../../evil"),
    "a package from the archives": ({"package": (a_package("openssh-server"),)}, "openssh-server"),
    "a conflict with a rival": ({"conflict": (Conflict(package="librival", reason=REASON, sources=SOURCES),)}, "librival"),
    "the whole device class": ({"class_driver": True}, "device class"),
}


@pytest.mark.parametrize("excess", EXCESSES, ids=lambda name: name.replace(" ", "-"))
@pytest.mark.parametrize("staged", [False, True])
def test_a4_what_exceeds_the_grant_is_refused_and_named(stolen: LayeredRepository, tmp_path: Path, excess: str,
                                                       staged: bool) -> None:
    """A4: in the staged version as well; and the other brand of the device stays usable."""
    fields, shown = EXCESSES[excess]
    evil = acme(sequence=9, **fields)
    stolen.put(by_name(ACME, staged=(Staged(brand=evil, share=1),)) if staged else by_name(evil))

    error = refused(stolen, tmp_path)

    assert error.code == "grant-exceeded"
    assert shown in error.message
    made = offer(stolen.client(tmp_path))
    assert [b.brand for b in made.manifest.brands] == ["rival"]
    assert [(r.brand.brand, r.error.code) for r in made.refused] == [("acme", "grant-exceeded")]


def test_a4_all_that_exceeds_is_listed(stolen: LayeredRepository, tmp_path: Path) -> None:
    """A4."""
    stolen.put(by_name(acme(patch=(an_entry(0x5678, 2),), hand_off=a_hand_off("https://evil.example/"))))

    message = refused(stolen, tmp_path).message

    assert "5678:0002" in message
    assert "https://evil.example/" in message


OTHERS: dict[str, tuple[tuple[Brand, ...], dict[str, Any]]] = {
    "the brand of another": ((with_sequence(RIVAL, 99),), {}),
    "another beside its own": ((ACME, with_sequence(RIVAL, 99)), {}),
    "nothing": ((), {"staged": (Staged(brand=ACME, share=1),)}),
    "another staged": ((ACME,), {"staged": (Staged(brand=RIVAL, share=1),)}),
    "a minimum for another": ((ACME,), {"minimum": {"rival": 99}}),
    "another's version withdrawn": ((ACME,), {"revoked": (Revocation(brand="rival", sequence=1, reason=REASON),)}),
}


@pytest.mark.parametrize("other", OTHERS, ids=lambda name: name.replace(" ", "-"))
def test_a4_a_brand_speaks_for_itself_alone(stolen: LayeredRepository, tmp_path: Path, other: str) -> None:
    """A4: and nothing of what it says about others is kept in mind."""
    brands, fields = OTHERS[other]
    stolen.put(by_name(*brands, path=OWN, **fields))

    assert refused(stolen, tmp_path).code == "grant-exceeded"

    assert named(stolen.client(tmp_path), by_name(RIVAL).path) == {"rival": RIVAL}


def test_a4_what_was_refused_raises_no_floor_and_withdraws_nothing(stolen: LayeredRepository, tmp_path: Path) -> None:
    """A4, A5: once the thief is out, the brand goes on where it was."""
    stolen.put(by_name(acme(sequence=99, hand_off=a_hand_off("https://evil.example/")), minimum={"acme": 99},
                       revoked=(Revocation(brand="acme", sequence=3, reason=REASON),)))
    assert refused(stolen, tmp_path).code == "grant-exceeded"
    stolen.put(by_name(ACME))

    assert named(stolen.client(tmp_path), OWN) == {"acme": ACME}


def test_a5_the_grant_withdraws_for_all_sources_even_if_the_brands_data_is_refused(stolen: LayeredRepository,
                                                                                   tmp_path: Path) -> None:
    """A5: a kit, in which the publisher speaks for the brand, has the version that the grant withdrew."""
    stolen.put(by_name(acme(sequence=9, class_driver=True)), msgspec.structs.replace(GRANT, minimum=4))
    assert refused(stolen, tmp_path).code == "grant-exceeded"
    kit = LayeredRepository(tmp_path / "kit")
    kit.put(by_name(ACME))

    with pytest.raises(TrustError) as caught:
        kit.client(tmp_path, kind="media").manifest(OWN)

    assert caught.value.code == "below-minimum"


def test_a4_without_a_grant_nothing_of_the_brand_is_used(repository: LayeredRepository, tmp_path: Path) -> None:
    """A4: fail closed."""
    repository.remove(grant_target("acme"))

    assert refused(repository, tmp_path).code == "grant-missing"
    made = offer(repository.client(tmp_path))
    assert [(r.brand.brand, r.error.code) for r in made.refused] == [("acme", "grant-missing")]


def test_a4_the_grant_of_another_brand_is_no_grant(repository: LayeredRepository, tmp_path: Path) -> None:
    """A4."""
    repository.put(msgspec.structs.replace(GRANT, brand="rival"))

    assert refused(repository, tmp_path).code == "grant-missing"


@pytest.mark.parametrize("grant", [b"{}", b'{"keyfit":1,"path":"grant/acme.json","brand":"acme","all":true}', b"[" * 99])
def test_h4_a_malformed_grant_grants_nothing(repository: LayeredRepository, tmp_path: Path, grant: bytes) -> None:
    """H4, A9."""
    repository.sign_as(repository.owner(grant_target("acme")), grant_target("acme"), grant)
    repository.publish()

    assert refused(repository, tmp_path).code == "manifest-invalid"


def test_a4_the_publishers_claim_alone_installs_nothing(repository: LayeredRepository, tmp_path: Path) -> None:
    """A4: what the publisher's keys say about a brand with its own keys counts for the devices only, so that a stolen
    publisher's bins key does not bring the brand's packages with it."""
    repository.put(by_device(*IDS, a_brand("acme", a_match(id_vendor=0x1234, id_product=1),
                                           package=(a_package("openssh-server"),)), RIVAL))

    assert named(repository.client(tmp_path))["acme"].package == ACME.package


@pytest.mark.parametrize("fields", [{}, {"staged": (Staged(brand=with_sequence(RIVAL, 9), share=1),)}])
def test_a_brands_path_is_for_that_brand_without_keys_of_its_own_as_well(tmp_path: Path, fields: dict[str, Any]) -> None:
    repository = LayeredRepository(tmp_path / "repository")
    repository.put(by_name(*((ACME,) if fields else (ACME, RIVAL)), **fields))

    error = refused(repository, tmp_path)

    assert error.code == "manifest-invalid"
    assert "rival" in error.message


def test_h4_a_brand_that_stands_twice_is_refused(repository: LayeredRepository, tmp_path: Path) -> None:
    """H4."""
    repository.put(by_device(*IDS, RIVAL, with_sequence(RIVAL, 2)))

    assert refused(repository, tmp_path, DEVICE).code == "manifest-invalid"


def test_a_mirror_without_the_brands_files_is_passed_over(repository: LayeredRepository, tmp_path: Path) -> None:
    """The device's manifest is there, the brand's is not: the next address has both."""
    mirror = tmp_path / "mirror"
    shutil.copytree(repository.folder, mirror)
    shutil.rmtree(mirror / "targets" / "brand")

    with pytest.raises(NetworkError):
        repository.client(tmp_path / "one", mirror.as_uri()).manifest(DEVICE)
    assert set(named(repository.client(tmp_path / "two", mirror.as_uri(), repository.url))) == {"acme", "rival"}


def test_every_refusal_has_a_hint(repository: LayeredRepository, tmp_path: Path) -> None:
    repository.remove(grant_target("acme"))

    assert all(isinstance(r.error, KeyfitError) and r.error.hint for r in offer(repository.client(tmp_path)).refused)
