"""A machine for the kill loop: a tree with real files and a real package database, its record, and what each verb does there.

`python -m tests.kill_loop.workshop FOLDER VERB CUT_AT` carries a verb out and ends with SIGKILL at the moment CUT_AT beside a
journal commit (from 1; 0 for not at all). With KILLED_DPKG_AT=N in the environment, dpkg ends with SIGKILL just before its N-th
call that changes a file; with KILLED_WITH_IT=1, who started it ends with it.
"""

import hashlib
import os
import stat
import sys
from pathlib import Path

from keyfit.engine import transaction
from keyfit.engine.journal import Journal
from keyfit.engine.steps import packagetools
from keyfit.model.catalog import Payload
from keyfit.model.plan import (
    Archive,
    CcidListLine,
    Change,
    FirefoxPolicy,
    KernelModuleBlacklistFile,
    NssModule,
    P11KitModule,
    PackageFile,
    Plan,
    UdevRuleFile,
)
from keyfit.platforms.linux import programs
from keyfit.platforms.linux.host import LinuxHost
from tests.sim import debs, plans, syscalls
from tests.sim.killed import PRESENT, SuddenDeath
from tests.sim.plans import plan
from tests.sim.power import PoweredJournal
from tests.sim.world import SimReporter

DPKG_OWN = ("var/lib/dpkg/lock", "var/lib/dpkg/lock-frontend", "var/lib/dpkg/status", "var/lib/dpkg/status-old",
            "var/lib/dpkg/triggers", "var/lib/dpkg/available", "var/lib/dpkg/updates", "var/lib/dpkg/tmp.ci", "var/log")
"""What dpkg keeps for itself in any tree that it has worked on, and clears away at its next run. Its status is looked at by its
packages, its notes in `updates` by whether there are any."""
PACKAGE = "keyfit-try"
Snapshot = dict[str, tuple[int, int, int, bytes | str | None]]


