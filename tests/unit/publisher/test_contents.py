"""Reports held against brand data: one story per thing that has to agree."""

from typing import Any

import pytest
from msgspec import structs

from keyfit.model.catalog import AppleDeveloper, Authenticode, Brand, Condition, Model, Package, Payload
from keyfit.publisher.blocklist import Blocklist
from keyfit.publisher.contents import judge, unsigned
from keyfit.publisher.inspection import reports
from keyfit.publisher.inspection.catalogue import HARDWARE_DRIVER
from keyfit.publisher.inspection.reports import BinaryReport, SignatureReport
from tests.sim.brands import SOURCES, a_brand, a_match, a_package

VENDOR = "CN=Acme Ltd.,O=Acme Ltd.,C=US"
ISSUER = "CN=Example CA,C=US"
SIGNED = SignatureReport(subject=VENDOR, issuer=ISSUER, usages=("1.3.6.1.5.5.7.3.3",))
EXPECTED = Authenticode(subject=VENDOR, issuer=ISSUER, sources=SOURCES)
KERNEL = structs.replace(EXPECTED, kernel=True)
WINDOWS = Condition(system="windows", architecture=("amd64",))
LINUX = Condition(system="linux", architecture=("amd64",))
IDS = (r"amd64 USB\VID_1234&PID_0001",)


def brand(**fields: Any) -> Brand:
    return a_brand("acme", a_match(id_vendor=0x1234, id_product=0x0001, b_interface_class=0x0B), **fields)


def problems(package: Package, report: reports.Report, of: Brand | None = None, known: Blocklist | None = None) -> list[str]:
    return list(judge(of or brand(), package, report, known if known is not None else Blocklist({"0": "x"})))


def windows(kind: str, **fields: Any) -> Package:
    return a_package("acme", kind, on=WINDOWS, version="1.2.3", **{"signature": EXPECTED, **fields})


def exe(**fields: Any) -> reports.ExeReport:
    return reports.ExeReport(binary=BinaryReport(**{"name": "", "machine": "amd64", "versions": ("1.2.3.0",),
                                                    "signature": SIGNED, **fields}))


def driver(**fields: Any) -> reports.InfReport:
    return reports.InfReport(**{"versions": ("1.2.3.0",), "architectures": ("amd64",), "hardware_ids": IDS,
                                "signature": SIGNED, **fields})


def test_what_agrees_has_no_problems() -> None:
    assert problems(windows("exe"), exe()) == []
    assert problems(windows("inf"), driver()) == []


@pytest.mark.parametrize(("fields", "expected"), [
    ({"name": "other"}, ["expected the package acme, came 'other'"]),
    ({"version": "2.0"}, ["expected the version 1.2.3, came '2.0'"]),
    ({"architecture": "arm64"}, ["expected the architecture amd64, came 'arm64'"]),
    ({"name": "o", "version": "2", "architecture": "i386"}, ["expected the package acme, came 'o'",
     "expected the version 1.2.3, came '2'", "expected the architecture amd64, came 'i386'"]),
    ({"architecture": "all"}, []),
])
def test_a_linux_package_is_the_declared_one_and_every_difference_is_told(fields: dict[str, str], expected: list[str]) -> None:
    report = reports.DebReport(**{"name": "acme", "version": "1.2.3", "architecture": "amd64", **fields})

    assert problems(a_package("acme", "deb", on=LINUX, version="1.2.3"), report) == expected


def test_a_linux_package_for_all_architectures_is_for_all() -> None:
    report = reports.DebReport(name="acme", version="1", architecture="amd64")

    assert problems(a_package("acme", "deb"), report) == ["expected the architecture all, came 'amd64'"]


def test_an_rpm_is_declared_with_or_without_its_release() -> None:
    report = reports.RpmReport(name="acme", version="2:1.0-3", architecture="all")

    for version in ("1.0", "2:1.0-3", ""):
        assert problems(a_package("acme", "rpm", version=version), report) == []
    assert problems(a_package("acme", "rpm", version="1"), report) == ["expected the version 1, came '2:1.0-3'"]


def test_h3_an_archive_has_exactly_the_declared_files() -> None:
    report = reports.ArchiveReport(files=("lib/a.so", "lib/c.so"))

    assert problems(a_package("acme", "archive", files=("lib/a.so", "lib/b.so")), report) == [
        "expected the file 'lib/b.so', which files lists, found none", "expected only what files lists, came 'lib/c.so' too"]


