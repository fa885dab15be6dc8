"""The two adaptors of the bus, on a bus that real programs see: they agree, and they hear what happens."""

from __future__ import annotations

import json
import sys
import time
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from keyfit.core.text import MAX_DEVICE_TEXT
from tests.sim.mockbus import MockBus
from tests.sim.sysfstree import TreeDevice, hostile_devices
from tests.sim.usbrecords import find_record, load_records

RUTOKEN = find_record("0A89:0030")
EPASS = find_record("096E:080A")
HOSTILE = [item for item in hostile_devices() if item.name.startswith("string-")]
ADAPTORS = {
    "sysfs": "from keyfit.platforms.linux.sysfs import SysfsUsbBus as Bus",
    "libusb": "from keyfit.platforms.libusb import LibusbUsbBus as Bus",
}
LIST = """
import sys, msgspec
sys.stdout.buffer.write(msgspec.json.encode(Bus().devices()))
"""
WATCH = """
import time
bus = Bus()
bus.wait_for_change(0.0)  # arms the watch: what happens after the first look is then not missed
while True:
    print(time.time(), *(f"{d.ids}@{d.device_number}" for d in bus.devices()), flush=True)
    bus.wait_for_change(20.0)
"""
HEAR = """
from keyfit.platforms.linux.uevents import UeventWatch
watch = UeventWatch()
print("armed", flush=True)
print(watch.wait(lambda: "the same", 20.0, 20.0), flush=True)
"""
NOTICED_WITHIN_S = 1.0


class Watcher:
    """A program that prints the time and the bus whenever it has noticed a change."""

    def __init__(self, bus: MockBus, adaptor: str) -> None:
        self._program = bus.popen([sys.executable, "-c", f"{ADAPTORS[adaptor]}\n{WATCH}"])

    def sees(self, *devices: str) -> float:
        """Read on until it has seen exactly these devices; when that was."""
        assert self._program.stdout is not None
        for line in self._program.stdout:
            at, *seen = line.split()
            if sorted(seen) == sorted(devices):
                return float(at)
        raise AssertionError(f"the program ended before it saw {devices}")


@pytest.fixture
def bus() -> Iterator[MockBus]:
    with MockBus() as made:
        yield made


def listed(bus: MockBus, adaptor: str) -> list[dict[str, Any]]:
    done = bus.run([sys.executable, "-c", f"{ADAPTORS[adaptor]}\n{LIST}"], check=True)
    answer: list[dict[str, Any]] = json.loads(done.stdout)
    return answer


def test_both_adaptors_see_the_same_bus(bus: MockBus) -> None:
    records = load_records()
    for record in records:
        bus.add(record, serial="CANARY-4711")

    by_sysfs, by_libusb = listed(bus, "sysfs"), listed(bus, "libusb")

    assert len(by_sysfs) == len(records)
    assert by_sysfs == by_libusb
    assert "CANARY" not in json.dumps(by_sysfs)


def test_libusb_leaves_strings_empty_that_a_device_does_not_tell(bus: MockBus) -> None:
    bus.add(RUTOKEN, strings=False)

    (by_sysfs,), (by_libusb,) = listed(bus, "sysfs"), listed(bus, "libusb")

    assert by_sysfs["product"] == RUTOKEN.product
    assert (by_libusb["manufacturer"], by_libusb["product"]) == ("", "")
    assert {**by_libusb, "manufacturer": by_sysfs["manufacturer"], "product": by_sysfs["product"]} == by_sysfs


@pytest.mark.parametrize("adaptor", ADAPTORS)
def test_a_machine_without_usb_has_no_devices(bus: MockBus, adaptor: str) -> None:
    assert listed(bus, adaptor) == []


@pytest.mark.parametrize("adaptor", ADAPTORS)
def test_plugging_pulling_and_replugging_are_noticed_within_a_second(bus: MockBus, adaptor: str) -> None:
    first = bus.add(EPASS)
    stays = f"{EPASS.ids}@{first.device}"
    watcher = Watcher(bus, adaptor)
    watcher.sees(stays)

    for _ in range(3):
        place = bus.add(RUTOKEN)
        plugged = time.time()
        assert watcher.sees(stays, f"{RUTOKEN.ids}@{place.device}") - plugged < NOTICED_WITHIN_S

        bus.remove(place)
        pulled = time.time()
        assert watcher.sees(stays) - pulled < NOTICED_WITHIN_S


def test_the_kernels_events_are_heard_and_not_only_found_by_looking(bus: MockBus) -> None:
    """The program looks at a bus that never changes, so only an event can end its wait."""
    program = bus.popen([sys.executable, "-c", HEAR])
    assert program.stdout is not None
    assert program.stdout.readline() == "armed\n"

    bus.add(RUTOKEN)

    assert program.stdout.readline() == "True\n"


@pytest.mark.parametrize("item", HOSTILE, ids=[item.name for item in HOSTILE])
def test_h1_a_hostile_device_harms_neither_adaptor_nor_the_healthy_one_beside_it(bus: MockBus, item: TreeDevice) -> None:
    bus.add(RUTOKEN)
    text = claimed(item)
    bus.add(replace(EPASS, manufacturer=text, product=text))

    for adaptor in ADAPTORS:
        seen = listed(bus, adaptor)
        assert [device["id_product"] for device in seen] == [RUTOKEN.id_product, EPASS.id_product]
        for device in seen:
            for shown in (device["manufacturer"], device["product"]):
                assert all(char == " " or unicodedata.category(char)[0] not in "CZ" for char in shown)
                assert len(shown) <= MAX_DEVICE_TEXT


def claimed(item: TreeDevice) -> str:
    """What the hostile device says of itself, as USB can carry it: UTF-16, at most 126 units."""
    text = dict(item.files)["product"].removesuffix(b"\n").decode("utf-8", "replace").replace("\0", "")
    return text.encode("utf-16-le")[: 2 * MAX_DEVICE_TEXT].decode("utf-16-le", "ignore")
