"""The bank's disc in a real machine: pressed by `keyfit-publish bundle`, read by the kernel, and installed from with the
network cut, by the program that is on the disc."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sim import debs
from tests.sim.vtoken import Ccid, CcidFunction, PivCard, UsbDevice
from tests.vm.bank import CHECKOUT, DRIVERS
from tests.vm.bench.disc import insert_disc, mount_disc
from tests.vm.bench.machine import Machine, Result, State
from tests.vm.bench.redir import RedirToken
from tests.vm.bench.states import derive

DISC = "/media/My CD"
ROOT = "/srv/kit-root.json"
TRACE = "/run/trace"
PREPARE = """
set -e
export DEBIAN_FRONTEND=noninteractive
apt-get -q -y --no-install-recommends install pcscd libccid strace
rm -r /srv/debian /etc/apt/sources.list /var/lib/apt/lists
"""
"""A desktop with the smart-card service, and no archive of any kind that could be reached."""
BOOKKEEPING = ("/var/lib/keyfit", "/var/lib/dpkg/", "/var/lib/apt/", "/var/lib/systemd/", "/etc/ld.so.cache")


@pytest.fixture(scope="session")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the disc's image and the publisher's directory: the real driver of Debian, the frozen program."""
    folder = tmp_path_factory.mktemp("kit")
    driver = debs.fetch("libacsccid1", CHECKOUT / "build" / "debs")
    few = [part for owner in ("root", "targets", "app", "drivers", "media-root", "media")
           for part in ("--threshold", f"{owner}=1/1")]
    publish("init", folder / "publisher", *few)
    publish("add", folder / "publisher", "acs-cryptomate", driver, "--drivers", DRIVERS)
    publish("release", folder / "publisher", "--drivers", DRIVERS)
    publish("bundle", folder / "publisher", folder / "disc.iso", "--format", "iso", "--brand", "acs-cryptomate", "--system",
            "linux", "--program", CHECKOUT / "dist" / "keyfit")
    return folder


def publish(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "keyfit.publisher", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture(scope="session")
def desktop(base: State) -> State:
    return derive(base, PREPARE, lambda machine: machine.run(PREPARE, timeout_s=300).check() and None)


@pytest.fixture
def machine(desktop: State, kit: Path) -> Iterator[Machine]:
    """The desktop with the disc in its drive, and the root of kits that its Keyfit would carry."""
    with Machine.restore(desktop) as machine:
        machine.put(ROOT, (kit / "publisher/media/repository/metadata/1.root.json").read_bytes())
        insert_disc(machine, kit / "disc.iso")
        mount_disc(machine, DISC)
        yield machine


def cut_off(machine: Machine, *command: str) -> Result:
    """Run a command without any network, with every socket that it or a child of it opens or connects on record."""
    return machine.run(["unshare", "--net", "strace", "-f", "-qq", "-e", "trace=socket,connect", "-o", TRACE, *command],
                       timeout_s=600)


def document(done: Result, code: int = 0) -> dict[str, Any]:
    assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    parsed: dict[str, Any] = json.loads(done.stdout)
    return parsed


def connects(machine: Machine) -> tuple[list[str], list[str]]:
    """The connect calls on record: (to the internet, to sockets of this machine)."""
    calls = [line for line in machine.get(TRACE).decode(errors="replace").splitlines() if " connect(" in line]
    outward = [line for line in calls if re.search(r"sa_family=AF_INET6?\b", line)]
    local = [line for line in calls if "sa_family=AF_UNIX" in line]
    assert len(outward) + len(local) == len(calls), calls
    return outward, local


def state(machine: Machine) -> dict[str, Any]:
    files = machine.snapshot(["/etc", "/var/lib"])
    return {"packages": machine.packages(), "files": {p: e for p, e in files.items() if not p.startswith(BOOKKEEPING)}}


def test_the_kernel_reads_the_disc_by_both_kinds_of_names(machine: Machine) -> None:
    """Rock Ridge, and the Joliet names that Windows reads; every file has the sum that is on the list."""
    whole = ["sha256sum", "--strict", "--quiet", "-c", "CHECKSUMS.sha256"]
    modes = ["stat", "-c", "%a", "start.sh", "README.txt", "program/linux-amd64/keyfit"]
    done = machine.run(whole, cwd=DISC, timeout_s=300)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert machine.run(modes, cwd=DISC).stdout.split() == ["755", "644", "755"]

    machine.run(["umount", DISC]).check()  # a second mount of the same disc would be given the names of the first
    mount_disc(machine, DISC, "ro,norock,mode=0440,dmode=0550")
    done = machine.run(whole, cwd=DISC, timeout_s=300)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert machine.run(modes, cwd=DISC).stdout.split() == ["440", "440", "440"]


def test_a_token_works_from_the_disc_alone_and_no_connection_is_tried(machine: Machine) -> None:
    """The start menu's two steps with the program of the disc; afterwards the token answers through PC/SC."""
    options = ("--yes", "--no-handoff", "--json", "--trust-root", ROOT)
    device = UsbDevice(0x072F, 0xB200, [CcidFunction(Ccid(PivCard()))], manufacturer="ACS", product="CryptoMate (T1)")
    with RedirToken(device, machine) as token:
        token.plug()
        before = state(machine)
        assert "libacsccid1" not in before["packages"]

        document(cut_off(machine, "sh", f"{DISC}/start.sh", "system", *options))
        outward, _ = connects(machine)
        assert outward == []

        # it runs and has looked for drivers already, as where another program holds it: it has to be told of the new one
        machine.run(["systemctl", "start", "pcscd.service"]).check()
        installed = document(cut_off(machine, "sh", f"{DISC}/start.sh", "driver", *options))
        outward, local = connects(machine)
        assert outward == []
        assert any("pcscd.comm" in line for line in local)  # so calls of the child that asks the token are on record too
        assert installed["data"]["verdict"]["works"] is True
        assert "libacsccid1" in machine.packages()
        program = f"{DISC}/program/linux-amd64/keyfit"
        verified = document(cut_off(machine, program, "verify", "acs-cryptomate", "--json"))
        assert {link["id"]: link["state"] for link in verified["data"]["verdict"]["links"]}["token"] == "ok"

        document(cut_off(machine, program, "uninstall", "acs-cryptomate", "--yes", "--json"))
        assert connects(machine)[0] == []
        after = state(machine)
        assert after["packages"] == before["packages"]
        assert {p: (before["files"].get(p), after["files"].get(p)) for p in before["files"].keys() | after["files"].keys()
                if before["files"].get(p) != after["files"].get(p)} == {}


def test_a_connection_would_have_been_noticed(machine: Machine) -> None:
    """The same record of a command that has to use the network: without this, the test above could not fail."""
    done = cut_off(machine, f"{DISC}/program/linux-amd64/keyfit", "plan", "acs-cryptomate", "--json", "--repository",
                   "https://192.0.2.1/", "--trust-root", ROOT)

    document(done, 69)
    assert connects(machine)[0] != []
