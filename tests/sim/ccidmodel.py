"""The inside of a recorded USB device: standard requests, strings, and a CCID interface with a simple card.

Enough for libusb to read every descriptor and string, and for pcscd with libccid to list the reader, power the card
and pass APDUs. Not here: ICCD over the control pipe (interface protocols 1 and 2), T=1 blocks for readers that leave
those to the host, PIN pads. For a card that computes, plug in a card object (see `Card`).

Sources: USB 2.0 chapter 9 (requests); USB CCID specification 1.1 sections 5 and 6 (messages, slot errors).
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from tests.sim.usbrecords import CCID_DESCRIPTOR_LENGTH, UsbInterfaceRecord, UsbRecord, descriptors

ATR_T0 = bytes.fromhex("3b084b45594649543031")
ATR_T1 = bytes.fromhex("3b88014b4559464954303184")
"""Invented cards: direct convention, T=0 or T=1, eight historical bytes "KEYFIT01" (ISO 7816-3, section 8)."""

SW_INS_NOT_SUPPORTED = bytes.fromhex("6d00")
"""ISO 7816-4, table 5."""

_ENGLISH = bytes.fromhex("04030904")
"""String descriptor 0: one language, US English (USB 2.0, section 9.6.7)."""

Done = Callable[[bytes], None]


class Stall(Exception):
    """The device refuses a control request."""


class DeviceModel(Protocol):
    """What stands behind a usbfs node. Every call comes from one thread."""

    def control(self, request_type: int, request: int, value: int, index: int, length: int, data: bytes) -> bytes:
        """Answer a control request; `data` is what the host sent. Raises Stall."""

    def host_out(self, ep: int, data: bytes) -> None:
        """Take what the host wrote to an endpoint (number without direction bit)."""

    def host_in(self, ep: int, tag: object, length: int, done: Done) -> None:
        """The host reads: call `done` now or later. `tag` identifies the read to `cancel`."""

    def cancel(self, tag: object) -> None:
        """The host no longer waits for this read."""


class Card(Protocol):
    """A card in a slot."""

    @property
    def atr(self) -> bytes:
        """The answer to reset."""

    def transmit(self, apdu: bytes) -> bytes:
        """Return the response to a command APDU, status word included."""


@dataclass(slots=True, kw_only=True)
class ScriptedCard:
    """A card that knows some exact commands and refuses all others with 6D00."""

    atr: bytes = ATR_T0
    replies: Mapping[bytes, bytes] = field(default_factory=dict)

    def transmit(self, apdu: bytes) -> bytes:
        return self.replies.get(apdu, SW_INS_NOT_SUPPORTED)


def fitting_atr(record: UsbRecord) -> bytes:
    """Return the invented card whose protocol the reader speaks: dwProtocols at offset 6, T=0 preferred (5.1)."""
    first = next((i.class_descriptor for i in record.interfaces if i.class_descriptor), b"")
    return ATR_T1 if len(first) == CCID_DESCRIPTOR_LENGTH and not first[6] & 1 else ATR_T0


class RecordedDevice:
    """A `DeviceModel` made from a record.

    Attributes:
        apdus: every block the host sent to a card, oldest first.
    """

    def __init__(
        self, record: UsbRecord, *, serial: str | None = None, strings: bool = True, card: Card | None = None
    ) -> None:
        self.apdus: list[bytes] = []
        self._raw = descriptors(record, serial is not None)
        texts = {1: record.manufacturer, 2: record.product, 3: serial}
        self._strings = {n: text for n, text in texts.items() if text is not None} if strings else {}
        self._with_strings = strings
        self._pipes = _Pipes()
        self._readers: dict[int, CcidInterface] = {}
        number = 1
        for item in record.interfaces:
            bulk, interrupt = number, number + (1 if item.bulk else 0)
            if item.bulk and len(item.class_descriptor) == CCID_DESCRIPTOR_LENGTH:
                notices = interrupt if item.b_num_endpoints % 2 else None
                reader = CcidInterface(item, self._pipes, bulk, notices, self.apdus)
                reader.insert(card)
                self._readers[bulk] = reader
            number = interrupt + item.b_num_endpoints % 2

    def insert(self, card: Card | None) -> None:
        """Put a card into every reader's first slot, or take it out; the host is notified."""
        for reader in self._readers.values():
            reader.insert(card)

    def control(self, request_type: int, request: int, value: int, index: int, length: int, data: bytes) -> bytes:
        """Answer the standard requests; class requests stall, as simple readers do."""
        del index, data
        if request_type == 0x80 and request == 6:  # GET_DESCRIPTOR
            return self._descriptor(value >> 8, value & 0xFF)[:length]
        if request_type & 0x60 or (request_type & 0x80 and request not in (0, 8, 10)):
            raise Stall
        answers = {0: b"\0\0", 8: b"\1", 10: b"\0"}  # GET_STATUS, GET_CONFIGURATION, GET_INTERFACE
        return answers[request][:length] if request_type & 0x80 else b""

    def _descriptor(self, kind: int, number: int) -> bytes:
        if kind == 1:
            return self._raw[:18]
        if kind == 2 and number == 0:
            return self._raw[18:]
        if kind == 3 and number == 0 and self._with_strings:
            return _ENGLISH
        if kind == 3 and number in self._strings:
            # bLength is one byte: 126 code units at most; a lone surrogate is sent as it is
            text = self._strings[number].encode("utf-16-le", "surrogatepass")[:252]
            return bytes((len(text) + 2, 3)) + text
        raise Stall

    def host_out(self, ep: int, data: bytes) -> None:
        reader = self._readers.get(ep)
        if reader is not None:
            reader.message(data)

    def host_in(self, ep: int, tag: object, length: int, done: Done) -> None:
        self._pipes.read(ep, tag, length, done)

    def cancel(self, tag: object) -> None:
        self._pipes.cancel(tag)


