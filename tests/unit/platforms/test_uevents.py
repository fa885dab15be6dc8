"""Which messages count as a USB device that came or went."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyfit.platforms.linux.uevents import is_usb_device

PROPERTIES = (b"ACTION=add", b"DEVPATH=/devices/pci0000:00/0000:00:14.0/usb1/1-1", b"SUBSYSTEM=usb",
              b"DEVTYPE=usb_device", b"PRODUCT=a89/30/100")


def kernel(*properties: bytes) -> bytes:
    """As lib/kobject_uevent.c writes it: a summary, then the properties, each ended by NUL."""
    return b"\0".join((b"add@/devices/pci0000:00/0000:00:14.0/usb1/1-1", *properties, b""))


def udev(*properties: bytes, magic: int = 0xFEEDCAFE, bloom: bytes = b"\0\0\0\0") -> bytes:
    """As sd-device's monitor writes it: header, four filter words, then the properties."""
    body = b"\0".join((*properties, b""))
    words = b"\x8d\xa5\x10\xc8" + b"\x31\xb7\xde\xe1" + b"\0\0\0\0" + bloom
    return struct.pack("=8s", b"libudev") + struct.pack(">I", magic) + struct.pack("=3I", 40, 40, len(body)) + words + body


@pytest.mark.parametrize("message", [kernel, udev], ids=["kernel", "udev"])
@pytest.mark.parametrize("action", [b"add", b"remove", b"bind"])
def test_a_device_that_comes_or_goes_counts(message: object, action: bytes) -> None:
    assert callable(message)
    assert is_usb_device(message(b"ACTION=" + action, *PROPERTIES[1:]))


@pytest.mark.parametrize("first", range(len(PROPERTIES)))
def test_whatever_udev_writes_first_is_not_mixed_up_with_its_header(first: int) -> None:
    turned = PROPERTIES[first:] + PROPERTIES[:first]

    assert is_usb_device(udev(*turned, bloom=b"\x01\x02\x03\x04"))


@pytest.mark.parametrize("changed", [
    (b"SUBSYSTEM=usb", b"SUBSYSTEM=block"), (b"DEVTYPE=usb_device", b"DEVTYPE=usb_interface"),
    (b"ACTION=add", b"ACTION=change"), (b"SUBSYSTEM=usb", b"XSUBSYSTEM=usb"), (b"SUBSYSTEM=usb", b"SUBSYSTEM=usbmisc"),
])
@pytest.mark.parametrize("message", [kernel, udev], ids=["kernel", "udev"])
def test_anything_else_does_not(message: object, changed: tuple[bytes, bytes]) -> None:
    assert callable(message)
    assert not is_usb_device(message(*(changed[1] if p == changed[0] else p for p in PROPERTIES)))


def test_a_udev_message_with_a_wrong_magic_is_not_believed() -> None:
    assert not is_usb_device(udev(*PROPERTIES, magic=0xDEADBEEF))


@given(st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(b"libudev\0".__add__)))
def test_no_bytes_make_it_raise(message: bytes) -> None:
    assert is_usb_device(message) is False


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_a_udev_header_that_points_anywhere_is_survived(begin: int, length: int) -> None:
    raw = bytearray(udev(*PROPERTIES))
    struct.pack_into("=2I", raw, 16, begin, length)

    assert is_usb_device(bytes(raw)) in (True, False)
