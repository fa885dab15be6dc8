"""The plain-file buses: the same files as the real-program bus shows, and the attacks in them as they were meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sim.mockbus import MockBus
from tests.sim.sysfstree import TreeDevice, hostile_devices, remove_from_tree, write_tree
from tests.sim.usbrecords import find_record, load_records


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


def test_the_tree_holds_what_umockdev_shows_to_real_programs(tmp_path: Path) -> None:
    records = load_records()
    write_tree(tmp_path, records)
    with MockBus() as bus:
        for record in records:
            bus.add(record)
        assert attribute_files(tmp_path) == attribute_files(bus.root)


def test_links_lead_where_the_kernels_lead(tmp_path: Path) -> None:
    (place,) = write_tree(tmp_path, [find_record("1050:0116")])
    device = devices_folder(tmp_path) / place.name
    assert device.is_symlink()
    assert device.resolve() == tmp_path / "sys/devices/pci0000:00/0000:00:14.0/usb1/1-1"
    assert (device / "subsystem").resolve() == tmp_path / "sys/bus/usb"
    assert (device / "1-1:1.2/bInterfaceClass").read_text() == "0b\n"
    assert (device.resolve().parent / "idVendor").read_text() == "1d6b\n"
    assert (tmp_path / "dev/bus/usb/001/002").read_bytes() == (device / "descriptors").read_bytes()


def test_unplugging_takes_device_interfaces_and_node_away(tmp_path: Path) -> None:
    kept, pulled = write_tree(tmp_path, [find_record("072F:90CC"), find_record("0DB5:0164")])
    remove_from_tree(tmp_path, pulled)
    names = sorted(path.name for path in devices_folder(tmp_path).iterdir())
    assert names == ["1-1", "1-1:1.0", "usb1"]
    assert not (tmp_path / "dev" / pulled.node).exists()
    assert (tmp_path / "dev" / kept.node).exists()


def test_a_thousand_devices_are_spread_over_buses(tmp_path: Path) -> None:
    records = load_records()
    places = write_tree(tmp_path, [records[n % len(records)] for n in range(1000)])
    assert len(set(places)) == 1000
    assert {place.bus for place in places} == set(range(1, 11))
    found = [path for path in devices_folder(tmp_path).iterdir() if (path / "idVendor").exists()]
    assert len(found) == 1000 + 10


@pytest.mark.parametrize("hostile", hostile_devices(), ids=lambda device: device.name)
def test_h1_a_hostile_device_is_written_byte_by_byte(tmp_path: Path, hostile: TreeDevice) -> None:
    healthy, bad = write_tree(tmp_path, [hostile.record, hostile])
    folder = devices_folder(tmp_path) / bad.name
    for name, content in hostile.files:
        assert (folder / name).read_bytes() == content
    for name in hostile.missing:
        assert not (folder / name).exists()
        assert (devices_folder(tmp_path) / healthy.name / name).exists()


def test_hostile_devices_have_names_of_their_own() -> None:
    names = [device.name for device in hostile_devices()]
    assert len(set(names)) == len(names)
