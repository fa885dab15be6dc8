"""Makes the Debian package from what `make dist` left: python packaging/linux/deb.py

The package is the program's folder at /opt/keyfit, a link in /usr/bin, the polkit actions and the documentation. No service,
no timer, nothing set up at installation; prerm and postrm only guard the record of what was installed. The same input gives
the same bytes: every time is SOURCE_DATE_EPOCH, or that of the newest commit, and all belongs to root.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
sys.path[:0] = [str(CHECKOUT / "installer"), str(HERE.parent)]

import bundle  # noqa: E402
import searchpaths  # noqa: E402
from licences import write_licences  # noqa: E402

from keyfit import __version__  # noqa: E402

COMPRESSION = ("-Zxz", "-z3")
"""Level 3 takes 7 s where the default takes 21 s, for a package of 28 instead of 26 MB (measured)."""
CONTROL = """Package: keyfit
Version: {version}
Architecture: {architecture}
Maintainer: The Keyfit authors <maintainers@keyfit.invalid>
Installed-Size: {size_kib}
Depends: libc6 (>= {glibc})
Recommends: pkexec | policykit-1
Section: utils
Priority: optional
Description: installs the driver of a USB crypto token and proves that it works
 Keyfit recognises the USB token of a bank or certificate authority that is
 plugged in, installs the driver that belongs to it from signed data, checks
 that the token answers, and opens the page of the token's certificate.
 .
 With pkexec, ordinary users can install a driver after an administrator has
 typed a password; without it, use sudo.
"""
"""`Maintainer` is a required field (Debian policy 5.3); the address is a reserved name that leads nowhere. pkexec brings polkitd
along; before Debian 12 and Ubuntu 23.04 both were in policykit-1."""


def main() -> int:
    """Build the package; prints its path and returns the exit code."""
    program, tree = CHECKOUT / "dist" / "keyfit", CHECKOUT / "build" / "deb"
    wrong = list(bundle.problems(program))
    if wrong:
        sys.stderr.write("".join(f"dist/keyfit/{problem}\n" for problem in wrong))
        return 1
    epoch, architecture = source_date(), output("dpkg", "--print-architecture")
    shutil.rmtree(tree, ignore_errors=True)
    lay_out(program, tree)
    write_control(tree, architecture)
    settle(tree, epoch)
    target = CHECKOUT / "dist" / f"keyfit_{__version__}_{architecture}.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", *COMPRESSION, "--build", tree, target], check=True,
                   stdout=subprocess.DEVNULL, env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch)})
    sys.stdout.write(f"{target.relative_to(CHECKOUT)}\n")
    return 0


def source_date() -> int:
    """The time that all in the package gets, in seconds since the epoch."""
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    return int(given or output("git", "-C", str(CHECKOUT), "log", "-1", "--format=%ct"))


def lay_out(program: Path, tree: Path) -> None:
    """Everything that is installed, at its place."""
    shutil.copytree(program, tree / "opt/keyfit", symlinks=True)
    (tree / "usr/bin").mkdir(parents=True)
    (tree / "usr/bin/keyfit").symlink_to("/opt/keyfit/keyfit")
    actions, documents = tree / "usr/share/polkit-1/actions", tree / "usr/share/doc/keyfit"
    actions.mkdir(parents=True)
    shutil.copyfile(HERE / "org.keyfit.policy", actions / "org.keyfit.policy")
    documents.mkdir(parents=True)
    shutil.copyfile(HERE / "copyright", documents / "copyright")
    write_licences(program, documents / "bundled")


def write_control(tree: Path, architecture: str) -> None:
    """What dpkg reads, with a sum of every file for `dpkg --verify`."""
    files = sorted(p for p in tree.rglob("*") if p.is_file() and not p.is_symlink())
    folders = sum(1 for p in tree.rglob("*") if p.is_dir())
    size_kib = folders + sum((p.stat().st_size + 1023) // 1024 for p in files)
    sums = output("md5sum", *(str(p.relative_to(tree)) for p in files), cwd=tree)
    control = tree / "DEBIAN"
    control.mkdir()
    (control / "control").write_text(CONTROL.format(version=__version__, architecture=architecture, size_kib=size_kib,
                                                    glibc=needed_glibc(tree / "opt/keyfit")))
    (control / "md5sums").write_text(sums + "\n")
    for script in ("prerm", "postrm"):
        shutil.copyfile(HERE / script, control / script)


def needed_glibc(program: Path) -> str:
    """The newest version of the C library that a file of the program asks for."""
    files = [p for p in program.rglob("*") if p.is_file() and not p.is_symlink()]
    libraries = [str(p) for p in files if p.read_bytes().startswith(searchpaths.MAGIC)]
    needed = {part.split(")")[0] for line in output("objdump", "-T", *libraries).splitlines()
              for part in line.split("(GLIBC_")[1:]}
    numbers = [tuple(map(int, version.split("."))) for version in needed if version.replace(".", "").isdigit()]
    return ".".join(map(str, max(numbers)))


def settle(tree: Path, epoch: int) -> None:
    """Modes and times that do not depend on who builds where."""
    scripts = {tree / "DEBIAN/prerm", tree / "DEBIAN/postrm"}
    programs = {tree / "opt/keyfit" / name for name in bundle.PROGRAMS}
    for path in [tree, *tree.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path in programs | scripts else 0o644)
        os.utime(path, (epoch, epoch), follow_symlinks=False)


def output(*command: str, cwd: Path | None = None) -> str:
    """What a program prints."""
    return subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
