"""dpkg and apt on a copy of the running system, killed inside maintainer scripts: `recover` finishes what dpkg left and takes
it back (security D7). Needs root, as `LiveCopy` does."""

import gzip
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from keyfit.engine.journal import Journal
from keyfit.model.catalog import Payload
from keyfit.model.plan import DistributionPackages, PackageFile, Plan, UdevRuleFile
from tests.sim import debs
from tests.sim.livecopy import LiveCopy
from tests.sim.plans import plan

RULE = UdevRuleFile(path="/etc/udev/rules.d/70-keyfit-acme-x.rules", subsystem="usb", id_vendor=0x72F, id_product=1)
SCRIPTS = {"install": ("preinst", "postinst"), "uninstall": ("prerm", "postrm")}
WORKING = ("/var/lib/dpkg/", "/var/cache/", "/var/log/", "/var/lib/apt/", "/root", "/etc/apt")
"""What dpkg and apt keep for themselves."""


class Live:
    """A copy of the system with packages to install, whose scripts stop when they are told to and say so."""

    def __init__(self, folder: Path, copy: LiveCopy) -> None:
        self.folder, self.copy = folder, copy
        self.state, self.packages = folder / "state", folder / "packages"
        self.packages.mkdir()
        os.mkfifo(folder / "told")

    def build(self, name: str, version: str = "1.0", *, stops_in: str = "", depends: str = "") -> Path:
        """A package. The script stops the first time that it runs; until then `stopped` waits, and `let_go` ends it."""
        script = (f'#!/bin/sh\nif mkdir {self.folder}/once-{name} 2>/dev/null; then\n  echo "$$" > {self.folder}/told\n'
                  f"  cat {self.folder}/go > /dev/null\nfi\n")
        if stops_in and not (self.folder / "go").exists():
            os.mkfifo(self.folder / "go")
        return debs.build(self.packages, name, version, depends=depends, scripts={stops_in: script} if stops_in else {},
                          files={f"usr/lib/{name}/driver.so": f"elf {version}\n", f"etc/{name}.conf": "conf\n",
                                 f"usr/lib/{name}/only-{version}": "here\n"})

    def plan(self, deb: Path) -> Plan:
        """The package file, after a rule."""
        data = deb.read_bytes()
        file = Payload(file=deb.name, sha256=hashlib.sha256(data).hexdigest(), length_bytes=len(data))
        name, version, _ = deb.name.split("_")
        return plan(RULE, PackageFile(format="deb", name=name, version=version, payload=file))

    def start(self, verb: str, wanted: Plan, lock_wait_s: float = 30.0) -> "subprocess.Popen[str]":
        """Begin a verb in the copy."""
        (self.folder / "plan.json").write_bytes(msgspec.json.encode(wanted))
        argv = [sys.executable, "-m", "tests.sim.livejob", verb, self.folder / "plan.json", self.state, self.packages,
                str(lock_wait_s)]
        return subprocess.Popen(self.copy.command(argv, cwd=str(Path(__file__).parents[2])), stdout=subprocess.PIPE, text=True,
                                stderr=subprocess.STDOUT, start_new_session=True)

    def run(self, verb: str, wanted: Plan, lock_wait_s: float = 30.0) -> tuple[int, str]:
        """The exit code and what was said."""
        with self.start(verb, wanted, lock_wait_s) as process:
            said, _ = process.communicate(timeout=100)
        return process.returncode, said

    def stopped(self) -> None:
        """Wait until a script has stopped."""
        assert (self.folder / "told").read_text().strip().isdigit()

    def let_go(self) -> None:
        """Let it go on."""
        (self.folder / "go").write_text("")

    def kill(self, *names: str) -> None:
        """SIGKILL to all of them, parents first, so that none sees its child's end."""
        pids = self._running(*names)
        assert pids
        while pids:
            self.copy.run([sys.executable, "-c", KILL_AND_WAIT, *pids])
            pids = self._running(*names)

    def _running(self, *names: str) -> list[str]:
        return [pid for name in names for pid in self.copy.run(["pgrep", "-f", name]).stdout.split()]

    def state_of(self, name: str) -> str:
        """dpkg's word for a package, "" if it knows none."""
        return self.copy.run(["dpkg-query", "-W", "-f=${db:Status-Status}", name]).stdout

    def left(self) -> set[str]:
        """What was written, outside of dpkg's and apt's own folders, and their parents."""
        return {path for path, kind in self.copy.changed().items() if kind != "folder" and not path.startswith(WORKING)}


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    with LiveCopy(tmp_path) as copy:
        yield Live(tmp_path, copy)


