"""`keyfit-publish check` and `add` with real package files: what is inside is what is declared, or nothing is added."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keyfit.publisher.cli import run
from keyfit.publisher.inspection.pe import image_hash, layout
from keyfit.publisher.inspection.source import Source
from keyfit.publisher.readme import HEADINGS
from tests.sim import driverpackage, signing, windows, xarfile
from tests.sim.debfile import deb_file, entry
from tests.sim.publisher import BRAND_TOML

README = "# Acme\n\n" + "\n".join(f"## {heading}\n\n| `1234:0001` | One |\n| `1234:0002` | Two |\n" for heading in HEADINGS)
BRAND = BRAND_TOML.format(sequence=1) + """
[[model.match]]
id_vendor = 0x1234
id_product = 0x0002
sources = ["page"]
"""
PACKAGE = """
[[package]]
id = "acme-{kind}"
component = "driver"
kind = "{kind}"
name = "acme"
version = "1.2.3"
file = "{file}"
sources = ["page"]
on = {{ system = "{system}", architecture = ["amd64"] }}
{signature}
"""
FILES = {"deb": ("acme.deb", "linux"), "exe": ("acme.exe", "windows"), "msi": ("acme.msi", "windows"),
         "inf": ("acme.zip", "windows"), "pkg": ("acme.pkg", "macos")}
AUTHENTICODE = ('signature = {{ kind = "authenticode", subject = "{subject}", issuer = "{issuer}", sources = ["page"] }}')
APPLE = f'signature = {{ kind = "apple-developer", team_id = "{xarfile.TEAM}", sources = ["page"] }}'
OWN_LIST = Path(__file__).parents[2] / "drivers" / "blocklist.toml"
Make = Callable[[str], Path]


class Bench:
    """A publisher's directory, a brand with a package of every kind, and the commands."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str], vendor: signing.Identity, template: Path) -> None:
        self.folder, self.drivers = folder / "publisher", folder / "drivers"
        self.vendor, self._capture = vendor, capture
        (self.drivers / "acme").mkdir(parents=True)
        (self.drivers / "acme" / "README.md").write_text(README)
        (self.drivers / "blocklist.toml").write_bytes(OWN_LIST.read_bytes())
        self.write()
        shutil.copytree(template, self.folder)

    def write(self, *changes: str, subject: str = signing.VENDOR, issuer: str = signing.ISSUER) -> None:
        """The brand file; `changes` are pairs of old and new text."""
        text = BRAND
        for kind, (file, system) in FILES.items():
            signature = {"windows": AUTHENTICODE.format(subject=subject, issuer=issuer), "macos": APPLE}.get(system, "")
            text += PACKAGE.format(kind=kind, file=file, system=system, signature=signature)
        for old, new in zip(changes[::2], changes[1::2], strict=True):
            assert old in text
            text = text.replace(old, new)
        (self.drivers / "acme" / "driver.toml").write_text(text)

    def __call__(self, *arguments: object, expect: int = 0) -> dict[str, Any]:
        self._capture.readouterr()
        code = run(["--json", *map(str, arguments)])
        output = self._capture.readouterr()
        document: dict[str, Any] = json.loads(output.out)
        assert (code, output.err) == (expect, ""), document
        return document

    def add(self, file: Path, *options: object, expect: int = 0) -> dict[str, Any]:
        return self("add", self.folder, "acme", file, "--drivers", self.drivers, "--roots", self.vendor.root, *options,
                    expect=expect)

    def check(self, file: Path, *options: object, expect: int = 0) -> dict[str, Any]:
        kind = next(kind for kind, (name, _) in FILES.items() if name == file.name)
        return self("check", self.drivers, "--package", f"acme/acme-{kind}", file, "--roots", self.vendor.root, *options,
                    expect=expect)

    def state(self) -> dict[str, str]:
        """Everything in the publisher's directory, by hash."""
        return {str(path.relative_to(self.folder)): hashlib.sha256(path.read_bytes()).hexdigest()
                for path in sorted(self.folder.rglob("*")) if path.is_file() and path.name != "lock"}

    def refused(self, file: Path, *options: object, code: str = "package-content") -> str:
        """`add` refuses the file and leaves everything as it was; the problems it told."""
        before = self.state()
        document = self.add(file, *options, expect=2)
        assert document["messages"][0]["code"] == code
        assert self.state() == before
        return "\n".join(message["text"] for message in document["messages"][1:])


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> signing.Identity:
    return signing.make(tmp_path_factory.mktemp("vendor"))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty repository with its keys, made once: they are throw-away."""
    folder = tmp_path_factory.mktemp("template") / "publisher"
    assert run(["--quiet", "init", str(folder)]) == 0
    return folder


@pytest.fixture
def bench(tmp_path: Path, capsys: pytest.CaptureFixture[str], vendor: signing.Identity, template: Path) -> Bench:
    return Bench(tmp_path, capsys, vendor, template)


@pytest.fixture
def make(tmp_path: Path, vendor: signing.Identity) -> Make:
    """A sound file of a kind, signed by the vendor."""
    def file(kind: str) -> Path:
        path = tmp_path / FILES[kind][0]
        if kind == "deb":
            path.write_bytes(deb_file(version="1.2.3"))
        elif kind == "exe":
            signing.sign(vendor, windows.program(tmp_path / "plain.exe"), path, "-h", "sha256")
        elif kind == "msi":
            program = windows.program(tmp_path / "inside.exe")
            plain = windows.installer(tmp_path / "plain.msi", {"acme.exe": program}, architecture="x64")
            signing.sign(vendor, plain, path, "-h", "sha256")
        else:
            path.write_bytes(driver_package(tmp_path, vendor))
        return path

    return file


def driver_package(folder: Path, vendor: signing.Identity, *, more: str = "", extra: dict[str, bytes] | None = None,
                   driver: bool = False) -> bytes:
    name = "acme.sys" if driver else "acme.dll"
    library = windows.program(folder / name, driver=driver).read_bytes()
    text = driverpackage.inf(name, more).encode()
    listed = {"acme.inf": driverpackage.plain_hash(text),
              name: image_hash(Source.of(library), layout(Source.of(library)), "sha256")}
    listed |= {extra_name: driverpackage.plain_hash(data) for extra_name, data in (extra or {}).items()}
    signed = driverpackage.catalogue(folder, listed, vendor)
    return driverpackage.zipped({"acme.inf": text, name: library, "acme.cat": signed, **(extra or {})})


@pytest.mark.parametrize("kind", ["deb", "exe", "msi", "inf"])
def test_a_sound_file_is_shown_and_added(kind: str, bench: Bench, make: Make) -> None:
    file = make(kind)
    shown = bench.check(file)["data"]["packages"][0]
    added = bench.add(file)["data"]

    assert shown["problems"] == []
    assert shown["report"]["kind"] == kind
    assert added["payload"]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert added["notes"] == shown["notes"]
    stored = bench.folder / "repository" / "payloads" / added["payload"]["sha256"][:2] / added["payload"]["sha256"] / file.name
    assert stored.read_bytes() == file.read_bytes()


def test_b7_a_macos_package_of_the_declared_team_is_added(bench: Bench, tmp_path: Path) -> None:
    author = xarfile.developer(tmp_path)
    file = tmp_path / "acme.pkg"
    file.write_bytes(xarfile.stapled(xarfile.xar(xarfile.component(), author)))
    bench.vendor = author

    assert bench.check(file)["data"]["packages"][0]["report"]["stapled"] is True
    assert bench.add(file)["data"]["package"] == "acme-pkg"
    other = xarfile.developer(tmp_path, xarfile.DEVELOPER.replace(xarfile.TEAM, "ZZZZZ99999"))
    bench.vendor = other
    file.write_bytes(xarfile.xar(xarfile.component(), other))
    assert "expected the developer team ABCDE12345, came ZZZZZ99999" in bench.refused(file)


def test_people_are_shown_what_is_in_a_file_and_who_signed_it(bench: Bench, make: Make, vendor: signing.Identity,
                                                               capsys: pytest.CaptureFixture[str]) -> None:
    file = make("msi")
    capsys.readouterr()
    code = run(["check", str(bench.drivers), "--package", "acme/acme-msi", str(file), "--roots", str(vendor.root)])
    output = capsys.readouterr()

    assert code == 0
    assert "acme.msi: Acme Token 1.2.3 of Acme Ltd. for amd64" in output.out
    assert f"signed by subject: {signing.VENDOR}" in output.out
    assert f"signed by issuer: {signing.ISSUER}" in output.out
    assert "1 brands are sound" in output.out
    assert "1 programs inside are not signed themselves" in output.err


def test_every_problem_of_a_file_is_told_at_once(bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "acme.deb"
    file.write_bytes(deb_file("other", "9", "i386", extra=(entry("./usr/bin/x", mode=0o4755),),
                              scripts={"postinst": "#!/bin/sh\nufw disable\n"}))
    told = bench.refused(file)

    for expected in ("acme.deb: expected the package acme, came 'other'", "expected the version 1.2.3, came '9'",
                     "expected the architecture amd64, came 'i386'", "/usr/bin/x: expected no set-user-id",
                     "postinst touches the firewall"):
        assert expected in told
    checked = bench.check(file, expect=2)
    assert checked["data"]["packages"][0]["problems"] == told.split("\n")
    assert checked["data"]["packages"][0]["report"]["name"] == "other"


@pytest.mark.parametrize("kind", ["exe", "msi"])
def test_b1_without_a_declared_signer_a_windows_file_is_not_added(kind: str, bench: Bench, make: Make) -> None:
    """B1: remove the signer field; expect refusal, and the name for the author to look into."""
    bench.write(AUTHENTICODE.format(subject=signing.VENDOR, issuer=signing.ISSUER), "")
    warned = bench("check", bench.drivers)["messages"]
    told = bench.refused(make(kind))

    assert any("without it the file cannot be added" in message["text"] for message in warned)
    assert "expected a signature in the brand data that names the signer" in told
    assert signing.VENDOR in told


def test_b1_a_signer_that_was_taken_out_after_adding_stops_the_release(bench: Bench, make: Make) -> None:
    """B1: the client would refuse the package; so does the release."""
    bench.add(make("exe"))
    bench("release", bench.folder, "--drivers", bench.drivers)
    bench.write(AUTHENTICODE.format(subject=signing.VENDOR, issuer=signing.ISSUER), "", "sequence = 1", "sequence = 2")
    before = bench.state()

    for options in ((), ("--brand", "acme")):
        document = bench("release", bench.folder, "--drivers", bench.drivers, *options, expect=2)
        assert document["messages"][0]["code"] == "signer-missing"
        assert "acme/acme-exe: expected a signature" in document["messages"][1]["text"]
    assert bench.state() == before


def test_b2_the_same_common_name_by_another_authority_is_refused(bench: Bench, make: Make) -> None:
    bench.write(issuer="CN=Another CA,O=Example Trust,C=US")

    told = bench.refused(make("exe"))
    assert f"expected the signer's issuer 'CN=Another CA,O=Example Trust,C=US', came '{signing.ISSUER}'" in told


def test_b2_a_self_made_certificate_of_the_vendors_name_is_refused(bench: Bench, tmp_path: Path) -> None:
    fake = signing.self_signed(tmp_path)
    file = signing.sign(fake, windows.program(tmp_path / "plain.exe"), tmp_path / "acme.exe", "-h", "sha256")
    told = bench.refused(file)

    assert "none of the roots" in told
    assert "expected the signer's issuer" in told


def test_b2_without_the_vendors_root_the_file_is_not_added(bench: Bench, make: Make) -> None:
    """The roots of the system do not know the test's authority."""
    file = make("exe")
    document = bench("add", bench.folder, "acme", file, "--drivers", bench.drivers, expect=2)

    assert "none of the roots that are trusted here" in document["messages"][1]["text"]
    assert "--roots" in document["messages"][0]["hint"]


