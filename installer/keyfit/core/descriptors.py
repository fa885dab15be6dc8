"""Reads USB descriptors: the bytes of sysfs `descriptors`, that is the device descriptor and the configurations after it.

The bytes come from a device, so nothing in them is believed: what is cut off or makes no sense ends the reading, and what
was whole until then is returned (security H2).
"""

from msgspec import Struct

from keyfit.model.usb import UsbInterface

DEVICE_LENGTH = 18
"""Length of a device descriptor (USB 2.0, table 9-8)."""
CONFIGURATION_LENGTH = 9
"""Length of a configuration descriptor (USB 2.0, table 9-10)."""
INTERFACE_LENGTH = 9
"""Length of an interface descriptor (USB 2.0, table 9-12)."""
TYPE_CONFIGURATION = 2
TYPE_INTERFACE = 4
"""bDescriptorType values (USB 2.0, table 9-5)."""
MAX_INTERFACES = 32
"""The standard allows 256; no token comes near, and the limit bounds the work."""


class Descriptors(Struct, frozen=True, kw_only=True):
    """The fields of the device descriptor that matter, and the interfaces of the first configuration.

    `i_manufacturer` and `i_product` number the strings; 0 means that there is none (USB 2.0, table 9-8).
    """

    id_vendor: int
    id_product: int
    bcd_device: int
    b_device_class: int
    i_manufacturer: int
    i_product: int
    interfaces: tuple[UsbInterface, ...]


def parse(data: bytes) -> Descriptors | None:
    """The descriptors in `data`, or None if not even the device descriptor is whole."""
    if len(data) < DEVICE_LENGTH:
        return None
    return Descriptors(
        id_vendor=data[8] | data[9] << 8,
        id_product=data[10] | data[11] << 8,
        bcd_device=data[12] | data[13] << 8,
        b_device_class=data[4],
        i_manufacturer=data[14],
        i_product=data[15],
        interfaces=interfaces(data[DEVICE_LENGTH:]),
    )


def interfaces(configuration: bytes) -> tuple[UsbInterface, ...]:
    """The interfaces (alternate setting 0) of the configuration that `configuration` begins with."""
    if len(configuration) < CONFIGURATION_LENGTH or configuration[1] != TYPE_CONFIGURATION:
        return ()
    end = min(len(configuration), configuration[2] | configuration[3] << 8)
    found: dict[int, UsbInterface] = {}
    at = configuration[0]
    while at >= CONFIGURATION_LENGTH and at + 2 <= end and len(found) < MAX_INTERFACES:
        length, kind = configuration[at], configuration[at + 1]
        if length < 2 or at + length > end:
            break
        if kind == TYPE_INTERFACE and length >= INTERFACE_LENGTH and configuration[at + 3] == 0:
            number = configuration[at + 2]
            found.setdefault(number, UsbInterface(
                b_interface_number=number,
                b_interface_class=configuration[at + 5],
                b_interface_sub_class=configuration[at + 6],
                b_interface_protocol=configuration[at + 7],
            ))
        at += length
    return tuple(found[number] for number in sorted(found))
