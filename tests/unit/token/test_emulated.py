"""The emulated token works exactly when the machine has what the real one would need."""

import fnmatch
import json
import os
import threading
from pathlib import Path
from typing import Any, cast

import pytest

from keyfit.errors import DataError
from keyfit.model.certificate import Reader
from keyfit.ports import Host
from keyfit.token.emulated import EmulatedTokenReader, EmulatedUsbBus
from tests.unit.token.test_ccidlist import Entry, a_list

RECORDINGS = Path(__file__).resolve().parents[2] / "data" / "recordings"
ACS = RECORDINGS / "acs-cryptomate-t1.json"
YUBIKEY = RECORDINGS / "yubikey-5.json"
MODULE = "/usr/lib/x86_64-linux-gnu/opensc-pkcs11.so"
CCID = ("ifd-ccid.bundle", ((0x1050, 0x0407, "Yubico YubiKey OTP+FIDO+CCID"),))
ACSCCID = ("ifd-acsccid.bundle", ((0x072F, 0xB112, "ACS CryptoMate EVO"), (0x072F, 0xB200, "ACS CryptoMate (T1)")))


class Tree:
    """The files of a machine below a folder: the three methods of `ports.Host` that the emulation uses."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, path: str, data: bytes) -> None:
        real = self.root / path[1:]
        real.parent.mkdir(parents=True, exist_ok=True)
        real.write_bytes(data)

    def put_driver(self, bundle: str, entries: tuple[Entry, ...], **layout: Any) -> None:
        self.put(f"/usr/lib/pcsc/drivers/{bundle}/Contents/Info.plist", a_list(*entries, **layout))

    def exists(self, path: str) -> bool:
        return (self.root / path[1:]).exists()

    def read_bytes(self, path: str, max_bytes: int = 4_000_000) -> bytes | None:
        real = self.root / path[1:]
        return real.read_bytes() if real.is_file() else None

    def glob(self, directory: str, pattern: str) -> tuple[str, ...]:
        real = self.root / directory[1:]
        names = os.listdir(real) if real.is_dir() else []
        return tuple(f"{directory}/{name}" for name in sorted(names) if fnmatch.fnmatchcase(name, pattern))


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def tokens(recording: Path, tree: Tree) -> EmulatedTokenReader:
    return EmulatedTokenReader(recording, cast(Host, tree))


def test_the_reader_is_there_only_once_its_driver_is_installed(tree: Tree) -> None:
    emulated = tokens(ACS, tree)
    assert emulated.readers() == ()
    tree.put_driver(*CCID)
    assert emulated.readers() == (), "libccid does not know the device"
    tree.put_driver(*ACSCCID, close="<array>")
    assert emulated.readers() == (
        Reader(name="ACS CryptoMate (T1) 00 00", atr="3BBE9600004105200000000000000000009000"),)


def test_one_broken_list_hides_every_reader(tree: Tree) -> None:
    tree.put_driver(*ACSCCID)
    tree.put("/usr/lib/pcsc/drivers/ifd-ccid.bundle/Contents/Info.plist",
             a_list(*CCID[1]).replace(b"\t\t<string>0x0407</string>\n", b""))
    assert tokens(ACS, tree).readers() == ()


def test_the_list_of_libccid_is_found_where_its_bundle_links_to(tree: Tree) -> None:
    (tree.root / "usr/lib/pcsc/drivers/ifd-ccid.bundle/Contents").mkdir(parents=True)
    tree.put("/etc/libccid_Info.plist", a_list(*CCID[1]))
    assert [r.name for r in tokens(YUBIKEY, tree).readers()] == ["Yubico YubiKey OTP+FIDO+CCID 00 00"]


def test_a_module_loads_only_if_its_file_is_there(tree: Tree) -> None:
    emulated = tokens(YUBIKEY, tree)
    report = emulated.load_module(MODULE)
    assert not report.loaded
    assert "No such file" in report.error


def test_a_module_without_the_driver_of_the_reader_sees_no_token(tree: Tree) -> None:
    emulated = tokens(YUBIKEY, tree)
    tree.put(MODULE, b"")
    assert emulated.load_module(MODULE).loaded
    assert emulated.load_module(MODULE).slots == ()
    tree.put_driver(*CCID)
    [slot] = emulated.load_module(MODULE).slots
    assert [c.subject for c in slot.certificates] == ["CN=Ada Example,O=Example Bank,C=XX"]


def test_a_module_that_was_not_recorded_is_reported_as_such(tree: Tree) -> None:
    tree.put("/usr/lib/other.so", b"")
    assert not tokens(YUBIKEY, tree).load_module("/usr/lib/other.so").loaded


def rewrite(path: Path, *devices: dict[str, Any]) -> None:
    """Replace a recording as an editor does: a new file in the old one's place."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps({"keyfit": 1, "devices": [{"device": d} for d in devices]}))
    new.replace(path)


def a_device(bus_path: str = "1-1", number: int = 4, **fields: Any) -> dict[str, Any]:
    return {"id_vendor": 1, "id_product": 2, "bcd_device": 3, "bus_path": bus_path, "device_number": number, **fields}


def test_the_bus_lists_devices_in_order_and_no_hubs(tmp_path: Path) -> None:
    path = tmp_path / "recording.json"
    rewrite(path, a_device("1-2"), a_device("1-1"), a_device("1-0", b_device_class=9))
    assert [d.bus_path for d in EmulatedUsbBus(path).devices()] == ["1-1", "1-2"]


def test_rewriting_the_recording_is_plugging(tmp_path: Path) -> None:
    path = tmp_path / "recording.json"
    rewrite(path, a_device())
    bus = EmulatedUsbBus(path)
    assert bus.wait_for_change(0.0) is False, "arming the watch is no change"
    rewrite(path)
    assert bus.wait_for_change(5.0) is True
    assert bus.devices() == ()
    rewrite(path, a_device(number=5))
    assert bus.wait_for_change(5.0) is True
    assert bus.devices()[0].device_number == 5
    assert bus.wait_for_change(0.0) is False


def test_a_change_during_the_wait_ends_it(tmp_path: Path) -> None:
    path = tmp_path / "recording.json"
    rewrite(path, a_device())
    bus = EmulatedUsbBus(path)
    bus.devices()
    plug = threading.Timer(0.2, rewrite, (path, a_device(), a_device("1-2")))
    plug.start()
    assert bus.wait_for_change(30.0) is True
    plug.join()
    assert len(bus.devices()) == 2


def test_a_rewrite_without_another_device_is_no_change(tmp_path: Path) -> None:
    path = tmp_path / "recording.json"
    rewrite(path, a_device())
    bus = EmulatedUsbBus(path)
    bus.devices()
    rewrite(path, a_device())
    assert bus.wait_for_change(0.2) is False


def test_a_half_written_recording_is_waited_out_and_a_broken_one_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "recording.json"
    rewrite(path, a_device())
    bus = EmulatedUsbBus(path)
    bus.devices()
    path.write_text('{"keyfit": 1, "dev')
    assert bus.wait_for_change(0.2) is False
    with pytest.raises(DataError):
        bus.devices()
    rewrite(path)
    assert bus.wait_for_change(5.0) is True
