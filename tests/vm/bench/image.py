"""Builds the guest: kernel, root file system with an offline package repository, and initramfs.

The root image holds nothing of the bench: what the bench needs inside (the agent and its unit) travels in the
initramfs and is laid out below /run at boot, so `/etc`, `/usr` and `/var` are those of a plain Debian.
"""

from __future__ import annotations

import lzma
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import formatdate
from hashlib import sha256
from pathlib import Path

from tests.vm.bench import packages
from tests.vm.bench.host import BENCH, BenchError, built_once, check_host, check_root, digest, run

_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_PASSED_ON_APT_SETTINGS = ("Acquire::http", "Acquire::ftp", "Acquire::Check-", "Acquire::Force", "Acquire::Retries")
_MACHINE_ID = "5d1a94b0c1f24c0f8d0a7f6e2b3c4d5e"
"""Invented. Fixed, so that systemd does not take the boot for the first one and runs no first-boot units."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """Files of a built guest.

    Attributes:
        kernel: Uncompressed vmlinux, started by QEMU through its PVH entry.
        initramfs: cpio archive.
        root: Read-only ext4 image.
        key: What it is made from, as a short hash.
    """

    kernel: Path
    initramfs: Path
    root: Path
    key: str


def build_image() -> Image:
    """Return the guest, building what the cache does not have. Needs the superuser only when it builds the root.

    Raises:
        BenchError: A program is missing, or a build step failed; the message has the end of its output.
    """
    check_host()
    root_key = digest(BENCH / "image.py", BENCH / "packages.py")
    with built_once(f"root-{root_key}") as (folder, to_build):
        if to_build:
            check_root()
            _build_root(folder)
    root = folder if not to_build else folder.parent / f"root-{root_key}"
    init_key = digest(root_key, *_guest_files())
    with built_once(f"initramfs-{init_key}") as (folder, to_build):
        if to_build:
            _build_initramfs(folder, root / "modules")
    initramfs = folder.parent / f"initramfs-{init_key}"
    return Image(kernel=root / "vmlinux", initramfs=initramfs / "initramfs", root=root / "root.ext4", key=init_key)


def _build_root(folder: Path) -> None:
    log, tree = folder / "build.log", folder / "tree"
    started = time.monotonic()
    kernel = _fetch_kernel(folder, log)
    _bootstrap(tree, log)
    _fill_repository(tree, log)
    _copy_modules(kernel, tree)
    _settle(tree)
    _make_ext4(tree, folder / "root.ext4", log)
    _write_manifest(tree, folder / "packages.txt")
    shutil.rmtree(tree)
    shutil.rmtree(kernel)
    with log.open("a") as file:
        file.write(f"built in {time.monotonic() - started:.0f} s\n")


# -- kernel


def _fetch_kernel(folder: Path, log: Path) -> Path:
    """Download and unpack the kernel package; leave vmlinux and the initramfs modules in `folder`."""
    tree = folder / "kernel"
    listing = run(["apt-cache", "depends", "--important", packages.KERNEL_META_PACKAGE])
    names = [line.split()[-1] for line in listing.splitlines() if line.strip().startswith("Depends: linux-image-")]
    if not names:
        raise BenchError(f"apt knows no {packages.KERNEL_META_PACKAGE}; run apt-get update")
    download = folder / "download"
    download.mkdir()
    # the sandbox user may not write here, and apt warns about it on every run; it falls back to root by itself
    command = ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", names[0]]
    done = subprocess.run(command, cwd=download, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchError(f"{' '.join(command)}: {done.stderr[-2000:]}")
    run(["dpkg-deb", "-x", next(download.glob("*.deb")), tree], log=log)
    shutil.rmtree(download)
    compressed = next((tree / "boot").glob("vmlinuz-*")).read_bytes()
    start = compressed.find(b"\xfd7zXZ\0")
    if start < 0:
        raise BenchError("the kernel is not compressed with xz")
    (folder / "vmlinux").write_bytes(lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(compressed[start:]))
    (folder / "modules").mkdir()
    for name in packages.INITRAMFS_MODULES:
        found = next(tree.rglob(f"{name}.ko"), None)
        if found is not None:  # otherwise it is part of the kernel itself
            shutil.copy(found, folder / "modules")
    return tree


def _copy_modules(kernel: Path, tree: Path) -> None:
    source = next((kernel / "lib" / "modules").iterdir())
    target = tree / "usr" / "lib" / "modules" / source.name
    target.mkdir(parents=True)
    for path in source.glob("modules.*"):
        shutil.copy(path, target)
    for name in packages.GUEST_MODULES:
        origin, copy = source / "kernel" / name, target / "kernel" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if origin.is_dir():
            shutil.copytree(origin, copy, dirs_exist_ok=True)
        elif origin.is_file():
            shutil.copy(origin, copy)
    run(["chroot", tree, "depmod", source.name])


# -- root file system


def _sources() -> list[str]:
    """The Debian sources of this machine's own apt, as one-line entries."""
    fields = "$(ORIGIN)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)"
    listing = run(["apt-get", "indextargets", "--format", fields, "Created-By: Packages"])
    entries = []
    for line in listing.splitlines():
        origin, uri, suite, component = line.split("|")
        if origin == "Debian" and component == "main" and suite.startswith(packages.SUITE):
            entries.append(f"deb [signed-by={_KEYRING}] {uri} {suite} main")
    if not entries:
        raise BenchError(f"this machine's apt has no Debian {packages.SUITE} source, or was never updated")
    return sorted(set(entries))


def _apt_settings() -> list[str]:
    """The settings of this machine's apt that say how to reach the mirror: proxies, time checks, retries."""
    lines = run(["apt-config", "dump"]).splitlines()
    return [line for line in lines if line.startswith(_PASSED_ON_APT_SETTINGS) and not line.endswith('"";')]