def recorded_device(
    record: str, serial: str | None = None, strings: bool = True, card: Card | None = None
) -> RecordedDevice:
    """Make the device of a record given as JSON; the server's factory when no other is named."""
    return RecordedDevice(UsbRecord.from_json(record), serial=serial, strings=strings, card=card)


class _Pipes:
    """IN endpoints: data that waits for a read, and reads that wait for data."""

    def __init__(self) -> None:
        self._data: dict[int, deque[bytes]] = {}
        self._reads: dict[int, deque[tuple[object, int, Done]]] = {}

    def read(self, ep: int, tag: object, length: int, done: Done) -> None:
        waiting = self._data.get(ep)
        if waiting:
            done(waiting.popleft()[:length])
        else:
            self._reads.setdefault(ep, deque()).append((tag, length, done))

    def send(self, ep: int, data: bytes) -> None:
        reads = self._reads.get(ep)
        if reads:
            _, length, done = reads.popleft()
            done(data[:length])
        else:
            self._data.setdefault(ep, deque()).append(data)

    def cancel(self, tag: object) -> None:
        for ep, reads in self._reads.items():
            self._reads[ep] = deque(item for item in reads if item[0] is not tag)


_ACTIVE, _INACTIVE, _ABSENT = 0, 1, 2
_FAILED = 0x40
_COMMAND_NOT_SUPPORTED, _ICC_MUTE = 0x00, 0xFE
_DATA_BLOCK, _SLOT_STATUS, _PARAMETERS = 0x80, 0x81, 0x82
_T0_PARAMETERS = bytes.fromhex("1100000a00")
_T1_PARAMETERS = bytes.fromhex("1110004d00fe00")
"""CCID 6.2.3: protocol data structures for T=0 and T=1 with the default Fi/Di."""


class CcidInterface:
    """The bulk protocol of one CCID interface; a card can be in slot 0, further slots are empty."""

    def __init__(
        self, item: UsbInterfaceRecord, pipes: _Pipes, bulk: int, notices: int | None, apdus: list[bytes]
    ) -> None:
        self._pipes = pipes
        self._bulk, self._notices = bulk, notices
        self._apdus = apdus
        self._slots = item.class_descriptor[4] + 1
        self._card: Card | None = None
        self._powered = False
        self._parameters = (0, _T0_PARAMETERS)

    def insert(self, card: Card | None) -> None:
        """Put a card into slot 0, or take it out."""
        changed = (card is None) != (self._card is None)
        self._card, self._powered = card, False
        self._parameters = (1, _T1_PARAMETERS) if card is not None and _speaks_t1(card.atr) else (0, _T0_PARAMETERS)
        if changed and self._notices is not None:
            # RDR_to_PC_NotifySlotChange (6.3.1): two bits a slot, present and changed
            bits = bytearray((2 * self._slots + 7) // 8)
            bits[0] = 0b10 | (card is not None)
            self._pipes.send(self._notices, b"\x50" + bytes(bits))

    def message(self, data: bytes) -> None:
        """Take one PC_to_RDR message and queue the answer."""
        if len(data) < 10:
            return
        kind, length, slot, sequence = struct.unpack_from("<BIBB", data)
        answer, body, extra, error = self._handle(kind, slot, data[10 : 10 + length], data[7])
        present = slot == 0 and self._card is not None
        status = (_ACTIVE if self._powered else _INACTIVE) if present else _ABSENT
        if error is not None:
            status |= _FAILED
        head = struct.pack("<BIBBBBB", answer, len(body), slot, sequence, status, error or 0, extra)
        self._pipes.send(self._bulk, head + body)

    def _handle(self, kind: int, slot: int, body: bytes, option: int) -> tuple[int, bytes, int, int | None]:
        """Return (message type, data, byte 9, error)."""
        card = self._card if slot == 0 else None
        if kind == 0x65:  # GetSlotStatus
            return _SLOT_STATUS, b"", 0, None
        if kind == 0x63:  # IccPowerOff
            self._powered = False
            return _SLOT_STATUS, b"", 0, None
        answer = {0x62: _DATA_BLOCK, 0x6F: _DATA_BLOCK, 0x61: _PARAMETERS, 0x6C: _PARAMETERS, 0x6D: _PARAMETERS}
        if kind not in answer:  # Escape, Secure and the rest
            return _SLOT_STATUS, b"", 0, _COMMAND_NOT_SUPPORTED
        if card is None:
            return answer[kind], b"", 0, _ICC_MUTE
        if kind == 0x62:  # IccPowerOn
            self._powered = True
            return _DATA_BLOCK, card.atr, 0, None
        if kind == 0x6F:  # XfrBlock
            self._apdus.append(body)
            return _DATA_BLOCK, card.transmit(body), 0, None
        if kind == 0x61:  # SetParameters: bProtocolNum
            self._parameters = (option, body)
        number, parameters = self._parameters
        return _PARAMETERS, parameters, number, None


def _speaks_t1(atr: bytes) -> bool:
    """True if the first protocol offered is T=1: TD1, after TA1, TB1, TC1 as T0 says (ISO 7816-3, section 8.2.3)."""
    if len(atr) < 2 or not atr[1] & 0x80:
        return False
    position = 2 + bin(atr[1] & 0x70).count("1")
    return position < len(atr) and atr[position] & 0x0F == 1
