"""Packages from the system's own archives, by apt or dnf: its signatures, its dependencies, its maintainer scripts.

Only what was not there before is taken back, and only what nothing else has come to need meanwhile.
Sources: apt-get(8), dpkg(1), dnf(8).
"""

import re

from keyfit.engine.steps import packagetools
from keyfit.engine.steps.base import Detected, Fetch, State
from keyfit.engine.steps.ccid_list_entry import BUNDLES, restart_daemon
from keyfit.engine.steps.packagetools import INSTALL_TIMEOUT_S, LOCK_WAIT_S
from keyfit.errors import BusyError, HostError, KeyfitError, NetworkError, Outcome, StorageError
from keyfit.model.plan import DistributionPackages
from keyfit.ports import Completed, Host

APT_OPTIONS = ("-q", "-y", "--no-install-recommends", "-o", f"DPkg::Lock::Timeout={LOCK_WAIT_S:.0f}",
               "-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold",
               "-o", "APT::Get::AllowUnauthenticated=false", "-o", "APT::Get::Remove=false")
"""Never asks, never replaces a changed configuration file, never takes unsigned packages, never removes anything."""
SIMULATION_TIMEOUT_S = 120.0
_APT_INSTALL = re.compile(r"^Inst (\S+) (?:\[[^]]*\] )?\((\S+)", re.MULTILINE)
"""A line of apt-get's simulation: "Inst NAME [old version] (version archive [architecture])"."""
_DPKG_REMOVE = re.compile(r"^(?:Remv|Purg) (\S+)", re.MULTILINE)


class Kind:
    """See `base.StepKind`."""

    def detect(self, change: DistributionPackages, host: Host) -> Detected:
        """Are all of them installed?"""
        versions = host.package_versions()
        return Detected(satisfied=all(name in versions for name in change.names),
                        before={"installed": sorted({*versions, *unpacked(host)})})

    def expect(self, change: DistributionPackages, host: Host, before: State, fetch: Fetch) -> State:
        """Names and versions of all that apt would install, by its own simulation. dnf is not asked."""
        if change.manager != "apt":
            return {}
        done = host.run(["apt-get", "-s", *APT_OPTIONS, "install", *change.names], timeout_s=SIMULATION_TIMEOUT_S)
        if done.returncode and _lists_are_old(done):
            host.run(["apt-get", "-q", "update"], timeout_s=INSTALL_TIMEOUT_S, network=True)
            done = host.run(["apt-get", "-s", *APT_OPTIONS, "install", *change.names], timeout_s=SIMULATION_TIMEOUT_S)
        if done.returncode:
            raise failure(done)
        return {"expected": dict(_APT_INSTALL.findall(done.stdout))}

    def apply(self, change: DistributionPackages, host: Host, before: State, fetch: Fetch) -> State:
        """Install them; the difference in the package database is what was added."""
        drivers = host.glob(BUNDLES, "*.bundle")
        argv = (["apt-get", *APT_OPTIONS, "install", *change.names] if change.manager == "apt"
                else ["dnf", "-q", "-y", "--setopt=install_weak_deps=False", "install", *change.names])
        done = host.run(argv, timeout_s=INSTALL_TIMEOUT_S, network=True)
        if done.returncode and change.manager == "apt" and _lists_are_old(done):
            host.run(["apt-get", "-q", "update"], timeout_s=INSTALL_TIMEOUT_S, network=True)
            done = host.run(argv, timeout_s=INSTALL_TIMEOUT_S, network=True)
        if done.returncode:
            raise failure(done)
        versions = host.package_versions()
        missing = [name for name in change.names if name not in versions]
        if missing:
            raise HostError("package-not-installed", f"{change.manager} reported success, but {', '.join(missing)} is not"
                            " installed.")
        if host.glob(BUNDLES, "*.bundle") != drivers:
            restart_daemon(host)  # one that runs has looked for reader drivers when it started
        return {"added": sorted(set(versions) - set(before["installed"]))}

    def undo(self, change: DistributionPackages, host: Host, before: State, after: State) -> str:
        """Remove what was added, unless something that came later needs it."""
        versions = host.package_versions()
        added = after.get("added")
        there = {*versions, *unpacked(host), *packagetools.unfinished(host)}
        if added is None:  # cut off: what is there now, if only half, was not there before, and was to come
            expected = after.get("expected") or there
            added = sorted(name for name in there - set(before["installed"]) if name in expected)
        present = [name for name in added if name in there]
        if not present:
            return ""
        if change.manager == "apt":
            present = self._without_stuck(host, present)
        removable = removal_set(host, present) if change.manager == "apt" else present
        kept = [name for name in present if name not in removable]
        if removable:
            remove(host, change.manager, removable)
        if kept:
            return f"{', '.join(kept)} stayed, because other packages that were installed since need it"
        return ""


    @staticmethod
    def _without_stuck(host: Host, names: list[str]) -> list[str]:
        """Have dpkg itself remove what apt will not touch: packages that were cut off while they were unpacked."""
        if "reinst-required" in (host.unfinished_packages().get(name) for name in names):
            stuck = [name for name in names if name in packagetools.unfinished(host)]
            done = packagetools.dpkg(host, "--force-remove-reinstreq", "--purge", *stuck)
            if done.returncode:
                raise failure(done)
            return [name for name in names if name not in stuck]
        return names


