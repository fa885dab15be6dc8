"""The machine the bench runs on: its programs, its package mirror, and the cache of what was built."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[3]
BENCH = Path(__file__).resolve().parent

REQUIRED_PROGRAMS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "e2fsck": "e2fsprogs",
    "cpio": "cpio",
    "busybox": "busybox-static",
    "dpkg-scanpackages": "dpkg-dev",
    "setpriv": "util-linux",
    "tar": "tar",
}
"""Program, and the Debian package it comes from. `install-packages.sh` reads this table."""


_KEPT = {"state": 16, "root": 2, "initramfs": 4}
"""How many of a kind stay in the cache, the last used ones: a state takes 150 to 370 MB, a root 450 MB. One run of all tests
makes 11 states, none of which may be gone before its end."""


class BenchError(Exception):
    """The bench itself failed; nothing is said about the program under test."""


def cache_folder() -> Path:
    """The folder of built images and frozen states: $KEYFIT_VM_CACHE, or build/vm in the checkout."""
    folder = Path(os.environ.get("KEYFIT_VM_CACHE") or CHECKOUT / "build" / "vm")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def missing_packages() -> list[str]:
    """Debian packages of which a needed program is not in the path, sorted."""
    search = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    return sorted({package for name, package in REQUIRED_PROGRAMS.items() if shutil.which(name, path=search) is None})


def check_host() -> None:
    """Raise a BenchError that says what to do, unless everything needed is here."""
    missing = missing_packages()
    if missing:
        raise BenchError(f"not installed: {' '.join(missing)}; run tests/vm/install-packages.sh")


def check_root() -> None:
    """Raise a BenchError unless this is the superuser, who alone can lay out another system's root file system."""
    if os.geteuid() != 0:
        raise BenchError("building the guest needs root; once it is in the cache, the tests do not")


def run(command: Sequence[str | Path], *, log: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """Run a program to its end and return its standard output.

    Args:
        command: Program and arguments.
        log: File that gets both outputs appended as well.
        env: Variables added to this process's.

    Raises:
        BenchError: With the end of its output, when the program fails.
    """
    argv = [str(part) for part in command]
    environment = {**os.environ, "PATH": os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin", **(env or {})}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, errors="replace", check=False)
    if log is not None:
        with log.open("a", errors="replace") as file:
            file.write(f"$ {' '.join(argv)}\n{done.stdout}{done.stderr}")
    if done.returncode != 0:
        raise BenchError(f"{argv[0]} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout


def digest(*parts: str | bytes | Path) -> str:
    """A short key for what something is made of: text, bytes, and files or folders with their modes and links."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            for path in [part, *(sorted(part.rglob("*")) if part.is_dir() else [])]:
                total.update(f"{path.relative_to(part.parent)} {path.lstat().st_mode:o}\0".encode())
                if path.is_symlink():
                    total.update(os.readlink(path).encode())
                elif path.is_file():
                    total.update(path.read_bytes())
        else:
            total.update(part.encode() if isinstance(part, str) else part)
        total.update(b"\0")
    return total.hexdigest()[:16]


@cache
def qemu_version() -> str:
    """First line of `qemu-system-x86_64 --version`: frozen states belong to one QEMU."""
    return run(["qemu-system-x86_64", "--version"]).splitlines()[0]


@contextmanager
def built_once(name: str) -> Iterator[tuple[Path, bool]]:
    """Give the cache folder `name`, and whether it still has to be filled.

    While it is being filled the path is a scratch folder, which takes its final name only when the block ends
    without an exception. Other processes that want a folder of the cache wait.
    """
    cache_root = cache_folder()
    final = cache_root / name
    if final.is_dir():  # a rename put it there whole: no need to wait for whoever builds something else
        os.utime(final)
        yield final, False
        return
    with (cache_root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if final.is_dir():  # built while this process waited
            yield final, False
            return
        for leftover in cache_root.glob(".building-*"):  # of a build that was killed; nobody else is building now
            shutil.rmtree(leftover)
        scratch = Path(tempfile.mkdtemp(prefix=".building-", dir=cache_root))
        scratch.chmod(0o755)
        try:
            yield scratch, True
            scratch.rename(final)
            _forget_old(cache_root, name.split("-")[0])
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _forget_old(cache_root: Path, kind: str) -> None:
    """Remove what has not been used for longest: a state is made anew for each change of the program it holds."""
    folders = sorted(cache_root.glob(f"{kind}-*"), key=lambda folder: folder.stat().st_mtime, reverse=True)
    for folder in folders[_KEPT[kind] :]:
        shutil.rmtree(folder)
