"""Windows Installer packages made by wixl, with msiinfo and osslsigncode to compare with."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from keyfit.publisher.inspection import msi
from keyfit.publisher.inspection.authenticode import Trust
from keyfit.publisher.inspection.cfb import CompoundFile
from keyfit.publisher.inspection.limits import MAX_BINARY_BYTES
from keyfit.publisher.inspection.msitables import Database
from keyfit.publisher.inspection.reports import MsiReport
from keyfit.publisher.inspection.source import Malformed, Source
from tests.sim import signing, windows

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path, program: Path) -> Make:
    """An installer with one program and a text file."""
    (tmp_path / "readme.txt").write_text("hello\n" * 5_000)

    def installer(name: str = "acme.msi", **options: str) -> Path:
        return windows.installer(tmp_path / name, {"acme.exe": program, "read me.txt": tmp_path / "readme.txt"}, **options)

    return installer


def read(path: Path, trust: Trust) -> MsiReport:
    with path.open("rb") as file:
        return msi.inspect(Source(file), trust)


@pytest.mark.parametrize(("architecture", "told"), [("x86", "i386"), ("x64", "amd64")])
def test_product_platform_and_files_are_told(architecture: str, told: str, make: Make, trust: Trust) -> None:
    report = read(make(architecture=architecture, version="2.5.11"), trust)

    assert (report.product, report.version, report.manufacturer) == ("Acme Token", "2.5.11", "Acme Ltd.")
    assert report.architecture == told
    assert report.files == ("acme.exe", "read me.txt")
    assert [(one.name, one.machine, one.versions) for one in report.binaries] == [("acme.exe", "amd64", ("1.2.3.0",))]
    assert report.signature is None
    assert report.problems == report.actions == ()


def test_every_table_is_read_as_msitools_read_it(make: Make) -> None:
    """Holds the table reader against libmsi: same tables, same rows, same texts, a long one among them."""
    path = make(more="<Property Id='LONG' Value='" + "a long text " * 400 + "'/>")
    compared = 0
    with path.open("rb") as file:
        database = Database(CompoundFile(Source(file)))
        for table in database.tables():
            shown = subprocess.run(["/usr/bin/msiinfo", "export", path, table], capture_output=True, check=True, text=True,
                                   timeout=60).stdout.split("\n")
            names, rows = shown[0].split("\t"), [line.split("\t") for line in shown[3:] if line]
            came = [["" if row[name] is None else str(row[name]) for name in names] for row in database.rows(table)]
            assert came == rows, table
            compared += len(rows)
    assert compared > 50


@pytest.mark.parametrize("options", [(), ("-add-msi-dse",)])
def test_b2_b3_a_signature_over_all_streams_is_recomputed(options: tuple[str, ...], make: Make, vendor: signing.Identity,
                                                          trust: Trust, tmp_path: Path) -> None:
    made = signing.sign(vendor, make(), tmp_path / "signed.msi", "-h", "sha256", *options)
    found = read(made, trust).signature

    assert signing.verdict(vendor, made)
    assert found is not None
    assert (found.fault, found.subject, found.issuer) == ("", signing.VENDOR, signing.ISSUER)

    data = bytearray(made.read_bytes())
    position = data.index(b"Acme Ltd.")
    data[position] ^= 0x20
    (tmp_path / "changed.msi").write_bytes(data)
    changed = read(tmp_path / "changed.msi", trust).signature
    assert changed is not None
    assert "not the file's" in changed.fault


def test_b3_with_the_extended_signature_names_are_covered_too(make: Make, vendor: signing.Identity, trust: Trust,
                                                              tmp_path: Path) -> None:
    """The plain signature covers the streams' bytes only; MsiDigitalSignatureEx their names as well."""
    made = signing.sign(vendor, make(), tmp_path / "signed.msi", "-h", "sha256", "-add-msi-dse")
    data = made.read_bytes()
    with made.open("rb") as file:
        container = CompoundFile(Source(file))
        name = "\x05SummaryInformation".encode("utf-16-le")
        entry = next(one for one in container.children(container.root) if one.name == name)
    assert data.count(entry.raw) == 1
    renamed = bytearray(entry.raw)
    renamed[96:100] = b"\x01\0\0\0"  # state bits, which no stream's bytes tell
    (tmp_path / "changed.msi").write_bytes(data.replace(entry.raw, bytes(renamed)))

    found = read(tmp_path / "changed.msi", trust).signature
    assert found is not None
    assert found.fault


