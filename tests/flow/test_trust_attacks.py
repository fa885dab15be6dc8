"""Attacks on the repository and on the way to it, against the real program: `keyfit install` with a real package in a tree.

Every attack ends the same way: it is named, nothing is installed, and once it is over the program installs what was signed.
The brand "guest" signs with keys of its own. docs/security/attacks.md lists these tests and those elsewhere by attack.
"""

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from keyfit.core.plan import plan_id
from keyfit.model.catalog import Brand, Manifest, brand_target
from keyfit.model.plan import Plan
from keyfit.trust.metadata import SIGNED_AT
from tests.sim import debs
from tests.sim.brands import a_brand, a_hand_off, a_match, a_package
from tests.sim.layered import LayeredRepository, a_grant, by_name
from tests.sim.nginx import Nginx
from tests.sim.repository import (
    Behaviour,
    CertificateAuthority,
    HostileServer,
    endless_body,
    packed,
    redirect,
    status,
    wrong_bytes,
)
from tests.sim.tufrepository import TufRepository as TufFiles
from tests.sim.tufrepository import edited

MATCH, GUEST_MATCH = a_match(id_vendor=0x1234, id_product=1), a_match(id_vendor=0x1234, id_product=2)
TARGET, GUEST_TARGET = brand_target("acme", "linux", "amd64"), brand_target("guest", "linux", "amd64")
PAGE = "https://www.example.com/certificate"
BOMB = gzip.compress(b" " * 200_000_000, 9)


def sequence(brand: Brand, number: int) -> Brand:
    return msgspec.structs.replace(brand, sequence=number)


class World:
    """A repository with everybody's keys in it, a machine, and the program on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repository = LayeredRepository(folder / "repository", "guest", days=5)
        built = debs.build(folder, "acme").read_bytes()
        self.payload = self.repository.add_payload("acme_1.0_all.deb", built)
        self.acme = a_brand("acme", MATCH, package=(a_package("acme", "deb", payload=self.payload),))
        self.guest = a_brand("guest", GUEST_MATCH, hand_off=a_hand_off(PAGE))
        self.repository.put(by_name(self.acme), by_name(self.guest), a_grant("guest", ids=((0x1234, 2),), pages=(PAGE,)))
        self.tree = folder / "tree"
        debs.tree_with_package_database(self.tree)
        (folder / "root.json").write_bytes(self.repository.trusted_root)

    @property
    def files(self) -> TufFiles:
        return self.repository.files

    def command(self, *arguments: object, urls: tuple[str, ...] = ()) -> list[str]:
        addresses = [part for url in urls or (self.repository.url,) for part in ("--repository", url)]
        return list(map(str, [sys.executable, "-m", "keyfit", *arguments, "--json", "--root", self.tree, "--cache-dir",
                              self.folder / "cache", "--trust-root", self.folder / "root.json", *addresses]))

    def run(self, *arguments: object, urls: tuple[str, ...] = (), before: tuple[str, ...] = (), **environment: str
            ) -> dict[str, Any]:
        given = {k: v for k, v in os.environ.items() if not k.startswith("KEYFIT_") and not k.lower().endswith("_proxy")}
        done = subprocess.run([*before, *self.command(*arguments, urls=urls)], capture_output=True, text=True, timeout=100,
                              check=False, env=given | environment, stdin=subprocess.DEVNULL)
        document: dict[str, Any] = json.loads(done.stdout or "{}")
        assert document, done.stderr
        assert document["exit_code"] == done.returncode
        return document

    def install(self, *urls: str, brand: str = "acme", **environment: str) -> dict[str, Any]:
        return self.run("install", brand, "--yes", urls=urls, **environment)

    def installed(self) -> bool:
        return "\nPackage: acme\nStatus: install ok installed\n" in "\n" + (self.tree / "var/lib/dpkg/status").read_text()

    def resists(self, *codes: str, urls: tuple[str, ...] = (), brand: str = "acme", **environment: str) -> dict[str, Any]:
        """Install under attack: refused under one of these names, in words that help, with nothing left behind."""
        said = self.install(*urls, brand=brand, **environment)
        first = said["messages"][0]
        assert first["code"] in codes, said
        assert said["exit_code"] == (69 if said["outcome"] == "network" else 76), said
        assert first["hint"]
        assert not self.installed()
        assert not list((self.folder / "cache").rglob(self.payload.sha256))
        return said

    def recovers(self, *urls: str, **environment: str) -> None:
        """The attack is over."""
        said = self.install(*urls, **environment)
        assert self.installed(), said

    def serve(self, part: str, behaviour: Behaviour, *codes: str) -> None:
        """A server that misbehaves for a part of the repository, and then does not."""
        with HostileServer(self.repository.folder) as server:
            server.misbehave(part, behaviour)
            self.resists(*codes, urls=(server.url,))
            server.misbehave(part, None)
            self.recovers(server.url)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_without_an_attack_it_is_installed(world: World) -> None:
    """The measure of all that follow."""
    world.recovers()


# -- metadata that nobody who may has signed ------------------------------------------------------------------------------


def test_a1_a_repository_with_other_keys_of_the_same_shape(world: World) -> None:
    """A1: a whole repository, consistent in itself, signed by a stranger."""
    stranger = LayeredRepository(world.folder / "stranger")
    stranger.put(by_name(sequence(world.acme, 9)))
    world.resists("metadata-signature", urls=(stranger.url,))
    world.recovers()


def test_a1_a_root_planted_in_the_cache(world: World) -> None:
    """A1: the cache holds the stranger's root, in every place where one might be looked for."""
    stranger = LayeredRepository(world.folder / "stranger")
    stranger.put(by_name(sequence(world.acme, 9)))
    cache = world.tree / "var/lib/keyfit/metadata/tuf"
    (cache / "root_history").mkdir(parents=True)
    for folder in (world.tree / "var/lib/keyfit", world.tree / "var/lib/keyfit/metadata", cache, cache / "root_history"):
        folder.chmod(0o700)
    for name in ("root.json", "root_history/1.root.json", "root_history/2.root.json"):
        (cache / name).write_bytes(stranger.trusted_root)
    world.resists("metadata-signature", urls=(stranger.url,))
    world.recovers()


