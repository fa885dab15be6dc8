"""Keys on several machines, in hardware, lost, stolen and replaced - and clients that follow all of it."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tuf.api.metadata import Metadata

from keyfit.errors import TrustError
from keyfit.publisher.draft import Draft
from keyfit.publisher.release import Workplace
from tests.sim.publisher import TARGET, Publisher

FEW = ("--threshold", "root=2/3", "--threshold", "media-root=1/1", "--threshold", "media=1/1")


@pytest.fixture
def publisher(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Publisher:
    return Publisher(tmp_path, capsys)


def sequence_seen(publisher: Publisher, folder: Path) -> int:
    """What a client with the first root and a cache of its own in `folder` gets."""
    manifest = publisher.client(folder).manifest(TARGET)
    assert manifest is not None
    return manifest.brands[0].sequence


def take_away(publisher: Publisher, pattern: str, elsewhere: Path) -> list[Path]:
    """Move key files to another machine."""
    elsewhere.mkdir(exist_ok=True)
    taken = []
    for path in sorted((publisher.folder / "keys").glob(pattern)):
        taken.append(elsewhere / path.name)
        path.rename(taken[-1])
    return taken


# -- thresholds over several machines -----------------------------------------------------------------------------


def test_k1_three_people_on_three_machines_sign_one_release(publisher: Publisher, tmp_path: Path) -> None:
    """K1: nobody alone, and no machine, holds enough keys."""
    publisher.init(*FEW, "--threshold", "bins=3/3")
    publisher.release()
    first, second, third = take_away(publisher, "bins-*.pem", tmp_path / "people")
    publisher.write_brand(sequence=2)
    left = publisher.release()["data"]
    assert not left["complete"]
    assert left["missing"][0]["needed"] == 3
    copies = [tmp_path / f"{name}.json" for name in "abc"]
    for copy, key in zip(copies, (first, second, third), strict=True):
        shutil.copy(left["request"], copy)
        signed = publisher("sign", copy, "--key", key)["data"]
        assert signed["added"] == {"bins": signed["added"]["bins"]}
        assert any("acme" in line for line in signed["summary"])

    one = publisher("sign", publisher.folder, "--request", copies[0], "--request", copies[1])["data"]
    assert not one["complete"]
    assert {m["needed"] for m in one["missing"]} == {1}
    assert sequence_seen(publisher, tmp_path / "reader") == 1
    whole = publisher("sign", publisher.folder, "--request", copies[2])["data"]

    assert whole["complete"]
    assert sequence_seen(publisher, tmp_path / "reader") == 2
    assert not (publisher.folder / "request").exists()


def test_k1_a_refresh_goes_between_and_the_request_still_fits(publisher: Publisher, tmp_path: Path) -> None:
    """K1: the daily timestamp must not wait for people."""
    publisher.init(*FEW)
    publisher.release()
    (key,) = take_away(publisher, "bins-1.pem", tmp_path / "people")
    publisher.write_brand(sequence=2)
    request = publisher.release()["data"]["request"]
    before = publisher("refresh", publisher.folder)["data"]["versions"]
    # a month later the snapshot is renewed too
    later = Workplace(publisher.folder, now=lambda: datetime.now(UTC) + timedelta(days=20))
    later.refresh(Draft(later.repository))

    done = publisher("sign", publisher.folder, "--key", key)["data"]

    assert Path(request).name == "request.json"
    assert done["complete"]
    assert done["versions"]["timestamp"] == before["timestamp"] + 2
    assert done["versions"]["snapshot"] == before["snapshot"] + 2
    assert sequence_seen(publisher, tmp_path / "reader") == 2


def test_k1_status_says_who_must_sign_what(publisher: Publisher, tmp_path: Path) -> None:
    """K1."""
    publisher.init(*FEW)
    take_away(publisher, "drivers-*.pem", tmp_path / "people")
    publisher("rotate", publisher.folder, "bins", "--make", "1", "--remove", "bins-1")

    online = publisher("status", publisher.folder)["data"]["online"]

    assert [(row["role"], row["needed"], row["keys"]) for row in online["waiting"]] == [
        ("drivers", 2, ["drivers-1", "drivers-2", "drivers-3"])]
    rows = {row["role"]: row for row in online["roles"]}
    assert set(rows) == {"root", "targets", "app", "drivers", "snapshot", "timestamp", "bins"}
    assert rows["root"]["needed"] == 2
    assert [key["here"] for key in rows["drivers"]["keys"]] == [False, False, False]
    assert 2.9 < rows["timestamp"]["days_left"] <= 3


def test_k1_status_warns_of_what_one_person_alone_can_sign(publisher: Publisher) -> None:
    """K1."""
    publisher.init("--threshold", "root=1/2", "--threshold", "media-root=1/1")

    messages = publisher("status", publisher.folder)["messages"]

    weak = [m for m in messages if m["code"] == "weak-threshold"]
    assert [m["text"] for m in weak] == ["One key alone may sign root."] * 2
    assert "media-root" in weak[1]["hint"]


def test_a_second_change_does_not_overwrite_a_waiting_one(publisher: Publisher, tmp_path: Path) -> None:
    publisher.init(*FEW)
    take_away(publisher, "bins-1.pem", tmp_path / "people")
    request = Path(publisher.release()["data"]["request"])
    waiting = request.read_bytes()

    refused = publisher.release(expect=2)

    assert refused["messages"][0]["code"] == "request-pending"
    assert request.read_bytes() == waiting
    publisher.write_brand(sequence=3)
    again = publisher.release("--replace")["data"]
    assert not again["complete"]
    assert request.read_bytes() != waiting


def test_a_request_that_was_overtaken_is_refused(publisher: Publisher, tmp_path: Path) -> None:
    """What was signed for an older repository is not published over a newer one."""
    publisher.init(*FEW)
    publisher.release()
    (key,) = take_away(publisher, "bins-1.pem", tmp_path / "people")
    publisher.write_brand(sequence=2)
    request = tmp_path / "kept.json"
    shutil.copy(publisher.release()["data"]["request"], request)
    publisher.write_brand(sequence=3)
    publisher.release("--replace")
    assert publisher("sign", publisher.folder, "--key", key)["data"]["complete"]
    (publisher.folder / "request").mkdir(mode=0o700)
    shutil.copy(request, publisher.folder / "request" / "request.json")
    before = publisher.metadata()

    assert publisher("sign", publisher.folder, "--key", key, expect=1)["messages"][0]["code"] == "request-outdated"
    assert publisher.metadata() == before


def test_signatures_of_a_tampered_copy_do_not_count(publisher: Publisher, tmp_path: Path) -> None:
    """A copy that was changed on the way is not what the publisher asked for."""
    publisher.init(*FEW)
    publisher.release()
    (key,) = take_away(publisher, "bins-1.pem", tmp_path / "people")
    publisher.write_brand(sequence=2)
    copy = tmp_path / "copy.json"
    document = json.loads(Path(publisher.release()["data"]["request"]).read_bytes())
    for signable in document["roles"].values():
        for target in signable["metadata"]["signed"]["targets"].values():
            target["hashes"]["sha256"] = "0" * 64
    copy.write_text(json.dumps(document))
    publisher("sign", copy, "--key", key)
    before = publisher.metadata()

    still = publisher("sign", publisher.folder, "--request", copy)["data"]

    assert not still["complete"]
    assert publisher.metadata() == before


def test_a_key_that_has_nothing_to_say_is_named(publisher: Publisher, tmp_path: Path) -> None:
    publisher.init(*FEW)
    take_away(publisher, "bins-1.pem", tmp_path / "people")
    request = publisher.release()["data"]["request"]

    other = publisher("sign", request, "--key", publisher.folder / "keys" / "root-1.pem", expect=2)
    none = publisher("sign", request, expect=2)
    nonsense = tmp_path / "nonsense"
    nonsense.write_text("{}")
    odd = publisher("sign", nonsense, "--key", publisher.folder / "keys" / "root-1.pem", expect=2)

    assert other["messages"][0]["code"] == "key-not-wanted"
    assert none["messages"][0]["code"] == "key-needed"
    assert odd["messages"][0]["code"] == "request-invalid"
    assert publisher("sign", publisher.folder, "--request", nonsense, expect=2)["messages"][0]["code"] == "request-invalid"


def test_a_first_version_may_wait_for_signatures_too(publisher: Publisher, tmp_path: Path) -> None:
    """K1: the root's keys were never on this machine."""
    people = Workplace(tmp_path / "people")
    keys = [people.keyring.make(f"root-{number}") for number in (1, 2, 3)]
    public = []
    for entry in keys:
        path = tmp_path / f"{entry.name}.pub"
        subprocess.run(["openssl", "pkey", "-in", people.keyring.folder / f"{entry.name}.pem", "-pubout", "-out", path],
                       check=True)
        public.append(path)

    left = publisher.init(*FEW, *(f"--key=root={path}" for path in public))["data"]

    assert not left["complete"]
    assert not (publisher.folder / "repository" / "metadata").exists()
    assert publisher.release(expect=2)["messages"][0]["code"] == "request-pending"
    for number in (1, 3):
        done = publisher("sign", publisher.folder, "--key", people.keyring.folder / f"root-{number}.pem")["data"]
    assert done["complete"]
    publisher.release()
    assert sequence_seen(publisher, tmp_path / "reader") == 1


