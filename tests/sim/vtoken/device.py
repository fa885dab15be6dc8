"""The USB side of a virtual token: descriptors, standard requests, and the queues of its endpoints.

Source of every number here: Universal Serial Bus Specification 2.0, chapter 9 (tables 9-3 to 9-15).
"""

from __future__ import annotations

import struct
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

Speed = Literal["low", "full", "high"]
Done = Callable[[Hashable, bytes], None]
"""Called with the tag of a read and its data. It may come from another thread than the read."""

DEVICE, CONFIGURATION, STRING, INTERFACE, ENDPOINT, QUALIFIER, OTHER_SPEED = range(1, 8)
"""Descriptor types, table 9-5."""

GET_STATUS, CLEAR_FEATURE, SET_FEATURE = 0, 1, 3
SET_ADDRESS, GET_DESCRIPTOR, GET_CONFIGURATION, SET_CONFIGURATION, GET_INTERFACE, SET_INTERFACE = 5, 6, 8, 9, 10, 11
"""Standard requests, table 9-4."""

BULK, INTERRUPT = 2, 3
"""Transfer types, table 9-13."""

_TO_DEVICE, _TO_INTERFACE, _TO_ENDPOINT = 0, 1, 2
_TYPE_MASK, _RECIPIENT_MASK, _IN = 0x60, 0x1F, 0x80
_ENGLISH = b"\x04\x03\x09\x04"
"""String descriptor zero: one language, US English."""

_LONGEST_STRING_BYTES = 252
"""bLength is one byte, and two go to the header; an odd one would cut a character."""


class Stall(Exception):
    """The device refuses a request: the transport answers with a STALL handshake."""


class Interface(NamedTuple):
    """One interface of the configuration, as its descriptor tells it."""

    number: int
    b_interface_class: int
    b_interface_subclass: int
    b_interface_protocol: int


class Endpoint(NamedTuple):
    """One endpoint: address with direction bit, transfer type (2 bulk, 3 interrupt), sizes, and its interface."""

    address: int
    type: int
    max_packet: int
    interval: int
    interface: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """A control request, as in the setup packet, and what the host sent with it."""

    request_type: int
    request: int
    value: int
    index: int
    length: int
    data: bytes


class Layout:
    """What a function learns while it writes its descriptors: its interface number, and free endpoint numbers."""

    def __init__(self, speed: Speed) -> None:
        self.interface = 0
        self.speed = speed
        self.bulk_packet = 512 if speed == "high" else 64
        self._endpoint = 0

    def endpoint(self, *, to_host: bool) -> int:
        """The address of the next free endpoint."""
        self._endpoint += 1
        if self._endpoint > 15:
            raise ValueError("a device has fifteen endpoints in each direction at most")
        return self._endpoint | (_IN if to_host else 0)


class Function(ABC):
    """One function of a device: an interface and what is behind it."""

    device: UsbDevice
    """Set by the device that the function becomes part of."""

    @abstractmethod
    def describe(self, layout: Layout) -> bytes:
        """The interface descriptor and all that follows it."""

    def control(self, setup: Setup) -> bytes:
        """Answer a request to the interface. Raises Stall, as this one does for every request."""
        raise Stall

    @abstractmethod
    def host_out(self, endpoint: int, data: bytes) -> None:
        """Take what the host wrote to one of the function's endpoints. Must not block."""

    def reset(self) -> None:
        """The bus was reset, or the device pulled out."""
        return