def test_a2_a_forged_root_rotation(world: World) -> None:
    """A2: the next root is signed by the stranger alone; then by the old keys alone, below the new threshold."""
    stranger = TufFiles(world.folder / "stranger")
    stranger.publish("root")
    path = world.repository.folder / "metadata" / "2.root.json"
    path.write_bytes(stranger.published["root"][-1])
    world.resists("metadata-signature")

    old = world.files.signers["root"]
    world.files.rotate("root")
    world.files.signers["root"] = old
    world.files.publish("root")
    world.resists("metadata-signature")
    path.unlink()
    world.recovers()


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "drivers", "bin"])
@pytest.mark.parametrize("forgery", ["unsigned", "changed"])
def test_a2_unsigned_or_changed_metadata(world: World, role: str, forgery: str) -> None:
    """A2: of every role on the way to a driver."""
    role = world.repository.owner(TARGET) if role == "bin" else role
    newest = world.files.published[role][-1]
    change: Callable[[dict[str, Any]], None] = (
        (lambda content: content.update(signatures=[])) if forgery == "unsigned"
        else (lambda content: content["signed"].update(expires="2099-01-01T00:00:00Z")))
    for path in (world.repository.folder / "metadata").iterdir():
        if path.read_bytes() == newest:
            good, kept = path, newest
            path.write_bytes(edited(change)(newest))
    world.resists("metadata-signature", "metadata-hash")
    good.write_bytes(kept)
    world.recovers()


def test_a2_one_key_counted_twice(world: World) -> None:
    """A2: two signatures are needed, and one key has signed twice."""
    world.files.add_key("timestamp")
    world.files.root.roles["timestamp"].threshold = 2
    world.files.publish("root")
    world.files.signers["timestamp"].pop()
    twice = edited(lambda content: content["signatures"].append(dict(content["signatures"][0])))
    world.files.publish("timestamp", change=twice)
    world.resists("metadata-signature", "metadata-invalid")


