"""Security H3: a hostile archive is refused whole; nothing of it is ever written."""

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from keyfit.engine.steps import archive
from keyfit.errors import TrustError

FILES = ("lib/module.so", "readme")
Members = list[tuple[str, bytes]]
GOOD: Members = [("lib/module.so", b"elf"), ("readme", b"text")]

HOSTILE_NAMES = [
    "/etc/passwd", "//etc/passwd", "../evil", "lib/../../evil", "..", "./readme2", "lib/./x", "lib//x", "a\\b", "..\\evil",
    "C:\\x", "C:x", "readme:stream", "con", "CON.txt", "lib/nul", "aux.so", "com1", "lpt9.txt", "x.", "x ", " x",
    "lib/x./y", "new\nline", "tab\tname", "bell\x07", "\u202egpj.exe", "esc\x1b[0m", "x" * 201, "README", "LIB/module.so",
    "unlisted", "lib/unlisted.so", "readme/inside",
]


def tar(path: Path, members: Members, change: Callable[[tarfile.TarInfo], None] | None = None, mode: str = "w:gz") -> Path:
    """A tar archive; `change` works on the last member."""
    with tarfile.open(path, mode) as made:  # type: ignore[call-overload]
        for number, (name, data) in enumerate(members):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if change is not None and number == len(members) - 1:
                change(info)
            made.addfile(info, io.BytesIO(data))
    return path


def zipped(path: Path, members: Members, mode: int = 0o100644) -> Path:
    """A zip archive; the last member has this Unix mode."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for number, (name, data) in enumerate(members):
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (mode if number == len(members) - 1 else 0o100644) << 16
            made.writestr(info, data)
    return path


@pytest.mark.parametrize("mode", ["w:gz", "w:xz"])
def test_h3_an_archive_with_exactly_the_listed_files_is_taken(tmp_path: Path, mode: str) -> None:
    archive.check(tar(tmp_path / "a.tar", GOOD, mode=mode), FILES)


def test_h3_a_zip_with_exactly_the_listed_files_is_taken(tmp_path: Path) -> None:
    archive.check(zipped(tmp_path / "a.zip", GOOD), FILES)


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_h3_hostile_names_in_a_tar_refuse_the_whole(tmp_path: Path, name: str) -> None:
    with pytest.raises(TrustError) as caught:
        archive.check(tar(tmp_path / "a.tar.gz", [*GOOD, (name, b"x")]), FILES)
    assert caught.value.code == "archive-refused"
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_h3_hostile_names_in_a_zip_refuse_the_whole(tmp_path: Path, name: str) -> None:
    with pytest.raises(TrustError):
        archive.check(zipped(tmp_path / "a.zip", [*GOOD, (name, b"x")]), FILES)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE],
                         ids=["symlink", "hard link", "character device", "block device", "fifo"])
def test_h3_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    def special(info: tarfile.TarInfo) -> None:
        info.type, info.linkname, info.size = kind, "lib/module.so", 0

    with pytest.raises(TrustError):
        archive.check(tar(tmp_path / "a.tar.gz", GOOD, special), FILES)


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o6755])
def test_h3_set_id_bits_are_refused(tmp_path: Path, mode: int) -> None:
    def set_id(info: tarfile.TarInfo) -> None:
        info.mode = mode

    with pytest.raises(TrustError):
        archive.check(tar(tmp_path / "a.tar.gz", GOOD, set_id), FILES)
    with pytest.raises(TrustError):
        archive.check(zipped(tmp_path / "a.zip", GOOD, stat.S_IFREG | mode), FILES)


def test_h3_a_symlink_in_a_zip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrustError):
        archive.check(zipped(tmp_path / "a.zip", GOOD, stat.S_IFLNK | 0o777), FILES)


@pytest.mark.parametrize("members", [GOOD[:1], [], [*GOOD, GOOD[0]]], ids=["one missing", "empty", "one twice"])
def test_h3_missing_and_doubled_files_are_refused(tmp_path: Path, members: Members) -> None:
    with pytest.raises(TrustError):
        archive.check(tar(tmp_path / "a.tar.gz", members), FILES)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_h3_a_file_that_is_twice_in_a_zip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrustError):
        archive.check(zipped(tmp_path / "a.zip", [*GOOD, GOOD[0]]), FILES)


def test_h3_directories_whose_names_differ_in_case_only_are_refused(tmp_path: Path) -> None:
    files = ("lib/a", "LIB/b")
    with pytest.raises(TrustError):
        archive.check(tar(tmp_path / "a.tar.gz", [("lib/a", b"x"), ("LIB/b", b"x")]), files)


def test_h3_a_name_with_a_nul_is_refused_not_cut(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", [GOOD[0], ("readmeXevil", b"x")])
    path.write_bytes(path.read_bytes().replace(b"readmeXevil", b"readme\0evil"))
    with pytest.raises(TrustError):
        archive.check(path, FILES)


def test_h3_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    with pytest.raises(TrustError, match="more than is allowed"):
        archive.check(tar(tmp_path / "a.tar.gz", [GOOD[0], ("readme", bytes(30_000_000))]), FILES)
    with pytest.raises(TrustError, match="more than is allowed"):
        archive.check(zipped(tmp_path / "a.zip", [GOOD[0], ("readme", bytes(30_000_000))]), FILES)


def test_h3_too_many_members_are_refused(tmp_path: Path) -> None:
    many: Members = [(f"f{number}", b"") for number in range(archive.MAX_FILES * 2 + 2)]
    with pytest.raises(TrustError, match="more than is allowed"):
        archive.check(tar(tmp_path / "a.tar.gz", many), tuple(name for name, _ in many))


@pytest.mark.parametrize("data", [b"", b"nonsense" * 100, b"\x1f\x8b\x08\0\0\0\0\0", b"PK\x05\x06" + bytes(18)])
def test_h3_what_is_no_archive_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(data)
    with pytest.raises(TrustError):
        archive.check(path, FILES)


def test_h3_an_archive_that_ends_too_soon_is_refused(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar.gz", [GOOD[0], ("readme", bytes(range(256)) * 40)])
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(TrustError):
        archive.check(path, FILES)
