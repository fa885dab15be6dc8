"""The bus from sysfs: recorded devices are read as they were recorded, hostile ones do no harm, changes are noticed."""

from __future__ import annotations

import os
import shutil
import threading
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from keyfit.core.text import MAX_DEVICE_TEXT
from keyfit.model.usb import UsbDevice
from keyfit.platforms.linux import sysfs
from keyfit.platforms.linux.sysfs import SysfsUsbBus
from tests.sim.sysfstree import (
    TreeDevice,
    add_to_tree,
    hostile_devices,
    remove_from_tree,
    tree_folder,
    write_tree,
)
from tests.sim.usbnodes import UsbLocation
from tests.sim.usbrecords import find_record, load_records

RUTOKEN = find_record("0A89:0030")
HOSTILE = {device.name: device for device in hostile_devices()}
LISTDIR = os.listdir


@pytest.fixture
def root() -> Iterator[Path]:
    with tree_folder() as folder:
        yield folder


def bus_of(root: Path) -> SysfsUsbBus:
    return SysfsUsbBus(f"{root}/sys")


def only_device(root: Path, item: TreeDevice) -> UsbDevice | None:
    write_tree(root, [item])
    found = bus_of(root).devices()
    assert len(found) <= 1
    return found[0] if found else None


def test_every_recorded_device_is_listed_with_its_ids_strings_and_place(root: Path) -> None:
    records = load_records()
    places = write_tree(root, records)

    found = {device.bus_path: device for device in bus_of(root).devices()}

    assert len(found) == len(records), "hubs and interfaces are left out"
    for record, place in zip(records, places, strict=True):
        device = found[place.name]
        assert (device.id_vendor, device.id_product, device.bcd_device) == (
            record.id_vendor, record.id_product, record.bcd_device)
        assert device.device_number == place.device
        assert device.has_class(0x0B) == record.has_ccid
        if (record.product or "").isascii():
            assert device.product == " ".join((record.product or "").split())


def test_devices_are_sorted_by_port_number_not_by_letters(root: Path) -> None:
    places = write_tree(root, [RUTOKEN] * 12, per_bus=11)

    assert [d.bus_path for d in bus_of(root).devices()] == [place.name for place in places]


def test_a_machine_without_usb_has_no_devices(tmp_path: Path) -> None:
    assert SysfsUsbBus(str(tmp_path)).devices() == ()