KILL_AND_WAIT = """
import contextlib, os, select, signal, sys
handles = []
for pid in map(int, sys.argv[1:]):
    with contextlib.suppress(ProcessLookupError):
        handles.append(os.pidfd_open(pid))
        signal.pidfd_send_signal(handles[-1], signal.SIGKILL)
for handle in handles:
    select.select([handle], [], [])
"""
"""The kernel says when each has ended (pidfd_open(2))."""
EVERYBODY = ("tests.sim.livejob", "^/usr/bin/apt-get", "^/usr/bin/dpkg", "^/bin/sh /var/lib/dpkg", "^cat .*/go$")


@pytest.mark.parametrize(("verb", "script"), [(verb, script) for verb, scripts in SCRIPTS.items() for script in scripts])
def test_d7_sigkill_inside_a_maintainer_script_is_put_right_by_one_recover(live: Live, verb: str, script: str) -> None:
    before = live.left()
    wanted = live.plan(live.build("keyfit-try", stops_in=script))
    if verb == "uninstall":
        assert live.run("install", wanted)[0] == 0
    with live.start(verb, wanted) as process:
        live.stopped()
        live.kill(*EVERYBODY)
        process.communicate(timeout=60)
    assert Journal(live.state).open_transactions()
    assert live.run("install", wanted)[0] == 80, "nothing else is begun on top of it"

    assert live.run("recover", wanted) == (0, "")

    assert not Journal(live.state).open_transactions()
    assert not Journal(live.state).records()
    assert (live.state_of("keyfit-try"), live.left() - before) == ("", set())
    assert live.copy.run(["dpkg", "--audit"]).stdout == ""
    assert live.run("install", wanted)[0] == 0, "and it can be installed again"


@pytest.mark.parametrize(("stopping", "script"), [
    ("2.0", "preinst"), ("2.0", "postinst"), ("1.0", "prerm"), ("1.0", "postrm")])
def test_d7_sigkill_inside_a_script_of_an_upgrade_brings_the_old_version_back(live: Live, stopping: str, script: str) -> None:
    before = live.left()
    older, newer = (live.plan(live.build("keyfit-try", version, stops_in=script if version == stopping else ""))
                    for version in ("1.0", "2.0"))
    assert live.run("install", older) == (0, "")
    there = live.left()
    with live.start("install", newer) as process:
        live.stopped()
        live.kill(*EVERYBODY)
        process.communicate(timeout=60)
    assert Journal(live.state).open_transactions()

    assert live.run("recover", newer) == (0, "")

    assert not Journal(live.state).open_transactions()
    assert live.copy.run(["dpkg-query", "-W", "-f=${Version} ${db:Status-Status}", "keyfit-try"]).stdout == "1.0 installed"
    assert live.copy.run(["cat", "/usr/lib/keyfit-try/driver.so"]).stdout == "elf 1.0\n"
    assert live.left() == there
    assert live.copy.run(["dpkg", "--audit"]).stdout == ""
    assert live.run("install", newer) == (0, ""), "and it can be upgraded again"
    assert live.run("uninstall", newer) == (0, "")
    assert (live.state_of("keyfit-try"), live.left() - before) == ("", set())


