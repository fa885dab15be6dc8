"""A package database in memory that answers as apt-get, dpkg and dpkg-deb do, as far as Keyfit calls them."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import Struct

from keyfit.ports import Completed


class SimPackage(Struct, frozen=True, kw_only=True):
    """A package: what it needs, the files it brings, and maintainer scripts by name."""

    name: str
    version: str = "1.0"
    depends: tuple[str, ...] = ()
    files: dict[str, str] = {}
    architecture: str = "amd64"
    scripts: tuple[str, ...] = ()

    def deb(self) -> bytes:
        """The package as a file that the simulated dpkg understands."""
        return json.dumps({"name": self.name, "version": self.version, "depends": self.depends, "files": self.files,
                           "architecture": self.architecture, "scripts": self.scripts}).encode()


def read_deb(path: str) -> SimPackage | None:
    """The package in a file made by `SimPackage.deb`; None if it is not one."""
    try:
        fields = json.loads(Path(path).read_bytes())
        return SimPackage(**{**fields, "depends": tuple(fields["depends"]), "scripts": tuple(fields["scripts"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


class SimPackages:
    """`archive` is what apt can install, `installed` what is. `put` and `drop` move a package's files.

    Attributes:
        broken: names whose configuration fails: they stay unpacked, which dpkg does not count as installed.
        locked: another package tool is at work.
        fails: what apt says instead of doing anything.
        unfinished: packages that somebody else's dpkg left half-way -> dpkg's word for it.
    """

    def __init__(self, put: Callable[[str, bytes], None], drop: Callable[[str], None]) -> None:
        self.archive: dict[str, SimPackage] = {}
        self.installed: dict[str, SimPackage] = {}
        self.unpacked: dict[str, SimPackage] = {}
        self.broken: set[str] = set()
        self.locked = False
        self.fails = ""
        self.unfinished: dict[str, str] = {}
        self._put, self._drop = put, drop

    def add(self, package: SimPackage) -> None:
        """Install without a package tool, for the machine as the test finds it."""
        self._replace(package)
        self.installed[package.name] = package
        self._put(_file_list(package.name), b"")
        for path, text in package.files.items():
            self._put(path, text.encode())

    def apt_get(self, argv: Sequence[str]) -> Completed:
        """`install`, `purge`, `update`, with `-s` for a simulation."""
        words = _words(argv[1:])
        simulate, verb, names = "-s" in argv, words[0], words[1:]
        if verb == "update":
            return answer(argv)
        if self.locked and not simulate:
            return answer(argv, 100, err="E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 1")
        if self.fails and not simulate:
            return answer(argv, 100, err=self.fails)
        if verb == "purge":
            return self._apt_purge(argv, names, simulate=simulate)
        return self._apt_install(argv, names, simulate=simulate)

    def _apt_install(self, argv: Sequence[str], names: list[str], *, simulate: bool) -> Completed:
        unknown = [n for n in names if n not in self.archive and n not in self.installed]
        if unknown:
            return answer(argv, 100, err=f"E: Unable to locate package {unknown[0]}")
        if simulate:
            return answer(argv, out="".join(f"Inst {name} ({self.archive[name].version} Sim:12/stable [amd64])\n"
                                            for name in self._with_dependencies(names)))
        for name in self._with_dependencies(names):
            if name in self.broken:
                self._unpack(self.archive[name])
                return answer(argv, 100, err=f"dpkg: error processing package {name} (--configure):\n"
                              "E: Sub-process /usr/bin/dpkg returned an error code (1)")
            self.add(self.archive[name])
        return answer(argv)

    def _apt_purge(self, argv: Sequence[str], names: list[str], *, simulate: bool) -> Completed:
        taken = self._with_dependants(names)
        if not simulate:
            for name in taken:
                self._purge(name)
        return answer(argv, out="".join(f"Purg {name} [1.0]\n" for name in taken))

    def dpkg(self, argv: Sequence[str]) -> Completed:
        """`-i FILE`, `--purge NAME` and `--configure -a`."""
        if self.locked:
            return answer(argv, 2, err="dpkg: error: dpkg frontend lock was locked by another process with pid 1")
        if "-i" in argv:
            return self._dpkg_install(argv)
        if "--configure" in argv:
            self.unfinished.clear()
            return answer(argv)
        name = argv[-1]
        needing = [n for n in self._with_dependants([name]) if n != name]
        if needing:
            return answer(argv, 1, err=f"dpkg: dependency problems prevent removal of {name}:\n {needing[0]} depends on it")
        self._purge(name)
        return answer(argv)

    def _dpkg_install(self, argv: Sequence[str]) -> Completed:
        package = read_deb(argv[-1])
        if package is None:
            return answer(argv, 1, err="dpkg: error: not a Debian format archive")
        missing = [d for d in package.depends if d not in self.installed]
        if missing or package.name in self.broken:
            self._unpack(package)
            return answer(argv, 1, err=f"dpkg: dependency problems prevent configuration of {package.name}:\n" + "".join(
                f" {package.name} depends on {name}; however:\n  Package {name} is not installed.\n" for name in missing))
        self.add(package)
        return answer(argv)

    @staticmethod
    def dpkg_deb(argv: Sequence[str]) -> Completed:
        """`--show` with Keyfit's format, `--contents FILE` and `--info FILE SCRIPT`."""
        path = argv[-1] if argv[1] == "--show" else argv[2]
        package = read_deb(path)
        if package is None:
            return answer(argv, 2, err="dpkg-deb: error: not a Debian format archive")
        if argv[1] == "--show":
            return answer(argv, out=f"{package.name}\n{package.version}\n{package.architecture}\n")
        if argv[1] == "--contents":
            return answer(argv, out="".join(f"-rw-r--r-- root/root {len(text)} 2026-01-01 00:00 .{name}\n"
                                            for name, text in package.files.items()))
        return answer(argv, 0 if argv[3] in package.scripts else 2)

    def _with_dependencies(self, names: Sequence[str]) -> list[str]:
        order: list[str] = []
        for name in names:
            if name not in self.installed and name not in order:
                order += [n for n in self._with_dependencies(self.archive[name].depends) if n not in order]
                order.append(name)
        return order

    def _with_dependants(self, names: Sequence[str]) -> list[str]:
        present = {**self.installed, **self.unpacked}
        taken = [n for n in names if n in present]
        while more := [n for n, p in present.items() if n not in taken and set(p.depends) & set(taken)]:
            taken += more
        return taken

    def _unpack(self, package: SimPackage) -> None:
        """Files and file list are there, but dpkg does not call it installed."""
        self._replace(package)
        self.unpacked[package.name] = package
        self._put(_file_list(package.name), b"")
        for path, text in package.files.items():
            self._put(path, text.encode())

    def _replace(self, package: SimPackage) -> None:
        """Another version goes, with the files that only it has."""
        old = self.installed.pop(package.name, None) or self.unpacked.pop(package.name, None)
        for path in old.files if old else ():
            if path not in package.files:
                self._drop(path)

    def _purge(self, name: str) -> None:
        package = self.installed.pop(name, None) or self.unpacked.pop(name, None)
        self._drop(_file_list(name))
        for path in package.files if package else ():
            self._drop(path)


def _file_list(name: str) -> str:
    return f"/var/lib/dpkg/info/{name}.list"


def _words(argv: Sequence[str]) -> list[str]:
    """The words that are neither options nor the values of `-o`."""
    return [word for previous, word in zip(["", *argv], argv, strict=False) if not word.startswith("-") and previous != "-o"]


def answer(argv: Sequence[str], code: int = 0, *, out: str = "", err: str = "") -> Completed:
    """What a program said."""
    return Completed(argv=tuple(argv), returncode=code, stdout=out, stderr=err)
