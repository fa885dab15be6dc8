"""Windows driver packages: an INF, its files and a catalogue signed by osslsigncode, sound and otherwise."""

from collections.abc import Callable
from pathlib import Path

import pytest

from keyfit.publisher.inspection import inf
from keyfit.publisher.inspection.authenticode import Trust
from keyfit.publisher.inspection.inftext import read_inf
from keyfit.publisher.inspection.pe import image_hash, layout
from keyfit.publisher.inspection.reports import InfReport
from keyfit.publisher.inspection.source import Malformed, Source
from tests.sim import signing, windows
from tests.sim.driverpackage import catalogue, plain_hash, zipped
from tests.sim.driverpackage import inf as inf_text

Pack = Callable[..., bytes]


def read(data: bytes, trust: Trust) -> InfReport:
    return inf.inspect(Source.of(data), trust)


def authenticode_hash(data: bytes) -> bytes:
    return image_hash(Source.of(data), layout(Source.of(data)), "sha256")


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return windows.program(tmp_path_factory.mktemp("library") / "acme.dll").read_bytes()


@pytest.fixture
def pack(tmp_path: Path, library: bytes, vendor: signing.Identity) -> Pack:
    """A driver package with a catalogue over what is in it. `extra` comes on top, `late` after the catalogue was made."""
    def package(text: str | bytes = "", *, extra: dict[str, bytes] | None = None, late: dict[str, bytes] | None = None,
                without: str = "", signer: signing.Identity = vendor) -> bytes:
        files = {"acme.inf": (text or inf_text()) if isinstance(text, bytes) else (text or inf_text()).encode(),
                 "acme.dll": library, **(extra or {})}
        files.pop(without, None)
        listed = {name: authenticode_hash(data) if data[:2] == b"MZ" else plain_hash(data) for name, data in files.items()}
        files["acme.cat"] = catalogue(tmp_path, listed, signer)
        if without == "acme.cat":
            files.pop("acme.cat")
        return zipped({**files, **(late or {})})

    return package


def test_b5_a_sound_package_has_nothing_to_be_told(pack: Pack, trust: Trust) -> None:
    report = read(pack(), trust)

    assert report.problems == report.notes == ()
    assert (report.classes, report.providers, report.versions) == (("SmartCardReader",), ("Acme Ltd.",), ("1.2.3.0",))
    assert report.hardware_ids == (r"amd64 USB\VID_1234&PID_0001", r"amd64 USB\VID_1234&PID_0002&MI_00")
    assert report.signature is not None
    assert (report.signature.fault, report.signature.subject) == ("", signing.VENDOR)
    assert not report.driver_signed


def test_b5_a_file_beside_the_inf_that_it_does_not_name_is_refused(pack: Pack, library: bytes, trust: Trust) -> None:
    """B5: a smuggled version.dll beside a signed INF, even if the catalogue has it."""
    report = read(pack(extra={"version.dll": library}), trust)

    assert report.problems == ("version.dll: expected only files that an INF names, this one is not",)


def test_b5_a_file_that_came_after_the_catalogue_is_found(pack: Pack, trust: Trust, tmp_path: Path) -> None:
    other = windows.program(tmp_path / "other.dll", mark="evil").read_bytes()
    report = read(pack(late={"acme.dll": other}), trust)

    assert report.problems == ("acme.dll: expected every file in the catalogue, this one is not, or was changed since",)


def test_b5_a_changed_inf_is_found(pack: Pack, trust: Trust) -> None:
    report = read(pack(late={"acme.inf": inf_text().replace("Speed", "Spied").encode()}), trust)

    assert report.problems == ("acme.inf: expected every file in the catalogue, this one is not, or was changed since",)


def test_a_file_that_is_missing_is_named(pack: Pack, trust: Trust) -> None:
    assert "expected the file 'acme.dll', which the INF names, found none" in read(pack(without="acme.dll"), trust).problems


