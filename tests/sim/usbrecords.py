"""Recorded USB devices, and what a kernel would show of them.

A record is one line of JSON: what the CCID driver's authors wrote down of a real device (ids, strings, interface
descriptors, the 54-byte CCID descriptor). The records do not hold the serial number, the endpoint addresses, the
device class, bcdUSB, the power figures and the interfaces that are not for smart cards. `descriptors` fills in
plausible values for those, and nothing in the tests may depend on them being true of the real device.

Only the standard library is imported: the fake bus loads this file in the system's own Python as well.
"""

from __future__ import annotations

import json
import os
import re
import struct
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SELECTION_PATH = Path(__file__).resolve().parent.parent / "data" / "usb" / "readers.jsonl"
"""The selection of records that lies in the checkout; its README names the source."""

CORPUS_VARIABLE = "KEYFIT_CORPUS"
"""Environment variable naming a larger file of the same form."""

CLASS_SMART_CARD = 0x0B
CCID_DESCRIPTOR_LENGTH = 54
"""Length of the CCID class descriptor (USB CCID specification 1.1, section 5.1)."""

HOST_CONTROLLER = "/sys/devices/pci0000:00/0000:00:14.0"
"""Where PCs have their xHCI controller; the fake buses hang below it."""

USB_DEVICE_MAJOR = 189
"""Character device major of usbfs nodes (Linux, Documentation/admin-guide/devices.txt)."""

MAX_DEVICES_PER_BUS = 126
"""A USB address has seven bits; 0 is for new devices, 1 is the root hub (USB 2.0, section 9.4.6)."""

_BULK, _INTERRUPT, _IN = 2, 3, 0x80
_ROOT_HUB_DESCRIPTORS = bytes.fromhex(
    "12010002090001406b1d02001506030201010902190001010 0e0000904000001090000000705810304000c".replace(" ", "")
)
"""Linux's own root hub: 1d6b:0002, one interrupt endpoint (linux/drivers/usb/core/hcd.c, usb2_rh_dev_descriptor)."""


class CorpusWarning(UserWarning):
    """Says that a test over "all" records ran over the selection only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsbInterfaceRecord:
    """One interface descriptor and the class descriptor that followed it."""

    b_interface_number: int
    b_alternate_setting: int = 0
    b_num_endpoints: int
    b_interface_class: int
    b_interface_sub_class: int = 0
    b_interface_protocol: int = 0
    name: str | None = None
    class_descriptor: bytes = b""

    @property
    def bulk(self) -> bool:
        """True if the interface talks by bulk transfers; ICCD versions A and B use the control pipe."""
        return self.b_num_endpoints >= 2


@dataclass(frozen=True, slots=True, kw_only=True)
class UsbRecord:
    """A recorded device. Text may hold lone surrogates: they stand for bytes that are no UTF-8 (PEP 383)."""

    id_vendor: int
    id_product: int
    bcd_device: int
    manufacturer: str | None
    product: str | None
    interfaces: tuple[UsbInterfaceRecord, ...]
    kind: str = "reader"
    source: str = ""

    @property
    def ids(self) -> str:
        """Vendor and product id as users read it: "096E:0807"."""
        return f"{self.id_vendor:04X}:{self.id_product:04X}"

    @property
    def has_ccid(self) -> bool:
        """True if a standard smart-card interface is there."""
        return any(i.b_interface_class == CLASS_SMART_CARD for i in self.interfaces)

    @classmethod
    def from_json(cls, line: str) -> UsbRecord:
        """Read one line of a corpus file.

        Raises:
            ValueError: not JSON, or a number is malformed.
            KeyError: a field is missing.
        """
        raw: dict[str, Any] = json.loads(line)
        return cls(
            id_vendor=int(raw["vid"], 16),
            id_product=int(raw["pid"], 16),
            bcd_device=int(raw["bcdDevice"], 16),
            manufacturer=raw["manufacturer"],
            product=raw["product"],
            interfaces=tuple(_interface_from_json(item) for item in raw["interfaces"]),
            kind=raw.get("kind", "reader"),
            source=raw.get("file", ""),
        )

    def to_json(self) -> str:
        """Return the record as one line in the form that `from_json` reads."""
        return json.dumps(
            {
                "vid": f"{self.id_vendor:04x}",
                "pid": f"{self.id_product:04x}",
                "bcdDevice": f"{self.bcd_device:04x}",
                "manufacturer": self.manufacturer,
                "product": self.product,
                "kind": self.kind,
                "file": self.source,
                "interfaces": [_interface_to_json(item) for item in self.interfaces],
            }
        )


def _interface_from_json(raw: dict[str, Any]) -> UsbInterfaceRecord:
    return UsbInterfaceRecord(
        b_interface_number=raw["number"],
        b_alternate_setting=raw.get("alternate", 0),
        b_num_endpoints=raw["endpoints"],
        b_interface_class=raw["class"],
        b_interface_sub_class=raw["subclass"],
        b_interface_protocol=raw["protocol"],
        name=raw.get("name"),
        class_descriptor=bytes.fromhex(raw["ccid"]),
    )


def _interface_to_json(item: UsbInterfaceRecord) -> dict[str, Any]:
    return {
        "number": item.b_interface_number,
        "alternate": item.b_alternate_setting,
        "endpoints": item.b_num_endpoints,
        "class": item.b_interface_class,
        "subclass": item.b_interface_sub_class,
        "protocol": item.b_interface_protocol,
        "name": item.name,
        "ccid": item.class_descriptor.hex(),
    }


# ---- where records come from


def corpus_path() -> Path:
    """Return the largest file of records at hand: the one named by KEYFIT_CORPUS, else the selection.

    Falling back is said aloud by a CorpusWarning, which pytest prints in its summary.

    Raises:
        FileNotFoundError: KEYFIT_CORPUS names a file that is not there.
    """
    named = os.environ.get(CORPUS_VARIABLE)
    if named:
        path = Path(named)
        if not path.is_file():
            raise FileNotFoundError(f"{CORPUS_VARIABLE} names {path}, which is not a file")
        return path
    warnings.warn(f"{CORPUS_VARIABLE} is not set: using the selection {SELECTION_PATH}", CorpusWarning, stacklevel=2)
    return SELECTION_PATH


def load_records(path: Path = SELECTION_PATH) -> tuple[UsbRecord, ...]:
    """Read a file of records, one JSON object a line."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return tuple(UsbRecord.from_json(line) for line in lines if line.strip())


