"""What may be shipped: no executable that unpacks itself (security E1), nothing setuid, writable or led astray."""

import importlib.util
import os
import struct
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PACKAGING = Path(__file__).resolve().parents[3] / "packaging"


def load(name: str) -> ModuleType:
    """A script of the folder `packaging`, which is no package: a library of that name is installed."""
    spec = importlib.util.spec_from_file_location(f"packaging_{name}", PACKAGING / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bundle, searchpaths = load("bundle"), load("searchpaths")


def executable(path: Path, *carried: tuple[str, str]) -> Path:
    """A PyInstaller executable: a bootloader, with an archive behind it of (name, type code) as PyInstaller writes it."""
    import PyInstaller
    from PyInstaller.archive.writers import CArchiveWriter

    source = path.parent / "source"
    source.write_bytes(b"x" * 32)
    archive = path.parent / "archive"
    CArchiveWriter(str(archive), [(name, str(source), True, code) for name, code in carried], "libpython3.11.so.1.0")
    loaders = Path(PyInstaller.__file__).parent / "bootloader"
    path.write_bytes(next(loaders.glob("Linux-*/run")).read_bytes() + archive.read_bytes())
    path.chmod(0o755)
    archive.unlink()
    source.unlink()
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A one-folder program as it should be."""
    made = tmp_path / "keyfit"
    made.mkdir()
    for name in ("keyfit", "keyfit-helper"):
        executable(made / name, ("PYZ.pyz", "z"), ("pyi-contents-directory _internal", "o"))
    (made / "_internal").mkdir()
    (made / "_internal/data.txt").write_text("here\n")
    (made / "_internal/link").symlink_to("data.txt")
    return made


def test_a_one_folder_program_may_be_shipped(folder: Path) -> None:
    assert list(bundle.problems(folder)) == []
    assert bundle.main([str(folder)]) == 0


@pytest.mark.parametrize("code", ["b", "x", "Z", "d", "n", "l"])
def test_e1_an_executable_that_unpacks_itself_is_not_shipped(folder: Path, code: str) -> None:
    (folder / "keyfit-helper").unlink()
    executable(folder / "keyfit-helper", ("PYZ.pyz", "z"), ("libexample.so", code))

    assert list(bundle.problems(folder)) == ["keyfit-helper: a onefile executable"]
    assert bundle.main([str(folder)]) == 1


def test_e1_nor_is_one_that_lies_deeper_in_the_folder(folder: Path) -> None:
    executable(folder / "_internal/tool", ("libexample.so", "b"))
    assert list(bundle.problems(folder)) == ["_internal/tool: a onefile executable"]


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o757])
def test_a_file_that_gives_rights_away_is_not_shipped(folder: Path, mode: int) -> None:
    (folder / "keyfit").chmod(mode)
    assert list(bundle.problems(folder)) == [f"keyfit: mode {mode:o}"]


def test_a_link_that_leads_out_of_the_folder_is_not_shipped(folder: Path) -> None:
    (folder / "_internal/out").symlink_to("/etc/passwd")
    (folder / "_internal/nowhere").symlink_to("gone")
    os.mkfifo(folder / "_internal/pipe")
    assert list(bundle.problems(folder)) == ["_internal/nowhere: a link that leads out of the folder",
                                             "_internal/out: a link that leads out of the folder",
                                             "_internal/pipe: neither file, folder nor link"]


def test_both_programs_have_to_be_there(folder: Path) -> None:
    (folder / "keyfit-helper").chmod(0o644)
    assert list(bundle.problems(folder)) == ["keyfit-helper: not there, or no executable"]


def library(folder: Path, *options: str) -> Path:
    """A real shared library with a search path, made by the compiler; `answer` returns what its dependency says."""
    (folder / "needed.c").write_text("int needed(void) { return 41; }\n")
    (folder / "library.c").write_text("int needed(void);\nint answer(void) { return needed() + 1; }\n")
    compiler = ["gcc", "-shared", "-fPIC"]
    subprocess.run([*compiler, "-o", "libneeded.so", "needed.c"], cwd=folder, check=True)
    subprocess.run([*compiler, "-o", "library.so", "library.c", "-L.", "-lneeded", *options], cwd=folder, check=True)
    return folder / "library.so"


def call(path: Path) -> subprocess.CompletedProcess[str]:
    program = f"import ctypes; print(ctypes.CDLL({str(path)!r}).answer())"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd="/")


@pytest.mark.parametrize("kind", ["--enable-new-dtags", "--disable-new-dtags"])
def test_a_builder_s_own_folder_is_taken_out_of_the_libraries(tmp_path: Path, kind: str) -> None:
    path = library(tmp_path, f"-Wl,{kind},-rpath,{tmp_path}")
    assert call(path).stdout == "42\n"  # so the path does what an attacker would use it for
    assert list(searchpaths.foreign(path).values()) == [str(tmp_path)]

    assert searchpaths.main([str(tmp_path)]) == 0

    assert searchpaths.foreign(path) == {}
    assert "libneeded.so: cannot open shared object file" in call(path).stderr


def test_a_path_relative_to_the_library_stays(tmp_path: Path) -> None:
    path = library(tmp_path, "-Wl,-rpath,$ORIGIN:$ORIGIN/../lib")
    before = path.read_bytes()
    assert searchpaths.main([str(tmp_path)]) == 0
    assert path.read_bytes() == before
    assert call(path).stdout == "42\n"


def test_a_library_that_searches_elsewhere_is_not_shipped(folder: Path, tmp_path: Path) -> None:
    path = library(tmp_path, "-Wl,-rpath,$ORIGIN:/home/builder/lib")
    path.rename(folder / "_internal/library.so")
    assert list(bundle.problems(folder)) == ["_internal/library.so: searches for libraries in $ORIGIN:/home/builder/lib"]


def test_a_32_bit_library_is_read_as_well(tmp_path: Path) -> None:
    """Made by hand, because no 32-bit compiler is asked for: one segment with it all, and a dynamic section."""
    strings = b"\0/home/builder/lib\0"
    dynamic = b"".join(struct.pack("<iI", *pair) for pair in ((5, 0x1000 + 116), (29, 1), (1, 0), (0, 0)))
    head = b"\x7fELF\x01\x01\x01".ljust(16, b"\0") + struct.pack("<HHIIIIIHHHHHH", 3, 3, 1, 0, 52, 0, 0, 52, 32, 2, 0, 0, 0)
    total = 116 + len(strings) + len(dynamic)
    segments: list[Any] = [(1, 0, 0x1000, 0x1000, total, total, 5, 4),
                           (2, 116 + len(strings), 0x1000, 0x1000, len(dynamic), len(dynamic), 4, 4)]
    path = tmp_path / "library.so"
    path.write_bytes(head + b"".join(struct.pack("<8I", *s) for s in segments) + strings + dynamic)
    assert list(searchpaths.foreign(path).values()) == ["/home/builder/lib"]
    searchpaths.main([str(tmp_path)])
    assert path.read_bytes()[-32:] == b"".join(struct.pack("<iI", *p) for p in ((5, 0x1000 + 116), (1, 0), (0, 0), (0, 0)))