class Workshop:
    """A tree with its record, and what each verb does in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tree, self.state, self.packages = folder / "tree", folder / "state", folder / "packages"

    def make(self) -> None:
        """An empty machine that has a package database, a list of readers and an administrator's Firefox policies."""
        self.packages.mkdir(parents=True)
        for version, only, to in (("1.0", "old", "driver.so"), ("2.0", "new", "module.so")):
            debs.build(self.packages, PACKAGE, version, files={
                f"usr/lib/acme/{name}.so": f"elf {name} {version}\n" * 100 for name in ("driver", "module", f"{only}/tool")},
                links={"usr/lib/acme/driver.so.1": to, f"usr/lib/acme/{only}/nowhere": "absent"})
        (self.packages / "m.tar.gz").write_bytes(plans.ARCHIVE)
        debs.tree_with_package_database(self.tree)
        (self.tree / "var/lib/dpkg/status").write_text(PRESENT)
        for path, data in ((plans.CCID_LIST, plans.LIST), (plans.POLICIES, b'{"policies": {"DisableTelemetry": true}}\n'),
                           ("/etc/theirs.conf", b"theirs\n"), ("/etc/udev/rules.d/70-theirs.rules", b"# theirs\n")):
            target = self.tree / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        bundle = self.tree / plans.BUNDLE_LIST.lstrip("/")
        bundle.parent.mkdir(parents=True)
        bundle.symlink_to(plans.CCID_LIST)
        (self.tree / "root").mkdir()

    @property
    def host(self) -> LinuxHost:
        """A host that knows nothing from before."""
        return LinuxHost(str(self.tree))

    def fetch(self, payload: Payload) -> Path:
        """The file of a payload."""
        return self.packages / payload.file

    def plan_of(self, verb: str) -> Plan:
        """What a verb carries out. An upgrade replaces the package by a newer one, writes other content into the same files, and
        adds some."""
        number = 2 if verb == "upgrade" else 1
        module = f"/opt/keyfit/brands/acme/module{number}/module.so"
        patches: tuple[Change, ...] = (
            UdevRuleFile(path="/etc/udev/rules.d/70-keyfit-acme-x.rules", subsystem="usb", id_vendor=0x72F, id_product=number),
            CcidListLine(path=plans.CCID_LIST, id_vendor=0x1EA8, id_product=number, friendly_name=f"ACME Token {number}"),
            KernelModuleBlacklistFile(path="/etc/modprobe.d/keyfit-acme-nfc.conf", modules=("nfc", "pn533")[:number]))
        if verb == "patch":
            return plan(*patches)
        return plan(
            self._package(f"{number}.0"),
            Archive(payload=self._payload("m.tar.gz"), prefix=f"/opt/keyfit/brands/acme/module{number}",
                    files=("module.so", "readme")),
            *patches,
            P11KitModule(path="/etc/pkcs11/modules/keyfit-acme.module", module=module),
            FirefoxPolicy(path=plans.POLICIES, name="ACME", module=module),
            NssModule(database=".pki/nssdb", name=f"ACME{number}", module=module))

    def perform(self, verb: str, journal: Journal) -> None:
        """Do it."""
        host, reporter = self.host, SimReporter()
        if verb == "uninstall":
            transaction.uninstall("acme", host=host, journal=journal, reporter=reporter)
        elif verb == "recover":
            transaction.recover(host=host, journal=journal, reporter=reporter)
        elif verb == "repair":
            transaction.repair("acme", host=host, journal=journal, reporter=reporter, fetch=self.fetch)
        else:
            transaction.carry_out(self.plan_of(verb), host=host, journal=journal, reporter=reporter, fetch=self.fetch,
                                  wait=lambda wait: None)

    def damage(self) -> None:
        """What a repair puts right: a package, a file of an archive, a rule and a module are gone."""
        packagetools.dpkg(self.host, "--purge", PACKAGE)
        for path in ("etc/udev/rules.d/70-keyfit-acme-x.rules", "opt/keyfit/brands/acme/module1/readme",
                     "etc/pkcs11/modules/keyfit-acme.module"):
            (self.tree / path).unlink()

    def _package(self, version: str) -> PackageFile:
        return PackageFile(format="deb", name=PACKAGE, version=version, payload=self._payload(f"{PACKAGE}_{version}_all.deb"))

    def _payload(self, file: str) -> Payload:
        data = (self.packages / file).read_bytes()
        return Payload(file=file, sha256=hashlib.sha256(data).hexdigest(), length_bytes=len(data))

    def snapshot(self) -> Snapshot:
        """Everything in the tree, with mode and owner: SHA-256 of files, targets of links."""
        found: Snapshot = {}
        for path in sorted(self.tree.rglob("*")):
            name, status = str(path.relative_to(self.tree)), path.lstat()
            if not name.startswith(DPKG_OWN):
                content = (str(path.readlink()) if path.is_symlink() else hashlib.sha256(path.read_bytes()).digest()
                           if stat.S_ISREG(status.st_mode) else None)
                found[name] = (status.st_mode, status.st_uid, status.st_gid, content)
        packages = repr((sorted(self.host.package_versions().items()), sorted(self.host.unfinished_packages().items()),
                         packagetools.is_cut_off(self.host)))
        found["var/lib/dpkg/status"] = (0, 0, 0, packages)
        return found


def deadly_dpkg(folder: Path, number: str, *, log: Path | None = None, with_it: bool) -> Path:
    """A dpkg that ends with SIGKILL at its n-th call that changes a file. It logs the calls if it is not to end."""
    script = folder / "dpkg"
    settings = f"SYSCALLS_LOG={log}" if log else f"SYSCALLS_AT={number} SYSCALLS_DO=kill"
    whom = "$PPID $$" if with_it else "$$"
    lines = ("#!/bin/sh", f"export LD_PRELOAD={syscalls.preloaded()} {settings}", 'dpkg "$@"', "code=$?",
             f"[ $code = 137 ] && kill -9 {whom}", "exit $code")
    script.write_text("\n".join(lines) + "\n")
    script.chmod(0o755)
    return script


def differences(before: Snapshot, after: Snapshot) -> list[str]:
    """What is different, one line each."""
    return [f"{name}: {'gone' if name not in after else 'there' if name not in before else 'changed'}"
            for name in sorted({*before, *after}) if before.get(name) != after.get(name)]


def main(folder: str, verb: str, cut_at: str, told: str = "") -> None:
    """See the module's text; the number of moments is told to a file."""
    workshop = Workshop(Path(folder))
    number, log = os.environ.get("KILLED_DPKG_AT", ""), os.environ.get("KILLED_DPKG_LOG", "")
    if number or log:
        script = deadly_dpkg(workshop.folder, number, log=Path(log) if log else None,
                             with_it=os.environ.get("KILLED_WITH_IT") == "1")
        programs.PROGRAMS["dpkg"] = (str(script),)
    power = SuddenDeath(int(cut_at) or None)
    workshop.perform(verb, PoweredJournal(workshop.state, power))
    if told:
        Path(told).write_text(str(power.moments))


if __name__ == "__main__":
    main(*sys.argv[1:])