# -- old data -------------------------------------------------------------------------------------------------------------


def test_a2_an_old_root_and_its_revoked_keys(world: World) -> None:
    """A2: the thief keeps the keys that a rotation took away, signs newer versions with them, and shows a machine that knows
    better the repository as it was, without the new root."""
    folder = world.repository.folder
    shutil.copytree(folder, world.folder / "old")
    stolen = {role: list(world.files.signers[role]) for role in ("timestamp", "snapshot", "targets")}
    for role in stolen:
        world.files.rotate(role)
    world.files.publish("root")
    world.repository.publish()
    assert world.run("update", "--check")["outcome"] == "done"

    fresh = dict(world.files.signers)
    world.files.signers.update(stolen)
    good = world.folder / "good"
    shutil.copytree(folder, good)
    world.repository.put(by_name(sequence(world.acme, 9)))
    (folder / "metadata" / "2.root.json").unlink()
    world.resists("metadata-signature")

    world.files.signers.update(fresh)
    shutil.rmtree(folder)
    shutil.copytree(good, folder)
    world.recovers()


@pytest.mark.parametrize("age", ["all of it", "timestamp alone", "snapshot alone"])
def test_a2_a5_a_repository_that_was_set_back(world: World, age: str) -> None:
    """A2, A5: rollback to an older release, in whole and in part."""
    folder = world.repository.folder
    shutil.copytree(folder, world.folder / "old")
    world.repository.put(by_name(sequence(world.acme, 2)))
    assert world.run("plan", "acme")["data"]["plan"]["sequence"] == 2
    shutil.copytree(folder, world.folder / "new")

    if age == "snapshot alone":  # the thief of the timestamp's key names an older snapshot
        world.files.timestamp.snapshot_meta.version -= 1
        world.files.publish("timestamp")
    else:
        shutil.rmtree(folder)
        shutil.copytree(world.folder / ("old" if age == "all of it" else "new"), folder)
        shutil.copy(world.folder / "old/metadata/timestamp.json", folder / "metadata/timestamp.json")
    world.resists("metadata-rollback")

    shutil.rmtree(folder)
    shutil.copytree(world.folder / "new", folder)
    if age == "snapshot alone":
        world.files.timestamp.snapshot_meta.version += 1
        world.files.publish("timestamp")
    world.recovers()


def test_a2_mix_and_match(world: World) -> None:
    """A2: every role good and signed, but of different releases."""
    folder, role = world.repository.folder / "metadata", world.repository.owner(TARGET)
    first = {name: world.files.published[name][-1] for name in ("snapshot", "targets", "drivers", role)}
    world.repository.put(by_name(sequence(world.acme, 2)))
    for name, old in first.items():
        path = folder / f"{world.files.roles[name].version}.{name}.json"
        new = path.read_bytes()
        path.write_bytes(old)
        world.resists("metadata-rollback", "metadata-hash", "metadata-invalid")
        path.write_bytes(new)
    world.recovers()


def test_a2_a_driver_of_another_release(world: World) -> None:
    """A2: the manifest of the first release under the name of the second's; and another driver under the signed name."""
    old = {path: path.read_bytes() for path in (world.repository.folder / "targets" / "brand" / "acme").iterdir()}
    ((_, content),) = old.items()
    world.repository.put(by_name(sequence(world.acme, 2)))
    (path,) = set((world.repository.folder / "targets" / "brand" / "acme").iterdir()) - set(old)
    new = path.read_bytes()
    path.write_bytes(content)
    world.resists("target-hash")
    path.write_bytes(new)

    driver = world.repository.payload_file(world.payload)
    good = driver.read_bytes()
    driver.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    world.resists("payload-hash")
    driver.write_bytes(good)
    world.recovers()


# -- stolen keys ----------------------------------------------------------------------------------------------------------


