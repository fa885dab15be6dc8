"""Facts about a machine, read from a tree."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from keyfit.errors import UnsupportedError
from keyfit.platforms.linux.host import LinuxHost
from tests.unit.platforms.test_packages import package

DEBIAN = 'ID=debian\nVERSION_ID="12"\nNAME="Debian $(id) GNU/Linux"\n'


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for folder in ("etc", "usr/bin", "usr/lib", "var/lib/dpkg", "opt", "snap/bin"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "etc/os-release").symlink_to("../usr/lib/os-release")
    (tmp_path / "usr/lib/os-release").write_text(DEBIAN)
    (tmp_path / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    (tmp_path / "var/lib/dpkg/status").write_text(package("dpkg") + "\n" + package("pcscd", version="2.0"))
    return tmp_path


def test_the_facts_of_a_debian_tree(tree: Path) -> None:
    facts = LinuxHost(str(tree)).facts()

    assert (facts.system, facts.architecture, facts.root) == ("linux", "amd64", str(tree))
    assert (facts.distribution, facts.distribution_like, facts.version) == ("debian", (), "12")
    assert facts.package_managers == ("dpkg",), "a tree is served by dpkg, never by apt"
    assert facts.elevated, "a tree of one's own needs no rights"
    assert not facts.running_services
    assert facts.browsers == ()


def test_a_derivative_names_what_it_is_like(tree: Path) -> None:
    (tree / "usr/lib/os-release").write_text('ID=neon\nID_LIKE="ubuntu debian"\nVERSION_ID="24.04"\n# ID=x\n\nodd line\n')

    facts = LinuxHost(str(tree)).facts()

    assert (facts.distribution, facts.distribution_like, facts.version) == ("neon", ("ubuntu", "debian"), "24.04")


def test_a_tree_without_anything_has_facts_too(tmp_path: Path) -> None:
    facts = LinuxHost(str(tmp_path)).facts()

    assert (facts.distribution, facts.version, facts.package_managers, facts.browsers) == ("", "", (), ())
    assert LinuxHost(str(tmp_path)).package_versions() == {}
    assert not LinuxHost(str(tmp_path)).installed("pcscd")


@pytest.mark.parametrize(("dpkg_says", "expected"), [("arm64", "arm64"), ("i386", "i386")])
def test_the_tree_and_not_the_processor_says_the_architecture(tree: Path, dpkg_says: str, expected: str) -> None:
    (tree / "var/lib/dpkg/status").write_text(package("dpkg", architecture=dpkg_says))

    assert LinuxHost(str(tree)).facts().architecture == expected


def test_an_architecture_without_drivers_is_named(tree: Path) -> None:
    (tree / "var/lib/dpkg/status").write_text(package("dpkg", architecture="riscv64"))

    with pytest.raises(UnsupportedError) as caught:
        LinuxHost(str(tree)).facts()
    assert "riscv64" in caught.value.message


def test_the_machines_name_tells_machines_and_trees_apart_and_hides_the_id(tree: Path, tmp_path: Path) -> None:
    name = LinuxHost(str(tree)).facts().machine
    other_root = tmp_path / "opt"
    (other_root / "etc").mkdir()
    (other_root / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")

    assert name == LinuxHost(str(tree)).facts().machine
    assert name != LinuxHost(str(other_root)).facts().machine
    (tree / "etc/machine-id").write_text("ffffffffffffffffffffffffffffffff\n")
    assert name != LinuxHost(str(tree)).facts().machine
    assert "0123456789abcdef" not in name


@pytest.mark.parametrize(("path", "browser"), [
    ("usr/bin/firefox", "firefox"), ("usr/bin/firefox-esr", "firefox"), ("usr/bin/chromium", "chromium"),
    ("usr/bin/google-chrome-stable", "chromium"), ("usr/bin/brave-browser", "chromium"), ("usr/bin/microsoft-edge", "chromium"),
    ("opt/google/chrome/chrome", "chromium"),
])
def test_browsers_are_found_by_their_programs(tree: Path, path: str, browser: str) -> None:
    (tree / path).parent.mkdir(parents=True, exist_ok=True)
    (tree / path).write_bytes(b"\x7fELF" + b"x" * 100_000)

    assert LinuxHost(str(tree)).facts().browsers == (browser,)


def test_a_browser_behind_alternatives_is_found(tree: Path) -> None:
    (tree / "etc/alternatives").mkdir()
    (tree / "usr/bin/google-chrome").symlink_to("/etc/alternatives/google-chrome")
    (tree / "etc/alternatives/google-chrome").symlink_to("/usr/bin/google-chrome-stable")
    (tree / "usr/bin/google-chrome-stable").write_bytes(b"#!/bin/bash\nexec /opt/google/chrome/chrome\n")

    assert LinuxHost(str(tree)).facts().browsers == ("chromium",)


def test_a_browser_that_is_a_snap_is_not_counted(tree: Path) -> None:
    (tree / "usr/bin/snap").write_bytes(b"\x7fELF")
    (tree / "snap/bin/chromium").symlink_to("/usr/bin/snap")
    (tree / "usr/bin/chromium").symlink_to("/snap/bin/chromium")
    (tree / "usr/bin/firefox").write_bytes(b"#!/bin/sh\nexec /snap/bin/firefox \"$@\"\n")

    assert LinuxHost(str(tree)).facts().browsers == ()


def test_d3_a_browser_outside_the_tree_is_not_counted(tree: Path) -> None:
    (tree / "usr/bin/firefox").symlink_to("/../../../../../../usr/bin/env")

    assert LinuxHost(str(tree)).facts().browsers == ()


def test_packages_of_the_tree_are_asked_for_by_name(tree: Path) -> None:
    host = LinuxHost(str(tree))

    assert host.installed("pcscd")
    assert not host.installed("libccid")
    assert host.package_versions() == {"dpkg": "1.0-1", "pcscd": "2.0"}


def test_the_live_machine_is_elevated_only_as_root() -> None:
    facts = LinuxHost("/").facts()

    assert facts.root == "/"
    assert facts.elevated == (os.geteuid() == 0)
    assert facts.running_services == Path("/run/systemd/system").is_dir()
    assert ("apt" in facts.package_managers) == Path("/usr/bin/apt-get").exists()
