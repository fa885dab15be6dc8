"""The machine: facts, files below the root, programs, packages."""

import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from keyfit.core.text import clean
from keyfit.errors import HostError, UnsupportedError
from keyfit.model.catalog import Architecture
from keyfit.model.host import Browser, HostFacts, PackageManager
from keyfit.platforms.linux import dpkglock, packages, programs
from keyfit.platforms.linux.files import RootedFiles
from keyfit.platforms.linux.posix import posix
from keyfit.ports import Completed, EventLog, NullLog

ARCHITECTURES: dict[str, Architecture] = {
    "x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64", "i386": "i386", "i686": "i386",
}
"""uname -m -> Debian's names (Debian, wiki "SupportedArchitectures")."""
BROWSER_PROGRAMS: dict[Browser, tuple[str, ...]] = {
    "firefox": ("/usr/bin/firefox", "/usr/bin/firefox-esr", "/opt/firefox/firefox"),
    "chromium": ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome",
                 "/usr/bin/google-chrome-stable", "/opt/google/chrome/chrome", "/usr/bin/brave-browser",
                 "/usr/bin/brave-browser-stable", "/usr/bin/vivaldi-stable",
                 "/usr/bin/microsoft-edge", "/usr/bin/microsoft-edge-stable"),
}
"""Where the browsers' own Debian and RPM packages put them. Snap and Flatpak ones are sandboxed: they cannot load a module
from the system, so they are not counted."""
MAX_OS_RELEASE_BYTES = 16_384
MAX_SCRIPT_BYTES = 65_536
"""Longest start script of a browser that is looked into."""


