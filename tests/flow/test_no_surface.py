"""What is not there: nothing of Keyfit's stays running, listens, starts by itself, or can be called from elsewhere.

Installed into a tree, and into a copy of the running system, by the real program with the real dpkg.
"""

import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.sim import debs
from tests.sim.brands import a_brand, a_hand_off, a_match, a_module, a_package
from tests.sim.livecopy import LiveCopy
from tests.sim.plans import tar
from tests.sim.repository import HostileServer, SignedRepository
from tests.sim.straced import calls, command, traced

BRAND = "avest"
"""A brand of the shipped catalog; what is signed for it here is made up."""
PAGE = "https://www.example.com/certificate"
STARTS_OR_ANSWERS = re.compile(
    r"/systemd/|/init\.d/|/rc\d?\.d/|/dbus-1/|/polkit-1/|/sudoers|/cron|/anacron|/autostart/|/applications/|/mime"
    r"|/native-messaging-hosts/|/NativeMessagingHosts/|/extensions/|/External Extensions/|/policies/managed/|/xinetd"
    r"|/inetd|/pam\.d/|/profile\.d/|/ld\.so|/modules-load\.d/|/skel/|/\.config/|/\.local/|/\.mozilla/")
"""Places where a file makes something start by itself, or be called by a browser, a bus or a user's session."""
RUNS_SOMETHING = re.compile(rb"RUN|PROGRAM|IMPORT|SYSTEMD_WANTS|x-scheme-handler|ExtensionSettings|\bExtensions\b")
"""What a udev rule, a desktop file or a browser policy would need to start something."""


class Bank:
    """A publisher whose brand has a package, an archive, a module to register and a page."""

    def __init__(self, folder: Path, page: str = PAGE) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.repository = SignedRepository(folder / "publisher")
        deb = debs.build(folder, "keyfit-try", files={"usr/lib/acme/driver.so": "elf\n"})
        payload = self.repository.add_payload(deb.name, deb.read_bytes())
        archive = self.repository.add_payload("module.tar.gz", tar(module__so="elf", readme="text"))
        prefix = f"/opt/keyfit/brands/{BRAND}/acme-module-archive"
        self.repository.release(a_brand(
            BRAND, a_match(id_vendor=0x1234, id_product=1), hand_off=a_hand_off(page), package=(
                a_package("keyfit-try", "deb", version="1.0", payload=payload),
                a_package("acme-module", "archive", component="module", payload=archive, files=("module.so", "readme"))),
            module=(a_module(f"{prefix}/module.so", register=("p11-kit", "firefox")),)))
        (folder / "root.json").write_bytes(self.repository.trusted_root)

    def command(self, *arguments: object, url: str = "") -> list[str]:
        return [str(word) for word in (sys.executable, "-P", "-m", "keyfit", *arguments, "--json", "--repository",
                                       url or self.repository.folder, "--trust-root", self.folder / "root.json")]


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    return Bank(tmp_path_factory.mktemp("bank"))


def a_copy(bank: Bank, tmp_path: Path, *, network: bool = False) -> LiveCopy:
    """With the bank's repository in the folder that is the same inside."""
    shutil.copytree(bank.folder, tmp_path / "bank")
    return LiveCopy(tmp_path, network=network)


def here(bank: Bank, tmp_path: Path) -> Bank:
    """The bank as it lies in the copy."""
    moved = object.__new__(Bank)
    moved.folder, moved.repository = tmp_path / "bank", object.__new__(SignedRepository)
    moved.repository.folder = tmp_path / "bank" / "publisher" / "repository"
    return moved


def surface(files: Iterable[tuple[str, bytes]]) -> list[str]:
    """Those that start something, or let somebody call something."""
    return [path for path, data in files
            if STARTS_OR_ANSWERS.search(path) or (RUNS_SOMETHING.search(data) and path.startswith(("/etc/", "/usr/share/")))]


def new_files(copy: LiveCopy) -> list[tuple[str, bytes]]:
    return [(path, (copy.root / path.lstrip("/")).read_bytes()) for path, kind in copy.changed().items() if kind == "file"]


def services(copy: LiveCopy) -> set[str]:
    """What a service manager would find to start, and a bus to answer: their files and links."""
    folders = ("etc/systemd", "usr/lib/systemd", "etc/init.d", "usr/share/dbus-1", "etc/dbus-1", "usr/share/applications",
               "etc/xdg/autostart", "etc/cron.d", "etc/cron.daily", "var/spool/cron")
    return {str(path) for folder in folders for path in _tree(copy.root / folder)}


def _tree(folder: Path) -> Iterator[str]:
    for parent, folders, files in os.walk(folder):
        yield from (os.path.relpath(os.path.join(parent, name), folder.parent) for name in (*folders, *files))


