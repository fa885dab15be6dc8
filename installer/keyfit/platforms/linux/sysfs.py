"""The USB bus as the kernel shows it in sysfs: no library, no permission, three small reads a device.

Source of the layout: Linux, Documentation/ABI/stable/sysfs-bus-usb and testing/sysfs-bus-usb. The `serial` file is never
opened.
"""

import os

from keyfit.core.descriptors import parse
from keyfit.core.text import clean
from keyfit.model.usb import CLASS_HUB, UsbDevice
from keyfit.platforms.linux.posix import posix
from keyfit.platforms.linux.uevents import UeventWatch

DEVICES = "bus/usb/devices"
MAX_DESCRIPTORS = 65_553
"""A device descriptor and one configuration, whose wTotalLength has 16 bits."""
MAX_TEXT = 1024
"""A USB string has at most 126 UTF-16 units, in UTF-8 at most three bytes each."""
RESCAN_S = 0.2
"""How often the bus is looked at where the kernel's events cannot be heard (for example in a container)."""


class SysfsUsbBus:
    """The bus below `root` (tests give another tree)."""

    def __init__(self, root: str = "/sys") -> None:
        self._folder = f"{root}/{DEVICES}"
        self._watch: UeventWatch | None = None
        self._live = root == "/sys"

    def devices(self) -> tuple[UsbDevice, ...]:
        """Every device but hubs, sorted by bus path. A device that goes away while it is read is left out."""
        try:
            names = os.listdir(self._folder)  # noqa: PTH208 - names only, no objects: this is the fast path
        except OSError:
            return ()
        found = [self._device(name) for name in names if ":" not in name]
        return tuple(sorted((d for d in found if d is not None), key=_place))

    def wait_for_change(self, timeout_s: float) -> bool:
        """Block until the kernel reports a USB device added or removed; without its events, until a scan differs."""
        if self._watch is None:
            self._watch = UeventWatch(live=self._live)
        if self._watch.live:
            return self._watch.wait(timeout_s)
        return self._watch.wait_by_scanning(lambda: _keys(self._folder), timeout_s, RESCAN_S)

    def _device(self, name: str) -> UsbDevice | None:
        folder = f"{self._folder}/{name}"
        found = parse(_read(f"{folder}/descriptors", MAX_DESCRIPTORS))
        if found is None or found.b_device_class == CLASS_HUB:
            return None
        number = _read(f"{folder}/devnum", 8).strip()
        return UsbDevice(
            id_vendor=found.id_vendor,
            id_product=found.id_product,
            bcd_device=found.bcd_device,
            b_device_class=found.b_device_class,
            manufacturer=_text(f"{folder}/manufacturer"),
            product=_text(f"{folder}/product"),
            bus_path=name,
            device_number=int(number) if number.isdigit() else 0,
            interfaces=found.interfaces,
        )


def _place(device: UsbDevice) -> tuple[int, ...]:
    """Sort key: "2-1.10" after "2-1.9"."""
    return tuple(int(part) for part in device.bus_path.replace("-", ".").split(".") if part.isdecimal())


def _text(path: str) -> str:
    data = _read(path, MAX_TEXT)
    return clean(data.decode("utf-8", "replace")) if data else ""


def _read(path: str, limit: int) -> bytes:
    try:
        handle = os.open(path, os.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(handle, limit)
    except OSError:
        return b""
    finally:
        os.close(handle)


def _keys(folder: str) -> frozenset[tuple[str, bytes]]:
    try:
        names = [n for n in os.listdir(folder) if ":" not in n]  # noqa: PTH208
    except OSError:
        return frozenset()
    return frozenset((name, _read(f"{folder}/{name}/devnum", 8)) for name in names)