class LinuxHost:
    """This machine, or a tree on it.

    Args:
        root: "/" or an absolute path of an existing directory.
        outer_network: descriptor of the network namespace for programs that need a network, if this process has left it.
        log: notes each program that runs.
    """

    def __init__(self, root: str = "/", outer_network: int | None = None, log: EventLog | None = None) -> None:
        self._outer_network = outer_network
        self._files = RootedFiles(root)
        self._root = root
        self._log = log or NullLog()
        self._facts: HostFacts | None = None

    def facts(self) -> HostFacts:
        """Read once.

        Raises:
            UnsupportedError: the architecture is none that drivers exist for.
        """
        if self._facts is None:
            self._facts = self._read_facts()
        return self._facts

    def read_bytes(self, path: str, max_bytes: int = 4_000_000) -> bytes | None:
        """See `ports.Host`."""
        return self._files.read_bytes(path, max_bytes)

    def write_bytes(self, path: str, data: bytes, mode: int = 0o644, *, expected: bytes | None) -> None:
        """See `ports.Host`."""
        self._files.write_bytes(path, data, mode, expected=expected)

    def remove_file(self, path: str, *, expected: bytes) -> None:
        """See `ports.Host`."""
        self._files.remove_file(path, expected=expected)

    def settle(self, path: str) -> str:
        """See `ports.Host`."""
        return self._files.settle(path)

    def remove_empty_directories(self, path: str, made: Sequence[str]) -> None:
        """See `ports.Host`."""
        self._files.remove_empty_directories(path, made)

    def missing_directories(self, path: str) -> tuple[str, ...]:
        """See `ports.Host`."""
        return self._files.missing_directories(path)

    def exists(self, path: str) -> bool:
        """See `ports.Host`."""
        return self._files.exists(path)

    def glob(self, directory: str, pattern: str) -> tuple[str, ...]:
        """See `ports.Host`."""
        return self._files.glob(directory, pattern)

    def real_path(self, path: str) -> Path:
        """See `ports.Host`."""
        return self._files.real_path(path)

    def run(self, argv: Sequence[str], *, timeout_s: float = 60.0, environment: Mapping[str, str] | None = None,
            input_text: str = "", network: bool = False) -> Completed:
        """See `ports.Host`."""
        begun = time.monotonic()
        try:
            done = programs.run(argv, timeout_s=timeout_s, environment=environment, input_text=input_text,
                                network=self._outer_network if network else None)
        except HostError as error:
            self._log.event("error", "program-failed", program=argv[0], code=error.code, seconds=_since(begun))
            raise
        self._log.event("info", "program-ended", program=argv[0], returncode=done.returncode, seconds=_since(begun))
        self._log.event("traffic", "program-output", argv=done.argv, stdout=done.stdout, stderr=done.stderr)
        return done

    def has_program(self, name: str) -> bool:
        """See `ports.Host`."""
        return programs.find(name) is not None

    def installed(self, name: str) -> bool:
        """See `ports.Host`. On systems with dpkg one search in its status file."""
        status = self._dpkg_status()
        if status is not None:
            return packages.is_installed(status, name)
        return name in self.package_versions()

    def package_versions(self) -> dict[str, str]:
        """See `ports.Host`."""
        status = self._dpkg_status()
        if status is not None:
            return packages.versions(status)
        if "rpm" in self.facts().package_managers:
            return self._rpm_versions()
        return {}

    def unfinished_packages(self) -> dict[str, str]:
        """See `ports.Host`."""
        return packages.unfinished(self._dpkg_status() or b"")

    def wait_for_package_tools(self, wait_s: float) -> bool:
        """See `ports.Host`."""
        return dpkglock.wait_until_free(self._root, wait_s)

    def _dpkg_status(self) -> bytes | None:
        return self.read_bytes(packages.STATUS_PATH, packages.MAX_STATUS_BYTES)

    def _rpm_versions(self) -> dict[str, str]:
        done = self.run(["rpm", "--root", self._root, "-qa", "--queryformat", "%{NAME} %{EVR}\\n"])
        if done.returncode != 0:
            raise HostError("package-database", f"rpm could not list the installed packages: {clean(done.stderr)}",
                            hint="Repair the package database (rpm --rebuilddb).")
        return dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)

    def _architecture(self) -> Architecture:
        """dpkg's for the tree if it says, because a 64-bit kernel also runs 32-bit systems; else the processor's."""
        machine = packages.native_architecture(self._dpkg_status() or b"") or posix.uname().machine
        if machine not in ARCHITECTURES:
            raise UnsupportedError("architecture", f"No driver is known for the architecture {clean(machine)}.",
                                   hint="Use the token on a computer with an Intel, AMD or 64-bit ARM processor.")
        return ARCHITECTURES[machine]

    def _read_facts(self) -> HostFacts:
        release = self._os_release()
        live = self._root == "/"
        return HostFacts(
            machine=self._machine_name(),
            root=self._root,
            system="linux",
            architecture=self._architecture(),
            distribution=release.get("ID", ""),
            distribution_like=tuple(release.get("ID_LIKE", "").split()),
            version=release.get("VERSION_ID", ""),
            package_managers=self._package_managers(live),
            elevated=not live or posix.geteuid() == 0,
            running_services=live and Path("/run/systemd/system").is_dir(),
            browsers=tuple(b for b, paths in BROWSER_PROGRAMS.items() if any(map(self._is_browser, paths))),
        )

    def _is_browser(self, path: str) -> bool:
        """True if a browser that is no snap lies here. A snap's place in /usr/bin is a link to the snap tool or a script."""
        if not self.exists(path) or self.real_path(path).name == "snap":
            return False
        try:
            content = self.read_bytes(path, MAX_SCRIPT_BYTES) or b""
        except HostError:
            return True  # larger than any script
        return not (content.startswith(b"#!") and b"/snap/" in content)

    def _package_managers(self, live: bool) -> tuple[PackageManager, ...]:
        found: list[PackageManager] = []
        has_dpkg = self.exists(packages.STATUS_PATH) and self.has_program("dpkg")
        if live and has_dpkg and self.has_program("apt-get"):
            found.append("apt")
        if live and self.has_program("dnf"):
            found.append("dnf")
        if has_dpkg:
            found.append("dpkg")
        if self.has_program("rpm") and (self.exists("/usr/lib/sysimage/rpm") or self.exists("/var/lib/rpm")):
            found.append("rpm")
        return tuple(found)

    def _os_release(self) -> dict[str, str]:
        """os-release(5): the one in /etc, else the one in /usr/lib."""
        data = self.read_bytes("/etc/os-release", MAX_OS_RELEASE_BYTES)
        if data is None:
            data = self.read_bytes("/usr/lib/os-release", MAX_OS_RELEASE_BYTES) or b""
        values = {}
        for line in data.decode("utf-8", "replace").splitlines():
            key, separator, value = line.partition("=")
            if separator:
                values[key.strip()] = value.strip().strip("\"'")
        return values

    def _machine_name(self) -> str:
        """A short hash of machine-id and root: machine-id(5) asks not to show the id itself."""
        identity = b""
        for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
            identity = identity or (self.read_bytes(path, 100) or b"")
        if self._root != "/" and not identity:
            identity = b"tree"
        return hashlib.sha256(b"keyfit" + identity.strip() + b"\0" + self._root.encode()).hexdigest()[:16]


def _since(begun: float) -> float:
    """Seconds, to the millisecond."""
    return round(time.monotonic() - begun, 3)
