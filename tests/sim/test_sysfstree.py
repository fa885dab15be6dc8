"""The plain-file buses: the same files as the real-program bus shows, and the attacks in them as they were meant."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sim.mockbus import MockBus
from tests.sim.sysfstree import TreeDevice, hostile_devices, remove_from_tree, tree_folder, write_tree
from tests.sim.usbrecords import find_record, load_records


@pytest.fixture
def root() -> Iterator[Path]:
    with tree_folder() as folder:
        yield folder


def devices_folder(root: Path) -> Path:
    return root / "sys/bus/usb/devices"


def attribute_files(root: Path) -> dict[str, bytes]:
    """Return every attribute file below the bus's device links, "1-1/idVendor" -> content; the rest of uevent differs:
    umockdev keeps udev's properties in it."""
    found = {}
    for link in devices_folder(root).iterdir():
        for path in link.iterdir():
            if path.is_file() and path.name != "uevent":
                found[f"{link.name}/{path.name}"] = path.read_bytes()
    return found


def test_the_tree_holds_what_umockdev_shows_to_real_programs(root: Path) -> None:
    records = load_records()
    write_tree(root, records)
    with MockBus() as bus:
        for record in records:
            bus.add(record)
        assert attribute_files(root) == attribute_files(bus.root)


def test_links_lead_where_the_kernels_lead(root: Path) -> None:
    (place,) = write_tree(root, [find_record("1050:0116")])
    device = devices_folder(root) / place.name
    assert device.is_symlink()
    assert device.resolve() == root / "sys/devices/pci0000:00/0000:00:14.0/usb1/1-1"
    assert (device / "subsystem").resolve() == root / "sys/bus/usb"
    assert (device / "1-1:1.2/bInterfaceClass").read_text() == "0b\n"
    assert (device.resolve().parent / "idVendor").read_text() == "1d6b\n"
    assert (root / "dev/bus/usb/001/002").read_bytes() == (device / "descriptors").read_bytes()


def test_unplugging_takes_device_interfaces_and_node_away(root: Path) -> None:
    kept, pulled = write_tree(root, [find_record("072F:90CC"), find_record("0DB5:0164")])
    remove_from_tree(root, pulled)
    names = sorted(path.name for path in devices_folder(root).iterdir())
    assert names == ["1-1", "1-1:1.0", "usb1"]
    assert not (root / "dev" / pulled.node).exists()
    assert (root / "dev" / kept.node).exists()


def test_a_thousand_devices_are_spread_over_buses(root: Path) -> None:
    records = load_records()
    places = write_tree(root, [records[n % len(records)] for n in range(1000)])
    assert len(set(places)) == 1000
    assert {place.bus for place in places} == set(range(1, 11))
    found = [path for path in devices_folder(root).iterdir() if (path / "idVendor").exists()]
    assert len(found) == 1000 + 10


@pytest.mark.parametrize("hostile", hostile_devices(), ids=lambda device: device.name)
def test_h1_a_hostile_device_is_written_byte_by_byte(root: Path, hostile: TreeDevice) -> None:
    healthy, bad = write_tree(root, [hostile.record, hostile])
    folder = devices_folder(root) / bad.name
    for name, content in hostile.files:
        assert (folder / name).read_bytes() == content
    for name in hostile.missing:
        assert not (folder / name).exists()
        assert (devices_folder(root) / healthy.name / name).exists()


def test_hostile_devices_have_names_of_their_own() -> None:
    names = [device.name for device in hostile_devices()]
    assert len(set(names)) == len(names)