# -- rotation ------------------------------------------------------------------------------------------------------

ROLES = ("root", "targets", "app", "drivers", "bins", "snapshot", "timestamp")


@pytest.mark.parametrize("role", ROLES)
def test_k1_every_role_s_keys_can_be_replaced(publisher: Publisher, tmp_path: Path, role: str) -> None:
    """K1: the drill. A client that knows only the first root follows, one with a cache too, and the old keys are worth
    nothing any more."""
    publisher.init(*FEW)
    publisher.release()
    assert sequence_seen(publisher, tmp_path / "old reader") == 1

    rotated = publisher("rotate", publisher.folder, role, "--remove", f"{role}-1", "--make", "1")["data"]

    assert rotated["complete"]
    assert f"{role}-1" not in rotated["keys"]
    publisher.write_brand(sequence=2)
    assert publisher.release()["data"]["complete"]
    assert sequence_seen(publisher, tmp_path / "old reader") == 2
    assert sequence_seen(publisher, tmp_path / "new reader") == 2
    (publisher.folder / "keys" / f"{role}-1.pem").unlink()
    publisher.write_brand(sequence=3)
    assert publisher.release()["data"]["complete"]
    assert sequence_seen(publisher, tmp_path / "old reader") == 3


@pytest.mark.parametrize("role", ["media-root", "media"])
def test_k1_the_keys_of_offline_kits_can_be_replaced(publisher: Publisher, role: str) -> None:
    """K1."""
    publisher.init(*FEW)

    rotated = publisher("rotate", publisher.folder, role, "--remove", f"{role}-1", "--make", "1")["data"]

    assert rotated["complete"]
    assert rotated["versions"]["root"] == 2
    media = publisher.folder / "media" / "repository" / "metadata"
    old, new = (json.loads((media / f"{version}.root.json").read_bytes()) for version in (1, 2))
    assert {s["keyid"] for s in new["signatures"]} >= set(old["signed"]["roles"]["root"]["keyids"])


