"""Debian packages: those of dpkg-deb are read as dpkg-deb reads them, and what no driver package may hold is found."""

import lzma
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from keyfit.publisher.inspection import deb
from keyfit.publisher.inspection.reports import DebReport
from keyfit.publisher.inspection.source import Malformed, Source
from tests.sim.debfile import ar, deb_file, entry, tar
from tests.sim.debs import build


def read(data: bytes) -> DebReport:
    return deb.inspect(Source.of(data))


def problems(*extra: tarfile.TarInfo, files: Mapping[str, bytes] | None = None) -> tuple[str, ...]:
    return read(deb_file(extra=extra, files=files)).problems


@pytest.mark.parametrize("packing", ["xz", "gzip", "zstd", "none"])
def test_a_real_package_is_read_as_dpkg_reads_it(packing: str, tmp_path: Path) -> None:
    made = build(tmp_path, "acme", "2:1.0~rc1-3", files={"usr/lib/acme.so": "x" * 50_000, "etc/acme/a b": "y"},
                 scripts={"postinst": "#!/bin/sh\nldconfig\n", "prerm": "#!/bin/sh\ntrue\n"}, architecture="arm64")
    packed = tmp_path / "packed.deb"
    subprocess.run(["/usr/bin/dpkg-deb", f"-Z{packing}", "--root-owner-group", "--build", tmp_path / "acme-2:1.0~rc1-3",
                    packed], check=True, capture_output=True, timeout=60)

    for file in (made, packed):
        report = read(file.read_bytes())
        shown = subprocess.run(["/usr/bin/dpkg-deb", "--contents", file], check=True, capture_output=True, text=True,
                               timeout=60).stdout
        listed = [line.split(" ./", 1)[1] for line in shown.splitlines() if not line.endswith("/")]
        assert (report.name, report.version, report.architecture) == ("acme", "2:1.0~rc1-3", "arm64")
        assert sorted(report.files) == sorted(f"/{name}" for name in listed)
        assert report.scripts == ("postinst", "prerm")
        assert report.problems == report.notes == ()


def test_a_package_written_here_is_one_for_dpkg_too(tmp_path: Path) -> None:
    """Holds the simulator against the real thing."""
    (tmp_path / "a.deb").write_bytes(deb_file("acme", "1.0", "amd64", files={"./usr/lib/acme.so": b"x"}))
    fields = subprocess.run(["/usr/bin/dpkg-deb", "--show", "--showformat=${Package} ${Version} ${Architecture}",
                             tmp_path / "a.deb"], check=True, capture_output=True, text=True, timeout=60).stdout

    assert fields == "acme 1.0 amd64"


@pytest.mark.parametrize(("extra", "expected"), [
    (entry("./usr/bin/su", mode=0o4755), "/usr/bin/su: expected no set-user-id or set-group-id bits, came mode 4755"),
    (entry("./usr/bin/sg", mode=0o2755), "/usr/bin/sg: expected no set-user-id"),
    (entry("./usr/lib/open", mode=0o666), "/usr/lib/open: expected nothing that everyone may write to"),
    (entry("./usr/open", tarfile.DIRTYPE, mode=0o777), "/usr/open: expected nothing that everyone may write to"),
    (entry("./dev/acme", tarfile.CHRTYPE), "/dev/acme: expected files, folders and links, came a device"),
    (entry("./dev/acme", tarfile.FIFOTYPE), "/dev/acme: expected files, folders and links, came a device"),
    (entry("../etc/passwd"), "'/../etc/passwd': expected an absolute path without"),
    (entry("./usr/../../etc/passwd"), "expected an absolute path without"),
    (entry("/etc/passwd"), "'//etc/passwd': expected an absolute path without"),
    (entry("./usr/a\x1b[31m"), "expected a printable path"),
    (entry("./usr/up", tarfile.SYMTYPE, link="../../../etc"), "/usr/up: expected a link inside the system"),
    (entry("./usr/tmp", tarfile.SYMTYPE, link="/tmp/acme.so"), "/usr/tmp: expected a link inside the system"),
    (entry("./usr/hard", tarfile.LNKTYPE, link="../../etc/shadow"), "/usr/hard: expected a link inside the system"),
    (entry("./usr/lib/acme.so"), "/usr/lib/acme.so: expected each path once, came twice"),
])
def test_h3_what_a_package_may_not_hold(extra: tarfile.TarInfo, expected: str) -> None:
    """H3: refused, not repaired."""
    found = problems(extra)

    assert [text for text in found if expected in text], found