class UsbDevice:
    """A device to plug in. Methods may be called from any thread.

    Attributes:
        device_descriptor: 18 bytes; may be replaced by something broken before plugging in.
        configuration_descriptor: Likewise, the whole configuration.
        string_descriptors: Complete string descriptors by index; may be changed likewise.
        strings: The same as text, undecodable parts replaced; only to read.
        interfaces: From the descriptors.
        endpoints: From the descriptors, without endpoint zero.
        configuration: Value of the configuration the host has chosen; 0 before it did.
    """

    def __init__(
        self,
        id_vendor: int,
        id_product: int,
        functions: Sequence[Function],
        *,
        bcd_device: int = 0x0100,
        manufacturer: str | bytes = "",
        product: str | bytes = "",
        serial: str | bytes = "",
        device_class: tuple[int, int, int] = (0, 0, 0),
        speed: Speed = "high",
    ) -> None:
        """Put a device together; the functions get the interface numbers 0, 1, ... in their order.

        Args:
            id_vendor: As in the device descriptor.
            id_product: Likewise.
            functions: What it can do.
            bcd_device: Release number.
            manufacturer: Text, or the raw UTF-16 bytes of the string descriptor, which need not be valid; empty for
                no such string.
            product: Likewise.
            serial: Likewise.
            device_class: Class, subclass and protocol of the whole device.
            speed: Bus speed.

        Raises:
            ValueError: A string is too long, or there are too many endpoints.
        """
        self.id_vendor, self.id_product, self.bcd_device = id_vendor, id_product, bcd_device
        self.device_class, self.speed, self.functions = device_class, speed, list(functions)
        self.string_descriptors = {0: _ENGLISH}
        for index, text in enumerate((manufacturer, product, serial), start=1):
            if text:
                self.string_descriptors[index] = string_descriptor(text)
        self.interfaces: list[Interface] = []
        self.endpoints: list[Endpoint] = []
        self.configuration = 0
        self._by_interface: dict[int, Function] = {}
        self._by_endpoint: dict[int, Function] = {}
        self._alternates: dict[int, int] = {}
        self._lock = threading.RLock()
        self._ready: dict[int, deque[bytes]] = {}
        self._reads: dict[int, deque[tuple[Hashable, int, Done]]] = {}
        body = self._assemble()
        self.configuration_descriptor = (
            struct.pack("<BBHBBBBB", 9, CONFIGURATION, 9 + len(body), len(functions), 1, 0, 0x80, 50) + body
        )
        indices = [number if number in self.string_descriptors else 0 for number in (1, 2, 3)]
        ids = (id_vendor, id_product, bcd_device)
        self.device_descriptor = struct.pack(
            "<BBHBBBBHHHBBBB", 18, DEVICE, 0x0200, *device_class, 64, *ids, *indices, 1
        )  # fmt: skip

    def _assemble(self) -> bytes:
        body, layout = b"", Layout(self.speed)
        for number, function in enumerate(self.functions):
            layout.interface = number
            function.device = self
            self._by_interface[number] = function
            described = function.describe(layout)
            for part in split_descriptors(described):
                if part[1] == INTERFACE:
                    self.interfaces.append(Interface(part[2], part[5], part[6], part[7]))
                elif part[1] == ENDPOINT:
                    packet = int.from_bytes(part[4:6], "little")
                    self.endpoints.append(Endpoint(part[2], part[3] & 3, packet, part[6], number))
                    self._by_endpoint[part[2]] = function
            body += described
        return body

    @property
    def strings(self) -> dict[int, str]:
        """The strings as a host would decode them, by index."""
        present = {index: raw[2:] for index, raw in self.string_descriptors.items() if index}
        return {index: raw.decode("utf-16-le", errors="replace") for index, raw in present.items()}

    # -- what a transport calls

    def control(self, request_type: int, request: int, value: int, index: int, length: int, data: bytes = b"") -> bytes:
        """Answer a control request.

        Args:
            request_type: bmRequestType.
            request: bRequest.
            value: wValue.
            index: wIndex.
            length: wLength.
            data: What the host sends in the data stage of an OUT request.

        Returns:
            The data stage of an IN request, at most `length` bytes; empty for an OUT request.

        Raises:
            Stall: The device does not know the request, or refuses it.
        """
        setup = Setup(request_type=request_type, request=request, value=value, index=index, length=length, data=data)
        recipient = request_type & _RECIPIENT_MASK
        if request_type & _TYPE_MASK == 0:
            if recipient == _TO_DEVICE:
                return self._device_request(setup)[:length]
            if recipient == _TO_ENDPOINT:
                return self._endpoint_request(setup)[:length]
            if recipient == _TO_INTERFACE and request in (GET_STATUS, GET_INTERFACE, SET_INTERFACE):
                return self._interface_request(setup)[:length]
        function = self._by_interface.get(index & 0xFF) if recipient == _TO_INTERFACE else None
        if function is None:
            raise Stall
        return function.control(setup)[:length]

    def host_out(self, endpoint: int, data: bytes) -> None:
        """Take what the host writes to an OUT endpoint; what goes to an unknown one is dropped."""
        function = self._by_endpoint.get(endpoint)
        if function is not None:
            function.host_out(endpoint, data)

    def host_in(self, endpoint: int, tag: Hashable, length: int, done: Done) -> None:
        """The host reads from an IN endpoint: `done(tag, data)` is called once there is data, perhaps at once."""
        with self._lock:
            self._reads.setdefault(endpoint, deque()).append((tag, length, done))
        self._deliver(endpoint)

    def cancel(self, tag: Hashable) -> bool:
        """The host gives up a read. Returns whether it was still waiting; `done` is then not called any more."""
        with self._lock:
            for reads in self._reads.values():
                for read in reads:
                    if read[0] == tag:
                        reads.remove(read)
                        return True
        return False

    def reset(self) -> None:
        """Bus reset, or pulled out: waiting reads and undelivered data are dropped, every function starts anew."""
        with self._lock:
            self._ready.clear()
            self._reads.clear()
            self._alternates.clear()
            self.configuration = 0
        for function in self.functions:
            function.reset()

    # -- what a function calls

    def push(self, endpoint: int, data: bytes) -> None:
        """Send data to the host, on an IN endpoint: as soon as it reads. Empty data is a zero-length packet."""
        with self._lock:
            self._ready.setdefault(endpoint, deque()).append(data)
        self._deliver(endpoint)

    def _deliver(self, endpoint: int) -> None:
        while True:
            with self._lock:
                ready, reads = self._ready.get(endpoint), self._reads.get(endpoint)
                if not ready or not reads:
                    return
                tag, length, done = reads.popleft()
                data = ready.popleft()
                if len(data) > length:
                    ready.appendleft(data[length:])
                    data = data[:length]
            done(tag, data)

    # -- standard requests

    def _device_request(self, setup: Setup) -> bytes:
        match setup.request:
            case 6:
                return self._descriptor(setup.value >> 8, setup.value & 0xFF)
            case 9:
                self.configuration = setup.value & 0xFF
                return b""
            case 8:
                return bytes([self.configuration])
            case 0:
                return b"\0\0"
            case 1 | 3 | 5:
                return b""
        raise Stall

    def _descriptor(self, kind: int, number: int) -> bytes:
        if kind == DEVICE:
            return self.device_descriptor
        if kind == CONFIGURATION and number == 0:
            return self.configuration_descriptor
        if kind == STRING and number in self.string_descriptors:
            return self.string_descriptors[number]
        if self.speed == "high" and kind == QUALIFIER:
            return b"\x0a\x06" + self.device_descriptor[2:8] + b"\x01\x00"
        if self.speed == "high" and kind == OTHER_SPEED and number == 0:
            return self.configuration_descriptor[:1] + bytes([OTHER_SPEED]) + self.configuration_descriptor[2:]
        raise Stall

    def _interface_request(self, setup: Setup) -> bytes:
        if setup.index not in self._by_interface:
            raise Stall
        if setup.request == SET_INTERFACE:
            self._alternates[setup.index] = setup.value
            return b""
        return b"\0\0" if setup.request == GET_STATUS else bytes([self._alternates.get(setup.index, 0)])

    def _endpoint_request(self, setup: Setup) -> bytes:
        if setup.request == GET_STATUS:
            return b"\0\0"
        if setup.request in (CLEAR_FEATURE, SET_FEATURE):  # endpoint halt: nothing here ever halts
            return b""
        raise Stall


