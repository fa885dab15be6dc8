"""The publisher's commands from end to end, and a customer's client that fetches what they published."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sim.publisher import DEB, HAND_OFF, TARGET, Publisher


@pytest.fixture
def publisher(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Publisher:
    return Publisher(tmp_path, capsys)


@pytest.fixture
def server(publisher: Publisher) -> Iterator[list[str]]:
    """Starts `serve` when asked: a list to which the address is added."""
    started: list[subprocess.Popen[str]] = []

    class Addresses(list[str]):
        def start(self) -> str:
            child = subprocess.Popen([sys.executable, "-m", "keyfit.publisher", "serve", str(publisher.folder), "--port",
                                      "0"], stdout=subprocess.PIPE, text=True)
            started.append(child)
            assert child.stdout is not None
            self.append(child.stdout.readline().split()[-1])
            return self[-1]

    yield Addresses()
    for child in started:
        child.send_signal(signal.SIGTERM)
        child.communicate(timeout=10)
        assert child.returncode == 0


def test_from_empty_directory_to_customer(publisher: Publisher, server: Any, tmp_path: Path) -> None:
    publisher.init()
    assert publisher("check", publisher.drivers)["data"]["brands"] == 1
    added = publisher.add()["data"]["payload"]
    released = publisher.release("--hand-off", publisher.hand_off)
    refreshed = publisher("refresh", publisher.folder)
    assert refreshed["data"]["versions"]["timestamp"] == released["data"]["versions"]["timestamp"] + 1
    assert refreshed["data"]["versions"]["snapshot"] == released["data"]["versions"]["snapshot"]

    client = publisher.client(tmp_path, server.start())
    client.refresh()
    manifest = client.manifest(TARGET)

    assert manifest is not None
    (brand,) = manifest.brands
    assert brand.hand_off is not None
    assert brand.hand_off.page == "https://www.example.com/certificate"
    assert set(brand.hand_off.sources) <= set(brand.sources)
    payload = brand.package[0].payload
    assert payload is not None
    assert payload.sha256 == added["sha256"]
    assert client.payload(payload).read_bytes() == DEB


def test_the_server_shows_the_repository_and_nothing_else(publisher: Publisher, server: Any) -> None:
    import requests

    publisher.init()
    url = server.start()

    assert requests.get(url + "metadata/timestamp.json", timeout=5).status_code == 200
    for path in ("", "metadata/", "../keys/root-1.pem", "%2e%2e/keys/root-1.pem", "..%2fkeys/root-1.pem",
                 "metadata/%00", "/etc/passwd", "..\\keys\\root-1.pem"):
        prepared = requests.Request("GET", url).prepare()
        prepared.url = url + path
        assert requests.Session().send(prepared, timeout=5).status_code == 404


def test_serving_to_others_needs_a_certificate(publisher: Publisher) -> None:
    publisher.init()

    document = publisher("serve", publisher.folder, "--port", 0, "--bind", "0.0.0.0", expect=2)

    assert document["messages"][0]["code"] == "https-required"


def test_only_what_changed_is_signed_anew(publisher: Publisher) -> None:
    publisher.init()
    publisher.release()
    before = publisher.metadata()

    again = publisher.release()["data"]
    after = publisher.metadata()

    assert (again["changed_targets"], again["changed_bins"]) == (0, 0)
    assert {name for name in after if after[name] != before.get(name)} == {"timestamp.json", "timestamp.json.gz"}
    publisher.write_brand(sequence=2)
    changed = publisher.release()["data"]
    now = publisher.metadata()
    fresh = {name for name, data in now.items() if data != after.get(name)}
    assert changed["changed_targets"] == changed["targets"]
    assert len(fresh) == changed["changed_bins"] + 3  # the snapshot, and the timestamp, also compressed
    assert after.keys() <= now.keys()


def test_a_release_without_enough_keys_publishes_nothing(publisher: Publisher) -> None:
    """K1: keys that are elsewhere are simply missing."""
    publisher.init()
    (publisher.folder / "keys" / "bins-1.pem").rename(publisher.folder / "bins-1.pem")
    before = publisher.metadata()

    document = publisher.release()

    assert not document["data"]["complete"]
    assert {m["role"][:2] for m in document["data"]["missing"]} == {"b-"}
    assert publisher.metadata() == before
    (publisher.folder / "bins-1.pem").rename(publisher.folder / "keys" / "bins-1.pem")
    for name in ("root-1.pem", "root-2.pem", "root-3.pem", "targets-1.pem", "drivers-1.pem"):
        (publisher.folder / "keys" / name).unlink()
    assert publisher("sign", publisher.folder)["data"]["complete"]
    assert publisher.metadata() != before


def test_a_release_that_is_killed_leaves_readers_the_old_one(publisher: Publisher, tmp_path: Path) -> None:
    """The timestamp comes last. The process is ended at the moment it would be replaced."""
    publisher.init()
    publisher.release()
    publisher.write_brand(sequence=2)
    program = f"""
