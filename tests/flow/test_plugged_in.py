"""What is plugged in is looked at, and that is all: a person or an administrator's policy has to say what is to be done."""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from keyfit.model.catalog import Manifest, device_target
from tests.sim import debs
from tests.sim.brands import a_brand, a_match, a_package
from tests.sim.mockbus import MockBus
from tests.sim.repository import HostileServer, SignedRepository
from tests.sim.straced import calls, command
from tests.sim.usbrecords import UsbRecord, find_record

TOKEN = find_record("096E:080A")
BRAND = "feitian-epass2003"
KEYBOARD = replace(TOKEN, interfaces=tuple(replace(each, b_interface_class=0x03, class_descriptor=b"")
                                           for each in TOKEN.interfaces))
"""A gadget that tells the token's ids and strings, and types."""
CLUMSY = replace(KEYBOARD, manufacturer="Acme", product="Keyboard")
"""Another that tells the ids alone."""


@pytest.fixture
def bus() -> Iterator[MockBus]:
    with MockBus() as made:
        yield made


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    debs.tree_with_package_database(tmp_path / "tree")
    return tmp_path / "tree"


@pytest.fixture
def repository(tmp_path: Path) -> SignedRepository:
    """It has a driver for this brand, under its name and under the device's ids."""
    made = SignedRepository(tmp_path / "publisher")
    deb = debs.build(tmp_path, "acme")
    brand = a_brand(BRAND, a_match(id_vendor=TOKEN.id_vendor, id_product=TOKEN.id_product, b_interface_class=0x0B),
                    package=(a_package("acme", "deb", version="1.0", payload=made.add_payload(deb.name, deb.read_bytes())),))
    made.release(brand)
    path = device_target(TOKEN.id_vendor, TOKEN.id_product, "linux", "amd64")
    made.release_raw({path: msgspec.json.encode(Manifest(keyfit=1, path=path, system="linux", architecture="amd64",
                                                         brands=(brand,)))})
    (tmp_path / "root.json").write_bytes(made.trusted_root)
    return made


def test_c9_a_token_and_a_gadget_that_tells_its_ids_are_listed_and_nothing_else_happens(
        bus: MockBus, tree: Path, tmp_path: Path) -> None:
    """C9: no request, no other program, not a byte written; and the gadget is nobody's token."""
    for record in (TOKEN, CLUMSY):
        bus.add(record)
    before = sorted(tree.rglob("*"))

    done = bus.run(command(tmp_path / "log", [sys.executable, "-m", "keyfit", "devices", "--all", "--json", "--root", str(tree)]),
                   env={"PYTHONDONTWRITEBYTECODE": "1"})

    token, gadget = json.loads(done.stdout)["data"]["devices"]
    assert (token["brand"], token["driver"]["state"]) in ((BRAND, "missing"), (BRAND, "incomplete"))
    assert (gadget["id_vendor"], gadget["id_product"]) == (token["id_vendor"], token["id_product"])
    assert (gadget["brand"], gadget["is_token"], gadget["driver"]) == (None, False, None)
    seen = list(calls(tmp_path / "log"))
    assert [path for call in seen if call.writes for path in call.paths if not path.startswith("/dev/")] == []
    assert [call.text for call in seen if call.name == "connect" and "AF_INET" in call.text] == []
    assert [call.paths[0] for call in seen if call.name.startswith("execve")] == [sys.executable]
    assert sorted(tree.rglob("*")) == before


def test_c9_a_gadget_that_tells_the_strings_too_is_not_said_to_work(bus: MockBus, tree: Path) -> None:
    """C9: it is taken for the brand's, as ids and strings suggest; but only a token that answers counts."""
    bus.add(KEYBOARD)

    done = bus.run([sys.executable, "-m", "keyfit", "verify", "--json", "--root", str(tree)])

    verdict = json.loads(done.stdout)["data"]["verdict"]
    assert done.returncode != 0
    assert (verdict["brand"], verdict["works"]) == (BRAND, False)
    listed = bus.run([sys.executable, "-m", "keyfit", "devices", "--json", "--root", str(tree)])
    assert [(d["brand"], d["verified"]) for d in json.loads(listed.stdout)["data"]["devices"]] == [(BRAND, False)]


def install(bus: MockBus, tree: Path, server: HostileServer, tmp_path: Path, *words: str) -> "tuple[int, str]":
    done = bus.run([sys.executable, "-m", "keyfit", "install", *words, "--json", "--root", str(tree), "--repository", server.url,
                    "--trust-root", str(tmp_path / "root.json"), "--cache-dir", str(tmp_path / "cache")])
    said = json.loads(done.stdout)
    return done.returncode, said["messages"][0]["code"] if said["messages"] else ""


@pytest.mark.parametrize(("record", "words", "answer"), [
    (TOKEN, (), (130, "cancelled")), (CLUMSY, (), (66, "no-token")), (KEYBOARD, ("--yes",), (66, "unknown-token"))],
    ids=["nobody answers", "gadget", "gadget, and a yes to everything"])
def test_c9_without_a_person_s_yes_and_for_a_gadget_no_driver_is_fetched(
        bus: MockBus, tree: Path, repository: SignedRepository, tmp_path: Path, record: UsbRecord, words: tuple[str, ...],
        answer: tuple[int, str]) -> None:
    """C9: signed data is asked what the ids mean; no driver is downloaded, nothing is written down as begun."""
    port = bus.add(record)
    with HostileServer(repository.folder) as server:
        assert install(bus, tree, server, tmp_path, *words) == answer
        assert bool(server.requests) is (record is not CLUMSY)
        assert server.asked("/payloads/") == []
        assert not (tree / "usr/share/acme").exists()
        done = bus.run([sys.executable, "-m", "keyfit", "history", "--json", "--root", str(tree)])
        assert json.loads(done.stdout)["data"] == {"history": []}

        bus.remove(port)
        assert install(bus, tree, server, tmp_path, BRAND, "--silent") == (0, "not-proven")
        assert server.asked("/payloads/")