def unpacked(host: Host) -> set[str]:
    """Packages of which dpkg has files on the machine, whether it counts them as installed or not."""
    return {path.rsplit("/", 1)[1].removesuffix(".list").split(":")[0]
            for path in host.glob("/var/lib/dpkg/info", "*.list")}


def remove(host: Host, manager: str, names: list[str]) -> None:
    """Remove packages with their configuration.

    Raises:
        KeyfitError: see `failure`.
    """
    argv = (["apt-get", "-q", "-y", "-o", f"DPkg::Lock::Timeout={LOCK_WAIT_S:.0f}",
             "-o", "APT::AutoRemove::RecommendsImportant=true", "purge", *names] if manager == "apt"
            else ["dnf", "-q", "-y", "remove", "--noautoremove", *names])
    done = host.run(argv, timeout_s=INSTALL_TIMEOUT_S)
    if done.returncode:
        raise failure(done)


def removal_set(host: Host, names: list[str]) -> list[str]:
    """The largest part of `names` whose removal takes nothing else with it, by apt's own simulation."""
    wanted = list(names)
    while wanted:
        done = host.run(["apt-get", "-s", "-q", "-y", "purge", *wanted], timeout_s=SIMULATION_TIMEOUT_S)
        taken = {name.split(":")[0] for name in _DPKG_REMOVE.findall(done.stdout)}
        extra = taken - {name.split(":")[0] for name in names}
        if done.returncode == 0 and not extra:
            return wanted
        needed = _needed_by(host, extra, wanted)
        if not needed:
            return []
        wanted = [name for name in wanted if name not in needed]
    return []


def _needed_by(host: Host, others: set[str], names: list[str]) -> set[str]:
    """Those of `names` whose removal would take any of `others` with it, one at a time."""
    found = set()
    for name in names:
        done = host.run(["apt-get", "-s", "-q", "-y", "purge", name], timeout_s=SIMULATION_TIMEOUT_S)
        taken = {taken_name.split(":")[0] for taken_name in _DPKG_REMOVE.findall(done.stdout)}
        if done.returncode or taken & others:
            found.add(name)
    return found


def _lists_are_old(done: Completed) -> bool:
    """apt does not know the package, or its archive has moved on since the lists were fetched."""
    return any(text in done.stderr for text in ("Unable to locate package", "has no installation candidate",
                                                "404  Not Found", "404 Not Found"))


FAILURES: tuple[tuple[tuple[str, ...], type[KeyfitError], str, str], ...] = (
    (("Could not get lock", "is locked by another process", "is another process using it", "waiting for process"),
     BusyError, "package-tool-busy", "Wait until the other package manager has finished, then run this again."),
    (("dpkg was interrupted", "must manually run"), HostError, "dpkg-interrupted",
     "An earlier installation was cut off. Finish it with `sudo dpkg --configure -a`, then run this again."),
    (("No space left on device", "enough free space", "Disk quota exceeded"), StorageError, "disk-full",
     "Free some disk space and run this again."),
    (("Read-only file system",), StorageError, "cannot-write", "Mount the file system writable and run this again."),
    (("Permission denied", "are you root"), StorageError, "cannot-write", "Run it with administrator rights."),
    (("Unable to locate package", "has no installation candidate", "Unable to find a match"), HostError, "no-such-package",
     "The system's archives do not have it. Check the list of archives, and update it."),
    (("Could not resolve", "Failed to fetch", "Temporary failure", "Could not connect", "Cannot download"), NetworkError,
     "archive-unreachable", "Check the network and the system's list of archives, then run this again."),
    (("could not be authenticated", "not signed", "unauthenticated"), HostError, "archive-not-signed",
     "The system's archive is not signed by a key that the system trusts. Do not install from it."),
)
"""What the package tools say -> what it means. Texts: apt 2.6, dpkg 1.21, dnf 4 in the C locale."""


def failure(done: Completed) -> KeyfitError:
    """The error for a package tool that failed, by what it said."""
    said = done.stderr + "\n" + done.stdout
    lines = [line.strip() for line in said.splitlines()
             if line.startswith(("E:", "dpkg:", "Error", "rpm:", "error:")) or "depends on" in line or "is needed by" in line]
    detail = "; ".join(lines)[:600] or said.strip()[-300:]
    for texts, kind, code, hint in FAILURES:
        if any(text in said for text in texts):
            return kind(code, f"{done.argv[0]} failed: {detail}", hint=hint)
    return HostError("package-tool-failed", f"{done.argv[0]} ended with {done.returncode}: {detail}",
                     hint="The text says what the package manager found wrong.", outcome=Outcome.FAILED_UNCHANGED)