def test_a2_a_stolen_timestamp_key(world: World) -> None:
    """A2: a date far ahead sets no clock; no snapshot counts but one that the snapshot's key has signed; and what the thief has
    poisoned, versions that are years ahead, is over with a new root."""
    files = world.files
    files.timestamp.unrecognized_fields[SIGNED_AT] = (datetime.now(UTC) + timedelta(days=30)).isoformat(timespec="seconds")
    files.timestamp.expires += timedelta(days=60)
    files.publish("timestamp")
    world.resists("clock-behind")
    files.timestamp.unrecognized_fields[SIGNED_AT] = datetime.now(UTC).isoformat(timespec="seconds")

    forged = json.loads(files.published["snapshot"][-1])
    forged["signed"]["version"] += 1
    forged["signed"]["meta"].popitem()
    number = forged["signed"]["version"]
    (world.repository.folder / "metadata" / f"{number}.snapshot.json").write_text(json.dumps(forged))
    files.timestamp.snapshot_meta.version = number
    files.publish("timestamp")
    world.resists("metadata-signature")
    files.timestamp.snapshot_meta.version = 2_000_000
    files.timestamp.version = 2_000_000
    files.publish("timestamp")
    world.resists("repository-file-missing")

    files.timestamp.version = 100
    for role in ("timestamp", "snapshot"):
        files.rotate(role)
    files.publish("root")
    world.repository.publish()
    world.recovers()


@pytest.mark.parametrize("evil", ["another brand's path", "the publisher's driver", "a page of a phisher", "a version of Keyfit"])
def test_a4_a_stolen_brand_key(world: World, evil: str) -> None:
    """A4: guest's key is good for guest alone, and for no more than guest's grant."""
    other = sequence(world.acme, 9)
    phished = msgspec.structs.replace(sequence(world.guest, 9), hand_off=a_hand_off("https://www.examp1e.com/certificate"))
    signed: dict[str, Manifest | bytes] = {
        "another brand's path": by_name(other), "the publisher's driver": by_name(other, path=GUEST_TARGET),
        "a page of a phisher": by_name(phished), "a version of Keyfit": b"{}"}
    path = {"another brand's path": TARGET, "a version of Keyfit": "app/linux-amd64.json"}.get(evil, GUEST_TARGET)
    world.repository.sign_as("brand-guest", path, signed[evil])
    world.repository.publish()

    if path == GUEST_TARGET:
        world.resists("grant-exceeded", brand="guest")
    assert world.run("plan", "acme")["data"]["plan"]["sequence"] == 1  # not the 9 that guest signed
    world.recovers()


# -- who stands in the way ------------------------------------------------------------------------------------------------

PARTS = ["timestamp.json", ".snapshot.json", ".drivers.json", "/targets/", "/payloads/"]


@pytest.mark.parametrize("part", [*PARTS, "2.root.json"])
def test_a7_endless_data(world: World, part: str) -> None:
    """A7: an answer without length that never ends, for every kind of file; cut at the signed length or the cap."""
    began = time.monotonic()
    world.serve(part, endless_body(), "metadata-too-large", "target-hash", "payload-too-long")
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("part", PARTS)
def test_a7_a_gzip_bomb(world: World, part: str) -> None:
    """A7: 200 MB in 200 kB. Not more of it is unpacked than the file may have; a driver is not unpacked at all."""
    world.serve(part, packed(lambda _: BOMB), "metadata-too-large", "target-hash", "bad-answer")


@pytest.mark.parametrize("part", PARTS)
def test_a7_retry_after_a_day(world: World, part: str) -> None:
    """A7: who says "come back tomorrow" is not waited for."""
    began = time.monotonic()
    world.serve(part, status(503, Retry_After="86400"), "repository-unreachable")
    assert time.monotonic() - began < 30