import os
from pathlib import Path
from keyfit.publisher.cli import run
replace = Path.replace
def die(self, target):
    if Path(target).name == "timestamp.json":
        os._exit(9)
    return replace(self, target)
Path.replace = die
run(["release", {str(publisher.folder)!r}, "--drivers", {str(publisher.drivers)!r}])
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 9

    manifest = publisher.client(tmp_path / "reader").manifest(TARGET)
    assert manifest is not None
    assert manifest.brands[0].sequence == 1
    publisher.release()
    manifest = publisher.client(tmp_path / "reader").manifest(TARGET)
    assert manifest is not None
    assert manifest.brands[0].sequence == 2


def test_thresholds_are_as_asked_for(publisher: Publisher) -> None:
    """K1."""
    publisher.init("--threshold", "root=3/5", "--threshold", "targets=1/1")

    root = json.loads(publisher.metadata()["1.root.json"])
    roles = root["signed"]["roles"]
    assert {role: (roles[role]["threshold"], len(roles[role]["keyids"])) for role in roles} == {
        "root": (3, 5), "targets": (1, 1), "snapshot": (1, 1), "timestamp": (1, 1)}
    assert len(root["signatures"]) == 5
    keyids = [keyid for role in roles.values() for keyid in role["keyids"]]
    assert len(keyids) == len(set(keyids))


@pytest.mark.parametrize("wrong", ["root=4/3", "root=0/3", "nobody=1/1", "root", "root=3/99", "root=-1/2"])
def test_impossible_thresholds_make_nothing(publisher: Publisher, wrong: str) -> None:
    assert publisher("init", publisher.folder, "--threshold", wrong, expect=2)["messages"][0]["code"] == "bad-threshold"
    assert not publisher.folder.exists()


def test_nothing_is_overwritten(publisher: Publisher) -> None:
    publisher.init()
    before = publisher.metadata()

    assert publisher("init", publisher.folder, expect=1)["messages"][0]["code"] == "repository-exists"
    shutil.rmtree(publisher.folder / "repository")
    assert publisher("init", publisher.folder, expect=1)["messages"][0]["code"] == "keys-exist"
    assert before


def test_key_files_are_private_and_may_be_encrypted(publisher: Publisher, tmp_path: Path) -> None:
    passphrase = tmp_path / "passphrase"
    passphrase.write_text("correct horse\n")
    publisher.init("--encrypt", "--passphrase-file", str(passphrase))
    keys = publisher.folder / "keys"

    assert keys.stat().st_mode & 0o777 == 0o700
    for key in keys.glob("*.pem"):
        assert key.stat().st_mode & 0o777 == 0o600
        assert key.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    publisher("refresh", publisher.folder, "--passphrase-file", passphrase)
    passphrase.write_text("wrong")
    assert publisher("refresh", publisher.folder, "--passphrase-file", passphrase,
                     expect=2)["messages"][0]["code"] == "key-file"


def test_a_key_that_others_can_read_is_not_used(publisher: Publisher) -> None:
    publisher.init()
    (publisher.folder / "keys" / "timestamp-1.pem").chmod(0o644)

    assert publisher("refresh", publisher.folder, expect=2)["messages"][0]["code"] == "key-file-open"


@pytest.mark.parametrize("fault", ["name", "content", "brand"])
def test_a_file_that_the_brand_does_not_declare_is_refused(publisher: Publisher, tmp_path: Path, fault: str) -> None:
    publisher.init()
    if fault == "content":
        publisher.package.write_bytes(b"MZ" + DEB[2:])
        code = publisher.add(expect=2)["messages"][0]["code"]
    elif fault == "name":
        other = tmp_path / "acme_2.0_amd64.deb"
        other.write_bytes(DEB)
        code = publisher.add(other, expect=2)["messages"][0]["code"]
        named = publisher("add", publisher.folder, "acme", other, "--package", "acme-deb", "--drivers", publisher.drivers,
                          expect=2)
        assert named["messages"][0]["code"] == "wrong-file"
    else:
        code = publisher("add", publisher.folder, "other", publisher.package, "--drivers", publisher.drivers,
                         expect=2)["messages"][0]["code"]

    assert code == {"name": "no-such-package", "content": "wrong-file", "brand": "no-such-brand"}[fault]
    payloads = publisher.folder / "repository" / "payloads"
    assert not payloads.exists() or not list(payloads.iterdir())