def test_k1_a_lost_root_key_is_replaced_by_the_others(publisher: Publisher, tmp_path: Path) -> None:
    """K1: two of three are left, and two are needed."""
    publisher.init(*FEW)
    publisher.release()
    (publisher.folder / "keys" / "root-2.pem").unlink()

    assert publisher("rotate", publisher.folder, "root", "--remove", "root-2", "--make", "1")["data"]["complete"]
    assert sequence_seen(publisher, tmp_path / "reader") == 1
    assert publisher.client(tmp_path / "reader")


def test_k1_too_many_lost_root_keys_are_too_many(publisher: Publisher, tmp_path: Path) -> None:
    """K1: one of three is left: a new root is not signed by enough of the old keys, whatever it says itself."""
    publisher.init(*FEW)
    for number in (2, 3):
        (publisher.folder / "keys" / f"root-{number}.pem").unlink()

    left = publisher("rotate", publisher.folder, "root", "--remove", "root-2", "--remove", "root-3", "--make", "2")["data"]

    assert not left["complete"]
    assert [(m["role"], m["needed"]) for m in left["missing"]] == [("root", 1)]


def test_k1_a_stolen_timestamp_key_is_worth_nothing_after_its_rotation(publisher: Publisher, tmp_path: Path) -> None:
    """K1, A2: the thief has signed a timestamp far in the future of the versions; clients recover."""
    publisher.init(*FEW)
    publisher.release()
    reader = tmp_path / "reader"
    assert sequence_seen(publisher, reader) == 1
    stolen = Workplace(publisher.folder)
    path = publisher.folder / "repository" / "metadata" / "timestamp.json"
    honest = path.read_bytes()
    forged: Metadata[Any] = Metadata.from_bytes(honest)
    forged.signed.version = 2_000_000
    (entry,) = stolen.keyring.of("timestamp")
    signer = stolen.keyring.signer(entry.keyid)
    assert signer is not None
    forged.sign(signer)  # type: ignore[arg-type]
    path.write_bytes(forged.to_bytes())
    publisher.client(reader).refresh()
    path.write_bytes(honest)
    with pytest.raises(TrustError) as caught:
        publisher.client(reader).refresh()
    assert caught.value.code == "metadata-rollback"

    publisher("rotate", publisher.folder, "timestamp", "--remove", "timestamp-1", "--make", "1")

    assert sequence_seen(publisher, reader) == 1
    path.write_bytes(forged.to_bytes())
    with pytest.raises(TrustError):
        publisher.client(reader).refresh()