def test_a7_a_drip_is_given_up_by_the_programs_own_limits(world: World) -> None:
    """A7: a byte every five seconds would take an hour for a timestamp; the program waits half a minute."""
    def drip(handler: Any, data: bytes) -> None:
        handler.answer(200, b"", length=len(data))
        for byte in data:
            handler.wfile.write(bytes([byte]))
            if handler.wait(5):
                return

    began = time.monotonic()
    world.serve("timestamp.json", drip, "download-too-slow")
    assert 25 < time.monotonic() - began < 60


@pytest.mark.parametrize("part", PARTS)
def test_f3_a_redirect_to_http(world: World, tmp_path: Path, part: str) -> None:
    """F3: from https to http, even to the right bytes; who listens there hears nothing."""
    authority = CertificateAuthority(tmp_path / "authority")
    trusted = {"SSL_CERT_FILE": str(authority.path)}
    with HostileServer(world.repository.folder) as plain, HostileServer(world.repository.folder, tls=authority) as server:
        server.misbehave(part, lambda handler, data: redirect(plain.url + handler.path[1:])(handler, data))
        world.resists("redirect-refused", urls=(server.url,), **trusted)
        assert plain.requests == []
        server.misbehave(part, None)
        world.recovers(server.url, **trusted)


@pytest.mark.parametrize("first", ["bad", "good"])
@pytest.mark.parametrize("wrong", ["old", "driver", "endless", "stranger"])
def test_a2_a7_a_malicious_mirror_beside_a_good_one(world: World, wrong: str, first: str) -> None:
    """A2, A7: in whichever order the two are named, the newest is installed."""
    folder = world.repository.folder
    shutil.copytree(folder, world.folder / "old")
    world.repository.put(by_name(sequence(world.acme, 2)))
    stranger = LayeredRepository(world.folder / "stranger")
    served = {"old": world.folder / "old", "stranger": stranger.folder}.get(wrong, folder)
    with HostileServer(served) as bad, Nginx(folder, world.folder / "nginx") as good:
        if wrong in ("driver", "endless"):
            bad.misbehave("/payloads/", wrong_bytes() if wrong == "driver" else endless_body())
        urls = (bad.url, good.url) if first == "bad" else (good.url, bad.url)
        assert world.run("plan", "acme", urls=urls)["data"]["plan"]["sequence"] == 2
        world.recovers(*urls)


# -- the clock, with libfaketime around the program -----------------------------------------------------------------------


def at(moment: str) -> tuple[str, ...]:
    """Run at another time."""
    return ("env", "FAKETIME_DONT_FAKE_MONOTONIC=1", "faketime", "-f", moment)


@pytest.mark.parametrize("known", [True, False], ids=["known", "first-contact"])
@pytest.mark.parametrize(("moment", "code"), [
    ("@2000-01-01 00:00:00", "clock-behind"), ("-30d", "clock-behind"), ("+30d", "metadata-expired"),
    ("+365d", "metadata-expired"), ("@2099-01-01 00:00:00", "metadata-expired")])
def test_a6_a_clock_that_is_wrong(world: World, moment: str, code: str, known: bool) -> None:
    """A6: years back, a month back, a month, a year and decades ahead: named, not passed over; and once the clock is right the
    program works, so that nothing was poisoned."""
    if known:
        assert world.run("update", "--check")["outcome"] == "done"
    said = world.run("install", "acme", "--yes", before=at(moment))
    assert (said["exit_code"], said["messages"][0]["code"]) == (76, code)
    assert "clock" in said["messages"][0]["text"] + said["messages"][0]["hint"]
    assert not world.installed()
    world.recovers()


@pytest.mark.parametrize(("moment", "code"), [("-3d", "clock-behind"), ("+6d", "metadata-expired")])
def test_a6_the_cheap_check_is_not_taken_in_by_the_clock(world: World, moment: str, code: str) -> None:
    """A6: a clock that has gone back, or past the expiry of what was verified, leads to the whole workflow, which says so; a
    withheld update does not look like "nothing new"."""
    with Nginx(world.repository.folder, world.folder / "nginx") as server:
        for _ in range(2):
            assert world.run("update", "--check", urls=(server.url,))["messages"][0]["code"] == "nothing-installed"
        assert server.answers()[-1].status == 304
        said = world.run("update", "--check", urls=(server.url,), before=at(moment))
    assert (said["exit_code"], said["messages"][0]["code"]) == (76, code)


