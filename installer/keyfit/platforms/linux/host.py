"""The machine: facts, files below the root, programs, packages."""

import hashlib
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

from keyfit.errors import UnsupportedError
from keyfit.model.catalog import Architecture
from keyfit.model.host import Browser, HostFacts, PackageManager
from keyfit.platforms.linux import programs
from keyfit.platforms.linux.files import RootedFiles
from keyfit.platforms.linux.posix import posix
from keyfit.ports import Completed

ARCHITECTURES: dict[str, Architecture] = {
    "x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64", "i386": "i386", "i686": "i386",
}
"""uname -m -> Debian's names (Debian, wiki "SupportedArchitectures")."""
BROWSER_PROGRAMS: dict[Browser, tuple[str, ...]] = {
    "firefox": ("/usr/bin/firefox", "/usr/bin/firefox-esr", "/opt/firefox/firefox"),
    "chromium": ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome",
                 "/usr/bin/google-chrome-stable", "/opt/google/chrome/chrome", "/usr/bin/brave-browser",
                 "/usr/bin/microsoft-edge", "/usr/bin/microsoft-edge-stable"),
}
"""Where the browsers' own Debian and RPM packages put them. Snap and Flatpak ones are sandboxed: they cannot load a module
from the system, so they are not counted."""
DPKG_STATUS = "/var/lib/dpkg/status"
MAX_STATUS_BYTES = 64_000_000
"""A desktop's status file has some 5 MB."""
MAX_OS_RELEASE_BYTES = 16_384


class LinuxHost:
    """This machine, or a tree on it.

    Args:
        root: "/" or an absolute path of an existing directory.
    """

    def __init__(self, root: str = "/") -> None:
        self._files = RootedFiles(root)
        self._root = root
        self._facts: HostFacts | None = None

    def facts(self) -> HostFacts:
        """Read once.

        Raises:
            UnsupportedError: the processor's architecture is none that drivers exist for.
        """
        if self._facts is None:
            self._facts = self._read_facts()
        return self._facts

    def read_bytes(self, path: str, max_bytes: int = 4_000_000) -> bytes | None:
        """See `ports.Host`."""
        return self._files.read_bytes(path, max_bytes)

    def write_bytes(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """See `ports.Host`."""
        self._files.write_bytes(path, data, mode)

    def remove_file(self, path: str) -> None:
        """See `ports.Host`."""
        self._files.remove_file(path)

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
            input_text: str = "") -> Completed:
        """See `ports.Host`."""
        return programs.run(argv, timeout_s=timeout_s, environment=environment, input_text=input_text)

    def has_program(self, name: str) -> bool:
        """See `ports.Host`."""
        return programs.find(name) is not None

    def installed(self, name: str) -> bool:
        """See `ports.Host`. By dpkg's file lists; on other systems by the whole list."""
        folder = "/var/lib/dpkg/info"
        if self.exists(DPKG_STATUS):
            names = (f"{folder}/{name}.list", f"{folder}/{name}:{self.facts().architecture}.list")
            return any(map(self.exists, names)) and name in self.package_versions()
        return name in self.package_versions()

    def package_versions(self) -> dict[str, str]:
        """See `ports.Host`."""
        status = self.read_bytes(DPKG_STATUS, MAX_STATUS_BYTES)
        if status is not None:
            return parse_status(status)
        if "rpm" in self.facts().package_managers:
            return self._rpm_versions()
        return {}

    def _rpm_versions(self) -> dict[str, str]:
        done = self.run(["rpm", "--root", self._root, "-qa", "--queryformat", "%{NAME} %{EVR}\\n"])
        return dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)

    def _read_facts(self) -> HostFacts:
        machine = platform.machine().lower()
        if machine not in ARCHITECTURES:
            raise UnsupportedError("architecture", f"No driver is known for the processor {machine}.")
        release = self._os_release()
        live = self._root == "/"
        return HostFacts(
            machine=self._machine_name(),
            root=self._root,
            system="linux",
            architecture=ARCHITECTURES[machine],
            distribution=release.get("ID", ""),
            distribution_like=tuple(release.get("ID_LIKE", "").split()),
            version=release.get("VERSION_ID", ""),
            package_managers=self._package_managers(live),
            elevated=not live or posix.geteuid() == 0,
            running_services=live and Path("/run/systemd/system").is_dir(),
            browsers=tuple(b for b, paths in BROWSER_PROGRAMS.items() if any(map(self.exists, paths))),
        )

    def _package_managers(self, live: bool) -> tuple[PackageManager, ...]:
        found: list[PackageManager] = []
        has_dpkg = self.exists(DPKG_STATUS) and self.has_program("dpkg")
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


def parse_status(status: bytes) -> dict[str, str]:
    """Installed packages and versions from dpkg's status file (deb-control(5)); foreign architectures as name:arch too."""
    versions: dict[str, str] = {}
    for paragraph in status.split(b"\n\n"):
        if b"\nStatus: install ok installed" not in b"\n" + paragraph:
            continue
        fields: dict[bytes, str] = {}
        for line in paragraph.split(b"\n"):
            key, separator, value = line.partition(b": ")
            if separator and key in (b"Package", b"Version", b"Architecture"):
                fields[key] = value.decode("utf-8", "replace")
        if b"Package" in fields:
            versions.setdefault(fields[b"Package"], fields.get(b"Version", ""))
    return versions