def test_a_file_that_is_not_the_one_in_the_brand_data_is_refused(publisher: Publisher) -> None:
    """The brand data names hash and length; a vendor's silent replacement is noticed."""
    publisher.init()
    declared = 'sources = ["page"]\non = {'
    publisher.write_brand(**{declared: 'payload = { file = "acme_1.0_amd64.deb", sha256 = "' + "0" * 64
                             + f'", length_bytes = {len(DEB)} }}\n' + declared})

    assert publisher.add(expect=2)["messages"][0]["code"] == "wrong-file"
    assert [p for p in (publisher.folder / "repository" / "payloads").iterdir()] == []


def test_a_package_that_is_gone_stops_the_release(publisher: Publisher) -> None:
    publisher.init()
    added = publisher.add()["data"]["payload"]
    next((publisher.folder / "repository" / "payloads").rglob(added["file"])).unlink()

    assert publisher.release(expect=1)["messages"][0]["code"] == "package-missing"


def test_a5_a_lower_sequence_is_not_released(publisher: Publisher) -> None:
    """A5: clients that have seen the higher one would refuse it."""
    publisher.init()
    publisher.write_brand(sequence=5)
    publisher.release()
    publisher.write_brand(sequence=4)
    before = publisher.metadata()

    document = publisher.release(expect=2)

    assert document["messages"][0]["code"] == "sequence-too-low"
    assert "acme" in document["messages"][1]["text"]
    assert publisher.metadata() == before


def test_unsound_brand_data_is_not_released(publisher: Publisher) -> None:
    publisher.init()
    publisher.write_brand(**{'sources = ["page"]\n\n[[package]]': 'sources = ["nowhere"]\n\n[[package]]'})

    for document in (publisher("check", publisher.drivers, expect=2), publisher.release(expect=2)):
        assert document["messages"][0]["code"] == "lint-failed"
        assert any("acme/driver.toml:" in message["text"] for message in document["messages"])


@pytest.mark.parametrize(("old", "new"), [
    ('"acme"', '"nobody"'), ("https://www.example.com/certificate", "http://www.example.com/"),
    ("https://www.example.com/certificate", "https://192.0.2.1/"), ("en = \"Log", "zh_CN = \"Log"),
    ("steps", "run"), ("[[hand_off]]", "[[hand_off"),
])
def test_g2_an_unsound_hand_off_file_is_refused(publisher: Publisher, old: str, new: str) -> None:
    """G2: the page is opened exactly as it is signed, so it is looked at before it is signed."""
    publisher.init()
    publisher.hand_off.write_text(HAND_OFF.replace(old, new))

    document = publisher.release("--hand-off", publisher.hand_off, expect=2)

    assert document["messages"][0]["code"] == "hand-off-invalid"
    assert len(document["messages"]) > 1


def test_a_directory_that_is_none_is_named(publisher: Publisher) -> None:
    for command in (["refresh"], ["serve"], ["release", "--drivers", publisher.drivers]):
        document = publisher(command[0], publisher.folder, *command[1:], expect=2)
        assert document["messages"][0]["code"] == "no-repository-here"
        assert document["command"] == command[0]


def test_a_wrong_command_line_is_told_in_json_too(publisher: Publisher) -> None:
    assert publisher("bogus", expect=2)["outcome"] == "usage"
    assert publisher("init", expect=2)["outcome"] == "usage"


def test_help_needs_nothing_heavy() -> None:
    program = ("import sys\nfrom keyfit.publisher.cli import run\ncode = run(['--help'])\n"
               "print('LOADED', *sorted({m.partition('.')[0] for m in sys.modules}))\nsys.exit(code)")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True,
                          env=os.environ | {"COLUMNS": "100"})

    shown, loaded = done.stdout.split("LOADED")
    assert {"init", "check", "add", "release", "refresh", "serve"} <= set(shown.split())
    assert not {"tuf", "requests", "cryptography", "jsonschema", "ssl"} & set(loaded.split())
