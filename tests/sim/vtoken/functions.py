"""Functions a virtual device can have: smart-card reader, HID, a vendor's own, and mass storage.

Sources: USB Device Class Definition for HID 1.11 (sections 6.2, 7.2); USB Mass Storage Class Bulk-Only Transport 1.0
(sections 3 and 5); SCSI Primary and Multimedia Commands (SPC-3, MMC-5) for the command codes.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable

from tests.sim.vtoken.ccid import Ccid, MessageBuffer
from tests.sim.vtoken.device import (
    BULK,
    INTERRUPT,
    Function,
    Layout,
    Setup,
    Stall,
    endpoint_descriptor,
    interface_descriptor,
)

_CLASS_TYPE = 0x20
_CLASS_IN, _CLASS_OUT, _STANDARD_IN = 0xA1, 0x21, 0x81


class CcidFunction(Function):
    """A smart-card reader interface."""

    def __init__(self, ccid: Ccid, *, interrupt: bool = True, b_interface_class: int = 0x0B) -> None:
        """Put a reader behind an interface.

        Args:
            ccid: The reader.
            interrupt: Have an interrupt endpoint for slot-change notices.
            b_interface_class: 0x0B, or 0xFF for the older keys that hide their reader behind a vendor class.
        """
        self.ccid = ccid
        self._interrupt, self._class = interrupt, b_interface_class
        self._messages = MessageBuffer()
        self._plugged = 0
        self._notices: int | None = None

    def describe(self, layout: Layout) -> bytes:
        """Interface, class descriptor, bulk OUT, bulk IN, and interrupt IN."""
        self._out, self._in = layout.endpoint(to_host=False), layout.endpoint(to_host=True)
        block = interface_descriptor(layout.interface, 3 if self._interrupt else 2, (self._class, 0, 0))
        block += self.ccid.class_descriptor()
        block += endpoint_descriptor(self._out, BULK, layout.bulk_packet)
        block += endpoint_descriptor(self._in, BULK, layout.bulk_packet)
        if self._interrupt:
            self._notices = layout.endpoint(to_host=True)
            block += endpoint_descriptor(self._notices, INTERRUPT, 8, 8 if layout.speed == "high" else 16)
            self.ccid.on_slot_change(self._notify)
        return block

    def control(self, setup: Setup) -> bytes:
        """ABORT, GET_CLOCK_FREQUENCIES, GET_DATA_RATES (CCID 1.1, section 5.3)."""
        if setup.request_type & 0x60 == _CLASS_TYPE and setup.request in (1, 2, 3):
            return {1: b"", 2: struct.pack("<I", 4000), 3: struct.pack("<I", 10752)}[setup.request]
        raise Stall

    def host_out(self, endpoint: int, data: bytes) -> None:
        """Collect messages; each is worked on in a thread of its own, since a card may take its time."""
        plugged = self._plugged

        def send(reply: bytes) -> None:
            if plugged == self._plugged:  # an answer that was on its way when the token was pulled out is lost
                self.device.push(self._in, reply)

        for message in self._messages.add(data):
            threading.Thread(target=self.ccid.handle, args=(message, send), name="virtual-reader", daemon=True).start()

    def reset(self) -> None:
        """The reader loses its power."""
        self._plugged += 1
        self._messages.clear()
        self.ccid.reset()

    def _notify(self, notice: bytes) -> None:
        if self._notices is not None:
            self.device.push(self._notices, notice)


class HidFunction(Function):
    """A vendor-defined HID interface with reports of 64 bytes, as many tokens have it."""

    REPORT_LENGTH = 64
    REPORT_DESCRIPTOR = bytes.fromhex("0600ff0901a101150026ff0075089540090281020903910209049540b102c0")
    """Usage page 0xFF00: one input, one output and one feature report of 64 bytes (HID 1.11, section 6.2.2)."""

    def __init__(self, answer: Callable[[bytes], bytes | None] = lambda report: report) -> None:
        """Make the interface; `answer` turns an output report into the input report to send, or None."""
        self._answer = answer

    def describe(self, layout: Layout) -> bytes:
        """Interface, HID descriptor, interrupt IN and OUT."""
        self._in, self._out = layout.endpoint(to_host=True), layout.endpoint(to_host=False)
        self._hid = struct.pack("<BBHBBBH", 9, 0x21, 0x0111, 0, 1, 0x22, len(self.REPORT_DESCRIPTOR))
        block = interface_descriptor(layout.interface, 2, (3, 0, 0)) + self._hid
        block += endpoint_descriptor(self._in, INTERRUPT, self.REPORT_LENGTH, 4)
        return block + endpoint_descriptor(self._out, INTERRUPT, self.REPORT_LENGTH, 4)

    def control(self, setup: Setup) -> bytes:
        """GET_DESCRIPTOR for HID and report, and the class requests of section 7.2."""
        if setup.request_type == _STANDARD_IN and setup.request == 6 and setup.value >> 8 in (0x21, 0x22):
            return self._hid if setup.value >> 8 == 0x21 else self.REPORT_DESCRIPTOR
        if setup.request_type == _CLASS_IN and setup.request == 1:
            return bytes(self.REPORT_LENGTH)
        if setup.request_type == _CLASS_OUT and setup.request in (0x09, 0x0A, 0x0B):
            if setup.request == 0x09:
                self.host_out(self._out, setup.data)
            return b""
        raise Stall

    def host_out(self, endpoint: int, data: bytes) -> None:
        """Answer an output report."""
        report = self._answer(data)
        if report is not None:
            self.device.push(self._in, report[: self.REPORT_LENGTH].ljust(self.REPORT_LENGTH, b"\0"))


class VendorFunction(Function):
    """Class 0xFF and a pair of bulk endpoints: a token that no driver of the system knows."""

    def __init__(self, answer: Callable[[bytes], bytes | None] = lambda data: data) -> None:
        """Make the interface; `answer` turns what the host writes into what it reads next, or None."""
        self._answer = answer

    def describe(self, layout: Layout) -> bytes:
        """Interface, bulk OUT, bulk IN."""
        self._out, self._in = layout.endpoint(to_host=False), layout.endpoint(to_host=True)
        block = interface_descriptor(layout.interface, 2, (0xFF, 0, 0))
        block += endpoint_descriptor(self._out, BULK, layout.bulk_packet)
        return block + endpoint_descriptor(self._in, BULK, layout.bulk_packet)

    def host_out(self, endpoint: int, data: bytes) -> None:
        """Answer what the host wrote."""
        answer = self._answer(data)
        if answer is not None:
            self.device.push(self._in, answer)


CD_ROM, DISK = 5, 0
"""Peripheral device types (SPC-3, table 83)."""


class MassStorageFunction(Function):
    """A read-only drive: the "driver CD" that many tokens show first."""

    def __init__(
        self,
        image: bytes,
        kind: int = CD_ROM,
        on_eject: Callable[[], None] | None = None,
        *,
        vendor: str = "KEYFIT",
        product: str = "Virtual drive",
    ) -> None:
        """Make the drive.

        Args:
            image: Its content: an ISO 9660 file system for a CD-ROM.
            kind: 5 for a CD-ROM with blocks of 2048 bytes, 0 for a disk with blocks of 512.
            on_eject: Called in a thread of its own when the host ejects the medium: many tokens then come back as
                another device.
            vendor: In the answer to INQUIRY, 8 characters.
            product: Likewise, 16 characters.
        """
        self.block_length = 2048 if kind == CD_ROM else 512
        self._image = image + bytes(-len(image) % self.block_length)
        self._kind, self._on_eject = kind, on_eject
        self._names = vendor.encode().ljust(8)[:8] + product.encode().ljust(16)[:16] + b"1.00"
        self._sense = (0, 0)

    def describe(self, layout: Layout) -> bytes:
        """Interface (SCSI, bulk only), bulk IN, bulk OUT."""
        self._in, self._out = layout.endpoint(to_host=True), layout.endpoint(to_host=False)
        block = interface_descriptor(layout.interface, 2, (8, 6, 0x50))
        block += endpoint_descriptor(self._in, BULK, layout.bulk_packet)
        return block + endpoint_descriptor(self._out, BULK, layout.bulk_packet)

    def control(self, setup: Setup) -> bytes:
        """Get Max LUN and Bulk-Only Mass Storage Reset (section 3)."""
        if (setup.request_type, setup.request) == (_CLASS_IN, 0xFE):
            return b"\0"
        if (setup.request_type, setup.request) == (_CLASS_OUT, 0xFF):
            return b""
        raise Stall

    def host_out(self, endpoint: int, data: bytes) -> None:
        """Take a command block wrapper, and send the data and the status wrapper."""
        if len(data) != 31 or data[:4] != b"USBC":
            return
        tag, wanted, flags, _, length = struct.unpack_from("<IIBBB", data, 4)
        answer = self._scsi(data[15 : 15 + length])
        sent = (answer or b"")[:wanted]
        if wanted and flags & 0x80:
            self.device.push(self._in, sent)  # shorter than wanted ends the data stage
        status = 1 if answer is None else 0
        self.device.push(self._in, b"USBS" + struct.pack("<IIB", tag, wanted - len(sent), status))

    def _scsi(self, command: bytes) -> bytes | None:
        """The data for a command; None refuses it."""
        last_block = len(self._image) // self.block_length - 1
        match command[0]:
            case 0x00 | 0x1E | 0x35:  # TEST UNIT READY, PREVENT ALLOW MEDIUM REMOVAL, SYNCHRONIZE CACHE
                return b""
            case 0x12:  # INQUIRY
                return bytes([self._kind, 0x80, 2, 2, 31, 0, 0, 0]) + self._names
            case 0x03:  # REQUEST SENSE
                (key, code), self._sense = self._sense, (0, 0)
                return bytes([0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, code, 0, 0, 0, 0, 0])
            case 0x1A:  # MODE SENSE: write protected
                return bytes([3, 0, 0x80, 0])
            case 0x1B:  # START STOP UNIT
                return self._start_stop(command[4])
            case 0x25:  # READ CAPACITY
                return struct.pack(">II", last_block, self.block_length)
            case 0x28 | 0xA8:  # READ (10), READ (12)
                count = command[7:9] if command[0] == 0x28 else command[6:10]
                return self._read(int.from_bytes(command[2:6], "big"), int.from_bytes(count, "big"))
            case 0x43:  # READ TOC: one data track, and the lead-out
                tracks = bytes([0, 0x14, 1, 0, 0, 0, 0, 0, 0, 0x14, 0xAA, 0]) + struct.pack(">I", last_block + 1)
                return bytes([0, 18, 1, 1]) + tracks
            case 0x4A:  # GET EVENT STATUS NOTIFICATION: a medium is there, nothing new
                return bytes([0, 6, 4, 0x10, 0, 2, 0, 0])
        self._sense = (5, 0x20)  # ILLEGAL REQUEST, invalid command operation code
        return None

    def _read(self, block: int, count: int) -> bytes:
        return self._image[block * self.block_length : (block + count) * self.block_length]

    def _start_stop(self, what: int) -> bytes:
        if what & 3 == 2 and self._on_eject is not None:  # LOEJ without START: eject
            threading.Thread(target=self._on_eject, name="virtual-eject", daemon=True).start()
        return b""
