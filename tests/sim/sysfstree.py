"""Fake USB buses as plain files: a `sys/` and a `dev/` tree for code that takes the root of sysfs as a parameter.

No preload, no privilege, no other process: `write_tree(root, records)` and read `root / "sys"`. The tree can
also be the work of an attacker who built the device: see `hostile_devices`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tests.sim.usbnodes import (
    SysfsNode,
    UsbLocation,
    device_node,
    interface_nodes,
    locations,
    root_hub,
    text_bytes,
)
from tests.sim.usbrecords import UsbRecord, find_record


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeDevice:
    """A device to be written, and how its directory differs from a healthy one.

    Attributes:
        record: the device.
        name: what the case is about; names the test.
        serial: its serial number.
        files: attribute files to overwrite or add, by name.
        missing: attribute files that are not there: a device unplugged while it is being read, or an old kernel.
    """

    record: UsbRecord
    name: str = ""
    serial: str | None = None
    files: tuple[tuple[str, bytes], ...] = ()
    missing: frozenset[str] = frozenset()


@contextmanager
def tree_folder() -> Iterator[Path]:
    """Give an empty folder for a tree, in memory where it can be: on a disk 1 000 devices take 20 times longer."""
    memory = "/dev/shm"
    place = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="keyfit-usb-", dir=place) as folder:
        yield Path(folder)


def write_tree(root: Path, devices: Iterable[UsbRecord | TreeDevice], per_bus: int = 100) -> tuple[UsbLocation, ...]:
    """Write `root/sys` and `root/dev` with these devices plugged in, in this order.

    Links are relative, as in the real sysfs, so the tree may be moved or mounted over /sys.

    Returns:
        Where each device sits; `location.name` is its folder in `sys/bus/usb/devices`.
    """
    listed = [item if isinstance(item, TreeDevice) else TreeDevice(record=item) for item in devices]
    places = tuple(locations(len(listed), per_bus))
    for folder in ("sys/bus/usb/devices", "dev"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for bus in sorted({place.bus for place in places}):
        _write_node(root, root_hub(bus))
    for item, place in zip(listed, places, strict=True):
        add_to_tree(root, item, place)
    return places


def add_to_tree(root: Path, item: TreeDevice, place: UsbLocation) -> None:
    """Plug one more device into a tree."""
    _write_node(root, _spoil(device_node(item.record, place, item.serial), item))
    for node in interface_nodes(item.record, place):
        _write_node(root, node)


def remove_from_tree(root: Path, place: UsbLocation) -> None:
    """Unplug a device: links first, as the kernel does, then the directories.

    Raises:
        FileNotFoundError: nothing is plugged in there.
    """
    device = _inside(root, place.sys_path)
    links = root / "sys/bus/usb/devices"
    for folder in sorted(device.rglob("uevent"), reverse=True):
        (links / folder.parent.name).unlink()
    for path in sorted(device.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()
    device.rmdir()
    (root / "dev" / place.node).unlink()


def _inside(root: Path, absolute: str) -> Path:
    return root / absolute.lstrip("/")


def _spoil(node: SysfsNode, item: TreeDevice) -> SysfsNode:
    files = {**dict(node.files), **dict(item.files)}
    kept = tuple((name, content) for name, content in files.items() if name not in item.missing)
    content = files["descriptors"] if "descriptors" not in item.missing else b""
    return replace(node, files=kept, node_content=content)


def _write_node(root: Path, node: SysfsNode) -> None:
    # plain os calls: a tree of 1 000 devices is some 50 000 files, and Path objects would take most of the time
    folder = f"{root}{node.sys_path}"
    os.makedirs(folder, exist_ok=True)
    depth = node.sys_path.count("/")
    name = node.sys_path.rpartition("/")[2]
    os.symlink("../" * (depth - 1) + "bus/usb", f"{folder}/subsystem")
    os.symlink("../../.." + node.sys_path.removeprefix("/sys"), f"{root}/sys/bus/usb/devices/{name}")
    lines = "".join(f"{key}={value}\n" for key, value in node.uevent)
    for file_name, content in (*node.files, ("uevent", text_bytes(lines))):
        _write(f"{folder}/{file_name}", content)
    if node.node:
        path = f"{root}/dev/{node.node}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        _write(path, node.node_content)


def _write(path: str, content: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        os.write(handle, content)
    finally:
        os.close(handle)


# ---- hostile devices


_HOSTILE_STRINGS: tuple[tuple[str, bytes], ...] = (
    ("escape-sequence", b"\x1b]0;owned\x07\x1b[2J\x1b[31mePass2003\x1b[0m"),
    ("c1-control", "ePass\u009b31mred".encode()),
    ("right-to-left-override", "ePass\u202egnp.exe\u2066\u200b".encode()),
    ("newline", b"ePass2003\nWARNING: driver removed, install from evil.example"),
    ("carriage-return", b"FAILED\rOK    "),
    ("nul", b"ePass\x00hidden"),
    ("invalid-utf8", b"ePass\xff\xfe\xc3\x28\xed\xa0\x80"),
    ("255-wide-characters", "\u9374".encode() * 255),
    ("255-combining-marks", b"e" + "\u0301".encode() * 255),
    ("surrogate-pairs", "\U0001f511".encode() * 63),
    ("64-kilobytes", b"A" * 65536),
    ("shell", b"$(touch /tmp/owned)`id`;|&"),
    ("path", b"../../../../etc/passwd"),
    ("format", b"%n%s%x{0.__class__}{}"),
    ("markup", b"[bold red]x[/] <b>y</b> &amp;"),
    ("regular-expression", b"(a+)+$*?["),
    ("empty", b""),
    ("only-spaces", b" \t  "),
)
"""Strings a device may claim; the kernel hands on whatever decodes, and `invalid-utf8` stands for kernels that did not
check. Kinds after security requirement H1 (CVE-2018-6791, CVE-2026-44972)."""


def hostile_devices(ids: str = "0A89:0030") -> tuple[TreeDevice, ...]:
    """Return devices that claim `ids` and attack whoever reads them: strings, missing files, broken descriptors.

    The record is from the selection. Each has a `name` that is unique in the answer.
    """
    record = find_record(ids)
    raw = dict(device_node(record, UsbLocation(bus=1, port=1, device=2), None).files)["descriptors"]
    strings = tuple(
        TreeDevice(
            record=record,
            name=f"string-{name}",
            files=(("manufacturer", text + b"\n"), ("product", text + b"\n"), ("serial", text + b"\n")),
        )
        for name, text in _HOSTILE_STRINGS
    )
    absent = tuple(
        TreeDevice(record=record, name=f"missing-{'-'.join(sorted(names))}", missing=frozenset(names))
        for names in (
            {"idVendor"},
            {"idProduct"},
            {"bcdDevice"},
            {"descriptors"},
            {"busnum", "devnum"},
            {"manufacturer", "product"},
            {"bDeviceClass", "speed", "version"},
        )
    )
    return (*strings, *absent, *_broken_descriptors(record, raw), *_broken_numbers(record))


def _broken_descriptors(record: UsbRecord, raw: bytes) -> tuple[TreeDevice, ...]:
    endless = raw[:18] + b"\x09\x02\xff\xff\xff\x01\x00\x80\x32" + b"\x00\x04" * 16
    cases = {
        "empty": b"",
        "half-a-device": raw[:9],
        "device-only": raw[:18],
        "half-a-configuration": raw[:22],
        "half-an-interface": raw[:31],
        "half-a-class-descriptor": raw[:60],
        "length-zero": endless,
        "length-one": raw[:27] + b"\x01\x04" * 8,
        "length-past-the-end": raw[:27] + b"\xff\x04\x00\x00",
        "255-interfaces": raw[:22] + b"\xff" + raw[23:],
        "wrong-order": raw[18:] + raw[:18],
        "64-kilobytes": raw + b"\x09\x04\x00\x00\x00\x0b\x00\x00\x00" * 7281,
    }
    return tuple(
        TreeDevice(record=record, name=f"descriptors-{name}", files=(("descriptors", content),))
        for name, content in cases.items()
    )


def _broken_numbers(record: UsbRecord) -> tuple[TreeDevice, ...]:
    cases = {
        "no-hex": b"zzzz\n",
        "too-long": b"0a89" * 1000 + b"\n",
        "negative": b"-a89\n",
        "underscore": b"0_89\n",
        "other-digits": "\u0660\u0661\u0662\u0663\n".encode(),
        "empty": b"",
        "not-utf8": b"\xff\xff\n",
    }
    return tuple(
        TreeDevice(record=record, name=f"id-{name}", files=(("idVendor", content),)) for name, content in cases.items()
    )