def test_b4_a_package_without_its_catalogue_is_refused(pack: Pack, trust: Trust) -> None:
    report = read(pack(without="acme.cat"), trust)

    assert report.signature is None
    assert "expected the file 'acme.cat', which the INF names, found none" in report.problems


def test_an_inf_without_catalogue_and_class_is_told_all_of_it(pack: Pack, trust: Trust) -> None:
    text = inf_text().replace("CatalogFile=acme.cat\n", "").replace("Class=SmartCardReader\n", "")
    problems = read(pack(text), trust).problems

    assert any("expected CatalogFile" in text for text in problems)
    assert "acme.inf: expected Class in [Version], found none" in problems


def test_b4_microsofts_hardware_signature_is_recognised_by_its_use(pack: Pack, signers: Path, vendor: signing.Identity,
                                                                    trust: Trust) -> None:
    """B4: the extended key usage of Windows Hardware Driver Verification, beside that for code."""
    from cryptography import x509

    hardware = signing.make(signers, "hardware", authority=vendor, usages=(
        x509.ObjectIdentifier("1.3.6.1.4.1.311.10.3.5"), signing.CODE_SIGNING),
        subject="CN=Microsoft Windows Hardware Compatibility Publisher,O=Microsoft Corporation,C=US")
    report = read(pack(signer=hardware), trust)

    assert report.driver_signed
    assert report.signature is not None
    assert report.signature.fault == ""


@pytest.mark.parametrize(("more", "expected"), [
    ("[Install.NT.CoInstallers]\nAddReg=Co\nCopyFiles=CoFiles\n[Co]\nHKR,,CoInstallers32,0x00010000,\"acme.dll,Entry\"\n"
     "[CoFiles]\nacme.dll\n", ("co-installers are refused", "CoInstallers32 registers a co-installer")),
    ("[Co]\nHKLM,SYSTEM\\CurrentControlSet\\Control\\CoDeviceInstallers,{50DD5230-BA8A-11D1-BF5D-0000F805F530},"
     "0x00010000,\"acme.dll,Entry\"\n", ("co-installer for a class of devices",)),
    ("[ClassInstall32]\nAddReg=Cls\n[Cls]\nHKR,,Installer32,,\"acme.dll,Entry\"\n", ("registers a class installer",)),
    ("[More]\nCopyFiles=MoreFiles\n[MoreFiles]\nWdfCoInstaller01011.dll,acme.dll\n",
     ("WdfCoInstaller01011.dll is a co-installer",)),
    ("[More]\nCopyFiles=MoreFiles\n[MoreFiles]\nacme_coinst64.dll,acme.dll\n", ("acme_coinst64.dll is a co-installer",)),
    ("[DefaultInstall]\nRunPostSetupCommands=Run\n[Run]\ncmd.exe /c x\n", ("RunPostSetupCommands runs commands",)),
])
def test_b6_co_installers_and_commands_are_refused(more: str, expected: tuple[str, ...], pack: Pack, trust: Trust) -> None:
    """B6: Microsoft signs no package with co-installers any more."""
    said = "\n".join(read(pack(inf_text(more=more)), trust).problems)

    for text in expected:
        assert text in said


