"""The real dpkg, in a tree of its own: installed, taken back, locked, cut off (security D7). Kills at all moments: see
`tests/kill_loop`."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from keyfit.engine import transaction
from keyfit.engine.journal import Journal
from keyfit.engine.steps import packagetools
from keyfit.errors import EXIT_CODES, BusyError, HostError, KeyfitError, TrustError
from keyfit.platforms.linux import programs
from keyfit.platforms.linux.host import LinuxHost
from tests.kill_loop.workshop import deadly_dpkg
from tests.sim import debs
from tests.sim.killed import PRESENT, plan_for
from tests.sim.power import Power, PowerCut, PoweredJournal
from tests.sim.world import SimReporter

CACHE = Path(os.environ.get("KEYFIT_TEST_CACHE", Path(tempfile.gettempdir()) / f"keyfit-debs-{os.getuid()}"))
DPKG_OWN = ("var/lib/dpkg/lock", "var/lib/dpkg/lock-frontend", "var/lib/dpkg/status-old", "var/lib/dpkg/triggers",
            "var/lib/dpkg/updates", "var/lib/dpkg/available", "var/lib/dpkg/tmp.ci")
"""What dpkg keeps for itself in any tree that it has worked on, and clears away at its next run."""


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


# ---- a dpkg that was cut off, or is at work for others


HOLDER = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def held(lock: Path) -> "Iterator[subprocess.Popen[str]]":
    """Another process holds a lock of dpkg's until its input ends."""
    command = [sys.executable, "-c", HOLDER, str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield holder
        holder.kill()


@pytest.mark.parametrize("lock", ["lock-frontend", "lock"])
def test_a_locked_dpkg_is_busy_before_anything_is_changed(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                          lock: str) -> None:
    monkeypatch.setattr(packagetools, "LOCK_WAIT_S", 0.1)
    deb = debs.build(tmp_path, "keyfit-try")
    old = content(tree)
    with held(tree / "var/lib/dpkg" / lock), pytest.raises(BusyError) as caught:
        install(tree, tmp_path / "state", deb, "keyfit-try")
    assert (caught.value.code, EXIT_CODES[caught.value.outcome][0]) == ("package-tool-busy", 75)
    assert content(tree) == old
    assert not Journal(tmp_path / "state").history()


@pytest.mark.parametrize("lock", ["lock-frontend", "lock"])
def test_a_dpkg_that_is_given_back_in_time_is_waited_for(tree: Path, tmp_path: Path, lock: str) -> None:
    deb = debs.build(tmp_path, "keyfit-try")
    with held(tree / "var/lib/dpkg" / lock) as holder, ThreadPoolExecutor(1) as pool:
        done = pool.submit(install, tree, tmp_path / "state", deb, "keyfit-try")
        with pytest.raises(TimeoutError):
            done.result(0.6)  # it waits
        assert not Journal(tmp_path / "state").history()
        holder.communicate("")
        done.result(60)
    assert LinuxHost(str(tree)).package_versions()["keyfit-try"] == "1.0"


def test_uninstalling_under_a_locked_dpkg_changes_nothing(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packagetools, "LOCK_WAIT_S", 0.1)
    install(tree, tmp_path / "state", debs.build(tmp_path, "keyfit-try"), "keyfit-try")
    new = content(tree)
    with held(tree / "var/lib/dpkg/lock"), pytest.raises(BusyError):
        transaction.uninstall("acme", host=LinuxHost(str(tree)), journal=Journal(tmp_path / "state"), reporter=SimReporter())
    assert content(tree) == new
    assert len(Journal(tmp_path / "state").records("acme")) == 1


@pytest.mark.parametrize("state", ["install reinstreq half-installed", "install ok unpacked", "install ok half-configured",
                                   "install ok triggers-awaited", "install ok triggers-pending"])
def test_what_somebody_elses_dpkg_left_half_way_is_refused_before_the_first_change(tree: Path, tmp_path: Path,
                                                                                   state: str) -> None:
    status = tree / "var/lib/dpkg/status"
    status.write_text(status.read_text().replace("install ok installed", state, 1))
    deb = debs.build(tmp_path, "keyfit-try")
    old, text = content(tree), status.read_text()
    with pytest.raises(HostError, match="libc6") as caught:
        install(tree, tmp_path / "state", deb, "keyfit-try")
    assert caught.value.code == "dpkg-interrupted"
    assert "dpkg --configure -a" in caught.value.hint
    assert (content(tree), status.read_text()) == (old, text)
    assert not Journal(tmp_path / "state").history()


def their_dpkg_dies(tree: Path, folder: Path, deb: Path, at: int) -> int:
    """Somebody installs a package, and dpkg is killed at a call."""
    script = deadly_dpkg(folder, str(at), with_it=False)
    return subprocess.run([script, f"--root={tree}", f"--log={folder}/log", "--force-not-root", "-i", deb], capture_output=True,
                          check=False, timeout=60).returncode


def test_a_real_dpkg_that_died_for_somebody_else_is_refused_wherever_it_died(tree: Path, tmp_path: Path) -> None:
    """As soon as it has written down that it began; before that there is nothing to be seen, and nothing is wrong."""
    theirs = debs.build(tmp_path, "theirs", files={"usr/lib/theirs.so": "elf\n" * 1000})
    ours = debs.build(tmp_path, "keyfit-try")
    codes: dict[bool, set[str]] = {}
    for at in range(4, 60, 5):
        root = tmp_path / f"tree{at}"
        shutil.copytree(tree, root)
        assert their_dpkg_dies(root, tmp_path, theirs, at) == -signal.SIGKILL
        begun = packagetools.is_unfinished(LinuxHost(str(root)))
        old = content(root)
        try:
            install(root, tmp_path / f"state{at}", ours, "keyfit-try")
        except HostError as error:
            codes[begun] = codes.get(begun, set()) | {error.code, "untouched" if content(root) == old else "touched"}
    assert codes == {True: {"dpkg-interrupted", "untouched"}}


def test_an_uninstall_after_somebody_elses_dpkg_died_waits_until_that_is_put_right(tree: Path, tmp_path: Path) -> None:
    install(tree, tmp_path / "state", debs.build(tmp_path, "keyfit-try"), "keyfit-try")
    their_dpkg_dies(tree, tmp_path, debs.build(tmp_path, "theirs"), 30)
    new = content(tree)
    host, journal = LinuxHost(str(tree)), Journal(tmp_path / "state")
    with pytest.raises(HostError) as caught:
        transaction.uninstall("acme", host=host, journal=journal, reporter=SimReporter())
    assert (caught.value.code, content(tree)) == ("dpkg-interrupted", new)
    subprocess.run(["/usr/bin/dpkg", f"--root={tree}", f"--log={tmp_path}/log", "--force-not-root",
                    "--force-remove-reinstreq", "--purge", "theirs"], check=True, capture_output=True, timeout=60)
    transaction.uninstall("acme", host=host, journal=journal, reporter=SimReporter())
    assert "keyfit-try" not in host.package_versions()


# ---- upgrades


OLD_FILES = {"usr/lib/acme.so": "elf 1\n", "usr/lib/acme/old.so": "elf\n"}
NEW_FILES = {"usr/lib/acme.so": "elf 2\n", "usr/lib/acme/plugins/new.so": "elf\n"}


class Upgrade:
    """A tree with version 1.0 of a package of ours in it, and version 2.0 to come."""

    def __init__(self, folder: Path, tree: Path, **newer: Any) -> None:
        self.tree, self.state = tree, folder / "state"
        self.old_deb = debs.build(folder, "keyfit-try", "1.0", files=OLD_FILES)
        self.new_deb = debs.build(folder, "keyfit-try", "2.0", files=NEW_FILES, **newer)
        self.clean = content(tree)
        install(tree, self.state, self.old_deb, "keyfit-try", "1.0")
        self.old = content(tree)

    @property
    def version(self) -> str | None:
        return LinuxHost(str(self.tree)).package_versions().get("keyfit-try")

    @property
    def journal(self) -> Journal:
        return Journal(self.state)

    def kept(self) -> set[bytes]:
        """Contents of the files that are kept."""
        return {path.read_bytes() for path in (self.state / "kept").glob("*")}

    def perform(self) -> None:
        install(self.tree, self.state, self.new_deb, "keyfit-try", "2.0")

    def uninstall(self, *, latest_only: bool = False) -> tuple[str, ...]:
        return transaction.uninstall("acme", host=LinuxHost(str(self.tree)), journal=self.journal, reporter=SimReporter(),
                                     latest_only=latest_only).kept

    def recover(self) -> None:
        transaction.recover(host=LinuxHost(str(self.tree)), journal=self.journal, reporter=SimReporter())


def test_a_real_package_is_upgraded_and_uninstalled_without_a_trace(tree: Path, tmp_path: Path) -> None:
    pc = Upgrade(tmp_path, tree)
    pc.perform()
    assert (pc.version, (tree / "usr/lib/acme.so").read_text()) == ("2.0", "elf 2\n")
    assert not (tree / "usr/lib/acme/old.so").exists()
    assert pc.kept() == {pc.old_deb.read_bytes(), pc.new_deb.read_bytes()}
    assert pc.uninstall() == ()
    assert content(tree) == pc.clean
    assert not (pc.state / "kept").exists()


def test_a_real_upgrade_that_does_not_work_goes_back(tree: Path, tmp_path: Path) -> None:
    pc = Upgrade(tmp_path, tree)
    pc.perform()
    pc.uninstall(latest_only=True)
    assert content(tree) == pc.old
    assert (pc.version, pc.kept()) == ("1.0", {pc.old_deb.read_bytes()})
    pc.uninstall()
    assert content(tree) == pc.clean


@pytest.mark.parametrize("newer", [{"depends": "libabsent9"}, {"scripts": {"postinst": "#!/bin/sh\nexit 1\n"}}],
                         ids=["dependency", "scripts"])
def test_a_real_upgrade_that_fails_leaves_the_old_version(tree: Path, tmp_path: Path, newer: dict[str, Any]) -> None:
    pc = Upgrade(tmp_path, tree, **newer)
    with pytest.raises(HostError):
        pc.perform()
    assert content(tree) == pc.old
    assert (pc.version, packagetools.is_unfinished(LinuxHost(str(tree)))) == ("1.0", False)
    assert not pc.journal.open_transactions()
    assert pc.kept() == {pc.old_deb.read_bytes()}


def test_d2_a_real_upgrade_without_the_very_file_to_go_back_to_is_refused(tree: Path, tmp_path: Path) -> None:
    pc = Upgrade(tmp_path, tree)
    next((pc.state / "kept").iterdir()).write_bytes(pc.new_deb.read_bytes())
    history = len(pc.journal.history())
    with pytest.raises(HostError) as caught:
        pc.perform()
    assert (caught.value.code, content(tree), len(pc.journal.history())) == ("no-way-back", pc.old, history)
    pc.uninstall()
    pc.perform()
    assert pc.version == "2.0"


def test_d7_a_real_upgrade_killed_at_every_commit_leaves_one_version_whole(tree: Path, tmp_path: Path) -> None:
    pc = Upgrade(tmp_path, tree)
    start = tmp_path / "start"
    shutil.copytree(tree, start / "tree", symlinks=True)
    shutil.copytree(pc.state, start / "state")
    pc.perform()
    new = content(tree)
    seen = []
    for moment in range(1, 40):
        for name, place in (("tree", tree), ("state", pc.state)):
            shutil.rmtree(place)
            shutil.copytree(start / name, place, symlinks=True)
        journal = PoweredJournal(pc.state, Power(moment))
        try:
            transaction.carry_out(plan_for(pc.new_deb, "keyfit-try", "2.0"), host=LinuxHost(str(tree)), journal=journal,
                                  fetch=lambda payload: pc.new_deb, reporter=SimReporter(), wait=lambda wait: None)
        except PowerCut:
            pc.recover()
            assert content(tree) == {"1.0": pc.old, "2.0": new}[str(pc.version)], f"after a cut at moment {moment}"
            assert len(pc.journal.records("acme")) == {"1.0": 1, "2.0": 2}[str(pc.version)]
            assert not pc.journal.open_transactions()
            seen.append(pc.version)
        else:
            break
    assert set(seen) == {"1.0", "2.0"}
    assert len(seen) > 8


@pytest.mark.parametrize("at", range(2, 90, 4))
def test_d7_a_dpkg_that_is_killed_while_it_upgrades_is_gone_back_from(tree: Path, tmp_path: Path, at: int,
                                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    """And the one that goes back is killed too, at the same call."""
    pc = Upgrade(tmp_path, tree)
    with monkeypatch.context() as deadly:
        deadly.setitem(programs.PROGRAMS, "dpkg", (str(deadly_dpkg(tmp_path, str(at), with_it=False)),))
        try:
            pc.perform()
        except KeyfitError:
            pass
    pc.recover()
    if pc.version == "1.0":
        assert content(tree) == pc.old
    else:
        assert (pc.version, len(pc.journal.records("acme"))) == ("2.0", 2)
    assert not packagetools.is_unfinished(LinuxHost(str(tree)))
    assert not pc.journal.open_transactions()
    pc.uninstall()
    assert content(tree) == pc.clean
