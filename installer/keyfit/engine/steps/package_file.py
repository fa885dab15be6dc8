"""A package file of ours, installed with the system's package tool after its hash and its name, version and architecture
were checked.

Into a tree other than "/" only packages without maintainer scripts go: such scripts would run on the live system, not in the
tree. Sources: dpkg(1) (--root, --force-script-chrootless), deb-control(5), rpm(8).
"""

from pathlib import Path

from keyfit.engine.steps import leftovers, packagetools
from keyfit.engine.steps.base import Detected, Fetch, State
from keyfit.engine.steps.ccid_list_entry import BUNDLES, restart_daemon
from keyfit.engine.steps.distribution_package import failure
from keyfit.engine.steps.packagetools import INSTALL_TIMEOUT_S
from keyfit.errors import HostError, TrustError
from keyfit.model.plan import PackageFile
from keyfit.ports import Host

SCRIPTS = ("preinst", "postinst", "prerm", "postrm", "config")
"""Maintainer scripts of a Debian package (Debian policy, chapter 6)."""


class Kind:
    """See `base.StepKind`."""

    def detect(self, change: PackageFile, host: Host) -> Detected:
        """Is this version installed? A newer or older one was not put there by this plan and is reported."""
        version = host.package_versions().get(change.name)
        return Detected(satisfied=version is not None and (not change.version or version == change.version),
                        before={"version": version})

    def expect(self, change: PackageFile, host: Host, before: State, fetch: Fetch) -> State:
        """The version; of a Debian package also its files, by which `leftovers` tells what dpkg leaves when it is cut off."""
        state: State = {"version": change.version}
        if change.format == "deb":
            state["contents"] = leftovers.expect(host, fetch(change.payload))
        return state

    def apply(self, change: PackageFile, host: Host, before: State, fetch: Fetch) -> State:
        """Check what is inside, then install. Another version is replaced only if there is a way back to it, which is an old
        file of ours: `before` holds its hash then (see `engine.wayback`)."""
        if before["version"] is not None and "sha256" not in before:
            raise HostError("other-version-installed", f"{change.name} {before['version']} is installed already; the signed"
                            f" data wants {change.version}.", hint=f"Remove {change.name} first, or keep what is there.")
        path, drivers = fetch(change.payload), host.glob(BUNDLES, "*.bundle")
        if change.format == "deb":
            self._check_deb(change, host, path)
            done = packagetools.dpkg(host, "-i", str(path))
        else:
            self._check_rpm(change, host, path)
            done = host.run(["rpm", "--root", host.facts().root, "-i", str(path)], timeout_s=INSTALL_TIMEOUT_S)
        if done.returncode:
            raise failure(done)
        version = host.package_versions().get(change.name)
        if version != (change.version or version) or version is None:
            raise HostError("package-not-installed", f"The package tool reported success, but {change.name} is not installed.")
        if host.glob(BUNDLES, "*.bundle") != drivers or (drivers and before["version"] is not None):
            restart_daemon(host)  # one that runs has looked for reader drivers when it started, and still uses the old ones
        return {"version": version}

    def undo(self, change: PackageFile, host: Host, before: State, after: State) -> str:
        """Remove it, or go back to the version before; another version than ours was put there by somebody else and stays."""
        if before["version"] is not None:
            return self._go_back(change, host, before, after) if "sha256" in before else ""
        version = host.package_versions().get(change.name)
        if version is not None and change.version and version not in (change.version, after.get("version")):
            return f"{change.name} {version} stayed, because somebody else installed that version since"
        if version is not None or _is_half_installed(change, host):
            done = (packagetools.dpkg(host, "--force-remove-reinstreq", "--purge", change.name) if change.format == "deb"
                    else host.run(["rpm", "--root", host.facts().root, "-e", change.name], timeout_s=INSTALL_TIMEOUT_S))
            if done.returncode and "dependency problems" in done.stderr:
                return f"{change.name} stayed, because other packages that were installed since need it"
            if done.returncode:
                raise failure(done)
        leftovers.sweep(host, after.get("contents", {}))
        return ""

    def _go_back(self, change: PackageFile, host: Host, before: State, after: State) -> str:
        """Install the old file again, over the new version or over what was left of both, and sweep up the rest of the new one.

        Args:
            before: with "file", the old file, or "" if it is gone.
        """
        old, file = before["version"], before["file"]
        version = host.package_versions().get(change.name)
        half = packagetools.is_cut_off(host) or change.name in packagetools.unfinished(host)
        if version not in (None, old, change.version, after.get("version")):
            return f"{change.name} {version} stayed, because somebody else installed that version since"
        if version is None and not half and not _is_half_installed(change, host):
            return f"{change.name} {old} was not put back, because somebody else removed the package since"
        if version != old or half:
            if not file:
                raise HostError("no-way-back", f"{change.name} cannot go back to {old}: the file of that version is no longer"
                                " there as it was.", hint=f"Install or remove {change.name} by hand.")
            done = packagetools.dpkg(host, "-i", file)
            if done.returncode:
                raise failure(done)
            if host.package_versions().get(change.name) != old:
                raise HostError("package-not-installed", f"The package tool reported success, but {change.name} {old} is not"
                                " installed.")
            if host.glob(BUNDLES, "*.bundle"):
                restart_daemon(host)
        owned = leftovers.expect(host, Path(file))["files"] if file and "contents" in after else {}
        leftovers.sweep(host, after.get("contents", {}), owned)
        return ""

    def _check_deb(self, change: PackageFile, host: Host, path: Path) -> None:
        done = host.run(["dpkg-deb", "--show", "--showformat=${Package}\\n${Version}\\n${Architecture}\\n", str(path)])
        if done.returncode:
            raise TrustError("package-malformed", f"{change.payload.file} is no Debian package: {done.stderr.strip()[:200]}",
                             hint="Tell the publisher of the repository.")
        found = done.stdout.split("\n")[:3]
        wanted = [change.name, change.version or found[1]]
        if found[:2] != wanted or found[2] not in (host.facts().architecture, "all"):
            raise TrustError("package-mismatch", f"{change.payload.file} holds {' '.join(found)}, but the signed data says"
                             f" {' '.join(wanted)} for {host.facts().architecture}.",
                             hint="Tell the publisher of the repository.")
        if host.facts().root != "/":
            scripts = [s for s in SCRIPTS if host.run(["dpkg-deb", "--info", str(path), s]).returncode == 0]
            if scripts:
                raise HostError("package-with-scripts", f"{change.name} runs scripts when it is installed ({', '.join(scripts)});"
                                " they would run on this system, not in the tree.", hint="Install it on a running system.")

    def _check_rpm(self, change: PackageFile, host: Host, path: Path) -> None:
        done = host.run(["rpm", "-qp", "--queryformat", "%{NAME}\\n%{VERSION}-%{RELEASE}\\n", str(path)])
        found = done.stdout.split("\n")[:2]
        if done.returncode or found[0] != change.name or (change.version and found[1] != change.version):
            raise TrustError("package-mismatch", f"{change.payload.file} is not {change.name} {change.version}.",
                             hint="Tell the publisher of the repository.")


def _is_half_installed(change: PackageFile, host: Host) -> bool:
    return change.format == "deb" and (change.name in packagetools.unfinished(host)
                                       or bool(host.glob("/var/lib/dpkg/info", f"{change.name}.list")))
