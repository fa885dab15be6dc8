"""Whether somebody works on dpkg's database."""

import subprocess
import sys
from pathlib import Path

import pytest

from keyfit.platforms.linux.dpkglock import wait_until_free
from keyfit.platforms.linux.host import LinuxHost
from keyfit.platforms.linux.packages import unfinished

PARAGRAPH = b"Package: %s\nStatus: %s\nArchitecture: amd64\nVersion: 1\nDescription: x\n Status: install ok half-installed\n\n"
STATUS = b"".join(
    PARAGRAPH % row for row in (
        (b"whole", b"install ok installed"), (b"held", b"hold ok installed"), (b"removed", b"deinstall ok config-files"),
        (b"broken", b"install reinstreq half-installed"), (b"unpacked", b"install ok unpacked"),
        (b"half", b"install ok half-configured"), (b"awaited", b"install ok triggers-awaited"),
        (b"pending", b"install ok triggers-pending"), (b"stale", b"install reinstreq installed")))


def test_packages_that_dpkg_has_not_finished_are_found() -> None:
    assert unfinished(STATUS) == {
        "broken": "reinst-required", "unpacked": "unpacked", "half": "half-configured", "awaited": "triggers-awaited",
        "pending": "triggers-pending", "stale": "reinst-required"}
    assert unfinished(b"") == {}
    assert unfinished(STATUS[STATUS.index(b"Package: broken"):]).keys() >= {"broken"}


def test_a_tree_without_a_package_database_is_free(tmp_path: Path) -> None:
    assert wait_until_free(str(tmp_path), 0.0)
    assert LinuxHost(str(tmp_path)).unfinished_packages() == {}


def test_d3_a_link_in_place_of_a_lock_is_not_followed_out_of_the_tree(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "var/lib/dpkg").mkdir(parents=True)
    (tree / "var/lib/dpkg/lock").symlink_to(tmp_path / "outside")
    assert wait_until_free(str(tree), 0.0)
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize(("leads", "given", "free"), [
    (True, "--root={tree}", False), (True, "--root={tree}/other", True), (True, "--force-not-root", True),
    (False, "--root={tree}", True)], ids=["ours", "of another tree", "of the system", "somebody's"])
def test_d7_a_dpkg_that_a_killed_keyfit_has_just_started_counts_though_it_holds_no_lock_yet(
        tmp_path: Path, leads: bool, given: str, free: bool) -> None:
    command = ["/usr/bin/dpkg", "-c", "import sys; print(flush=True); sys.stdin.read()", given.format(tree=tmp_path)]
    with subprocess.Popen(command, executable=sys.executable, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          start_new_session=leads) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert wait_until_free(str(tmp_path), 0.0) is free
        process.communicate(b"")
    assert wait_until_free(str(tmp_path), 0.0)