def test_g1_c1_after_an_install_on_the_system_itself_nothing_listens_runs_or_can_be_called(bank: Bank, tmp_path: Path) -> None:
    """G1, C1."""
    with a_copy(bank, tmp_path) as copy:
        before = services(copy), copy.processes(), copy.sockets()
        done = copy.run(here(bank, tmp_path).command("install", BRAND, "--silent"))
        assert done.returncode == 0, done.stdout + done.stderr
        assert (copy.root / "usr/lib/acme/driver.so").is_file()
        assert (copy.root / "etc/pkcs11/modules/keyfit-acme.module").is_file()

        assert (services(copy), copy.processes(), copy.sockets()) == before
        assert surface(new_files(copy)) == []
        assert [path for path, kind in copy.changed().items() if kind == "other"] == []


def test_g1_c1_after_an_install_into_a_tree_nothing_can_be_called(bank: Bank, tmp_path: Path) -> None:
    """G1, C1."""
    tree = tmp_path / "tree"
    debs.tree_with_package_database(tree)
    (tree / "usr/bin").mkdir(parents=True)
    (tree / "usr/bin/firefox").write_bytes(b"\x7fELF")
    done, seen = traced(bank.command("install", BRAND, "--silent", "--root", tree, "--cache-dir", tmp_path / "cache"),
                         tmp_path / "log")
    assert done.returncode == 0, done.stdout + done.stderr

    files = [("/" + str(path.relative_to(tree)), path.read_bytes()) for path in tree.rglob("*") if path.is_file()]
    assert surface(files) == []
    assert "/etc/firefox/policies/policies.json" in dict(files)
    assert [call.text for call in seen if call.name == "listen" or (call.name == "connect" and "AF_INET" in call.text)] == []


def test_a_service_that_a_package_brings_would_be_seen(tmp_path: Path) -> None:
    """The measure of the two above."""
    with LiveCopy(tmp_path) as copy:
        before = services(copy), copy.processes(), copy.sockets()
        planted = {"etc/systemd/system/acme.timer": "[Timer]", "etc/udev/rules.d/70-a.rules": 'RUN+="/x"',
                   "usr/share/dbus-1/system-services/acme.service": "x", "usr/share/applications/a.desktop": "x",
                   "etc/chromium/native-messaging-hosts/a.json": "{}", "etc/firefox/policies/policies.json": '{"Extensions": 1}'}
        deb = debs.build(tmp_path, "planted", files=planted)
        copy.run(["dpkg", "-i", deb])
        listener = "import signal, socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); print(1, flush=True); " \
                   "signal.pause()"
        copy.run(["sh", "-c", 'mkfifo /tmp/f; "$@" > /tmp/f 2>&1 & read -r _ < /tmp/f', "sh", sys.executable, "-c", listener])

        assert set(planted) <= {path.lstrip("/") for path in surface(new_files(copy))}
        after = services(copy), copy.processes(), copy.sockets()
        assert all(new - old for new, old in zip(after, before, strict=True))


# -- looking for updates ----------------------------------------------------------------------------------------------------


def test_c2_looking_for_updates_needs_no_rights_and_touches_nothing_else(bank: Bank, tmp_path: Path) -> None:
    """C2: as `nobody`, after root has installed something; the strict workflow and then the cheap check."""
    ours = "/tmp/nobody"
    with HostileServer(bank.repository.folder) as server, a_copy(bank, tmp_path, network=True) as copy:
        assert copy.run(here(bank, tmp_path).command("install", BRAND, "--silent")).returncode == 0
        # the interpreter of these tests may lie in root's home
        opened = [str(folder) for folder in Path(sys.base_prefix).parents if folder != Path("/")]
        copy.run(["sh", "-c", f"mkdir -m 700 {ours}; chown nobody {ours}; chmod 755 {' '.join(opened)};"
                  f" install -m 644 {tmp_path}/bank/root.json {ours}"])
        before = copy.changed()
        for number in (1, 2):
            asked = len(server.requests)
            log = Path(f"/tmp/log{number}")
            check = [sys.executable, "-m", "keyfit", "update", "--check", "--json", "--repository", server.url, "--trust-root",
                     f"{ours}/root.json"]
            done = copy.run(command(log, check), user="nobody", environment={
                "HOME": ours, "TMPDIR": ours, "XDG_CACHE_HOME": f"{ours}/cache", "PYTHONDONTWRITEBYTECODE": "1"})
            assert done.returncode == 0, done.stdout + done.stderr
            assert json.loads(done.stdout)["data"]["installed"] == [{"brand": BRAND, "sequence": 1}]
            assert len(server.requests) > asked

            seen = list(calls(copy.root / "tmp" / log.name))
            written = {path for call in seen if call.writes for path in call.paths}
            assert {path for path in written if not path.startswith((f"{ours}/", "/dev/null"))} == set()
            assert [call.paths[0] for call in seen if call.name.startswith("execve")] == [sys.executable]
            assert [call.text for call in seen if call.name == "listen"] == []
        assert {p: k for p, k in copy.changed().items() if not p.startswith("/tmp")} == before