def _bootstrap(tree: Path, log: Path) -> None:
    command: list[str | Path] = ["mmdebstrap", "--mode=root", "--variant=minbase", "--architectures=amd64"]
    command += [f"--aptopt={line}" for line in [*_apt_settings(), 'Acquire::Languages "none";']]
    command += [f"--dpkgopt=path-exclude={path}" for path in packages.LEFT_OUT_PATHS]
    command += [f"--include={','.join(packages.INSTALLED)}", "--skip=cleanup/apt/lists", "--format=directory"]
    run([*command, packages.SUITE, tree, *_sources()], log=log)


def _in_guest(tree: Path, command: Sequence[str], log: Path) -> None:
    settings = {"DEBIAN_FRONTEND": "noninteractive", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
    run(["chroot", tree, *command], log=log, env=settings)


def _fill_repository(tree: Path, log: Path) -> None:
    """Download the offered packages with all they need, index them, and make them the guest's only source."""
    repository = tree / "srv" / "debian"
    (repository / "partial").mkdir(parents=True)
    shutil.copy("/etc/resolv.conf", tree / "etc" / "resolv.conf")
    fetch = ["apt-get", "-q", "-y", "-d", "--no-install-recommends"]
    fetch += ["-o", "Dir::Cache::archives=/srv/debian", "-o", "APT::Sandbox::User=root"]
    for name in packages.OFFERED:  # one by one: a choice made for one of them must not hide a package another needs
        _in_guest(tree, [*fetch, "install", name], log)
    shutil.rmtree(repository / "partial")
    (repository / "lock").unlink(missing_ok=True)
    _index(repository)
    for path in [tree / "etc" / "apt" / "sources.list", *(tree / "etc" / "apt" / "sources.list.d").glob("*")]:
        path.unlink(missing_ok=True)
    for path in (tree / "etc" / "apt" / "apt.conf.d").glob("*mmdebstrap*"):
        path.unlink()
    shutil.rmtree(tree / "var" / "lib" / "apt" / "lists")
    (tree / "etc" / "apt" / "sources.list").write_text("deb [trusted=yes] file:/srv/debian ./\n")
    _in_guest(tree, ["apt-get", "-q", "update"], log)
    _in_guest(tree, ["apt-get", "-q", "-s", "install", *packages.OFFERED], log)  # resolves offline, or the build fails


def _index(repository: Path) -> None:
    listing = subprocess.run(
        ["dpkg-scanpackages", ".", "/dev/null"], cwd=repository, capture_output=True, check=True
    ).stdout
    (repository / "Packages").write_bytes(listing)
    release = (
        f"Origin: Debian\nLabel: Debian\nSuite: stable\nCodename: {packages.SUITE}\nDate: {formatdate(usegmt=True)}\n"
        f"Architectures: amd64\nSHA256:\n {sha256(listing).hexdigest()} {len(listing)} Packages\n"
    )
    (repository / "Release").write_text(release)


def _settle(tree: Path) -> None:
    """Make the tree start without first-boot work, and drop what the build left behind."""
    etc = tree / "etc"
    (etc / "hostname").write_text("guest\n")
    (etc / "hosts").write_text("127.0.0.1 localhost guest\n")
    (etc / "machine-id").write_text(_MACHINE_ID + "\n")
    (etc / "fstab").write_text("")
    (etc / "resolv.conf").write_text("")
    for unit in packages.MASKED_UNITS:
        link = etc / "systemd" / "system" / unit
        link.unlink(missing_ok=True)
        link.symlink_to("/dev/null")
    run(["chroot", tree, "useradd", "--create-home", "--shell", "/bin/bash", "person"])
    for name in ("var/cache/apt/archives", "var/log", "tmp"):
        for path in (tree / name).rglob("*"):
            if path.is_file():
                path.unlink()


def _make_ext4(tree: Path, image: Path, log: Path) -> None:
    used_mb = int(run(["du", "-sm", tree]).split()[0])
    size = f"{used_mb * 115 // 100 + 40}M"
    # uncompressed and without a journal: it is only ever read, and decompression is dear on an emulated processor
    run(["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d", tree, image, size], log=log)


def _write_manifest(tree: Path, path: Path) -> None:
    path.write_text(run(["chroot", tree, "dpkg-query", "-W"]))


# -- initramfs


def _guest_files() -> list[Path]:
    return sorted(path for path in (BENCH / "guest").iterdir() if path.is_file())


def _build_initramfs(folder: Path, modules: Path) -> None:
    tree = folder / "tree"
    for name in ("bin", "modules", "proc", "sys", "dev", "lower", "writable", "root", "guest"):
        (tree / name).mkdir(parents=True)
    busybox = shutil.which("busybox")
    if busybox is None:
        raise BenchError("no busybox")
    shutil.copy(busybox, tree / "bin" / "busybox")
    for path in _guest_files():
        shutil.copy(path, tree / "guest")
    shutil.move(tree / "guest" / "init", tree / "init")
    (tree / "init").chmod(0o755)
    names = [name for name in packages.INITRAMFS_MODULES if (modules / f"{name}.ko").exists()]
    for name in names:
        shutil.copy(modules / f"{name}.ko", tree / "modules")
    (tree / "modules" / "order").write_text("\n".join(names) + "\n")
    listing = "\n".join(sorted(str(path.relative_to(tree)) for path in tree.rglob("*"))).encode() + b"\n"
    packed = subprocess.run(["cpio", "-o", "-H", "newc", "--quiet", "-R", "0:0"], cwd=tree, input=listing,
                            capture_output=True, check=True).stdout  # fmt: skip
    (folder / "initramfs").write_bytes(packed)
    shutil.rmtree(tree)
