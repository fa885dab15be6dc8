"""Whole runs of the real command line, `python -m keyfit`, in a tree: a signed repository, real dpkg, one step of every kind
that a tree can have (package, archive, udev rule, reader list, kernel modules, p11-kit, Firefox), and the state before each
of install, uninstall, repair and recover, to be had again and again.
"""

import contextlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keyfit.composition import compose
from keyfit.engine.journal import Journal
from keyfit.model.catalog import Brand, CcidListEntry, KernelModuleBlacklist, UdevRule
from keyfit.platforms.linux.host import LinuxHost
from keyfit.ui.cli import run as run_here
from keyfit.ui.options import Options
from tests.sim import debs, syscalls
from tests.sim.brands import LINUX, SOURCES, a_brand, a_match, a_module, a_package
from tests.sim.plans import BUNDLE_LIST, CCID_LIST, LIST, POLICIES, tar
from tests.sim.repository import SignedRepository

CHECKOUT = Path(__file__).resolve().parents[2]
RECORDING = CHECKOUT / "tests" / "data" / "recordings" / "acs-cryptomate-t1.json"
BRAND, PACKAGE = "acme", "keyfit-try"
VERBS = ("install", "uninstall", "repair", "recover")
DPKG_OWN = ("var/lib/dpkg/lock", "var/lib/dpkg/lock-frontend", "var/lib/dpkg/status", "var/lib/dpkg/status-old",
            "var/lib/dpkg/triggers", "var/lib/dpkg/updates", "var/lib/dpkg/available", "var/log/dpkg.log")
"""What dpkg keeps for itself in any tree that it has worked on; its status is looked at by its paragraphs."""
POLICY_TEXT = b'{\n    "policies": {\n        "DisableTelemetry": true\n    }\n}\n'
STATE, LOGS = "var/lib/keyfit", "var/log"
STATE_FILES = ("journal.sqlite", "journal.sqlite-wal", "journal.sqlite-shm", "lock", "installed.json", "metadata", "staging",
               "kept")
"""All that the state directory may hold after a run."""
Snapshot = dict[str, tuple[int, int, int, bytes | str | None]]


