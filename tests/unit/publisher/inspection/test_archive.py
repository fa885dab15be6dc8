"""Archives of ours: names, kinds and modes that are refused, and the Windows programs inside."""

import io
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from keyfit.publisher.inspection import archive
from keyfit.publisher.inspection.authenticode import Trust
from keyfit.publisher.inspection.reports import ArchiveReport
from keyfit.publisher.inspection.source import Malformed, Source
from tests.sim import archivetable
from tests.sim.debfile import entry, tar
from tests.sim.driverpackage import zipped

HOSTILE = ("../evil", "/abs", "a/../../b", "C:x", "a:stream", "x\\..\\y", "con.txt", "a/./b", "nul", "a\x1bb", "a.", " a")


def read(data: bytes, trust: Trust) -> ArchiveReport:
    return archive.inspect(Source.of(data), trust)


@pytest.mark.parametrize("packing", ["gz", "xz", "bz2", "zst", ""])
def test_tars_in_every_packing_are_listed(packing: str, trust: Trust, tmp_path: Path) -> None:
    plain = tar({"lib/acme.so": b"x" * 70_000, "doc/readme": b"y"})
    if packing == "zst":
        data = subprocess.run(["/usr/bin/zstd", "-c"], input=plain, capture_output=True, check=True, timeout=60).stdout
    elif packing:
        with tarfile.open(tmp_path / "a.tar", f"w:{packing}") as made:
            made.addfile(entry("lib/acme.so"), io.BytesIO())
            made.addfile(entry("doc/readme"), io.BytesIO())
        data = (tmp_path / "a.tar").read_bytes()
    else:
        data = plain

    assert read(data, trust).files == ("lib/acme.so", "doc/readme")
    assert [text for text in read(data, trust).problems if "zstd" not in text] == []
    assert bool(read(data, trust).problems) == (packing == "zst"), "which the client does not unpack"


def _looked_at(data: bytes, trust: Trust) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What is wrong, and the files."""
    try:
        report = read(data, trust)
    except Malformed as error:
        return (str(error),), ()
    return report.problems, report.files


@pytest.mark.parametrize("case", archivetable.table())
def test_h3_what_the_client_refuses_is_not_published(case: str, trust: Trust) -> None:
    data, _ = archivetable.table()[case]
    said, files = _looked_at(data, trust)
    assert said or set(files) != set(archivetable.FILES)
    assert all(text.isprintable() for text in said)


@pytest.mark.parametrize("case", archivetable.good_archives())
def test_h3_what_the_client_takes_can_be_published(case: str, trust: Trust) -> None:
    report = read(archivetable.good_archives()[case], trust)
    assert (report.problems, set(report.files)) == ((), set(archivetable.FILES))


@pytest.mark.parametrize("name", HOSTILE)
def test_h3_hostile_names_are_refused_in_zip_and_tar(name: str, trust: Trust) -> None:
    assert read(zipped({"ok": b"", name: b"x"}), trust).problems
    assert read(tar({"ok": b""}, (entry(name),)), trust).problems


@pytest.mark.parametrize(("member", "expected"), [
    (entry("a", tarfile.SYMTYPE, link="ok"), "came link"), (entry("a", tarfile.LNKTYPE, link="ok"), "came hard link"),
    (entry("a", tarfile.CHRTYPE), "came a device"), (entry("a", mode=0o4755), "no set-id bits"),
    (entry("OK"), "expected each name once"), (entry("ok"), "expected each name once"),
])
def test_h3_links_devices_set_id_bits_and_clashes_are_refused(member: tarfile.TarInfo, expected: str, trust: Trust) -> None:
    assert expected in " ".join(read(tar({"ok": b""}, (member,)), trust).problems)


def test_h3_a_link_in_a_zip_is_refused(trust: Trust) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        link = zipfile.ZipInfo("a")
        link.external_attr = 0o120777 << 16
        made.writestr(link, "/etc/passwd")

    assert "a link or device" in read(buffer.getvalue(), trust).problems[0]


def test_windows_programs_inside_are_told_with_their_signature(signed: Path, program: Path, trust: Trust) -> None:
    report = read(zipped({"bin/good.exe": signed.read_bytes(), "bin/bare.exe": program.read_bytes(), "x.txt": b"MZ?"[1:]}), trust)

    assert [(one.name, one.signature is not None) for one in report.binaries] == [("bin/good.exe", True), ("bin/bare.exe", False)]


@pytest.mark.parametrize("data", [
    b"", b"PK\x03\x04", zipped({"a": b"x" * 10_000})[:-30], b"\x1f\x8b\x08\x00 no", tar({"a": b"x"})[:300],
    zipped({"a.exe": b"MZ no program"}),
], ids=["empty", "four bytes", "zip cut off", "gzip header", "tar cut off", "no program"])
def test_a_file_out_of_form_is_no_archive(data: bytes, trust: Trust) -> None:
    with pytest.raises(Malformed):
        read(data, trust)


def test_h3_a_damaged_member_of_a_zip_is_found(trust: Trust) -> None:
    data = bytearray(zipped({"a": b"x" * 10_000}))
    data[40] ^= 0xFF

    with pytest.raises(Malformed):
        read(bytes(data), trust)
