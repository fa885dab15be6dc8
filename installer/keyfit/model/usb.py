"""A device on the USB bus, in the words of the USB specification."""

from msgspec import Struct

CLASS_SMART_CARD = 0x0B
"""USB-IF class code of CCID and ICCD devices (USB CCID specification 1.1, section 4.1)."""
CLASS_HID = 0x03
CLASS_MASS_STORAGE = 0x08
CLASS_HUB = 0x09
CLASS_VENDOR = 0xFF
"""USB-IF class codes (usb.org, Defined Class Codes)."""


class UsbInterface(Struct, frozen=True, kw_only=True):
    """One interface of the active configuration, alternate setting 0. Integers as in the descriptor."""

    b_interface_number: int
    b_interface_class: int
    b_interface_sub_class: int
    b_interface_protocol: int


class UsbDevice(Struct, frozen=True, kw_only=True):
    """A device on the bus. Strings are already made safe to show (see `core.text.clean`); the serial number is
    never read, so that it cannot leak.

    Attributes:
        bus_path: bus number and port path, for example "1-1.4"; stays the same while the device stays plugged in.
        device_number: the number the host gave it at this plugging; 0 if unknown. A replug changes it.
    """

    id_vendor: int
    id_product: int
    bcd_device: int
    b_device_class: int = 0
    manufacturer: str = ""
    product: str = ""
    bus_path: str = ""
    device_number: int = 0
    interfaces: tuple[UsbInterface, ...] = ()

    @property
    def ids(self) -> str:
        """Vendor and product id as users read it: "096E:0807"."""
        return f"{self.id_vendor:04X}:{self.id_product:04X}"

    @property
    def hardware_id(self) -> str:
        """The Windows form (learn.microsoft.com, Standard USB Identifiers)."""
        return f"USB\\VID_{self.id_vendor:04X}&PID_{self.id_product:04X}&REV_{self.bcd_device:04X}"

    def has_class(self, b_interface_class: int) -> bool:
        """True if any interface is of this class."""
        return any(i.b_interface_class == b_interface_class for i in self.interfaces)