@pytest.mark.parametrize(("signature", "expected"), [
    (None, "expected a signature, came an unsigned file"),
    (SignatureReport(fault="it is broken"), "expected a signature that holds: it is broken"),
    (structs.replace(SIGNED, subject=VENDOR.replace("Acme", "Acne")), "expected the signer's subject"),
    (structs.replace(SIGNED, subject="CN=Acme Ltd."), "expected the signer's subject"),
    (structs.replace(SIGNED, subject=VENDOR + ",L=x"), "expected the signer's subject"),
    (structs.replace(SIGNED, subject=VENDOR.lower()), "expected the signer's subject"),
    (structs.replace(SIGNED, issuer="CN=Example CA 2,C=US"), "expected the signer's issuer"),
])
@pytest.mark.parametrize("kind", ["exe", "msi", "inf"])
def test_b2_the_signer_is_the_declared_one_as_a_whole(kind: str, signature: SignatureReport | None, expected: str) -> None:
    """B2: no substring, no common name alone, subject and issuer both."""
    made: dict[str, reports.Report] = {
        "exe": exe(signature=signature), "inf": driver(signature=signature),
        "msi": reports.MsiReport(product="", version="1.2.3", manufacturer="", architecture="amd64", signature=signature)}
    found = problems(windows(kind), made[kind])

    assert [text for text in found if expected in text], found


@pytest.mark.parametrize("signature", [None, SIGNED])
def test_b1_without_a_declared_signer_nothing_passes(signature: SignatureReport | None) -> None:
    """B1: a missing expected signer means failure; who signed it is told, for the author to look into."""
    found = problems(windows("exe", signature=None), exe(signature=signature))

    assert any("expected a signature in the brand data that names the signer" in text for text in found)
    assert any(VENDOR in text for text in found) is (signature is not None)


def test_b1_packages_without_a_declared_signer_are_found_before_a_release() -> None:
    payload = Payload(file="a.exe", sha256="1" * 64, length_bytes=100)
    bare = windows("exe", signature=None, payload=None)
    brands = (brand(package=(bare, structs.replace(bare, id="declared", payload=payload), windows("msi"),
                             a_package("acme", "deb", id="linux"))),)

    assert [text.split(":")[0] for text in unsigned(brands, {})] == ["acme/declared"]
    assert [text.split(":")[0] for text in unsigned(brands, {("acme", bare.id): payload})] == ["acme/acme-exe", "acme/declared"]


@pytest.mark.parametrize(("machine", "declared", "fits"), [
    ("i386", ("amd64",), True), ("i386", ("amd64", "arm64", "i386"), True), ("amd64", ("amd64", "arm64"), True),
    ("amd64", ("i386",), False), ("arm64", ("amd64",), False), ("amd64", (), False), ("i386", (), True),
    ("0x0200", ("amd64",), False),
])
def test_a_program_runs_where_it_is_declared_for(machine: str, declared: tuple[str, ...], fits: bool) -> None:
    on = Condition(system="windows", architecture=declared)  # type: ignore[arg-type]
    found = problems(structs.replace(windows("exe"), on=on), exe(machine=machine))

    assert (found == []) is fits
    assert all("expected a program that runs on" in text for text in found)


@pytest.mark.parametrize(("came", "fits"), [
    (("1.2.3.0",), True), (("1, 2, 3, 0",), True), (("9.9", "1.2.3"), True), (("1.2.4.0",), False), ((), False),
    (("1.2.30",), False),
])
def test_the_version_is_the_declared_one(came: tuple[str, ...], fits: bool) -> None:
    assert (problems(windows("exe"), exe(versions=came)) == []) is fits


def test_every_declared_device_is_in_the_models() -> None:
    two = a_brand("acme", a_match(id_vendor=0x1234, id_product=0x0001), a_match(id_vendor=0x1234, id_product=0x00AF),
                  a_match(id_vendor=0x1234, id_product=0x0002, cd_rom="switch"))

    assert problems(windows("inf"), driver(), two) == [
        r"expected the hardware id USB\VID_1234&PID_00AF in the models for amd64, found none"]


@pytest.mark.parametrize("listed", [
    r"amd64 USB\VID_1234&PID_0001&REV_0100", r"amd64 USB\VID_1234&PID_0001&MI_00", r"amd64 USB\CLASS_0B&SUBCLASS_00",
    r"amd64 SCFILTER\CID_AABB"])
def test_a_device_is_covered_by_revision_interface_class_and_by_the_card(listed: str) -> None:
    assert problems(windows("inf"), driver(hardware_ids=(listed,))) == []


@pytest.mark.parametrize("listed", [r"amd64 USB\VID_1234&PID_0001X", r"amd64 USB\CLASS_08", r"arm64 USB\VID_1234&PID_0001"])
def test_a_device_is_not_covered_by_what_only_looks_alike(listed: str) -> None:
    report = driver(hardware_ids=(listed, r"amd64 USB\VID_9999&PID_0001"))

    assert any("expected the hardware id" in text for text in problems(windows("inf"), report))