def find_record(ids: str, bcd_device: int | None = None, records: Iterable[UsbRecord] | None = None) -> UsbRecord:
    """Return the first record with these ids ("0A89:0030"), by default from the selection.

    Raises:
        LookupError: there is none.
    """
    for record in load_records() if records is None else records:
        if record.ids == ids.upper() and bcd_device in (None, record.bcd_device):
            return record
    raise LookupError(f"no record of {ids}" + (f" with bcdDevice {bcd_device:04x}" if bcd_device is not None else ""))


# ---- descriptors


def descriptors(record: UsbRecord, serial: bool) -> bytes:
    """Return device and configuration descriptor, as in /sys/bus/usb/devices/*/descriptors.

    Args:
        record: the device.
        serial: whether the device has a serial number (string index 3).

    Layout: USB 2.0, sections 9.6.1 (device), 9.6.3 (configuration), 9.6.5 (interface), 9.6.6 (endpoint).
    """
    body = bytearray()
    numbers = iter(range(1, 16))
    for item in record.interfaces:
        body += struct.pack(
            "<9B",
            9,
            4,
            item.b_interface_number,
            item.b_alternate_setting,
            item.b_num_endpoints,
            item.b_interface_class,
            item.b_interface_sub_class,
            item.b_interface_protocol,
            0,
        )
        body += item.class_descriptor
        for address, attributes, size, interval in _endpoints(item.b_num_endpoints, numbers):
            body += struct.pack("<4BHB", 7, 5, address, attributes, size, interval)
    configuration = struct.pack("<BBHBBBBB", 9, 2, 9 + len(body), len(record.interfaces), 1, 0, 0x80, 50)
    device = struct.pack(
        "<BBHBBBBHHHBBBB",
        18,
        1,
        0x0200,
        0,
        0,
        0,
        64,
        record.id_vendor,
        record.id_product,
        record.bcd_device,
        1 if record.manufacturer is not None else 0,
        2 if record.product is not None else 0,
        3 if serial else 0,
        1,
    )
    return device + configuration + bytes(body)


