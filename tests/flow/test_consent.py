"""What is shown is what is done, by whatever way it was agreed to; and what is withdrawn stays out.

The real program, a signed repository, the real dpkg in trees; every change is seen by strace.
"""

import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from keyfit.app.certificate import certificate
from keyfit.model.catalog import Revocation
from keyfit.model.plan import Archive, PackageFile, Plan, Step
from tests.flow.test_no_surface import BRAND, Bank, here
from tests.flow.test_trust_attacks import TARGET, at, sequence
from tests.flow.test_trust_attacks import World as Attacked
from tests.sim import debs, wholejob
from tests.sim.brands import a_brand, a_device, a_hand_off, a_match, a_module
from tests.sim.host import SimHost
from tests.sim.layered import LayeredRepository, by_name
from tests.sim.livecopy import LiveCopy
from tests.sim.plans import BUNDLE_LIST, CCID_LIST, LIST, POLICIES
from tests.sim.repository import HostileServer, redirect, wrong_bytes
from tests.sim.straced import traced
from tests.sim.world import World

OWN = ("/var/lib/keyfit", "/var/log/keyfit", "/var/cache/keyfit")
"""What Keyfit keeps for itself (interface: Places)."""
DPKG_OWN = ("/var/lib/dpkg", "/var/log/dpkg.log", "/var/log/alternatives.log", "/var/cache/debconf")
"""What dpkg keeps for itself."""
DPKG_TEMPORARY = re.compile(r"/tmp/dpkg(-deb)?\.\w{6}(/|$)")
"""Where dpkg-deb unpacks the control part that it is asked for, and dpkg the scripts."""
BESIDE = re.compile(r"/\.keyfit-[^/]*$|/\.[^/]+\.keyfit(-[^/]*)?$|\.dpkg-(new|tmp|old)$")
"""A file that is written beside another before it takes its name."""

# -- the plan and what is done ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> wholejob.Publisher:
    """A brand with a package file, an archive, a udev rule, a line for libccid, kernel modules, p11-kit and Firefox."""
    return wholejob.Publisher(tmp_path_factory.mktemp("publisher"))


