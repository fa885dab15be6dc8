"""What a Linux kernel shows of a USB device: its place on the bus, its directories in sysfs, its node in /dev.

One description serves both fakes: `umockdev_blocks` turns it into the text that umockdev loads, `sysfstree` into
plain files. Only the standard library is imported: the fake bus loads this file in the system's own Python as well.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from tests.sim.usbrecords import UsbInterfaceRecord, UsbRecord, descriptors

HOST_CONTROLLER = "/sys/devices/pci0000:00/0000:00:14.0"
"""Where PCs have their xHCI controller; the fake buses hang below it."""

USB_DEVICE_MAJOR = 189
"""Character device major of usbfs nodes (Linux, Documentation/admin-guide/devices.txt)."""

MAX_DEVICES_PER_BUS = 126
"""A USB address has seven bits; 0 is for new devices, 1 is the root hub (USB 2.0, section 9.4.6)."""

_ROOT_HUB_DESCRIPTORS = bytes.fromhex(
    "12010002090001406b1d020015060302010109021900010100e0000904000001090000000705810304000c"
)
"""Linux's own root hub: 1d6b:0002, one interrupt endpoint (linux/drivers/usb/core/hcd.c, usb2_rh_dev_descriptor)."""


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
        f"{i.b_interface_class:02x}{i.b_interface_sub_class:02x}{i.b_interface_protocol:02x}:"
        for i in record.interfaces
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


# ---- umockdev's text form


def umockdev_blocks(record: UsbRecord, where: UsbLocation, serial: str | None = None) -> tuple[str, ...]:
    """Return the device as umockdev device records: the device itself, then its interfaces.

    umockdev parses a text in time quadratic to its length, hence one text per directory.
    Form: https://github.com/martinpitt/umockdev, README.rst, "Device record".
    """
    nodes = (device_node(record, where, serial), *interface_nodes(record, where))
    return tuple(umockdev_block(node) for node in nodes)


def umockdev_text(record: UsbRecord, where: UsbLocation, serial: str | None = None) -> str:
    """Return `umockdev_blocks` as one text, for umockdev-run --device."""
    return "".join(umockdev_blocks(record, where, serial))


def umockdev_block(node: SysfsNode) -> str:
    """Return one directory as a umockdev device record.

    Attribute files are written in hexadecimal ("H:"), which also carries what is not UTF-8.
    """
    lines = [f"P: {node.sys_path.removeprefix('/sys')}"]
    if node.node:
        # upper case is required here by umockdev, unlike in "H:" lines
        lines.append(f"N: {node.node}={node.node_content.hex().upper()}")
    lines.append("E: SUBSYSTEM=usb")
    for name, value in (*node.uevent, *node.udev):
        # udev's database, unlike the kernel's uevent file, has the node with its directory
        lines.append(f"E: {name}=/dev/{value}" if name == "DEVNAME" else f"E: {name}={value}")
    lines.extend(f"H: {name}={content.hex()}" for name, content in node.files)
    return "\n".join(lines) + "\n\n"