def test_a6_a_frozen_repository_is_noticed(world: World) -> None:
    """A6: a mirror that answers, correctly, with what was newest six days ago."""
    assert world.run("update", "--check")["outcome"] == "done"
    said = world.run("update", "--check", before=at("+6d"))
    assert (said["exit_code"], said["messages"][0]["code"]) == (76, "metadata-expired")
    for role in world.files.roles.values():
        role.expires += timedelta(days=10)
    world.repository.publish()
    assert world.run("update", "--check", before=at("+6d"))["outcome"] == "done"


# -- one machine ----------------------------------------------------------------------------------------------------------


def test_two_programs_on_one_cache(world: World) -> None:
    """Several real processes at once, while the repository moves on: each gets a whole answer, and none an older one."""
    with Nginx(world.repository.folder, world.folder / "nginx") as server, ThreadPoolExecutor(6) as pool:
        runs = []
        for number in range(2, 5):
            runs += [pool.submit(world.run, "plan", "acme", urls=(server.url,)) for _ in range(4)]
            world.repository.put(by_name(sequence(world.acme, number)))
        said = [run.result() for run in runs]
        assert {one["outcome"] for one in said} == {"done"}, said
        assert world.run("plan", "acme", urls=(server.url,))["data"]["plan"]["sequence"] == 4
        world.recovers(server.url)


@pytest.mark.parametrize("pages", [1, 2, 3, 4, 5, 6, 7, 40])
def test_a_full_disk_in_mid_refresh(world: World, pages: int) -> None:
    """A disk of so many pages of 4096 bytes for the state: it ends after another file each time. The program says so, leaves
    nothing half-trusted, and goes on when there is room."""
    state = world.folder / "state"
    state.mkdir(mode=0o700)
    script = """disk=$1 pages=$2; shift 2
mount -t tmpfs -o "size=$((pages * 4096)),mode=700" none "$disk" || exit 99
"$@"; echo
mount -o remount,size=10m "$disk" || exit 99
"$@"; echo
"$@" """
    done = subprocess.run(["unshare", "--mount", "sh", "-c", script, "sh", state, str(pages),
                           *world.command("plan", "acme"), "--state-dir", state], capture_output=True, text=True, timeout=100,
                          check=False)
    first, second, third = (json.loads(line) for line in done.stdout.splitlines() if line)
    if pages == 40:
        assert first["outcome"] == "done"
    else:
        assert (first["exit_code"], first["messages"][0]["code"]) == (73, "disk-full"), first
        assert first["messages"][0]["hint"]
    assert second["data"]["plan"]["sequence"] == third["data"]["plan"]["sequence"] == 1


def test_a3_a_saved_plan_is_checked_again(world: World) -> None:
    """A3: who carries a plan out believes nothing in it but what signed data, fetched anew, says too."""
    path = world.folder / "plan.json"
    world.run("plan", "acme", "--out", path)
    good = path.read_bytes()
    (world.folder / "evil").mkdir()
    evil = debs.build(world.folder / "evil", "acme", scripts={"postinst": "#!/bin/sh\ntouch /evil\n"})
    theirs = world.repository.add_payload("evil.deb", evil.read_bytes())
    length = f'"length_bytes": {world.payload.length_bytes}'
    for changes in (((world.payload.sha256, theirs.sha256), (length, f'"length_bytes": {theirs.length_bytes}'),
                     (world.payload.file, theirs.file)),
                    (('"package-acme-deb"', '"package-bolt-deb"'),), (('"sequence": 1', '"sequence": 2'),)):
        changed = good.decode()
        for old, new in changes:
            assert old in changed
            changed = changed.replace(old, new)
        plan = msgspec.json.decode(changed, type=Plan)
        path.write_bytes(msgspec.json.encode(msgspec.structs.replace(plan, id=plan_id(plan))))
        said = world.run("apply", path, "--yes")
        assert (said["exit_code"], said["messages"][0]["code"]) == (78, "plan-outdated"), said
        assert not world.installed()
    path.write_bytes(good)
    world.run("apply", path, "--yes")
    assert world.installed()