class Publisher:
    """A signed repository with one brand."""

    def __init__(self, folder: Path, *, size: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.repository = SignedRepository(folder / "publisher")
        filling = random.Random(1).randbytes(size).hex()  # as good as incompressible, so that reading it takes a while
        self.deb = debs.build(folder, PACKAGE, files={"usr/lib/acme/driver.so": "elf\n" + filling})
        self.archive = tar(module__so="elf", readme="text")
        self.target = self.repository.release(self._brand())

    def _brand(self) -> Brand:
        deb = self.repository.add_payload(self.deb.name, self.deb.read_bytes())
        archive = self.repository.add_payload("module.tar.gz", self.archive)
        patches = (
            UdevRule(id="usb", subsystem="usb", id_vendor=0x1234, id_product=1, on=LINUX, reason={"en": "why"}, sources=SOURCES),
            CcidListEntry(id="reader", id_vendor=0x1234, id_product=1, friendly_name="ACME Token", on=LINUX,
                          reason={"en": "why"}, sources=SOURCES),
            KernelModuleBlacklist(id="nfc", modules=("nfc", "pn533"), on=LINUX, reason={"en": "why"}, sources=SOURCES))
        return a_brand(
            BRAND, a_match(id_vendor=0x1234, id_product=1), patch=patches,
            package=(a_package(PACKAGE, "deb", version="1.0", payload=deb),
                     a_package("acme-module", "archive", component="module", payload=archive, files=("module.so", "readme"))),
            module=(a_module(f"/opt/keyfit/brands/{BRAND}/acme-module-archive/module.so", register=("p11-kit", "firefox")),))


class Job:
    """One machine, `folder`/run, that is put into the state before a verb again for each run.

    Args:
        folder: nobody else's; trees keep their path, since a machine is known by it.
        repository: the signed one.
    """

    def __init__(self, folder: Path, repository: Path) -> None:
        self.folder, self.repository = folder, repository
        self.run_folder = folder / "run"
        self.tree, self.cache, self.tmp = (self.run_folder / name for name in ("tree", "cache", "tmp"))
        self._templates = folder / "templates"
        self._templates.mkdir(parents=True)
        self.before: dict[str, Snapshot] = {}
        self.after: dict[str, Snapshot] = {}
        self._prepare()

    def command(self, verb: str) -> list[str]:
        """The command line of a verb."""
        return [sys.executable, "-m", "keyfit", *self._arguments(verb)]

    def environment(self) -> dict[str, str]:
        """With a temporary and a home directory of its own."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("KEYFIT_", "XDG_"))}
        return kept | {"TMPDIR": str(self.tmp), "HOME": str(self.run_folder / "home"), "PYTHONDONTWRITEBYTECODE": "1"}

    def start(self, verb: str) -> None:
        """The state before a verb."""
        shutil.rmtree(self.run_folder, ignore_errors=True)
        _copy(self._templates / verb, self.run_folder)

    def start_with_cache(self) -> dict[str, Path]:
        """The state before an install, but the files were downloaded before; those by their SHA-256."""
        self.start("install")
        _copy(self._templates / "repair" / "cache", self.cache)
        return {path.name: path for path in (self.cache / "payloads").iterdir() if len(path.name) == 64}

    def run(self, verb: str, prefix: Sequence[str] = (), *, timeout_s: float = 100) -> "subprocess.CompletedProcess[bytes]":
        """One run in a process of its own."""
        return subprocess.run([*prefix, *self.command(verb)], env=self.environment(), capture_output=True, timeout=timeout_s,
                              check=False, cwd="/")

    def run_here(self, verb: str) -> tuple[int, dict[str, Any]]:
        """One run within this process, which is faster; exit code and document."""
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
            code = run_here(self._arguments(verb), Options(), compose)
        assert "Traceback" not in err.getvalue()
        return code, json.loads(out.getvalue())

    def calls(self, verb: str) -> list[str]:
        """The calls of a whole run of a verb, which are the same each time."""
        self.start(verb)
        return syscalls.calls(self.command(verb), environment=self.environment(), cwd="/")

    def snapshot(self) -> Snapshot:
        """Every file of the tree but what Keyfit and dpkg keep for themselves: mode, owner, group, content."""
        found: Snapshot = {}
        for folder, folders, files in os.walk(self.tree):
            for name in (*folders, *files):
                path = Path(folder, name)
                below = str(path.relative_to(self.tree))
                if not below.startswith((*DPKG_OWN, STATE, LOGS)):
                    found[below] = _described(path)
        versions = LinuxHost(str(self.tree)).package_versions()
        found["packages"] = (0, 0, 0, repr(sorted(versions.items())))
        return found

    def litter(self) -> list[str]:
        """Files that nobody needs any more: temporary ones, half downloads aside."""
        state = self.tree / STATE
        left = [p for p in state.rglob("*") if p.relative_to(state).parts[0] not in STATE_FILES]
        left += [p for p in (state / "staging").rglob("*") if p.name != "lock"]
        journal = Journal(state)
        needed = journal.records() or journal.open_transactions()
        left += [p for p in (state / "kept").glob("*") if len(p.name) != 64 or not needed]
        left += [p for p in (state / "metadata").rglob("*") if p.is_file() and not p.name.endswith((".json", "lock"))]
        left += [p for p in self.tmp.rglob("*")]
        left += [p for p in self.tree.rglob(".keyfit-*")]
        left += [p for p in self.cache.rglob("*") if p.is_file() and not p.name.endswith((".part", ".from", "lock"))
                 and len(p.name) != 64]
        return sorted({str(p.relative_to(self.run_folder)) for p in left})

    def _arguments(self, verb: str) -> list[str]:
        words = {"install": ["install", BRAND, "--silent"], "uninstall": ["uninstall", BRAND, "--yes"]}.get(verb, [verb])
        return [*words, "--json", "--root", str(self.tree), "--emulate", str(RECORDING), "--repository", str(self.repository),
                "--trust-root", str(self.repository / "metadata" / "1.root.json"), "--cache-dir", str(self.cache)]

    def _prepare(self) -> None:
        self.run_folder.mkdir(parents=True)
        self.tmp.mkdir(mode=0o700)
        debs.tree_with_package_database(self.tree)
        (self.tree / "var/log").mkdir()
        (self.tree / "var/lib/dpkg/status").write_text(
            "Package: libc6\nStatus: install ok installed\nMaintainer: Keyfit tests <tests@example.org>\nArchitecture: amd64\n"
            "Version: 2.36\nDescription: there already\n\n")
        self._put(CCID_LIST, LIST)
        self._put(POLICIES, POLICY_TEXT, 0o640)
        self._put("/usr/bin/firefox", b"\x7fELF")
        self._put("/etc/udev/rules.d/50-other.rules", b"# somebody's\n")
        link = self.tree / BUNDLE_LIST.lstrip("/")
        link.parent.mkdir(parents=True)
        link.symlink_to(CCID_LIST)
        self._keep("install")
        self._finish("install")
        self._keep("uninstall")
        self._finish("uninstall")
        self.start("uninstall")
        self._damage()
        self._keep("repair")
        self._finish("repair")
        self._cut_off()
        self._keep("recover")
        self._finish("recover")

    def _damage(self) -> None:
        """Take the effect of every step but one away, as a careless hand would."""
        for path in ("etc/pkcs11/modules/keyfit-acme.module", "etc/modprobe.d/keyfit-acme-nfc.conf"):
            (self.tree / path).unlink()
        shutil.rmtree(self.tree / "opt/keyfit/brands/acme")
        self._put(CCID_LIST, LIST)
        self._put(POLICIES, POLICY_TEXT, 0o640)
        subprocess.run(["dpkg", f"--root={self.tree}", "--force-not-root", "--purge", PACKAGE], check=True, capture_output=True)

    def _cut_off(self) -> None:
        """An install that was killed just before its last step took effect."""
        names = self.calls("install")
        self.start("install")
        number = max(n for n, name in enumerate(names, 1) if name in ("renameat", "renameat2"))
        done = syscalls.killed(self.command("install"), number, environment=self.environment(), cwd="/")
        assert done.returncode == -9
        assert (self.tree / "etc/pkcs11/modules/keyfit-acme.module").exists()
        assert b"Acme" not in (self.tree / POLICIES.lstrip("/")).read_bytes()

    def _put(self, path: str, data: bytes, mode: int = 0o644) -> None:
        target = self.tree / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        target.chmod(mode)

    def _keep(self, verb: str) -> None:
        self.before[verb] = self.snapshot()
        _copy(self.run_folder, self._templates / verb)

    def _finish(self, verb: str) -> None:
        done = self.run(verb)
        assert done.returncode == 0, done
        self.after[verb] = self.snapshot()


def _described(path: Path) -> tuple[int, int, int, bytes | str | None]:
    status = path.lstat()
    content = str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else None
    return status.st_mode, status.st_uid, status.st_gid, content


def _copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-a", "--reflink=auto", source, target], check=True)

