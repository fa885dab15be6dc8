"""The USB bus through libusb (pyusb): the portable path, for systems whose own interface has no adaptor yet.

It gives what `platforms.linux.sysfs` gives, with one difference: strings need the device to be opened, so without permission
they are empty. libusb does not tell the port path on every system; then the bus path is "<bus>-0.<address>".
"""

import time
from typing import Any

from keyfit.core.text import clean
from keyfit.errors import HostError
from keyfit.model.usb import CLASS_HUB, UsbDevice, UsbInterface

RESCAN_S = 0.3


class LibusbUsbBus:
    """The bus by libusb. Every scan uses a fresh context: some builds of libusb never see later changes in an old one."""

    def __init__(self) -> None:
        self._last: frozenset[tuple[str, int]] | None = None

    def devices(self) -> tuple[UsbDevice, ...]:
        """Every device but hubs, sorted by bus path.

        Raises:
            HostError: libusb is not installed.
        """
        import usb.core

        backend = _backend()
        found = usb.core.find(find_all=True, backend=backend)
        devices = [_device(d) for d in found if d.bDeviceClass != CLASS_HUB]
        return tuple(sorted(devices, key=lambda d: [int(n) for n in d.bus_path.replace("-", ".").split(".")]))

    def wait_for_change(self, timeout_s: float) -> bool:
        """Scan again and again until the set of devices differs."""
        if self._last is None:
            self._last = self._keys()
        end = time.monotonic() + timeout_s
        while True:
            now = self._keys()
            if now != self._last:
                self._last = now
                return True
            left = end - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(RESCAN_S, left))

    def _keys(self) -> frozenset[tuple[str, int]]:
        return frozenset((d.bus_path, d.device_number) for d in self.devices())


def _backend() -> Any:
    import usb.backend.libusb1 as libusb1

    backend = libusb1.get_backend()
    if backend is None:
        raise HostError("no-libusb", "The library libusb 1.0 is not installed.",
                        hint="Install it (Debian: libusb-1.0-0).")
    library = getattr(libusb1, "_lib", None)
    make = getattr(libusb1, "_LibUSB", None)
    return make(library) if make is not None and library is not None else backend


def _device(device: Any) -> UsbDevice:
    ports = ".".join(str(p) for p in device.port_numbers or ())
    return UsbDevice(
        id_vendor=device.idVendor,
        id_product=device.idProduct,
        bcd_device=device.bcdDevice,
        b_device_class=device.bDeviceClass,
        manufacturer=_string(device, device.iManufacturer),
        product=_string(device, device.iProduct),
        bus_path=f"{device.bus}-{ports}" if ports else f"{device.bus}-0.{device.address}",
        device_number=device.address,
        interfaces=_interfaces(device),
    )


def _interfaces(device: Any) -> tuple[UsbInterface, ...]:
    import usb.core

    try:
        configuration = device[0]
    except (usb.core.USBError, IndexError):
        return ()
    found = {
        i.bInterfaceNumber: UsbInterface(
            b_interface_number=i.bInterfaceNumber, b_interface_class=i.bInterfaceClass,
            b_interface_sub_class=i.bInterfaceSubClass, b_interface_protocol=i.bInterfaceProtocol)
        for i in configuration if i.bAlternateSetting == 0
    }
    return tuple(found[number] for number in sorted(found))


def _string(device: Any, index: int) -> str:
    """The string with this index; empty if there is none or the device may not be opened."""
    if not index:
        return ""
    import usb.core
    import usb.util

    try:
        return clean(usb.util.get_string(device, index) or "")
    except (usb.core.USBError, ValueError, NotImplementedError, UnicodeError):
        return ""
