"""Descriptors come from a device: whole ones are read, everything else is survived."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyfit.core.descriptors import MAX_INTERFACES, parse
from keyfit.model.usb import UsbInterface
from tests.sim.sysfstree import hostile_devices
from tests.sim.usbrecords import UsbRecord, descriptors, find_record, load_records

RUTOKEN = find_record("0A89:0030")
HOSTILE = {device.name: dict(device.files)["descriptors"] for device in hostile_devices()
           if "descriptors" in dict(device.files)}


def configuration(*body: bytes, total: int | None = None) -> bytes:
    length = 9 + sum(map(len, body)) if total is None else total
    return struct.pack("<BBHBBBBB", 9, 2, length, 1, 1, 0, 0x80, 50) + b"".join(body)


def interface(number: int, alternate: int = 0, b_interface_class: int = 0x0B) -> bytes:
    return bytes([9, 4, number, alternate, 2, b_interface_class, 1, 2, 0])


def device() -> bytes:
    return bytes.fromhex("12010002ef020140 6e090708 0301 010203 01".replace(" ", ""))


@pytest.mark.parametrize("record", load_records(), ids=lambda record: record.source)
def test_every_recorded_device_is_read_as_it_was_recorded(record: UsbRecord) -> None:
    found = parse(descriptors(record, serial=True))

    assert found is not None
    assert (found.id_vendor, found.id_product, found.bcd_device) == (
        record.id_vendor, record.id_product, record.bcd_device)
    assert found.interfaces == tuple(
        UsbInterface(b_interface_number=i.b_interface_number, b_interface_class=i.b_interface_class,
                     b_interface_sub_class=i.b_interface_sub_class, b_interface_protocol=i.b_interface_protocol)
        for i in sorted(record.interfaces, key=lambda i: i.b_interface_number) if i.b_alternate_setting == 0)


def test_the_fields_lie_where_the_standard_puts_them() -> None:
    found = parse(device())

    assert found is not None
    assert (found.id_vendor, found.id_product, found.bcd_device, found.b_device_class) == (0x096E, 0x0807, 0x0103, 0xEF)
    assert found.interfaces == ()


def test_only_the_first_configuration_and_alternate_setting_zero_count() -> None:
    first = configuration(interface(1), interface(0, alternate=0), interface(0, alternate=1, b_interface_class=0xFF))
    second = configuration(interface(2, b_interface_class=3))

    found = parse(device() + first + second)

    assert found is not None
    assert [(i.b_interface_number, i.b_interface_class) for i in found.interfaces] == [(0, 0x0B), (1, 0x0B)]
    assert (found.interfaces[0].b_interface_sub_class, found.interfaces[0].b_interface_protocol) == (1, 2)


def test_class_specific_descriptors_between_interfaces_are_passed_over() -> None:
    ccid = bytes([54, 0x21]) + bytes(52)
    endpoint = bytes([7, 5, 0x81, 2, 64, 0, 0])

    found = parse(device() + configuration(interface(0), ccid, endpoint, interface(1, b_interface_class=3)))

    assert found is not None
    assert [i.b_interface_class for i in found.interfaces] == [0x0B, 3]


def test_a_configuration_that_claims_to_be_longer_than_it_is_gives_what_is_whole() -> None:
    found = parse(device() + configuration(interface(0), interface(1)[:5], total=0xFFFF))

    assert found is not None
    assert [i.b_interface_number for i in found.interfaces] == [0]


def test_less_than_a_device_descriptor_is_no_device() -> None:
    assert all(parse(device()[:length]) is None for length in range(18))


def test_h2_a_device_with_more_interfaces_than_the_limit_is_cut_there() -> None:
    found = parse(device() + configuration(*(interface(n) for n in range(200))))

    assert found is not None
    assert len(found.interfaces) == MAX_INTERFACES


@pytest.mark.parametrize("raw", HOSTILE.values(), ids=HOSTILE)
def test_h2_broken_descriptors_give_no_device_or_a_bounded_one(raw: bytes) -> None:
    found = parse(raw)

    assert (found is None) == (len(raw) < 18)
    assert found is None or len(found.interfaces) <= MAX_INTERFACES


@given(st.binary(max_size=400))
def test_h2_no_bytes_make_the_parser_raise(raw: bytes) -> None:
    found = parse(raw)

    assert (found is None) == (len(raw) < 18)


@given(st.data())
def test_h2_a_cut_never_invents_an_interface(data: st.DataObject) -> None:
    whole = descriptors(data.draw(st.sampled_from(load_records())), serial=True)
    cut = parse(whole[: data.draw(st.integers(18, len(whole)))])
    full = parse(whole)

    assert cut is not None
    assert full is not None
    assert cut.interfaces == full.interfaces[: len(cut.interfaces)]


@given(st.data())
def test_h2_a_flipped_byte_is_survived(data: st.DataObject) -> None:
    raw = bytearray(descriptors(RUTOKEN, serial=False))
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))

    found = parse(bytes(raw))

    assert found is not None
    assert len(found.interfaces) <= MAX_INTERFACES