def test_d7_a_dpkg_that_outlives_keyfit_is_waited_for_by_recover(live: Live) -> None:
    before = live.left()
    wanted = live.plan(live.build("keyfit-try", stops_in="postinst"))
    with live.start("install", wanted) as process:
        live.stopped()
        live.kill("tests.sim.livejob")
        process.wait(60)
        code, said = live.run("recover", wanted, 0.3)
        assert (code, said.split(" ")[0]) == (80, "undo-failed")
        assert "Another package manager" in said
        with live.start("recover", wanted) as recovering:
            live.let_go()
            assert recovering.communicate(timeout=60) == ("", None)
        assert recovering.returncode == 0
        process.communicate(timeout=60)
    assert (live.state_of("keyfit-try"), live.left() - before) == ("", set())


def archive_of(live: Live, *packages: Path) -> None:
    """An archive that apt in the copy knows, and no other."""
    texts = []
    for deb in packages:
        control = subprocess.run(["dpkg-deb", "-f", deb], capture_output=True, text=True, check=True, timeout=60).stdout
        texts.append(f"{control}Filename: ./{deb.name}\nSize: {deb.stat().st_size}\n"
                     f"SHA256: {hashlib.sha256(deb.read_bytes()).hexdigest()}\n")
    (live.packages / "Packages.gz").write_bytes(gzip.compress("\n".join(texts).encode()))
    lists = live.copy.root / "etc/apt"
    for file in [lists / "sources.list", *lists.glob("sources.list.d/*")]:
        if file.is_file():
            file.write_text("")
    (lists / "sources.list.d").mkdir(exist_ok=True)
    (lists / "sources.list.d/test.list").write_text(f"deb [trusted=yes] file:{live.packages} ./\n")
    done = live.copy.run(["apt-get", "-q", "-o", "APT::Sandbox::User=root", "update"])
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("verb", "script"), [("install", "preinst"), ("install", "postinst"), ("uninstall", "prerm")])
def test_d7_sigkill_of_apt_inside_a_dependencys_script_is_put_right_by_one_recover(live: Live, verb: str, script: str) -> None:
    archive_of(live, live.build("acme-base", stops_in=script), live.build("acme-driver", depends="acme-base"),
               live.build("bystander"))
    before = live.left()
    wanted = plan(RULE, DistributionPackages(manager="apt", names=("acme-driver",)))
    if verb == "uninstall":
        assert live.run("install", wanted) == (0, "")
    with live.start(verb, wanted) as process:
        live.stopped()
        live.kill(*EVERYBODY)
        process.communicate(timeout=60)
    (journalled,) = Journal(live.state).open_transactions()
    if verb == "install":
        assert journalled.steps[1].after == {"expected": {"acme-base": "1.0", "acme-driver": "1.0"}}

    assert live.run("recover", wanted) == (0, "")

    assert [live.state_of(name) for name in ("acme-base", "acme-driver")] == ["", ""]
    assert live.left() - before == set()
    assert live.copy.run(["dpkg", "--audit"]).stdout == ""


def test_a_package_that_somebody_installed_before_recover_is_not_taken_for_ours(live: Live) -> None:
    theirs = live.build("bystander")
    archive_of(live, live.build("acme-base", stops_in="postinst"), live.build("acme-driver", depends="acme-base"), theirs)
    wanted = plan(DistributionPackages(manager="apt", names=("acme-driver",)))
    with live.start("install", wanted) as process:
        live.stopped()
        live.kill(*EVERYBODY)
        process.communicate(timeout=60)
    assert live.copy.run(["dpkg", "--configure", "-a"]).returncode == 0
    assert live.copy.run(["dpkg", "-i", theirs]).returncode == 0

    assert live.run("recover", wanted) == (0, "")

    assert [live.state_of(name) for name in ("acme-base", "acme-driver", "bystander")] == ["", "", "installed"]