def test_b3_an_unsigned_a_changed_and_a_padded_file_are_refused(bench: Bench, make: Make, tmp_path: Path) -> None:
    signed = make("exe")
    data = signed.read_bytes()
    signed.write_bytes(data[:600] + bytes((data[600] ^ 1,)) + data[601:])
    assert "the signed hash is not the file's" in bench.refused(signed)
    signed.write_bytes(data + bytes(8))
    assert "certificate table at the end of the file" in bench.refused(signed)
    signed.write_bytes(windows.program(tmp_path / "bare.exe").read_bytes())
    assert "expected a signature, came an unsigned file" in bench.refused(signed)


def test_b4_a_kernel_driver_without_microsofts_signature_is_refused(bench: Bench, vendor: signing.Identity,
                                                                     tmp_path: Path) -> None:
    file = tmp_path / "acme.zip"
    file.write_bytes(driver_package(tmp_path, vendor, driver=True))
    told = bench.refused(file)

    assert "acme.sys: a kernel driver needs kernel = true" in told
    assert "expected a catalogue signed by Microsoft for hardware drivers" in told


def test_b5_a_file_beside_the_inf_is_refused(bench: Bench, vendor: signing.Identity, tmp_path: Path) -> None:
    file = tmp_path / "acme.zip"
    file.write_bytes(driver_package(tmp_path, vendor, extra={"version.dll": b"smuggled"}))

    assert "version.dll: expected only files that an INF names" in bench.refused(file)


