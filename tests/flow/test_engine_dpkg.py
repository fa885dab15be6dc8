"""The real dpkg, in a tree of its own: installed, taken back, locked, cut off (security D7). Kills at all moments: see
`tests/kill_loop`."""

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from keyfit.engine import transaction
from keyfit.engine.journal import Journal
from keyfit.errors import HostError, KeyfitError, TrustError
from keyfit.platforms.linux.host import LinuxHost
from tests.sim import debs
from tests.sim.killed import PRESENT, plan_for
from tests.sim.world import SimReporter

CACHE = Path(os.environ.get("KEYFIT_TEST_CACHE", Path(tempfile.gettempdir()) / f"keyfit-debs-{os.getuid()}"))
DPKG_OWN = ("var/lib/dpkg/lock", "var/lib/dpkg/lock-frontend", "var/lib/dpkg/status-old", "var/lib/dpkg/triggers",
            "var/lib/dpkg/updates", "var/lib/dpkg/available")
"""What dpkg keeps for itself in any tree that it has worked on."""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    debs.tree_with_package_database(root)
    (root / "var/lib/dpkg/status").write_text(PRESENT)
    return root


def content(tree: Path) -> dict[str, bytes | None]:
    """Every file and directory of the tree but dpkg's own working files; the package database by its paragraphs."""
    found: dict[str, bytes | None] = {}
    for path in sorted(tree.rglob("*")):
        name = str(path.relative_to(tree))
        if not name.startswith(DPKG_OWN):
            found[name] = path.read_bytes() if path.is_file() else None
    found["var/lib/dpkg/status"] = repr(sorted(LinuxHost(str(tree)).package_versions().items())).encode()
    return found


def install(tree: Path, state: Path, deb: Path, name: str, version: str = "1.0") -> None:
    transaction.carry_out(plan_for(deb, name, version), host=LinuxHost(str(tree)), journal=Journal(state),
                          fetch=lambda payload: deb, reporter=SimReporter(), wait=lambda wait: None)


def test_a_real_package_goes_in_and_out_without_a_trace(tree: Path, tmp_path: Path) -> None:
    deb = debs.build(tmp_path, "keyfit-try", files={"usr/lib/acme.so": "elf\n"})
    old = content(tree)
    install(tree, tmp_path / "state", deb, "keyfit-try")
    assert (tree / "usr/lib/acme.so").read_text() == "elf\n"
    assert LinuxHost(str(tree)).package_versions()["keyfit-try"] == "1.0"
    transaction.uninstall("acme", host=LinuxHost(str(tree)), journal=Journal(tmp_path / "state"), reporter=SimReporter())
    assert content(tree) == old


def test_the_real_acs_driver_of_debian_goes_in_and_out(tree: Path, tmp_path: Path) -> None:
    deb = debs.fetch("libacsccid1", CACHE)
    version = subprocess.run(["/usr/bin/dpkg-deb", "-f", deb, "Version"], capture_output=True, text=True, check=True,
                             timeout=60).stdout.strip()
    old = content(tree)
    install(tree, tmp_path / "state", deb, "libacsccid1", version)
    assert (tree / "usr/lib/pcsc/drivers/ifd-acsccid.bundle/Contents/Info.plist").is_file()
    transaction.uninstall("acme", host=LinuxHost(str(tree)), journal=Journal(tmp_path / "state"), reporter=SimReporter())
    assert content(tree) == old


def test_missing_dependencies_are_named_and_nothing_is_left(tree: Path, tmp_path: Path) -> None:
    deb = debs.build(tmp_path, "keyfit-try", depends="libabsent9 (>= 3)")
    old = content(tree)
    with pytest.raises(HostError) as caught:
        install(tree, tmp_path / "state", deb, "keyfit-try")
    assert content(tree) == old
    assert "libabsent9" in caught.value.message


def test_c10_scripts_of_a_package_never_run_on_this_system_for_a_tree(tree: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    deb = debs.build(tmp_path, "keyfit-try", scripts={"postinst": f"#!/bin/sh\ntouch {marker}\n"})
    old = content(tree)
    with pytest.raises(HostError) as caught:
        install(tree, tmp_path / "state", deb, "keyfit-try")
    assert caught.value.code == "package-with-scripts"
    assert not marker.exists()
    assert content(tree) == old


@pytest.mark.parametrize(("name", "version"), [("other-name", "1.0"), ("keyfit-try", "2.0")])
def test_b1_a_real_package_of_another_name_or_version_is_refused(tree: Path, tmp_path: Path, name: str,
                                                                 version: str) -> None:
    deb = debs.build(tmp_path, "keyfit-try")
    old = content(tree)
    with pytest.raises(TrustError):
        install(tree, tmp_path / "state", deb, name, version)
    assert content(tree) == old


def test_a_file_that_is_no_package_is_refused(tree: Path, tmp_path: Path) -> None:
    fake = tmp_path / "x.deb"
    fake.write_bytes(b"!<arch>\nnothing")
    with pytest.raises(KeyfitError) as caught:
        install(tree, tmp_path / "state", fake, "keyfit-try")
    assert caught.value.code == "package-malformed"


def test_a_tree_is_no_business_of_this_machines_dpkg_log(tree: Path, tmp_path: Path) -> None:
    log = Path("/var/log/dpkg.log")
    size = log.stat().st_size if log.exists() else 0
    install(tree, tmp_path / "state", debs.build(tmp_path, "keyfit-try"), "keyfit-try")
    assert (log.stat().st_size if log.exists() else 0) == size