def a_tree(folder: Path) -> Path:
    """A system that has libccid and Firefox."""
    tree = folder / "tree"
    debs.tree_with_package_database(tree)
    for path, data in ((CCID_LIST, LIST), (POLICIES, b'{"policies": {}}\n'), ("/usr/bin/firefox", b"\x7fELF")):
        (tree / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        (tree / path.lstrip("/")).write_bytes(data)
    (tree / BUNDLE_LIST.lstrip("/")).parent.mkdir(parents=True)
    (tree / BUNDLE_LIST.lstrip("/")).symlink_to(CCID_LIST)
    return tree


def named_by(step: Step, deb: Path) -> tuple[list[str], list[str]]:
    """(files, folders with all that is in them) that a step says it changes, in words that a person reads."""
    change = step.change
    if isinstance(change, PackageFile):
        assert change.name in step.action
        assert change.payload.file in step.action
        listed = subprocess.run(["dpkg-deb", "--fsys-tarfile", deb], capture_output=True, check=True).stdout
        names = subprocess.run(["tar", "-t"], input=listed, capture_output=True, check=True).stdout.decode().split()
        return ["/" + name.strip("./") for name in names], []
    if isinstance(change, Archive):
        assert change.prefix in step.action
        return [], [change.prefix]
    path: str = change.path  # type: ignore[union-attr]
    assert path in step.action
    return [path], []


def unexplained(changed: Iterable[str], files: list[str], folders: list[str]) -> list[str]:
    """Changed paths, as the tree sees them, that nothing accounts for."""
    parents = {str(parent) for path in (*files, *folders, *OWN, *DPKG_OWN) for parent in Path(path).parents}
    named = {str(parent) for path in (*files, *folders) for parent in Path(path).parents}

    def explained(path: str) -> bool:
        if any(path == own or path.startswith(f"{own}/") for own in (*OWN, *DPKG_OWN, *folders)):
            return True
        beside = [part for part in (Path(path), *Path(path).parents) if BESIDE.search(str(part)) and str(part.parent) in named]
        return path in files or path in parents or bool(beside)

    return sorted(path for path in changed if not explained(path))


def test_j1_every_path_that_is_changed_is_named_by_the_plan(publisher: wholejob.Publisher, tmp_path: Path) -> None:
    """J1: an installation with a step of every kind that a tree can have, and taking it back."""
    tree, cache, home = a_tree(tmp_path), tmp_path / "cache", tmp_path / "home"
    home.mkdir()
    folder = publisher.repository.folder

    def run(*words: str) -> "tuple[dict[str, Any], set[str]]":
        done, seen = traced(
            [sys.executable, "-P", "-m", "keyfit", *words, "--json", "--root", str(tree), "--cache-dir", str(cache),
             "--repository", str(folder), "--trust-root", str(folder / "metadata" / "1.root.json")],
            tmp_path / "log", environment={"HOME": str(home), "TMPDIR": str(tmp_path / "tmp"), "PYTHONDONTWRITEBYTECODE": "1"})
        document = json.loads(done.stdout)
        assert document["outcome"] == "done", document
        return document, {path for call in seen if call.writes for path in call.paths}

    (tmp_path / "tmp").mkdir()
    plan = msgspec.convert(run("plan", wholejob.BRAND)[0]["data"]["plan"], Plan)
    named = [named_by(step, publisher.deb) for step in plan.steps]
    flat_files = [path for files, _ in named for path in files]
    flat_folders = [path for _, folders in named for path in folders]
    assert len(plan.steps) == 7

    done, changed = run("install", wholejob.BRAND, "--silent")
    gone, taken_back = run("uninstall", wholejob.BRAND, "--yes")

    inside = str(tree)
    for paths in (changed, taken_back):
        seen = {path.removeprefix(inside) or "/" for path in paths if path.startswith(inside)}
        assert unexplained(seen, flat_files, flat_folders) == []
        outside = {path for path in paths if not path.startswith((inside, str(cache), str(tmp_path / "tmp"), "/dev/"))
                   and not DPKG_TEMPORARY.match(path)}
        assert outside == set()
        # and every step did what it said
        for path in (*flat_folders, *(step.change.path for step in plan.steps if hasattr(step.change, "path"))):
            assert any(each == path or each.startswith(f"{path}/") for each in seen), path
    assert list(home.iterdir()) == []
    assert done["data"]["plan"]["id"] == plan.id
    assert gone["outcome"] == "done"


def test_a_path_that_no_plan_names_would_be_seen() -> None:
    """The measure of the one above."""
    changed = {"/etc/cron.d/x", "/usr/lib/acme/driver.so", "/usr/lib/acme", "/var/lib/keyfit/x", "/var/lib/keyfit2/x",
               "/usr/lib/acme/.keyfit-12", "/etc/ssl/.keyfit-12", "/opt/a/b", "/opt/ab"}
    assert unexplained(changed, ["/usr/lib/acme/driver.so"], ["/opt/a"]) == [
        "/etc/cron.d/x", "/etc/ssl/.keyfit-12", "/opt/ab", "/var/lib/keyfit2/x"]


def test_j1_after_the_question_nothing_is_fetched_but_what_the_plan_named(tmp_path: Path) -> None:
    """J1: at a terminal; until a person says yes no driver is asked for, and from then on nothing else."""
    bank = Bank(tmp_path / "bank")
    with HostileServer(bank.repository.folder) as server, LiveCopy(tmp_path, network=True) as copy:
        words = here(bank, tmp_path).command("install", BRAND, url=server.url)
        words.remove("--json")
        ours, theirs = pty.openpty()
        program = subprocess.Popen(copy.command(words), stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
        os.close(theirs)
        asked = read_until(ours, "Go on?")
        before = [path for path, _ in server.requests]
        os.write(ours, b"y\n")
        read_until(ours, "")
        assert program.wait(60) == 0
        after = [path for path, _ in server.requests][len(before):]

        assert before
        assert [path for path in before if "payloads" in path] == []
        payloads = {"/" + str(path.relative_to(bank.repository.folder))
                    for path in (bank.repository.folder / "payloads").rglob("*") if path.is_file()}
        assert set(after) == payloads
        assert all(Path(path).name in asked for path in payloads)
        assert (copy.root / "usr/lib/acme/driver.so").is_file()


def read_until(terminal: int, words: str, seconds: float = 60.0) -> str:
    """What is said until these words, or, for none, until the end."""
    said, end = "", time.monotonic() + seconds
    while not words or words not in said:
        if not select.select([terminal], [], [], max(0.0, end - time.monotonic()))[0]:
            raise AssertionError(f"expected {words!r}, came: {said}")
        try:
            said += os.read(terminal, 65_536).decode()
        except OSError:  # the other side has ended
            break
    assert words in said, said
    return said


# -- silent -------------------------------------------------------------------------------------------------------------------


def stranger(world: Attacked) -> dict[str, Any]:
    other = LayeredRepository(world.folder / "stranger")
    other.put(by_name(sequence(world.acme, 9)))
    return {"urls": (other.url,)}


def unsigned(world: Attacked) -> dict[str, Any]:
    path = world.repository.folder / "metadata" / "timestamp.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"signatures": []}))
    return {}


def set_back(world: Attacked) -> dict[str, Any]:
    shutil.copytree(world.repository.folder, world.folder / "old")
    world.repository.put(by_name(sequence(world.acme, 2)))
    world.run("plan", "acme")
    shutil.rmtree(world.repository.folder)
    shutil.copytree(world.folder / "old", world.repository.folder)
    return {}


def swapped(world: Attacked) -> dict[str, Any]:
    driver = world.repository.payload_file(world.payload)
    driver.write_bytes(driver.read_bytes()[:-1] + b"!")
    return {}


def expired(world: Attacked) -> dict[str, Any]:
    return {"before": at("+30d")}


def early(world: Attacked) -> dict[str, Any]:
    return {"before": at("@2000-01-01 00:00:00")}


def commanding(world: Attacked) -> dict[str, Any]:
    manifest = json.loads(msgspec.json.encode(by_name(world.acme)))
    manifest["brands"][0]["skip_check"] = True
    world.repository.sign_as(world.repository.owner(TARGET), TARGET, json.dumps(manifest).encode())
    world.repository.publish()
    return {}


def withdrawn(world: Attacked) -> dict[str, Any]:
    revoked = (Revocation(brand="acme", sequence=1, reason={"en": "A key was stolen."}),)
    world.repository.put(msgspec.structs.replace(by_name(world.acme), revoked=revoked))
    return {}


@pytest.mark.parametrize("attack", [stranger, unsigned, set_back, swapped, expired, early, commanding, withdrawn],
                         ids=lambda attack: attack.__name__)
def test_j2_silent_refuses_what_is_refused_with_a_person_and_says_it_by_the_same_name(
        tmp_path: Path, attack: Callable[[Attacked], dict[str, Any]]) -> None:
    """J2: no check is left out."""
    world = Attacked(tmp_path)
    options = attack(world)

    attended = world.run("install", "acme", "--yes", **options)
    silent = world.run("install", "acme", "--silent", **options)

    assert attended["exit_code"] == 76, attended
    assert (silent["exit_code"], silent["outcome"], silent["messages"][0]["code"]) == (
        attended["exit_code"], attended["outcome"], attended["messages"][0]["code"])
    assert silent["messages"][0]["hint"]
    assert not world.installed()


@pytest.mark.parametrize("attack", [lambda plain: redirect(plain.url + "timestamp.json"), lambda plain: wrong_bytes()],
                         ids=["redirect", "wrong bytes"])
def test_j2_silent_trusts_no_server_more(tmp_path: Path, attack: Callable[[HostileServer], Any]) -> None:
    """J2."""
    world = Attacked(tmp_path)
    with HostileServer(world.repository.folder) as plain, HostileServer(world.repository.folder) as server:
        server.misbehave("timestamp.json", attack(plain))
        told = [world.run("install", "acme", way, urls=(server.url,)) for way in ("--yes", "--silent")]
    assert {one["exit_code"] for one in told} <= {69, 76}
    assert told[0]["messages"][0]["code"] == told[1]["messages"][0]["code"]
    assert not world.installed()


def test_j2_without_a_brand_silent_does_nothing(tmp_path: Path) -> None:
    """J2: it may not guess; not even the repository is asked."""
    world = Attacked(tmp_path)
    with HostileServer(world.repository.folder) as server:
        said = world.run("install", "--silent", urls=(server.url,))
        assert (said["exit_code"], said["messages"][0]["code"]) == (2, "silent-needs-brand")
        assert server.requests == []
    assert not world.installed()


# -- withdrawn ----------------------------------------------------------------------------------------------------------------


def test_j4_a_withdrawal_counts_from_the_next_check_on_and_who_cannot_check_is_told_how_old_his_data_is(tmp_path: Path) -> None:
    """J4: what is installed is named at the next check; the driver is in no installation any more; and without a network the age
    of what is known is said, so that a silence is not taken for "all is well"."""
    world = Attacked(tmp_path)
    with HostileServer(world.repository.folder) as server:
        urls = (server.url,)
        world.recovers(*urls)
        assert world.run("update", "--check", urls=urls)["outcome"] == "done"
        withdrawn(world)
        said = world.run("update", "--check", urls=urls)
        assert [m["code"] for m in said["messages"] if m["level"] == "warning"] == ["revoked"]
        (warning,) = [m for m in said["messages"] if m["level"] == "warning"]
        assert "A key was stolen." in warning["text"]
        assert "sudo keyfit uninstall acme" in warning["hint"]
    world.run("uninstall", "acme", "--yes")
    assert not world.installed()

    for days in (0, 2):
        shut = world.run("update", "--check", urls=urls, before=at(f"+{days}d"))
        assert (shut["exit_code"], shut["messages"][0]["code"]) == (69, "repository-unreachable")
        assert f"({days} days old)" in shut["messages"][0]["hint"]
        assert time.strftime("%Y-%m-%d", time.gmtime()) in shut["messages"][0]["hint"]
    again = world.install()
    assert (again["exit_code"], again["messages"][0]["code"]) == (76, "revoked")
    assert not world.installed()


def test_who_never_checked_is_told_no_age(tmp_path: Path) -> None:
    world = Attacked(tmp_path)
    said = world.run("update", "--check", urls=("http://127.0.0.1:9/",))
    assert said["messages"][0]["code"] == "repository-unreachable"
    assert "old)" not in said["messages"][0]["hint"]


# -- the page -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", ["https://www.example.com/certificate", "https://www.example.com/a?step=1&lang=en#top"])
def test_g4_the_page_is_the_signed_one_to_the_letter_and_the_bank_is_named(tmp_path: Path, page: str) -> None:
    """G4: a token full of canaries; the address that is opened has none of them, and what a person reads is the bank's name and
    its host from signed data, whatever the device calls itself."""
    evil = a_device(manufacturer="Evil Bank", product="https://evil.example/CANARY")
    brand = a_brand("acme", a_match(id_vendor=0x1234, id_product=1), hand_off=a_hand_off(page),
                    module=(a_module("/usr/lib/acme.so", register=()),))
    world = World(tmp_path, SimHost(tmp_path / "machine"), [brand], evil)
    world.host.put("/usr/lib/acme.so", b"elf")
    world.tokens.reports = {"/usr/lib/acme.so": _full_of_canaries()}

    result = certificate(world.context(), None, open_page=True, wait_s=None)

    assert world.opened == [page]
    (said,) = [m for m in result.messages if m.code == "hand-off-opened"]
    assert said.text == f"Example Bank: {page} was opened in the browser."
    assert result.data["hand_off"]["bank"] == "Example Bank"
    assert "evil" not in (said.text + said.hint + str(result.data["hand_off"])).lower()


def _full_of_canaries() -> Any:
    from keyfit.model.certificate import CertificateInfo, ModuleReport, SlotReport

    mine = CertificateInfo(label="CANARY", subject="CN=CANARY", issuer="CN=CANARY", not_before="2026-01-01T00:00:00Z",
                           not_after="2028-01-01T00:00:00Z", sha256="ca" * 32)
    slot = SlotReport(slot="CANARY 00 00", label="CANARY", model="CANARY", manufacturer="CANARY", initialised=True,
                      login_required=True, pin_initialised=True, pin_to_be_changed=False, pin_count_low=False,
                      pin_final_try=False, pin_locked=False, certificates=(mine,))
    return ModuleReport(path="/usr/lib/acme.so", loaded=True, description="CANARY", slots=(slot,))
