"""Asks a real pcscd what it sees, through libpcsclite and ctypes: a program for the system's own Python.

    pcscprobe.py list COUNT CARDS TIMEOUT_S     JSON list of {"name", "atr"}; -1 for COUNT or CARDS: any number
    pcscprobe.py transmit READER APDU...        JSON list of responses in hexadecimal

Constants and structures: pcsclite.h and winscard.h of pcsc-lite 1.9 (DWORD is unsigned long).
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from ctypes import byref, c_char_p, c_ubyte, c_ulong, c_void_p, create_string_buffer

EXIT_TIMEOUT = 3

_SCOPE_SYSTEM, _SHARE_SHARED, _ANY_PROTOCOL, _LEAVE_CARD = 2, 2, 3, 0
_STATE_UNAWARE, _STATE_PRESENT = 0, 0x20
_NO_READERS = 0x8010002E
_READER_UNAVAILABLE = 0x80100017
_UNKNOWN_READER = 0x80100009
_TIMED_OUT = 0x8010000A
_PNP = rb"\\?PnP?\Notification"
"""Pseudo reader: SCardGetStatusChange returns when a reader comes or goes."""


class _ReaderState(ctypes.Structure):
    _fields_ = (
        ("name", c_char_p),
        ("user_data", c_void_p),
        ("current", c_ulong),
        ("event", c_ulong),
        ("atr_length", c_ulong),
        ("atr", c_ubyte * 33),
    )


class _IoRequest(ctypes.Structure):
    _fields_ = (("protocol", c_ulong), ("length", c_ulong))


class PcscError(Exception):
    """A call failed; the code is a SCARD_E_ constant."""

    def __init__(self, call: str, code: int) -> None:
        super().__init__(f"{call} failed with {code:#010x}")
        self.code = code


class Pcsc:
    """One connection to pcscd."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libpcsclite.so.1")
        self._context = c_ulong()
        self._call("SCardEstablishContext", c_ulong(_SCOPE_SYSTEM), None, None, byref(self._context))

    def _call(self, name: str, *arguments: object, accept: tuple[int, ...] = ()) -> int:
        function = getattr(self._library, name)
        function.restype = c_ulong
        code = int(function(*arguments)) & 0xFFFFFFFF
        if code and code not in accept:
            raise PcscError(name, code)
        return code

    def names(self) -> list[bytes]:
        """Return the readers' names."""
        size = c_ulong(0)
        none = self._call("SCardListReaders", self._context, None, None, byref(size), accept=(_NO_READERS,))
        if none:
            return []
        buffer = create_string_buffer(size.value)
        self._call("SCardListReaders", self._context, None, buffer, byref(size), accept=(_NO_READERS,))
        return [name for name in buffer.raw[: size.value].split(b"\0") if name]

    def watch(self, states: list[tuple[bytes, int]], wait_ms: int) -> list[tuple[int, bytes]]:
        """Wait until a state differs from the given one; return (state, ATR) of each.

        With no wait, and all given as unaware, returns how things are. A reader that went away meanwhile counts as
        empty.
        """
        array = (_ReaderState * len(states))()
        for slot, (name, current) in zip(array, states, strict=True):
            slot.name, slot.current = name, current
        gone = (_TIMED_OUT, _UNKNOWN_READER, _READER_UNAVAILABLE)
        self._call("SCardGetStatusChange", self._context, c_ulong(wait_ms), array, c_ulong(len(states)), accept=gone)
        return [(slot.event, bytes(slot.atr[: slot.atr_length])) for slot in array]

    def transmit(self, reader: bytes, apdus: list[bytes]) -> list[bytes]:
        """Send commands to the card and return the responses."""
        card, protocol = c_ulong(), c_ulong()
        self._call(
            "SCardConnect",
            self._context,
            reader,
            c_ulong(_SHARE_SHARED),
            c_ulong(_ANY_PROTOCOL),
            byref(card),
            byref(protocol),
        )
        header = _IoRequest(protocol.value, ctypes.sizeof(_IoRequest))
        try:
            return [self._exchange(card, header, apdu) for apdu in apdus]
        finally:
            self._call("SCardDisconnect", card, c_ulong(_LEAVE_CARD))

    def _exchange(self, card: c_ulong, header: _IoRequest, apdu: bytes) -> bytes:
        buffer = create_string_buffer(65548)
        size = c_ulong(len(buffer))
        length = c_ulong(len(apdu))
        self._call("SCardTransmit", card, byref(header), apdu, length, None, buffer, byref(size))
        return buffer.raw[: size.value]


def list_readers(pcsc: Pcsc, count: int, cards: int, timeout_s: float) -> tuple[list[tuple[bytes, bytes]], bool]:
    """Wait for exactly `count` readers with `cards` cards; return (name, ATR) of each and whether that came true."""
    deadline = time.monotonic() + timeout_s
    while True:
        names = pcsc.names()
        states = pcsc.watch([(name, _STATE_UNAWARE) for name in names], 0) if names else []
        found = [(name, atr) for name, (_, atr) in zip(names, states, strict=True)]
        present = sum(bool(state & _STATE_PRESENT and atr) for state, atr in states)
        if count in (-1, len(names)) and cards in (-1, present):
            return found, True
        left_ms = int((deadline - time.monotonic()) * 1000)
        if left_ms <= 0:
            return found, False
        known = [(name, state & 0xFFFF_FFFD) for name, (state, _) in zip(names, states, strict=True)]
        # the number of readers rides in the upper half of the pseudo reader's state, and is checked by pcscd itself
        pcsc.watch([*known, (_PNP, len(names) << 16)], min(left_ms, 1000))


def main(arguments: list[str]) -> int:
    """Run the program; see the module's text."""
    pcsc = Pcsc()
    if arguments[0] == "transmit":
        reader, *apdus = arguments[1:]
        responses = pcsc.transmit(reader.encode(), [bytes.fromhex(apdu) for apdu in apdus])
        print(json.dumps([response.hex() for response in responses]))
        return 0
    found, complete = list_readers(pcsc, int(arguments[1]), int(arguments[2]), float(arguments[3]))
    print(json.dumps([{"name": name.decode("utf-8", "replace"), "atr": atr.hex()} for name, atr in found]))
    return 0 if complete else EXIT_TIMEOUT


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