def test_no_moment_of_a_rotation_leaves_a_client_without_a_repository(publisher: Publisher, tmp_path: Path) -> None:
    """Readers come at any time: after each file that a rotation of the timestamp's key writes, a new client and one with
    a cache find a repository that they accept."""
    publisher.init(*FEW)
    publisher.release()
    assert sequence_seen(publisher, tmp_path / "cached") == 1
    seen: list[str] = []
    work = Workplace(publisher.folder)
    write = work.repository._write_role

    def watched(role: str, metadata: Any) -> None:
        write(role, metadata)
        seen.append(role)
        assert sequence_seen(publisher, tmp_path / f"fresh-{len(seen)}") == 1
        shutil.copytree(tmp_path / "cached", tmp_path / f"cached-{len(seen)}")
        assert sequence_seen(publisher, tmp_path / f"cached-{len(seen)}") == 1

    work.repository._write_role = watched  # type: ignore[method-assign]
    draft = work.begin()
    fresh = work.keyring.make("timestamp-2")
    draft.set_keys("timestamp", [fresh.key()], 1)
    assert work.finish(draft, ()).published is not None
    assert seen == ["timestamp", "root"]


def test_unknown_roles_and_keys_are_named(publisher: Publisher) -> None:
    publisher.init(*FEW)
    before = publisher.metadata()

    for arguments, code in ((("nobody",), "no-such-role"), (("root", "--remove", "root-9"), "no-such-key"),
                            (("bins", "--remove", "bins-1"), "bad-threshold"), (("root", "--needed", "4"), "bad-threshold"),
                            (("root", "--add", "/nowhere.pem"), "key-file"), (("root", "--add", "hsm:x"), "key-not-reached"),
                            (("root", "--add", "awskms:alias/x"), "key-address")):
        document = publisher("rotate", publisher.folder, *arguments, expect=2)
        assert document["messages"][0]["code"] == code, document
    assert publisher.metadata() == before