@pytest.mark.parametrize(("key", "name", "what"), [
    (r"Software\Policies\Microsoft\Windows Defender", "DisableAntiSpyware", "Microsoft Defender"),
    (r"Software\Microsoft\Windows\CurrentVersion\Policies\System", "EnableLUA", "User Account Control"),
    (r"SOFTWARE\Wow6432Node\Microsoft\Windows\CurrentVersion\Explorer", "SmartScreenEnabled", "SmartScreen"),
    (r"System\CurrentControlSet\Control\CI\Config", "VulnerableDriverBlocklistEnable", "driver signing"),
    (r"SYSTEM\ControlSet001\Control\SecurityProviders\SCHANNEL\Protocols\TLS 1.0\Client", "Enabled", "TLS"),
    (r"SYSTEM\CurrentControlSet\Services\SharedAccess\Parameters\FirewallPolicy\StandardProfile", "EnableFirewall",
     "the firewall"),
    (r"SOFTWARE\Microsoft\SystemCertificates\ROOT\Certificates\AA", "Blob", "a certificate trust store"),
])
def test_j3_f2_settings_that_are_the_users(key: str, name: str, what: str, make: Make, trust: Trust) -> None:
    """J3: attempt forbidden keys fails; F2: no trust store edits."""
    value = f"<RegistryValue Root='HKLM' Key='{key}' Name='{name}' Type='integer' Value='1'/>"
    own = r"<RegistryValue Root='HKLM' Key='Software\Acme' Name='EnableLUA' Type='integer' Value='1'/>"

    (told,) = read(make(registry=value + own), trust).problems
    assert told == f"table Registry changes {what}: {key}\\{name}"


@pytest.mark.parametrize(("command", "expected"), [
    ("netsh advfirewall set allprofiles state off", "touches the firewall"),
    ("powershell Set-MpPreference -DisableRealtimeMonitoring 1", "touches Microsoft Defender"),
    ("bcdedit /set testsigning on", "touches driver signing"),
    ("certutil -f -addstore Root acme.cer", "touches a certificate trust store"),
    ("--register", ""),
])
def test_j3_f2_custom_actions_are_listed_and_read(command: str, expected: str, make: Make, trust: Trust) -> None:
    report = read(make(more=f"<CustomAction Id='Run' FileKey='f0' ExeCommand='{command}' Execute='deferred' Return='check'/>"),
                  trust)

    assert report.actions == (f"Run: an installed program ({command})",)
    assert expected in " ".join(report.problems)
    assert bool(report.problems) == bool(expected)


def test_j3_a_protection_service_may_not_be_stopped(make: Make, trust: Trust) -> None:
    stop = "<ServiceControl Id='s' Name='WinDefend' Stop='both' Wait='no'/>"

    assert "a protection service of Windows" in read(make(registry=stop), trust).problems[0]


def test_a_driver_inside_is_seen_as_one(make: Make, trust: Trust, tmp_path: Path) -> None:
    driver = windows.program(tmp_path / "acme.sys", driver=True)
    report = read(windows.installer(tmp_path / "a.msi", {"acme.sys": driver}), trust)

    assert [(one.name, one.kernel) for one in report.binaries] == [("acme.sys", True)]


def test_a_cabinet_that_cannot_be_unpacked_is_told_and_its_drivers_refused(trust: Trust, tmp_path: Path) -> None:
    """What is packed with LZX is known by the File table only, which is not enough for a kernel driver."""
    driver = windows.program(tmp_path / "acme.sys", driver=True)
    made = windows.installer(tmp_path / "a.msi", {"acme.sys": driver})
    data = made.read_bytes()
    start = data.index(b"MSCF")
    data = data[: start + 42] + b"\x03\x15" + data[start + 44 :]  # CFFOLDER.typeCompress of the first folder
    made.write_bytes(data)

    report = read(made, trust)
    assert "packed with lzx" in report.problems[0]
    assert [(one.name, one.sha256) for one in report.binaries] == [("acme.sys", "")]


def test_a_large_file_beside_programs_is_passed_over(program: Path, trust: Trust, tmp_path: Path) -> None:
    """Only its name and size are known; the programs before and after it are looked at."""
    with (tmp_path / "large.bin").open("wb") as large:
        large.truncate(MAX_BINARY_BYTES + 1)
    made = windows.installer(tmp_path / "a.msi", {"a.exe": program, "large.bin": tmp_path / "large.bin", "z.exe": program})
    report = read(made, trust)

    assert {one.name: bool(one.sha256) for one in report.binaries} == {"a.exe": True, "large.bin": False, "z.exe": True}
    assert "of more than" in report.notes[0]


@pytest.mark.parametrize("cut", [0, 100, 600, 3_000])
def test_a_file_out_of_form_is_no_package(cut: int, make: Make, trust: Trust, tmp_path: Path) -> None:
    (tmp_path / "cut.msi").write_bytes(make().read_bytes()[:cut])

    with pytest.raises(Malformed):
        read(tmp_path / "cut.msi", trust)