def test_the_serial_number_is_never_opened(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tree(root, [TreeDevice(record=RUTOKEN, serial="CANARY-4711")])
    opened: list[str] = []
    really_open = os.open

    def listening(path: str, *rest: int, **at: int) -> int:
        opened.append(path)
        return really_open(path, *rest, **at)

    monkeypatch.setattr(sysfs.os, "open", listening)
    found = bus_of(root).devices()

    assert {Path(path).name for path in opened} == {"1-1", "usb1", "descriptors", "manufacturer", "product", "devnum"}
    assert "CANARY" not in repr(found)


@pytest.mark.parametrize("item", HOSTILE.values(), ids=HOSTILE)
def test_h1_a_hostile_device_is_left_out_or_safe_to_show(item: TreeDevice, root: Path) -> None:
    device = only_device(root, item)

    if device is None:
        assert "descriptors" in item.missing or item.name in ("descriptors-empty", "descriptors-half-a-device")
        return
    for text in (device.manufacturer, device.product):
        assert len(text) <= MAX_DEVICE_TEXT
        assert all(char == " " or unicodedata.category(char)[0] not in "CZ" for char in text)


@pytest.mark.parametrize(("name", "shown"), [
    ("escape-sequence", "]0;owned[2J[31mePass2003[0m"),
    ("right-to-left-override", "ePassgnp.exe"),
    ("newline", "ePass2003 WARNING: driver removed, install from evil.example"),
    ("shell", "$(touch /tmp/owned)`id`;|&"),
    ("path", "../../../../etc/passwd"),
    ("format", "%n%s%x{0.__class__}{}"),
    ("255-wide-characters", "\u9374" * MAX_DEVICE_TEXT),
    ("64-kilobytes", "A" * MAX_DEVICE_TEXT),
])
def test_h1_what_a_device_says_of_itself_is_shown_without_its_tricks(name: str, shown: str, root: Path) -> None:
    device = only_device(root, HOSTILE[f"string-{name}"])

    assert device is not None
    assert (device.manufacturer, device.product) == (shown, shown)


def test_h1_invalid_utf8_is_replaced(root: Path) -> None:
    device = only_device(root, HOSTILE["string-invalid-utf8"])

    assert device is not None
    assert device.product.startswith("ePass\ufffd")


def test_ids_come_from_the_descriptors_so_that_text_files_cannot_lie(root: Path) -> None:
    device = only_device(root, TreeDevice(record=RUTOKEN, files=(("idVendor", b"dead\n"), ("idProduct", b"beef\n"))))

    assert device is not None
    assert device.ids == RUTOKEN.ids


def test_devices_that_go_away_while_they_are_read_are_left_out(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = write_tree(root, [RUTOKEN] * 3)

    def pulled_out_after_listing(path: str) -> list[str]:
        names = LISTDIR(path)
        remove_from_tree(root, places[1])
        return names

    monkeypatch.setattr(sysfs.os, "listdir", pulled_out_after_listing)

    assert [d.bus_path for d in bus_of(root).devices()] == [places[0].name, places[2].name]


# ---- changes


def later(action: Callable[[], None], seconds: float = 0.3) -> threading.Timer:
    timer = threading.Timer(seconds, action)
    timer.start()
    return timer


def test_nothing_happens(root: Path) -> None:
    write_tree(root, [RUTOKEN])
    bus = bus_of(root)
    bus.devices()

    assert bus.wait_for_change(0.3) is False


@pytest.mark.parametrize("looked_before", [True, False], ids=["looked-before", "first-call"])
def test_plugging_in_and_pulling_out_are_noticed(root: Path, looked_before: bool) -> None:
    (first,) = write_tree(root, [RUTOKEN])
    second = UsbLocation(bus=1, port=2, device=3)
    bus = bus_of(root)
    if looked_before:
        bus.devices()

    plugging = later(lambda: add_to_tree(root, TreeDevice(record=RUTOKEN), second))
    assert bus.wait_for_change(10.0) is True
    plugging.join()
    assert [d.bus_path for d in bus.devices()] == [first.name, second.name]

    pulling = later(lambda: remove_from_tree(root, second))
    assert bus.wait_for_change(10.0) is True
    pulling.join()
    assert [d.bus_path for d in bus.devices()] == [first.name]


def test_what_happened_between_looking_and_waiting_is_not_missed(root: Path) -> None:
    write_tree(root, [RUTOKEN])
    bus = bus_of(root)
    bus.devices()
    add_to_tree(root, TreeDevice(record=RUTOKEN), UsbLocation(bus=1, port=2, device=3))

    assert bus.wait_for_change(0.0) is True
    bus.devices()
    assert bus.wait_for_change(0.0) is False


def test_a_token_that_was_put_back_into_its_port_is_a_change(root: Path) -> None:
    (place,) = write_tree(root, [RUTOKEN])
    bus = bus_of(root)
    before = bus.devices()
    remove_from_tree(root, place)
    add_to_tree(root, TreeDevice(record=RUTOKEN), UsbLocation(bus=1, port=place.port, device=place.device + 1))

    assert bus.wait_for_change(0.0) is True
    assert bus.devices() != before


def test_a_bus_that_goes_away_as_a_whole_is_a_change(root: Path) -> None:
    write_tree(root, [RUTOKEN])
    bus = bus_of(root)
    bus.devices()
    shutil.rmtree(root / "sys")

    assert bus.wait_for_change(0.0) is True
    assert bus.devices() == ()