@pytest.mark.parametrize("path", ["./etc/ssl/certs/acme.pem", "./usr/local/share/ca-certificates/acme.crt",
                                  "./usr/share/ca-certificates/acme/root.crt", "./etc/pki/ca-trust/source/anchors/acme.pem"])
def test_f2_a_certificate_for_the_system_is_refused(path: str) -> None:
    """F2: no root is added, by no brand's package."""
    assert any("certificates that the system trusts" in text for text in problems(files={path: b"x"}))


def test_links_that_packages_have_are_let_through() -> None:
    links = (entry("./usr/lib/a.so", tarfile.SYMTYPE, link="a.so.1"), entry("./usr/lib/b", tarfile.SYMTYPE, link="../share/b"),
             entry("./lib/systemd/system/x.service", tarfile.SYMTYPE, link="/dev/null"),
             entry("./usr/tmp", tarfile.DIRTYPE, mode=0o1777))

    assert problems(*links) == ()


@pytest.mark.parametrize(("script", "problem", "note"), [
    ("#!/bin/sh\ncurl -o /x https://example.com/x\n", "", "postinst fetches from a network ('curl')"),
    ("#!/bin/sh\nwget https://example.com/x\n", "", "postinst fetches from a network ('wget')"),
    ("#!/bin/sh\ncurl -k https://example.com/x\n", "postinst touches checks of downloads", "'curl'"),
    ("#!/bin/sh\nupdate-ca-certificates\n", "postinst touches a certificate trust store", ""),
    ("#!/bin/sh\nufw disable\n", "postinst touches the firewall", ""),
    ("#!/bin/sh\nsetenforce 0\n", "postinst touches access control of the system", ""),
    ("#!/bin/sh\nldconfig\nsystemctl restart pcscd\n", "", ""),
    ("\x7fELF\x02\x01\x01", "", "postinst is a program, not a script"),
])
def test_j3_f2_what_scripts_do_is_read(script: str, problem: str, note: str) -> None:
    """J3, F2: protections are the user's. Fetching is told, since what comes is in no signed list."""
    report = read(deb_file(scripts={"postinst": script}))

    assert bool(report.problems) == bool(problem)
    assert problem in " ".join(report.problems)
    assert bool(report.notes) == bool(note)
    assert note in " ".join(report.notes)


@pytest.mark.parametrize("data", [
    b"", b"!<arch>\n", deb_file()[:300], deb_file()[:-200], ar({"debian-binary": b"3.0\n", "control.tar": b"", "data.tar": b""}),
    ar({"debian-binary": b"2.0\n", "data.tar": tar({}), "control.tar": tar({})}), ar({"control.tar": tar({})}),
    deb_file(control="Package: acme\nVersion: 1.0\n"), deb_file(control=""),
    ar({"debian-binary": b"2.0\n", "control.tar.xz": b"\xfd7zXZ\x00 no", "data.tar": tar({})}),
    ar({"debian-binary": b"2.0\n", "control.tar.zst": b"\x28\xb5\x2f\xfd no", "data.tar": tar({})}),
])
def test_a_file_out_of_form_is_no_package(data: bytes) -> None:
    with pytest.raises(Malformed):
        read(data)


def test_a7_a_bomb_is_stopped_at_the_limit() -> None:
    """A few kilobytes that would unpack to 64 MB of control data."""
    bomb = lzma.compress(tar({"./control": b"Package: acme\n", "./big": bytes(64 * 1024 * 1024)}))

    with pytest.raises(Malformed, match="at most"):
        read(ar({"debian-binary": b"2.0\n", "control.tar.xz": bomb, "data.tar": tar({})}))