def _endpoints(count: int, numbers: Iterator[int]) -> Iterator[tuple[int, int, int, int]]:
    """Yield (address, attributes, packet size, interval): a bulk pair from two on, an interrupt pipe if odd."""
    if count >= 2:
        number = next(numbers)
        yield number, _BULK, 64, 0
        yield _IN | number, _BULK, 64, 0
    if count % 2:
        yield _IN | next(numbers), _INTERRUPT, 8, 24


# ---- the place on the bus, and what the kernel shows there


@dataclass(frozen=True, slots=True, kw_only=True)
class UsbLocation:
    """Where a device sits: bus number, port of the root hub, and the address the host gave it."""

    bus: int
    port: int
    device: int

    @property
    def name(self) -> str:
        """The kernel's name: "1-4", or "usb1" for the root hub."""
        return f"{self.bus}-{self.port}" if self.port else f"usb{self.bus}"

    @property
    def sys_path(self) -> str:
        """Absolute path of the device below /sys/devices."""
        return f"{HOST_CONTROLLER}/usb{self.bus}" + (f"/{self.name}" if self.port else "")

    @property
    def node(self) -> str:
        """The usbfs node, relative to /dev."""
        return f"bus/usb/{self.bus:03d}/{self.device:03d}"

    @property
    def minor(self) -> int:
        """Minor number of the node (linux/drivers/usb/core/usb.c: 128 devices a bus)."""
        return (self.bus - 1) * 128 + self.device - 1