def test_a_package_of_one_model_needs_that_models_devices_only() -> None:
    other = Model(id="two", name="Two", match=(a_match(id_vendor=0x1234, id_product=0x0002),), packages=("elsewhere",))
    both = structs.replace(brand(), model=(*brand().model, other))

    assert problems(windows("inf"), driver(), both) == []


def test_models_are_there_for_every_declared_architecture() -> None:
    on = Condition(system="windows", architecture=("amd64", "arm64"))

    assert "expected models for arm64, the INF has them for amd64" in problems(structs.replace(windows("inf"), on=on), driver())


@pytest.mark.parametrize(("signature", "driver_signed", "expected"), [
    (KERNEL, True, []), (KERNEL, False, ["expected a catalogue signed by Microsoft"]),
    (EXPECTED, True, ["acme.sys: a kernel driver needs kernel = true"]),
    (EXPECTED, False, ["acme.sys: a kernel driver needs kernel = true", "expected a catalogue signed by Microsoft"]),
])
def test_b4_a_kernel_driver_needs_microsofts_hardware_signature(signature: Authenticode, driver_signed: bool,
                                                                 expected: list[str]) -> None:
    report = driver(binaries=(BinaryReport(name="acme.sys", kernel=True, sha256="1"),), driver_signed=driver_signed)
    found = problems(windows("inf", signature=signature), report)

    assert [text for text in found if not any(text.startswith(one) for one in expected)] == []
    assert len(found) == len(expected)


@pytest.mark.parametrize(("usages", "refused"), [(HARDWARE_DRIVER[:1], False), (("1.3.6.1.5.5.7.3.3",), True), ((), True)])
def test_b4_a_driver_inside_an_installer_needs_it_too(usages: tuple[str, ...], refused: bool) -> None:
    inside = BinaryReport(name="acme.sys", kernel=True, sha256="1", signature=structs.replace(SIGNED, usages=usages))
    report = reports.MsiReport(product="", version="1.2.3", manufacturer="", architecture="amd64", signature=SIGNED,
                               binaries=(inside,))

    assert bool(problems(windows("msi"), report)) is refused


def test_b6_a_blocked_driver_is_refused_wherever_it_is() -> None:
    bad = BinaryReport(name="tools/bad.sys", sha256="1" * 64, signature=SIGNED, machine="amd64")
    known = Blocklist({"1" * 64: "bad.sys CVE-2021-21551"})
    made = (reports.MsiReport(product="", version="1.2.3", manufacturer="", architecture="amd64", signature=SIGNED,
                              binaries=(bad,)),
            driver(binaries=(bad,)), reports.ArchiveReport(files=("tools/bad.sys",), binaries=(bad,)))
    packages = (windows("msi"), windows("inf"), windows("archive", files=("tools/bad.sys",)))

    for package, report in zip(packages, made, strict=True):
        assert problems(package, report, known=known) == [
            "tools/bad.sys is on the driver block list: bad.sys CVE-2021-21551 (by its hash 1111111111111111…)"]


def test_b6_without_a_block_list_no_program_passes() -> None:
    assert list(judge(brand(), windows("exe"), exe(), None)) == [
        "expected a driver block list to hold its programs against, found none"]
    linux = reports.DebReport(name="acme", version="1", architecture="all")
    assert list(judge(brand(), a_package("acme", "deb"), linux, None)) == []


@pytest.mark.parametrize(("team", "expected"), [("ABCDE12345", []), ("ABCDE12346", ["expected the developer team ABCDE12345"]),
                                                ("", ["expected the developer team ABCDE12345, came none"])])
def test_b7_a_macos_package_is_of_the_declared_team(team: str, expected: list[str]) -> None:
    package = a_package("acme", "pkg", on=Condition(system="macos"), version="1.2",
                        signature=AppleDeveloper(team_id="ABCDE12345", sources=SOURCES))
    report = reports.PkgReport(components=("com.example.acme 1.2",), signature=SignatureReport(subject="CN=x", team_id=team))
    found = problems(package, report)

    assert len(found) == len(expected)
    assert all(text.startswith(one) for text, one in zip(found, expected, strict=True))


def test_every_windows_program_of_an_archive_is_signed_by_the_vendor() -> None:
    report = reports.ArchiveReport(files=("a.dll", "b.dll"), binaries=(
        BinaryReport(name="a.dll", machine="amd64", signature=SIGNED), BinaryReport(name="b.dll", machine="amd64")))

    assert problems(windows("archive", files=("a.dll", "b.dll")), report) == [
        "b.dll: expected a signature, came an unsigned file"]


def test_an_archive_for_macos_cannot_be_checked() -> None:
    package = a_package("acme", "archive", on=Condition(system="macos"), files=("a",))

    assert "publish a pkg" in problems(package, reports.ArchiveReport(files=("a",)))[0]
