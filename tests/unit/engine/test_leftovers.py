"""What dpkg leaves when it dies while it unpacks: what came with the package goes, everybody else's things stay (D4, D7)."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest

from keyfit.engine.steps import leftovers
from keyfit.platforms.linux.host import LinuxHost
from tests.sim import debs

FILES = {"usr/lib/acme/driver.so": "elf\n", "usr/lib/acme/data": "data\n", "etc/acme.conf": "conf\n"}
LINKS = {"usr/lib/acme/driver.so.1": "driver.so", "usr/lib/acme/nowhere": "absent"}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "usr/lib").mkdir(parents=True)
    (root / "etc").mkdir()
    (root / "etc/theirs").write_text("theirs\n")
    return root


def packed(tmp_path: Path, **more: Any) -> Path:
    return debs.build(tmp_path, "acme", files=FILES, links=LINKS, **more)


def names(tree: Path) -> set[str]:
    return {str(path.relative_to(tree)) for path in tree.rglob("*")}


def unpack(tree: Path, ending: str = "") -> None:
    """As far as dpkg came: everything has this ending."""
    for name, text in FILES.items():
        path = tree / (name + ending)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name, to in LINKS.items():
        (tree / (name + ending)).symlink_to(to)


@pytest.mark.parametrize("ending", ["", ".dpkg-new", ".dpkg-tmp"])
def test_d7_whatever_came_with_the_package_goes(tree: Path, tmp_path: Path, ending: str) -> None:
    host, old = LinuxHost(str(tree)), names(tree)
    expected = leftovers.expect(host, packed(tmp_path))
    unpack(tree, ending)
    (tree / "usr/lib/acme.dpkg-new").mkdir()
    leftovers.sweep(host, expected)
    assert names(tree) == old


def test_a_package_is_known_by_its_own_list_of_sums_if_it_is_large(tree: Path, tmp_path: Path,
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "LISTED_BYTES", 0)
    sums = "".join(f"{hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()}  {name}\n" for name, text in FILES.items())
    host, old = LinuxHost(str(tree)), names(tree)
    expected = leftovers.expect(host, packed(tmp_path, scripts={"md5sums": sums}))
    unpack(tree)
    for name in LINKS:
        (tree / name).unlink()  # these are not on the list
    assert {name: entry[1:] for name, entry in expected["files"].items()} == {
        f"/{name}": [None, hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()] for name, text in FILES.items()}
    leftovers.sweep(host, expected)
    assert names(tree) == old


@pytest.mark.parametrize("theirs", ["other size\n", "elF\n"])
def test_d4_what_somebody_else_put_there_stays(tree: Path, tmp_path: Path, theirs: str) -> None:
    md5 = hashlib.md5(b"elf\n", usedforsecurity=False).hexdigest()
    host = LinuxHost(str(tree))
    expected = leftovers.expect(host, packed(tmp_path, scripts={"md5sums": f"{md5}  usr/lib/acme/driver.so\n"}))
    unpack(tree)
    (tree / "usr/lib/acme/driver.so").write_text(theirs)
    (tree / "usr/lib/acme/driver.so.1").unlink()
    (tree / "usr/lib/acme/driver.so.1").write_text("a file, no link\n")
    leftovers.sweep(host, expected)
    assert {path.name: path.read_text() for path in (tree / "usr/lib/acme").iterdir()} == {
        "driver.so": theirs, "driver.so.1": "a file, no link\n"}


def test_d7_a_file_that_was_there_before_comes_back(tree: Path, tmp_path: Path) -> None:
    """dpkg had moved it aside for the package's own."""
    (tree / "etc/acme.conf").write_text("mine\n")
    (tree / "etc/acme.conf").chmod(0o600)
    host, old = LinuxHost(str(tree)), names(tree)
    expected = leftovers.expect(host, packed(tmp_path))
    shutil.copy2(tree / "etc/acme.conf", tree / "etc/acme.conf.dpkg-tmp")
    (tree / "etc/acme.conf").write_text(FILES["etc/acme.conf"])
    leftovers.sweep(host, expected)
    assert (names(tree), (tree / "etc/acme.conf").read_text()) == (old, "mine\n")


def test_a_file_that_is_no_package_has_no_leftovers(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "x.deb").write_bytes(b"!<arch>\nnothing")
    expected = leftovers.expect(LinuxHost(str(tree)), tmp_path / "x.deb")
    old = names(tree)
    leftovers.sweep(LinuxHost(str(tree)), expected)
    assert (expected["files"], names(tree)) == ({}, old)
