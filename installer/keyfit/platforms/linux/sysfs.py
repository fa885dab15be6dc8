"""The USB bus as the kernel shows it in sysfs: no library, no permission, four small reads a device.

Source of the layout: Linux, Documentation/ABI/stable/sysfs-bus-usb and testing/sysfs-bus-usb. The `serial` file is never
opened.
"""

import os
from typing import TYPE_CHECKING

from keyfit.core.descriptors import parse
from keyfit.core.text import clean
from keyfit.model.usb import CLASS_HUB, UsbDevice
from keyfit.platforms.linux.posix import posix

if TYPE_CHECKING:
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
        self._seen: frozenset[tuple[str, int]] | None = None
        self._live = root == "/sys"

    def devices(self) -> tuple[UsbDevice, ...]:
        """Every device but hubs, sorted by bus path. A device that goes away while it is read is left out."""
        present = self._present()
        self._seen = frozenset((d.bus_path, d.device_number) for d in present)
        return tuple(sorted(present, key=_place))

    def wait_for_change(self, timeout_s: float) -> bool:
        """Block until the kernel reports a USB device added or removed; without its events, until a scan differs.

        What happened since the last call of `devices` counts as well, so nothing falls between the two.
        """
        if self._watch is None:
            from keyfit.platforms.linux.uevents import UeventWatch

            self._watch = UeventWatch(live=self._live)
        if self._seen is not None:
            self._watch.seen(self._seen)
            self._seen = None
        return self._watch.wait(self._scan, timeout_s, RESCAN_S)

    def _present(self) -> list[UsbDevice]:
        try:
            names = os.listdir(self._folder)  # noqa: PTH208 - names only, no objects: this is the fast path
        except OSError:
            return []
        found = (self._device(name) for name in names if ":" not in name)
        return [device for device in found if device is not None]

    def _scan(self) -> frozenset[tuple[str, int]]:
        """What is plugged in, by place and number: a token that was pulled out and put back has a new number."""
        return frozenset((d.bus_path, d.device_number) for d in self._present())

    def _device(self, name: str) -> UsbDevice | None:
        """One device, read relative to its directory: sysfs links are long, and each would be walked four times."""
        try:
            folder = os.open(f"{self._folder}/{name}", posix.O_PATH | posix.O_CLOEXEC)
        except OSError:
            return None
        try:
            found = parse(_read("descriptors", MAX_DESCRIPTORS, folder))
            if found is None or found.b_device_class == CLASS_HUB:
                return None
            return UsbDevice(
                id_vendor=found.id_vendor,
                id_product=found.id_product,
                bcd_device=found.bcd_device,
                b_device_class=found.b_device_class,
                manufacturer=_text("manufacturer", folder) if found.i_manufacturer else "",
                product=_text("product", folder) if found.i_product else "",
                bus_path=name,
                device_number=_number("devnum", folder),
                interfaces=found.interfaces,
            )
        finally:
            os.close(folder)


def _place(device: UsbDevice) -> tuple[int, ...]:
    """Sort key: "2-1.10" after "2-1.9"."""
    return tuple(int(part) for part in device.bus_path.replace("-", ".").split(".") if part.isdecimal())


def _text(name: str, folder: int) -> str:
    # without the newline that sysfs adds, most strings are clean at first sight
    data = _read(name, MAX_TEXT, folder).removesuffix(b"\n")
    return clean(data.decode("utf-8", "replace")) if data else ""


def _number(name: str, folder: int) -> int:
    digits = _read(name, 8, folder).strip()
    return int(digits) if digits.isdigit() else 0


def _read(name: str, limit: int, folder: int) -> bytes:
    try:
        handle = os.open(name, os.O_RDONLY | posix.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return b""
    try:
        return os.read(handle, limit)
    except OSError:
        return b""
    finally:
        os.close(handle)