def test_b6_a_co_installer_and_j3_a_forbidden_setting_are_refused(bench: Bench, vendor: signing.Identity,
                                                                  tmp_path: Path) -> None:
    more = ("[Install.NT.CoInstallers]\nAddReg=Co\n[Co]\nHKR,,CoInstallers32,0x00010000,\"acme.dll,Entry\"\n"
            "[Bad]\nHKLM,\"SOFTWARE\\Policies\\Microsoft\\Windows Defender\",DisableAntiSpyware,0x10001,1\n")
    file = tmp_path / "acme.zip"
    file.write_bytes(driver_package(tmp_path, vendor, more=more))
    told = bench.refused(file)

    assert "co-installers are refused" in told
    assert "changes Microsoft Defender" in told


@pytest.mark.parametrize("form", ["toml", "xml", "json"])
def test_b6_a_program_on_the_publishers_own_list_is_refused(form: str, bench: Bench, make: Make, tmp_path: Path) -> None:
    """B6: the brand's list, Microsoft's rules and loldrivers.io, the last two as the publisher downloads them."""
    file = make("exe")
    data = file.read_bytes()
    digest = image_hash(Source.of(data), layout(Source.of(data)), "sha256").hex()
    known = tmp_path / "list"
    known.write_text({
        "toml": f'schema = 1\n[sources]\ns = "t"\n[[driver]]\nfile = "x.sys"\nsources = ["s"]\nimage_hashes = ["{digest}"]\n',
        "xml": f'<SiPolicy><FileRules><Deny ID="D" FriendlyName="x.sys" Hash="{digest.upper()}"/></FileRules></SiPolicy>',
        "json": json.dumps([{"Id": "i", "KnownVulnerableSamples": [{"Filename": "x.sys", "Authentihash": {"SHA256": digest}}]}]),
    }[form])

    assert "is on the driver block list: x.sys" in bench.refused(file, "--blocklist", known)
    assert bench.check(file, "--blocklist", known, expect=2)["data"]["packages"][0]["problems"]
    assert bench.check(file)["data"]["packages"][0]["problems"] == []