# -- other kinds of keys -------------------------------------------------------------------------------------------


def test_a_hybrid_root_needs_both_kinds_of_signature(publisher: Publisher, tmp_path: Path) -> None:
    """Whoever breaks ed25519 altogether has three of the four signatures that are needed."""
    publisher.init(*FEW, "--hybrid-root")
    publisher.release()

    root = json.loads(publisher.root())["signed"]
    kinds = [root["keys"][keyid]["keytype"] for keyid in root["roles"]["root"]["keyids"]]
    assert sorted(kinds) == ["ed25519"] * 3 + ["ml-dsa"] * 3
    assert root["roles"]["root"]["threshold"] == 4
    assert sequence_seen(publisher, tmp_path / "reader") == 1
    take_away(publisher, "root-*-pq.pem", tmp_path / "people")
    left = publisher("rotate", publisher.folder, "root")["data"]
    assert not left["complete"]
    assert left["missing"][0]["needed"] == 1


class Device:
    """A PKCS#11 device: SoftHSM2 with its tokens in a folder. The real library, the real HSMSigner."""

    PIN = "648219"
    MODULE = "/usr/lib/softhsm/libsofthsm2.so"

    def __init__(self, folder: Path) -> None:
        (folder / "tokens").mkdir(parents=True)
        self.conf = folder / "softhsm2.conf"
        self.conf.write_text(f"directories.tokendir = {folder / 'tokens'}\nobjectstore.backend = file\n")
        self.environment = os.environ | {"SOFTHSM2_CONF": str(self.conf), "PYKCS11LIB": self.MODULE}
        self.run("softhsm2-util", "--init-token", "--free", "--label", "keyfit", "--pin", self.PIN, "--so-pin", "87654321")
        for number in ("01", "02"):
            self.run("pkcs11-tool", "--module", self.MODULE, "--login", "--pin", self.PIN, "--token-label", "keyfit",
                     "--keypairgen", "--key-type", "EC:prime256v1", "--id", number, "--label", f"key{number}")

    def run(self, *command: str) -> None:
        subprocess.run(command, check=True, env=self.environment, capture_output=True)


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Device:
    made = Device(tmp_path / "device")
    for name in ("SOFTHSM2_CONF", "PYKCS11LIB"):
        monkeypatch.setenv(name, made.environment[name])
    return made


def keyfit_publish(device: Device, *arguments: object, expect: int = 0) -> dict[str, Any]:
    """The command as its own process: a PKCS#11 library reads its settings once in a process."""
    done = subprocess.run([sys.executable, "-m", "keyfit.publisher", "--json", *map(str, arguments)], env=device.environment,
                          capture_output=True, text=True, check=False)
    assert done.returncode == expect, done.stdout + done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_keys_in_hardware_sign(publisher: Publisher, device: Device, tmp_path: Path) -> None:
    """K1: a PKCS#11 device holds a drivers key and the timestamp key; its PIN comes from a file, or is typed."""
    pin = tmp_path / "pin"
    pin.write_text(device.PIN)
    keyfit_publish(device, "init", publisher.folder, *FEW, "--key", "timestamp=hsm:1?label=keyfit",
                   "--key", "drivers=hsm:2?label=keyfit", "--threshold", "drivers=2/2", "--pin-file", pin)
    keyfit_publish(device, "release", publisher.folder, "--drivers", publisher.drivers, "--pin-file", pin)

    root = json.loads(publisher.root())["signed"]
    (keyid,) = root["roles"]["timestamp"]["keyids"]
    assert root["keys"][keyid]["scheme"] == "ecdsa-sha2-nistp256"
    assert sequence_seen(publisher, tmp_path / "reader") == 1
    pin.write_text("000000")
    wrong = keyfit_publish(device, "refresh", publisher.folder, "--pin-file", pin, expect=2)
    assert wrong["messages"][0]["code"] == "key-not-reached"
    assert sequence_seen(publisher, tmp_path / "reader") == 1


