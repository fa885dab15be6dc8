"""The message engine of a smart-card reader with one slot.

Source of every number here: USB Device Class: Smart Card CCID, revision 1.1, sections 5.1 (class descriptor), 5.3
(class requests), 6.1 (commands), 6.2 (responses) and 6.3 (notices).
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

ICC_POWER_ON, ICC_POWER_OFF, GET_SLOT_STATUS, XFR_BLOCK = 0x62, 0x63, 0x65, 0x6F
GET_PARAMETERS, RESET_PARAMETERS, SET_PARAMETERS = 0x6C, 0x6D, 0x61
ICC_CLOCK, MECHANICAL, ABORT, T0_APDU = 0x6E, 0x71, 0x72, 0x6A
"""Commands of the host, table 6.1-1."""

DATA_BLOCK, SLOT_STATUS, PARAMETERS = 0x80, 0x81, 0x82
NOTIFY_SLOT_CHANGE = 0x50
"""Answers and notices of the reader, tables 6.2-1 and 6.3-1."""

FEATURES_APDU_LEVEL = 0x000400FE
"""dwFeatures: everything automatic, exchange of short and extended APDUs."""

_REPLY_TO = {
    ICC_POWER_ON: DATA_BLOCK,
    XFR_BLOCK: DATA_BLOCK,
    GET_PARAMETERS: PARAMETERS,
    RESET_PARAMETERS: PARAMETERS,
    SET_PARAMETERS: PARAMETERS,
}
_HEADER = struct.Struct("<BIBBBH")
_REPLY_HEADER = struct.Struct("<BIBBBBB")
HEADER_LENGTH = _HEADER.size

_FAILED, _TIME_EXTENSION = 0x40, 0x80
"""bmCommandStatus, table 6.2-3."""

_CMD_NOT_SUPPORTED, _BAD_SLOT, _ICC_MUTE = 0, 5, 0xFE
"""bError, table 6.2-2: 0 and 5 are offsets of the field at fault."""

_ACTIVE, _INACTIVE, _ABSENT = 0, 1, 2
"""bmICCStatus, table 6.2-3."""

_T1_PARAMETERS = bytes.fromhex("1110004d00fe00")
"""abProtocolDataStructure for T=1, table 6.1.7.2: the values after reset, IFSC 254."""

_ANOTHER_BLOCK = 0x10
"""bChainParameter of an empty answer: the reader waits for the rest of the command."""

TIME_EXTENSION_S = 1.0
"""How often a computing card asks for more time; libccid waits 3 s at least."""

Send = Callable[[bytes], None]


class Card(Protocol):
    """A card in the slot."""

    @property
    def atr(self) -> bytes:
        """The answer to reset."""

    def reset(self) -> None:
        """Power-up: every login is forgotten."""

    def transmit(self, apdu: bytes) -> bytes:
        """Return the response to a command APDU, status word included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One command APDU and the response to it; `at_s` is `time.monotonic()` when the response left."""

    at_s: float
    command: bytes
    response: bytes


class Ccid:
    """A reader: takes bulk messages of the host, gives the answers.

    Attributes:
        card: The card in the slot, or None.
        delay_s: How long each APDU takes on top, for tests that pull the token out in the middle.
        mute: The reader swallows every message and never answers.
        log: APDUs exchanged so far.
        power_ons: How often the card was powered.
        computing: Set while the card works on an APDU.
    """

    def __init__(
        self, card: Card | None = None, *, max_message_length: int = 3072, features: int = FEATURES_APDU_LEVEL
    ) -> None:
        self.card = card
        self.delay_s = 0.0
        self.mute = False
        self.log: list[Exchange] = []
        self.power_ons = 0
        self.computing = threading.Event()
        self._max_message_length, self._features = max_message_length, features
        self._powered = False
        self._command = b""
        self._gone = threading.Event()
        self._on_slot_change: Callable[[bytes], None] = lambda notice: None

    def class_descriptor(self) -> bytes:
        """The 54 bytes after the interface descriptor, table 5.1-1."""
        fields = (54, 0x21, 0x0110, 0, 7, 3, 4000, 4000, 0, 10752, 344086, 0, 3062, 0, 0)
        sizes = (self._features, self._max_message_length, 0xFF, 0xFF, 0, 0, 1)
        return struct.pack("<BBHBBIIIBIIBIIIIIBBHBB", *fields, *sizes)

    # -- the slot

    def insert(self, card: Card) -> None:
        """Put a card in; the host is told."""
        self.card, self._powered = card, False
        self._on_slot_change(self.notice())

    def remove(self) -> None:
        """Take the card out; the host is told."""
        self.card, self._powered = None, False
        self._on_slot_change(self.notice())

    def notice(self) -> bytes:
        """RDR_to_PC_NotifySlotChange for the one slot: changed, and whether a card is there."""
        return bytes([NOTIFY_SLOT_CHANGE, 2 | (self.card is not None)])

    def on_slot_change(self, send: Callable[[bytes], None]) -> None:
        """Say where notices go."""
        self._on_slot_change = send

    def reset(self) -> None:
        """The reader lost its power; whatever computes is given up."""
        self._powered, self._command = False, b""
        self._gone.set()
        self._gone = threading.Event()

    # -- messages

    def handle(self, message: bytes, send: Send) -> None:
        """Work on one complete message, asking for more time while the card computes. Blocks until it is answered."""
        if self.mute or len(message) < HEADER_LENGTH:
            return
        if message[0] != XFR_BLOCK:
            send(self._answer(message))
            return
        gone, finished, answers = self._gone, threading.Event(), list[bytes]()

        def work() -> None:
            try:
                answers.append(self._answer(message))
            finally:
                finished.set()

        threading.Thread(target=work, name="virtual-card", daemon=True).start()
        while not finished.wait(TIME_EXTENSION_S):
            if gone.is_set():
                return
            send(self._reply(message, status=_TIME_EXTENSION, error=1))
        if not gone.is_set() and answers:
            send(answers[0])

    def _answer(self, message: bytes) -> bytes:
        kind, length, slot, _, _, level = _HEADER.unpack_from(message)
        data = message[HEADER_LENGTH : HEADER_LENGTH + length]
        if slot != 0:
            return self._reply(message, status=_FAILED, error=_BAD_SLOT)
        if kind == GET_SLOT_STATUS:
            return self._reply(message)
        if self.card is None:
            return self._reply(message, status=_FAILED, error=_ICC_MUTE)
        if kind == XFR_BLOCK:
            return self._transfer(message, self.card, level, data)
        if kind in (GET_PARAMETERS, SET_PARAMETERS, RESET_PARAMETERS):
            chosen = data if kind == SET_PARAMETERS and len(data) in (5, 7) else _T1_PARAMETERS
            return self._reply(message, chosen, last=int(len(chosen) == len(_T1_PARAMETERS)))
        return self._slot_command(message, kind, self.card)

    def _slot_command(self, message: bytes, kind: int, card: Card) -> bytes:
        if kind == ICC_POWER_ON:
            self._powered, self._command = True, b""
            self.power_ons += 1
            card.reset()
            return self._reply(message, card.atr)
        if kind == ICC_POWER_OFF:
            self._powered = False
            return self._reply(message)
        if kind in (ICC_CLOCK, MECHANICAL, ABORT, T0_APDU):
            return self._reply(message)
        return self._reply(message, status=_FAILED, error=_CMD_NOT_SUPPORTED)

    def _transfer(self, message: bytes, card: Card, level: int, data: bytes) -> bytes:
        self._command += data
        if level in (1, 3):  # wLevelParameter, table 6.1.4: the command goes on in the next message
            return self._reply(message, last=_ANOTHER_BLOCK)
        command, self._command = self._command, b""
        if not self._powered:
            return self._reply(message, status=_FAILED, error=_ICC_MUTE)
        self.computing.set()
        if self.delay_s:
            self._gone.wait(self.delay_s)
        response = card.transmit(command)
        self.computing.clear()
        self.log.append(Exchange(at_s=time.monotonic(), command=command, response=response))
        return self._reply(message, response)

    def _reply(self, message: bytes, data: bytes = b"", *, status: int = 0, error: int = 0, last: int = 0) -> bytes:
        kind = _REPLY_TO.get(message[0], SLOT_STATUS)
        icc = _ABSENT if self.card is None else _ACTIVE if self._powered else _INACTIVE
        return _REPLY_HEADER.pack(kind, len(data), message[5], message[6], status | icc, error, last) + data


class MessageBuffer:
    """Puts the pieces of bulk transfers together to complete messages."""

    def __init__(self) -> None:
        self._bytes = b""

    def add(self, data: bytes) -> list[bytes]:
        """Take the next piece; return the messages that are complete now."""
        self._bytes += data
        complete = []
        while len(self._bytes) >= HEADER_LENGTH:
            length = HEADER_LENGTH + int.from_bytes(self._bytes[1:5], "little")
            if len(self._bytes) < length:
                break
            complete.append(self._bytes[:length])
            self._bytes = self._bytes[length:]
        return complete

    def clear(self) -> None:
        """Forget an unfinished message."""
        self._bytes = b""