@pytest.mark.parametrize(("line", "what"), [
    (r'HKLM,"SOFTWARE\Policies\Microsoft\Windows Defender",DisableAntiSpyware,0x00010001,1', "Microsoft Defender"),
    (r"HKLM,%Key%,EnableLUA,0x00010001,0", "User Account Control"),
    (r'HKLM,"SOFTWARE\Microsoft\Windows\CurrentVersion\Explorer",SmartScreenEnabled,,Off', "SmartScreen"),
    (r"HKLM,SYSTEM\CurrentControlSet\Control\CI\Config,VulnerableDriverBlocklistEnable,0x10001,0", "driver signing"),
    (r"HKLM,BCD00000000\Objects\{x}\Elements\16000049,Element,1,01", "driver signing"),
    (r"HKLM,SYSTEM\CurrentControlSet\Control\SecurityProviders\SCHANNEL\Protocols\SSL 3.0\Client,Enabled,0x10001,1", "TLS"),
    (r"HKLM,SYSTEM\CurrentControlSet\Services\SharedAccess\Parameters\FirewallPolicy,x,,", "the firewall"),
    (r"HKLM,SYSTEM\CurrentControlSet\Services\WinDefend,Start,0x10001,4", "a protection service of Windows"),
    (r"HKLM,SOFTWARE\Microsoft\SystemCertificates\Root\Certificates\AB,Blob,1,00", "a certificate trust store"),
    (r"HKLM,SOFTWARE\Policies\Microsoft\Windows Defender", "Microsoft Defender"),
])
def test_j3_f2_settings_that_are_the_users(line: str, what: str, pack: Pack, trust: Trust) -> None:
    """J3: attempt forbidden keys fails, also behind a token and for deletion of a whole key."""
    more = f"[Hidden]\n{line}\n[Strings]\nKey=\"SOFTWARE\\Microsoft\\Windows\\CurrentVersion\\Policies\\System\"\n"
    (told,) = read(pack(inf_text(more=more)), trust).problems

    assert told.startswith(f"acme.inf [hidden] changes {what}: ")


def test_j3_a_protection_service_is_not_replaced(pack: Pack, trust: Trust) -> None:
    more = "[Install.NT.More]\nAddService=WinDefend,2,Svc\n"

    assert "a protection service of Windows" in read(pack(inf_text(more=more)), trust).problems[0]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_an_inf_in_every_encoding_is_read(encoding: str, pack: Pack, trust: Trust) -> None:
    report = read(pack(inf_text().replace("Acme Ltd.", "Äcme Ltd.").encode(encoding)), trust)

    assert report.providers == ("Äcme Ltd.",)
    assert report.problems == ()


@pytest.mark.parametrize("options", [(), ("--zip",)])
def test_a_cabinet_is_read_like_a_zip(options: tuple[str, ...], pack: Pack, trust: Trust, tmp_path: Path) -> None:
    import io
    import zipfile

    folder = tmp_path / "unpacked"
    with zipfile.ZipFile(io.BytesIO(pack())) as archive:
        archive.extractall(folder)
    made = windows.cabinet(tmp_path / "acme.cab", folder, *options)
    report = read(made.read_bytes(), trust)

    assert report.problems == ()
    assert set(report.files) == {"acme.inf", "acme.dll", "acme.cat"}
    packed = bytearray(made.read_bytes())
    packed[42:44] = b"\x03\x15"  # CFFOLDER.typeCompress: LZX
    with pytest.raises(Malformed, match="pack the same files as a zip"):
        read(bytes(packed), trust)


def test_a_package_without_an_inf_is_none(library: bytes, trust: Trust) -> None:
    for data in (zipped({"acme.dll": library}), b"MSCF", b"", zipped({"acme.inf": b"a\0b"})):
        with pytest.raises(Malformed):
            read(data, trust)


def test_text_comments_quotes_and_lines_that_go_on() -> None:
    text = read_inf(b'; first\n[A] ; odd\nKey = "a;b" , c,"d""e",,%T% ; end\nlong = one,\\\n  two\n"a=b"=c\nplain,list\n'
                    b'[b]\nx=1\n[a]\nlast=%unknown%,100%\n[Strings]\nT="t, u"\n')

    assert text.values("A", "KEY") == ("a;b", "c", 'd"e', "", "t, u")
    assert text.values("a", "long") == ("one", "two")
    assert text.values("a", "a=b") == ("c",)
    assert [entry.values for entry in text.section("a") if not entry.key] == [("plain", "list")]
    assert text.values("a", "last") == ("%unknown%", "100%")


def test_tokens_do_not_grow() -> None:
    """A text that stands for many others is replaced once."""
    text = read_inf(b"[Strings]\na=%b%%b%%b%\nb=%a%%a%\n[X]\nk=%a%\n")

    assert text.value("x", "k") == "%b%%b%%b%"