def locations(count: int, per_bus: int = 100) -> Iterator[UsbLocation]:
    """Yield `count` free places, `per_bus` to a bus."""
    for index in range(count):
        port = index % per_bus + 1
        yield UsbLocation(bus=index // per_bus + 1, port=port, device=port + 1)


Properties = tuple[tuple[str, str], ...]
Files = tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SysfsNode:
    """One directory below /sys/devices.

    Attributes:
        sys_path: absolute path.
        node: usbfs node relative to /dev, or "" if it has none.
        node_content: what reading the node gives: the descriptors.
        uevent: what the kernel's uevent file holds.
        udev: properties that udev would add from its rules.
        files: the other attribute files, by name.
    """

    sys_path: str
    node: str = ""
    node_content: bytes = b""
    uevent: Properties
    udev: Properties = ()
    files: Files


def text_bytes(text: str) -> bytes:
    """Encode recorded text as sysfs would hold it; lone surrogates give back their byte."""
    return text.encode("utf-8", "surrogateescape")


def _lines(**values: object) -> Files:
    return tuple((name, text_bytes(f"{value}\n")) for name, value in values.items() if value is not None)


def _udev_word(text: str | None, otherwise: str) -> str:
    # udev replaces what is not in its white list (systemd, udev-util.c, udev_replace_chars)
    return re.sub(r"[^#+\-.:=@_0-9A-Za-z]", "_", text or "") or otherwise


def root_hub(bus: int) -> SysfsNode:
    """Return the root hub of a bus, which lsusb -t and the kernel's naming need."""
    where = UsbLocation(bus=bus, port=0, device=1)
    return SysfsNode(
        sys_path=where.sys_path,
        node=where.node,
        node_content=_ROOT_HUB_DESCRIPTORS,
        uevent=_device_uevent(where, "1d6b/2/615", "9/0/1"),
        files=(
            *_device_files(where, _ROOT_HUB_DESCRIPTORS, speed="480", power="0mA"),
            *_lines(manufacturer="Linux xhci-hcd", product="xHCI Host Controller", serial="0000:00:14.0"),
        ),
    )


def device_node(record: UsbRecord, where: UsbLocation, serial: str | None = None) -> SysfsNode:
    """Return the directory of a device. The serial number is the caller's: records hold none."""
    raw = descriptors(record, serial is not None)
    return SysfsNode(
        sys_path=where.sys_path,
        node=where.node,
        node_content=raw,
        uevent=_device_uevent(where, _product(record), "0/0/0"),
        udev=_udev_properties(record, serial),
        files=(
            *_device_files(where, raw, speed="12", power="100mA"),
            *_lines(manufacturer=record.manufacturer, product=record.product, serial=serial),
        ),
    )


def interface_nodes(record: UsbRecord, where: UsbLocation) -> tuple[SysfsNode, ...]:
    """Return the directories of a device's interfaces ("1-4:1.0")."""
    return tuple(_interface_node(record, where, item) for item in record.interfaces)


def _product(record: UsbRecord) -> str:
    return f"{record.id_vendor:x}/{record.id_product:x}/{record.bcd_device:x}"


def _device_uevent(where: UsbLocation, product: str, device_type: str) -> Properties:
    return (
        ("MAJOR", str(USB_DEVICE_MAJOR)),
        ("MINOR", str(where.minor)),
        ("DEVNAME", where.node),
        ("DEVTYPE", "usb_device"),
        ("DRIVER", "usb"),
        ("PRODUCT", product),
        ("TYPE", device_type),
        ("BUSNUM", f"{where.bus:03d}"),
        ("DEVNUM", f"{where.device:03d}"),
    )


def _udev_properties(record: UsbRecord, serial: str | None) -> Properties:
    vendor, model = f"{record.id_vendor:04x}", f"{record.id_product:04x}"
    classes = "".join(
        f"{i.b_interface_class:02x}{i.b_interface_sub_class:02x}{i.b_interface_protocol:02x}:" for i in record.interfaces
    )
    found = [
        ("ID_BUS", "usb"),
        ("ID_VENDOR_ID", vendor),
        ("ID_MODEL_ID", model),
        ("ID_REVISION", f"{record.bcd_device:04x}"),
        ("ID_VENDOR", _udev_word(record.manufacturer, vendor)),
        ("ID_MODEL", _udev_word(record.product, model)),
        ("ID_USB_INTERFACES", f":{classes}"),
    ]
    if serial:
        found.append(("ID_SERIAL_SHORT", _udev_word(serial, "")))
    return tuple(found)


def _device_files(where: UsbLocation, raw: bytes, *, speed: str, power: str) -> Files:
    """Attribute files as linux/drivers/usb/core/sysfs.c formats them."""
    (device_class, sub_class, protocol) = raw[4:7]
    vendor, product, release = struct.unpack_from("<HHH", raw, 8)
    return (
        *_lines(
            busnum=where.bus,
            devnum=where.device,
            devpath=where.port,
            dev=f"{USB_DEVICE_MAJOR}:{where.minor}",
            idVendor=f"{vendor:04x}",
            idProduct=f"{product:04x}",
            bcdDevice=f"{release:04x}",
            bDeviceClass=f"{device_class:02x}",
            bDeviceSubClass=f"{sub_class:02x}",
            bDeviceProtocol=f"{protocol:02x}",
            bConfigurationValue=1,
            bNumConfigurations=1,
            bNumInterfaces=f"{raw[22]:2d}",
            bMaxPacketSize0=raw[7],
            bMaxPower=power,
            bmAttributes=f"{raw[25]:02x}",
            maxchild=0 if where.port else MAX_DEVICES_PER_BUS,
            speed=speed,
            version=" 2.00",
            rx_lanes=1,
            tx_lanes=1,
            urbnum=0,
            removable="removable" if where.port else "unknown",
        ),
        ("descriptors", raw),
    )


def _interface_node(record: UsbRecord, where: UsbLocation, item: UsbInterfaceRecord) -> SysfsNode:
    alias = (
        f"usb:v{record.id_vendor:04X}p{record.id_product:04X}d{record.bcd_device:04X}dc00dsc00dp00"
        f"ic{item.b_interface_class:02X}isc{item.b_interface_sub_class:02X}"
        f"ip{item.b_interface_protocol:02X}in{item.b_interface_number:02X}"
    )
    triple = f"{item.b_interface_class}/{item.b_interface_sub_class}/{item.b_interface_protocol}"
    return SysfsNode(
        sys_path=f"{where.sys_path}/{where.name}:1.{item.b_interface_number}",
        uevent=(
            ("DEVTYPE", "usb_interface"),
            ("PRODUCT", _product(record)),
            ("TYPE", "0/0/0"),
            ("INTERFACE", triple),
            ("MODALIAS", alias),
        ),
        files=_lines(
            bInterfaceNumber=f"{item.b_interface_number:02x}",
            bAlternateSetting=f"{item.b_alternate_setting:2d}",
            bNumEndpoints=f"{item.b_num_endpoints:02x}",
            bInterfaceClass=f"{item.b_interface_class:02x}",
            bInterfaceSubClass=f"{item.b_interface_sub_class:02x}",
            bInterfaceProtocol=f"{item.b_interface_protocol:02x}",
            modalias=alias,
            interface=item.name,
        ),
    )
