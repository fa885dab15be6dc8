"""A machine in memory: the simulated `keyfit.ports.Host`, with faults that a test scripts.

Files lie in a dictionary. The few things that Keyfit does through `real_path` (archives, a user's NSS database) happen in
a scratch directory, which the same paths lead to; `snapshot` shows both, to be compared before and after.
"""

import errno
import fnmatch
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from keyfit.errors import HostError, StorageError
from keyfit.model.host import HostFacts
from keyfit.ports import Completed
from tests.sim.packages import SimPackage, SimPackages, answer
from tests.sim.power import Power

FACTS = HostFacts(machine="sim0", root="/", system="linux", architecture="amd64", distribution="debian", version="12",
                  package_managers=("apt", "dpkg"), elevated=True, running_services=True, browsers=("firefox", "chromium"))
STANDING = ("/etc", "/usr", "/usr/lib", "/opt", "/var", "/var/lib", "/var/lib/dpkg", "/var/lib/dpkg/info")
"""Directories of every machine."""
BOOT_ID = "/proc/sys/kernel/random/boot_id"
READING = {"is-enabled", "is-active"}


class SimHost:
    """See the module's text.

    Attributes:
        power: cut it, and the machine stops at the next change.
        links: symbolic links to files.
        full_at: the number of the write (from 1) at which the disk is full; 0 for never.
        missing: names of programs that are not installed.
        failing: program -> what it says on stderr instead of doing its work.
        units: systemd unit -> [enabled, active].
        calls: every program that was run.
        boot: id of this start of the machine.
        meanwhile: somebody else, who acts when a file is about to be replaced or removed; called once with its path.
    """

    def __init__(self, scratch: Path, *, power: Power | None = None, **facts: Any) -> None:
        self.power = power or Power()
        self.files: dict[str, bytes] = {}
        self.modes: dict[str, int] = {}
        self.links: dict[str, str] = {}
        self.directories: set[str] = set(STANDING)
        self.packages = SimPackages(self._place, self._drop)
        self.units: dict[str, list[bool]] = {"pcscd.socket": [True, True], "pcscd.service": [True, True]}
        self.full_at = 0
        self.missing: set[str] = set()
        self.failing: dict[str, str] = {}
        self.calls: list[tuple[str, ...]] = []
        self.boot = "boot-1"
        self.meanwhile: Callable[[str], None] | None = None
        self._writes = 0
        self._scratch = scratch
        self._facts = msgspec.structs.replace(FACTS, **facts)
        for directory in self.directories:
            self.real_path(directory).mkdir(parents=True, exist_ok=True)

    def facts(self) -> HostFacts:
        return self._facts

    def read_bytes(self, path: str, max_bytes: int = 4_000_000) -> bytes | None:
        if path == BOOT_ID:
            return self.boot.encode() + b"\n"
        data = self.files.get(self.links.get(path, path))
        if data is None and path in self.directories:
            raise HostError("not-a-file", f"{path} is not a regular file.")
        if data is not None and len(data) > max_bytes:
            raise HostError("file-too-large", f"{path} is larger than {max_bytes} bytes.")
        return data

    def write_bytes(self, path: str, data: bytes, mode: int = 0o644, *, expected: bytes | None) -> None:
        """In the same stages as the real one, with the same names beside the file."""
        self._writes += 1
        if self._writes == self.full_at:
            raise StorageError("disk-full", f"{path} cannot be written: {os.strerror(errno.ENOSPC)}.", hint="Free some.")
        self.settle(path)
        self.power.tick()
        new, swap = _beside(path, "new"), _beside(path, f"{_digest(expected or b'')}-{_digest(data)}")
        self._place(new, data)
        self.power.tick()
        self._somebody_else(path)
        if self.files.get(path) != expected:
            self.files.pop(new)
            raise HostError("changed-meanwhile", f"{path} was changed by somebody else at this moment.", hint="Look.")
        del self.files[new]
        if expected is not None:
            self.files[swap] = data
            self.power.tick()
            self.files[path], self.files[swap] = data, expected
            self.power.tick()
            del self.files[swap]
        self.files[path] = data
        self.modes.setdefault(path, mode)
        self.power.tick()

    def remove_file(self, path: str, *, expected: bytes) -> None:
        self.settle(path)
        self.power.tick()
        self._somebody_else(path)
        if path not in self.files:
            return
        if self.files[path] != expected:
            raise HostError("changed-meanwhile", f"{path} was changed by somebody else at this moment.", hint="Look.")
        gone = _beside(path, f"{_digest(expected)}-gone")
        self.files[gone] = self.files.pop(path)
        self.power.tick()
        del self.files[gone]
        self.modes.pop(path, None)
        self.power.tick()

    def settle(self, path: str) -> str:
        prefix = _beside(path, "")
        for name in [n for n in self.files if n.startswith(prefix)]:
            old, _, new = name.removeprefix(prefix).partition("-")
            found = _digest(self.files[name])
            if old == "new" or found in (old, new):
                del self.files[name]
            elif path not in self.files if new == "gone" else _digest(self.files.get(path, b"")) == new:
                self.files[path] = self.files.pop(name)
            else:
                return f"{name} stayed"
        return ""

    def remove_empty_directories(self, path: str, made: Sequence[str]) -> None:
        for directory in sorted(made, key=len, reverse=True):
            if PurePosixPath(path).is_relative_to(directory) and not self._has_content(directory):
                self.directories.discard(directory)
                real = self.real_path(directory)
                if real.is_dir():
                    real.rmdir()

    def missing_directories(self, path: str) -> tuple[str, ...]:
        parents = [str(p) for p in reversed(PurePosixPath(path).parents) if str(p) != "/"]
        return tuple(p for p in parents if not self._is_directory(p))

    def exists(self, path: str) -> bool:
        return path in self.files or self._is_directory(path) or self.real_path(path).exists()

    def glob(self, directory: str, pattern: str) -> tuple[str, ...]:
        inside = {str(PurePosixPath(directory) / PurePosixPath(p).relative_to(directory).parts[0])
                  for p in {*self.files, *self.directories} if PurePosixPath(directory) in PurePosixPath(p).parents}
        return tuple(sorted(p for p in inside if fnmatch.fnmatchcase(PurePosixPath(p).name, pattern)))

    def real_path(self, path: str) -> Path:
        return self._scratch / path.lstrip("/")

    def run(self, argv: Sequence[str], *, timeout_s: float = 60.0, environment: Mapping[str, str] | None = None,
            input_text: str = "", network: bool = False) -> Completed:
        name = argv[0]
        self.calls.append(tuple(argv))
        if not self.has_program(name):
            raise HostError("program-missing", f"The program {name} is not installed on this system.")
        if name in self.failing:
            return answer(argv, 1, err=self.failing[name])
        reading = name == "dpkg-deb" or "-s" in argv or bool(READING & set(argv))
        if not reading:
            self.power.tick()
        done = self._run(argv)
        if not reading:
            self.power.tick()
        return done

    def has_program(self, name: str) -> bool:
        return name not in self.missing

    def installed(self, name: str) -> bool:
        return name in self.packages.installed

    def package_versions(self) -> dict[str, str]:
        return {name: package.version for name, package in self.packages.installed.items()}

    def unfinished_packages(self) -> dict[str, str]:
        return {**dict.fromkeys(self.packages.unpacked, "unpacked"), **self.packages.unfinished}

    def wait_for_package_tools(self, wait_s: float) -> bool:
        return not self.packages.locked

    def install(self, *packages: SimPackage) -> None:
        """Packages that are there when the story begins."""
        for package in packages:
            self.packages.add(package)

    def offer(self, *packages: SimPackage) -> None:
        """Packages that apt can install."""
        self.packages.archive.update({package.name: package for package in packages})

    def put(self, path: str, data: bytes) -> None:
        """Somebody else writes a file."""
        self._place(path, data)

    def link(self, path: str, target: str) -> None:
        """A symbolic link to a file, followed when it is read."""
        self.links[path] = target
        self.directories.update(str(p) for p in PurePosixPath(path).parents if str(p) != "/")

    def snapshot(self) -> dict[str, Any]:
        """Everything that a user could find changed."""
        here = str(self._scratch).encode()
        real = {f"/{p.relative_to(self._scratch)}": p.read_bytes().replace(here, b"") if p.is_file() else None
                for p in sorted(self._scratch.rglob("*"))}
        return {"files": {path: data.replace(here, b"") for path, data in self.files.items()},
                "directories": set(self.directories), "real": real,
                "installed": self.package_versions(), "unpacked": sorted(self.packages.unpacked),
                "units": {unit: tuple(state) for unit, state in self.units.items()}}

    def _somebody_else(self, path: str) -> None:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile(path)

    def _run(self, argv: Sequence[str]) -> Completed:
        match argv[0]:
            case "apt-get":
                return self.packages.apt_get(argv)
            case "dpkg":
                return self.packages.dpkg(argv)
            case "dpkg-deb":
                return self.packages.dpkg_deb(argv)
            case "systemctl":
                return self._systemctl(argv)
            case _:
                return answer(argv)

    def _systemctl(self, argv: Sequence[str]) -> Completed:
        verb, unit = argv[1], argv[-1]
        if unit not in self.units:
            return answer(argv, 4, err=f"Unit {unit} could not be found.")
        state = self.units[unit]
        if verb in READING:
            return answer(argv, 0 if state[verb == "is-active"] else 3)
        if verb in ("enable", "disable"):
            state[0] = verb == "enable"
        if verb in ("start", "stop") or "--now" in argv:
            state[1] = verb != "stop"
        if unit == "pcscd.service" and verb == "stop":
            state[1] = self.units["pcscd.socket"][1]  # the socket starts it for the next client
        return answer(argv)

    def _place(self, path: str, data: bytes) -> None:
        self.directories.update(str(p) for p in PurePosixPath(path).parents if str(p) != "/" and not self._is_directory(str(p)))
        self.files[path] = data

    def _drop(self, path: str) -> None:
        """A package tool removes a file, and the directories that this leaves empty, as dpkg does."""
        self.files.pop(path, None)
        for parent in PurePosixPath(path).parents:
            if str(parent) in STANDING or str(parent) == "/" or self._has_content(str(parent)):
                return
            self.directories.discard(str(parent))

    def _is_directory(self, path: str) -> bool:
        return path in self.directories or self.real_path(path).is_dir()

    def _has_content(self, directory: str) -> bool:
        here = PurePosixPath(directory)
        real = self.real_path(directory)
        return (any(here in PurePosixPath(p).parents for p in {*self.files, *self.directories})
                or (real.is_dir() and any(real.iterdir())))


def _beside(path: str, tag: str) -> str:
    pure = PurePosixPath(path)
    return str(pure.with_name(f".{pure.name}.keyfit-{tag}"))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What is different between two snapshots, one line each; empty if nothing is."""
    lines = []
    for what, old in before.items():
        new = after[what]
        if isinstance(old, dict):
            lines += [f"{what} {key}: {old.get(key, 'absent')!r} -> {new.get(key, 'absent')!r}"
                      for key in sorted({*old, *new}) if old.get(key, "absent") != new.get(key, "absent")]
        elif old != new:
            lines.append(f"{what}: {sorted(old)} -> {sorted(new)}")
    return lines
