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
import struct
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

_BULK, _INTERRUPT, _IN = 2, 3, 0x80


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
    """A recorded device. Text may hold lone surrogates: they stand for bytes that are no UTF-8 (PEP 383).

    Attributes:
        kind: "token", "reader" or "keyboard".
        source: the file it was recorded in.
        raw_descriptors: the device's own descriptors, if they are known as a whole; `descriptors` then gives these.
    """

    id_vendor: int
    id_product: int
    bcd_device: int
    manufacturer: str | None
    product: str | None
    interfaces: tuple[UsbInterfaceRecord, ...]
    kind: str = "reader"
    source: str = ""
    raw_descriptors: bytes = b""

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
            raw_descriptors=bytes.fromhex(raw.get("descriptors", "")),
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
                "descriptors": self.raw_descriptors.hex(),
            }
        )

    @classmethod
    def from_descriptors(cls, raw: bytes, manufacturer: str | None, product: str | None) -> UsbRecord:
        """Make a record of a simulated device from its device and configuration descriptor.

        Raises:
            struct.error, IndexError: they are cut short.
        """
        vendor, product_id, release = struct.unpack_from("<HHH", raw, 8)
        return cls(
            id_vendor=vendor,
            id_product=product_id,
            bcd_device=release,
            manufacturer=manufacturer,
            product=product,
            interfaces=tuple(_parse_interfaces(raw)),
            kind="token",
            source="simulated",
            raw_descriptors=raw,
        )


def _parse_interfaces(raw: bytes) -> Iterator[UsbInterfaceRecord]:
    position = 18 + raw[18]
    while position < len(raw):
        length, kind = raw[position], raw[position + 1]
        if kind == 4 and raw[position + 3] == 0:
            extra = position + length
            has_extra = extra < len(raw) and raw[extra + 1] == 0x21
            yield UsbInterfaceRecord(
                b_interface_number=raw[position + 2],
                b_num_endpoints=raw[position + 4],
                b_interface_class=raw[position + 5],
                b_interface_sub_class=raw[position + 6],
                b_interface_protocol=raw[position + 7],
                class_descriptor=raw[extra : extra + raw[extra]] if has_extra else b"",
            )
        position += max(length, 1)


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
    """The file of records named by KEYFIT_CORPUS, else the project's own.

    Raises:
        FileNotFoundError: KEYFIT_CORPUS names a file that is not there.
    """
    named = os.environ.get(CORPUS_VARIABLE)
    path = Path(named) if named else SELECTION_PATH.with_name("corpus.jsonl")
    if not path.is_file():
        raise FileNotFoundError(f"{CORPUS_VARIABLE} names {path}, which is not a file")
    return path


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

    Where they are not known as a whole they are laid out by USB 2.0, sections 9.6.1 (device), 9.6.3 (configuration),
    9.6.5 (interface) and 9.6.6 (endpoint).
    """
    if record.raw_descriptors:
        return record.raw_descriptors
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