def test_b6_without_a_list_no_windows_program_is_added(bench: Bench, make: Make) -> None:
    (bench.drivers / "blocklist.toml").unlink()

    assert "expected a driver block list" in bench.refused(make("exe"))
    bench.add(make("deb"))


def test_h4_a_list_with_a_document_type_is_refused(bench: Bench, make: Make, tmp_path: Path) -> None:
    known = tmp_path / "list.xml"
    known.write_text('<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><SiPolicy>&b;</SiPolicy>')

    assert "document type" in bench.refused(make("exe"), "--blocklist", known, code="blocklist-invalid")


def test_h2_a_file_that_breaks_the_reader_is_refused(bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "acme.deb"
    file.write_bytes(deb_file(version="1.2.3")[:-100])

    assert "acme.deb: " in bench.refused(file)


def test_a_disk_image_cannot_be_added(bench: Bench, tmp_path: Path) -> None:
    bench.write('kind = "pkg"', 'kind = "dmg"', '"acme.pkg"', '"acme.dmg"')
    file = tmp_path / "acme.dmg"
    file.write_bytes(bytes(1_000) + b"koly" + bytes(508))

    assert "came a disk image" in bench.refused(file)


def test_a_package_is_named_as_brand_and_id(bench: Bench, make: Make) -> None:
    file = make("deb")
    for name, code in (("acme", "no-such-package"), ("nobody/x", "no-such-brand"), ("acme/x", "no-such-package")):
        document = bench("check", bench.drivers, "--package", name, file, expect=2)
        assert document["messages"][0]["code"] == code


def test_check_of_a_file_under_another_name_says_which_is_declared(bench: Bench, make: Make, tmp_path: Path) -> None:
    other = tmp_path / "renamed.deb"
    other.write_bytes(make("deb").read_bytes())
    document = bench("check", bench.drivers, "--package", "acme/acme-deb", other, expect=2)

    assert "Expected the file acme.deb" in document["data"]["packages"][0]["problems"][0]