def test_a_device_on_another_machine_signs_a_request(publisher: Publisher, device: Device, tmp_path: Path) -> None:
    """K1: a person's PKCS#11 device, on the person's own machine, where there is nothing but the request."""
    pin = tmp_path / "pin"
    pin.write_text(device.PIN)
    keyfit_publish(device, "init", publisher.folder, *FEW, "--key", "bins=hsm:1?label=keyfit", "--pin-file", pin)
    keyring = publisher.folder / "keys" / "keyring.json"
    entries = json.loads(keyring.read_text())
    for entry in entries:
        entry["location"] = "" if entry["name"] == "bins-1" else entry["location"]
    keyring.write_text(json.dumps(entries))
    request = tmp_path / "request.json"
    shutil.copy(publisher.release()["data"]["request"], request)

    keyfit_publish(device, "sign", request, "--key", "hsm:1?label=keyfit", "--pin-file", pin)

    assert publisher("sign", publisher.folder, "--request", request)["data"]["complete"]
    assert sequence_seen(publisher, tmp_path / "reader") == 1


@pytest.mark.parametrize("address", ["awskms:alias/keyfit", "gcpkms:projects/p/locations/l/keyRings/r/cryptoKeys/k/1",
                                     "azurekms:vault.example/keys/k/1", "hv:keyfit/1"])
def test_a_cloud_s_key_is_passed_on_and_its_absence_told(publisher: Publisher, tmp_path: Path, address: str) -> None:
    """The address reaches securesystemslib; without the cloud's own library or log-in, its word comes back."""
    publisher.init(*FEW)
    take_away(publisher, "bins-1.pem", tmp_path / "people")
    keyring = publisher.folder / "keys" / "keyring.json"
    entries = json.loads(keyring.read_text())
    for entry in entries:
        entry["location"] = address if entry["name"] == "bins-1" else entry["location"]
    keyring.write_text(json.dumps(entries))
    before = publisher.metadata()

    document = publisher.release(expect=2)

    assert document["messages"][0]["code"] == "key-not-reached"
    assert address in document["messages"][0]["text"]
    assert publisher.metadata() == before


# -- power cuts ----------------------------------------------------------------------------------------------------


def test_a_publication_cut_off_after_the_timestamp_keeps_its_notes(publisher: Publisher, tmp_path: Path) -> None:
    """Clients already see it; the next command ends what is left to do."""
    publisher.init(*FEW)
    publisher.release()
    publisher.write_brand(sequence=2)
    program = f"""
import os
from keyfit.publisher.cli import run
from keyfit.publisher.state import State
State.take = lambda self, other: os._exit(9)
run(["release", {str(publisher.folder)!r}, "--drivers", {str(publisher.drivers)!r}])
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 9
    assert sequence_seen(publisher, tmp_path / "reader") == 2

    publisher("status", publisher.folder)

    assert json.loads((publisher.folder / "state" / "acme.json").read_text())["highest"] == 2
    assert not (publisher.folder / "request").exists()


def test_a_full_disk_publishes_nothing(publisher: Publisher, tmp_path: Path) -> None:
    """Readers still see the version before, and after room was made the release goes through."""
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "none", small], check=True)
    try:
        publisher.folder = small / "publisher"
        publisher.init(*FEW)
        publisher.release()
        publisher.write_brand(sequence=2)
        filler = small / "filler"
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(b"x" * 4096):
                pass
        assert shutil.disk_usage(small).free < 4096
        document = publisher.release(expect=73)
        assert document["outcome"] == "cannot-write"
        assert sequence_seen(publisher, tmp_path / "reader") == 1
        filler.unlink()
        assert publisher.release()["data"]["complete"]
        assert sequence_seen(publisher, tmp_path / "reader") == 2
    finally:
        subprocess.run(["umount", small], check=True)