# -- what signed data may say -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["top", "brand", "package", "payload"])
@pytest.mark.parametrize("extra", [{"command": "touch /evil"}, {"script": "touch /evil"}, {"skip_check": True},
                                   {"arguments": ["--force"]}], ids=lambda extra: next(iter(extra)))
def test_a9_signed_data_commands_nothing(world: World, where: str, extra: dict[str, Any]) -> None:
    """A9: signed by all the right keys, with a field that no verb has."""
    manifest = json.loads(msgspec.json.encode(by_name(world.acme)))
    package = manifest["brands"][0]["package"][0]
    {"top": manifest, "brand": manifest["brands"][0], "package": package, "payload": package["payload"]}[where].update(extra)
    world.repository.sign_as(world.repository.owner(TARGET), TARGET, json.dumps(manifest).encode())
    world.repository.publish()
    world.resists("manifest-invalid")
    world.repository.put(by_name(world.acme))
    world.recovers()


@pytest.mark.parametrize("name", ["../../../../tmp/evil.deb", "/etc/cron.d/evil", "a\\b.deb", ".hidden", "con.deb/x", ""])
def test_a8_names_of_files_in_signed_data(world: World, name: str) -> None:
    """A8: signed by all the right keys, with a name that leads elsewhere."""
    manifest = json.loads(msgspec.json.encode(by_name(world.acme)))
    manifest["brands"][0]["package"][0]["payload"]["file"] = name
    world.repository.sign_as(world.repository.owner(TARGET), TARGET, json.dumps(manifest).encode())
    world.repository.publish()
    world.resists("manifest-invalid")


def test_the_right_brand_under_the_name_of_another(world: World) -> None:
    """Wrong software: signed data of one brand, signed once more under another's path."""
    world.repository.sign_as(world.repository.owner(TARGET), TARGET, by_name(a_brand("rival", MATCH)))
    world.repository.publish()
    world.resists("manifest-invalid", "wrong-brand", "no-driver")


# -- what leaves the machine, and what it is left with ------------------------------------------------------------------------


def test_f2_no_trust_store_is_touched(world: World) -> None:
    """F2: neither the tree's nor the machine's."""
    stores = [path for path in map(Path, ("/etc/ssl", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates",
                                          "/etc/ca-certificates.conf", "/root/.pki")) if path.exists()]
    assert stores
    ours = world.tree / "etc/ssl/certs"
    ours.mkdir(parents=True)
    (ours / "ca-certificates.crt").write_text("as it was")

    def state() -> dict[str, str]:
        files = [each for store in (*stores, world.tree / "etc/ssl") for each in (store, *store.rglob("*"))]
        return {str(each): hashlib.sha256(each.read_bytes()).hexdigest() if each.is_file() else "" for each in files}

    before = state()
    world.recovers()
    assert state() == before


def test_f5_what_a_client_tells_a_server(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """F5: its version and which brand, in every request of a check, a poll and an installation; nothing of token or user."""
    with HostileServer(world.repository.folder) as server:
        for _ in range(2):
            world.run("update", "--check", urls=(server.url,), USER="canary", LANG="zh_CN.UTF-8", HTTP_COOKIE="canary")
        world.recovers(server.url)

    assert len(server.requests) > 8
    allowed = {"Host", "User-Agent", "Accept", "Accept-Encoding", "If-None-Match", "Connection"}
    for path, headers in server.requests:
        assert set(headers) <= allowed, path
        assert headers["User-Agent"].startswith("keyfit/")
        assert len(headers["User-Agent"]) < 20
        assert "?" not in path
    assert "canary" not in str(server.requests)
