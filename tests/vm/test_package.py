"""The Debian package: what is in it (security E1), and what it leaves behind when it goes (E5)."""

from __future__ import annotations

import os
import re
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm.bank import CHECKOUT, Authority, Bank
from tests.vm.bench.host import digest
from tests.vm.bench.machine import Entry, Machine, State
from tests.vm.bench.states import derive
from tests.vm.installed import BOOKKEEPING, PROGRAM, desktop, package_file

EXECUTABLES = {"./opt/keyfit/keyfit", "./opt/keyfit/keyfit-helper"}
PLACES = re.compile(r"\.(/(opt/keyfit(/.*)?|opt|usr|usr/bin|usr/bin/keyfit|usr/share|usr/share/doc|usr/share/doc/keyfit(/.*)?"
                    r"|usr/share/polkit-1|usr/share/polkit-1/actions|usr/share/polkit-1/actions/org\.keyfit\.policy))?\Z")


def members(kind: str) -> list[tarfile.TarInfo]:
    """Of the package's archive of files, or of its control files."""
    with subprocess.Popen(["dpkg-deb", f"--{kind}", str(package_file())], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            return list(archive)


def test_what_is_installed_belongs_to_root_and_nobody_else_may_change_it() -> None:
    """D1, E1: owners, modes, kinds, places; two programs, and only they can be run."""
    found = members("fsys-tarfile")
    assert {m.name for m in found} >= EXECUTABLES
    for member in found:
        assert (member.uid, member.gid, member.uname, member.gname) == (0, 0, "root", "root"), member.name
        assert PLACES.match(member.name), member.name
        assert member.isdir() or member.isreg() or member.issym(), member.name
        if member.isreg():
            assert member.mode == (0o755 if member.name in EXECUTABLES else 0o644), (member.name, oct(member.mode))
        if member.isdir():
            assert member.mode == 0o755, member.name
        if member.issym():
            assert member.name == "./usr/bin/keyfit" or not os.path.isabs(member.linkname), member.name
    assert {m.linkname for m in found if m.name == "./usr/bin/keyfit"} == {"/opt/keyfit/keyfit"}


def test_the_package_brings_no_service_and_only_two_guards_of_the_record() -> None:
    """C1: no unit, timer, bus name, autostart; nothing runs when it is installed."""
    names = [m.name for m in members("fsys-tarfile")]
    assert not [n for n in names if re.search(r"systemd|dbus-1|autostart|cron|init\.d|\.service$|\.timer$|\.desktop$", n)]
    assert sorted(m.name for m in members("ctrl-tarfile")) == [".", "./control", "./md5sums", "./postrm", "./prerm"]


def test_the_same_program_makes_the_same_package_byte_for_byte(tmp_path: Path) -> None:
    """Built again elsewhere, by another umask and with other times on the files."""
    first = package_file().read_bytes()
    copy = tmp_path / "checkout"
    for name in ("packaging", "installer/keyfit/__init__.py", "dist/keyfit"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-r", CHECKOUT / name, copy / name], check=True)
    epoch = {int(m.mtime) for m in members("fsys-tarfile")}
    assert len(epoch) == 1
    subprocess.run(["sh", "-c", 'umask 0002; exec "$0" packaging/linux/deb.py', CHECKOUT / ".venv/bin/python"], cwd=copy,
                   env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch.pop())}, check=True, capture_output=True)
    (second,) = (copy / "dist").glob("keyfit_*.deb")
    assert second.read_bytes() == first


# -- on a machine


TRUST = "update-ca-certificates"


@pytest.fixture
def machine(base: State, authority: Authority) -> Iterator[Machine]:
    def trust(machine: Machine) -> None:
        machine.put("/usr/local/share/ca-certificates/test.crt", authority.pem)
        machine.run([TRUST], timeout_s=120).check()

    with Machine.restore(derive(desktop(base), digest(TRUST, authority.pem), trust)) as machine:
        yield machine


TREES = ("/etc", "/opt", "/usr/bin", "/usr/share/doc", "/usr/share/polkit-1", "/var/lib", "/var/cache", "/var/log")


def look(machine: Machine) -> dict[str, Entry]:
    files = machine.snapshot(TREES)
    mine = {p: e for p, e in files.items() if "keyfit" in p}
    return mine | {p: e for p, e in files.items() if p.startswith("/etc") and not p.startswith(BOOKKEEPING)}


def test_e5_what_goes_with_the_package_and_what_stays(machine: Machine, bank: Bank) -> None:
    """Removed with a driver on record: the driver and the record stay, are named, and can be taken back by the next one."""
    machine.put("/srv/root.json", bank.trusted_root)
    machine.put("/srv/keyfit.deb", package_file().read_bytes())
    untouched = look(machine)
    machine.run([PROGRAM, "install", "acs-cryptomate", "--silent", "--repository", bank.url, "--trust-root", "/srv/root.json"],
                timeout_s=300).check()

    removed = machine.run(["dpkg", "--remove", "keyfit"], timeout_s=60).check()
    assert "acs-cryptomate" in removed.stderr
    assert "keyfit uninstall" in removed.stderr
    assert machine.run("ls /opt/keyfit /usr/bin/keyfit /usr/share/polkit-1/actions/org.keyfit.policy").stdout == ""
    assert "libacsccid1" in machine.packages()

    purged = machine.run(["dpkg", "--purge", "keyfit"], timeout_s=60).check()
    assert "the record of them stays in /var/lib/keyfit" in purged.stderr
    assert machine.run("ls /var/lib/keyfit/journal.sqlite").returncode == 0

    machine.run(["dpkg", "-i", "/srv/keyfit.deb"], timeout_s=200).check()
    machine.run([PROGRAM, "uninstall", "acs-cryptomate", "--yes"], timeout_s=200).check()
    assert "libacsccid1" not in machine.packages()

    gone = machine.run(["dpkg", "--purge", "keyfit"], timeout_s=60).check()
    assert gone.stderr == ""
    after = look(machine)
    assert {p for p in after if "keyfit" in p} == set()
    assert {p: e for p, e in untouched.items() if p not in after and "keyfit" not in p} == {}
    assert {p: e for p, e in after.items() if untouched.get(p) != e} == {}


def test_e5_the_program_does_not_go_while_a_change_is_half_done(machine: Machine, bank: Bank) -> None:
    machine.put("/srv/root.json", bank.trusted_root)
    running = machine.start([PROGRAM, "install", "acs-cryptomate", "--silent", "--repository", bank.url, "--trust-root",
                             "/srv/root.json"])
    machine.run("until pgrep -x dpkg; do sleep 0.05; done", timeout_s=120).check()
    machine.run("pkill -9 -x keyfit; while pgrep -x apt-get; do sleep 0.1; done", timeout_s=120)
    running.wait(60)

    refused = machine.run(["dpkg", "--remove", "keyfit"], timeout_s=60)
    assert refused.returncode == 1
    assert "keyfit recover" in refused.stderr
    assert machine.run([PROGRAM, "recover"], timeout_s=120).returncode == 0
    machine.run(["dpkg", "--remove", "keyfit"], timeout_s=60).check()
