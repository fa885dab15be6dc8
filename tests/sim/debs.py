"""Real Debian packages for tests, and trees that they can be installed into, without any rights.

Packages come from the archives that this machine is set up for, by `apt-get download` with private directories: its
own package lists, cache and state stay as they are. A package is fetched once into a cache directory.
"""

import os
import shutil
import subprocess
from pathlib import Path

APT = "/usr/bin/apt-get"
TIMEOUT_S = 300
DPKG_STATUS = Path("/var/lib/dpkg/status")


class FetchError(Exception):
    """The package could not be fetched; says what apt said."""


def fetch(name: str, cache: Path) -> Path:
    """The newest `.deb` of a package, from the cache if it is there.

    Raises:
        FetchError: apt could not get it.
    """
    cache.mkdir(parents=True, exist_ok=True)
    found = sorted(cache.glob(f"{name}_*.deb"))
    if found:
        return found[-1]
    options = _private_apt(cache / "apt")
    if not any((cache / "apt" / "lists").glob("*_Packages*")):
        _apt([*options, "update"], cache)
    _apt([*options, "download", name], cache)
    found = sorted(cache.glob(f"{name}_*.deb"))
    if not found:
        raise FetchError(f"apt-get download {name} left no file")
    return found[-1]


def tree_with_package_database(tree: Path) -> None:
    """Make a tree that dpkg takes for this machine: a copy of its package database and of /etc/os-release.

    Only the status file and dpkg's own format mark are copied, not the file lists: nothing of the machine can be
    removed through the tree, and dependencies count as met where they are met here.
    """
    info = tree / "var/lib/dpkg/info"
    for directory in (info, tree / "var/lib/dpkg/updates", tree / "etc"):
        directory.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(DPKG_STATUS, tree / "var/lib/dpkg/status")
    (info / "format").write_text("1\n")
    shutil.copyfile("/etc/os-release", tree / "etc/os-release")


def build(folder: Path, name: str, version: str = "1.0", *, depends: str = "", files: dict[str, str] | None = None,
          scripts: dict[str, str] | None = None, links: dict[str, str] | None = None, architecture: str = "all") -> Path:
    """Build a small package with dpkg-deb. `files` and `scripts` are texts by path and by script name, `links` targets by
    path."""
    source = folder / f"{name}-{version}"
    control = source / "DEBIAN"
    control.mkdir(parents=True)
    fields = [f"Package: {name}", f"Version: {version}", f"Architecture: {architecture}",
              "Maintainer: Keyfit tests <tests@example.org>", "Description: a package for tests"]
    if depends:
        fields.append(f"Depends: {depends}")
    (control / "control").write_text("\n".join(fields) + "\n")
    for script, text in (scripts or {}).items():
        (control / script).write_text(text)
        (control / script).chmod(0o755)
    for path, text in (files or {f"usr/share/{name}/readme": "here\n"}).items():
        target = source / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    for path, to in (links or {}).items():
        (source / path).symlink_to(to)
    deb = folder / f"{name}_{version}_{architecture}.deb"
    subprocess.run(["/usr/bin/dpkg-deb", "--root-owner-group", "--build", source, deb], check=True, capture_output=True,
                   timeout=TIMEOUT_S)
    return deb


def _private_apt(state: Path) -> list[str]:
    """Options that keep apt inside `state`; the archives and keys stay the machine's."""
    for directory in ("lists/partial", "archives/partial", "log"):
        (state / directory).mkdir(parents=True, exist_ok=True)
    settings = {
        "Dir::State": state, "Dir::State::lists": state / "lists", "Dir::State::status": DPKG_STATUS,
        "Dir::Cache": state, "Dir::Cache::archives": state / "archives", "Dir::Log": state / "log",
        "Debug::NoLocking": "true", "APT::Sandbox::User": "",
    }
    return [part for key, value in settings.items() for part in ("-o", f"{key}={value}")]


def _apt(arguments: list[str], folder: Path) -> None:
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    done = subprocess.run([APT, "-q", *arguments], cwd=folder, env=environment, capture_output=True, text=True,
                          timeout=TIMEOUT_S, check=False)
    if done.returncode:
        raise FetchError((done.stderr or done.stdout).strip()[-800:])