def string_descriptor(text: str | bytes) -> bytes:
    """A string descriptor of text, or of raw bytes that are put in as they are.

    Raises:
        ValueError: It is longer than a descriptor can be.
    """
    raw = text if isinstance(text, bytes) else text.encode("utf-16-le", errors="surrogatepass")
    if len(raw) > _LONGEST_STRING_BYTES + 1:
        raise ValueError(f"a USB string has at most {_LONGEST_STRING_BYTES} bytes of UTF-16")
    return bytes([len(raw) + 2, STRING]) + raw


def split_descriptors(block: bytes) -> Iterator[bytes]:
    """Cut a sequence of descriptors into its parts."""
    position = 0
    while position < len(block):
        length = block[position]
        if length < 2:
            raise ValueError("a descriptor has two bytes at least")
        yield block[position : position + length]
        position += length


def interface_descriptor(number: int, endpoints: int, kind: tuple[int, int, int], name: int = 0) -> bytes:
    """An interface descriptor, table 9-12: `kind` is class, subclass, protocol; `name` a string index."""
    return bytes([9, INTERFACE, number, 0, endpoints, *kind, name])


def endpoint_descriptor(address: int, kind: int, max_packet: int, interval: int = 0) -> bytes:
    """An endpoint descriptor, table 9-13."""
    return struct.pack("<BBBBHB", 7, ENDPOINT, address, kind, max_packet, interval)
