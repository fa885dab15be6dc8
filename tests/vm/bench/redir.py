"""Plugs a virtual token into the machine: the USB redirection protocol between this process and QEMU.

The token stays a Python object of the test; QEMU's usb-redir device passes every transfer on.
Source of every number here: USB network redirection protocol 0.7 (usb-redirection-protocol.md of usbredir), sections
"Packet format", "Possible capabilities" and the description of each packet.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Hashable
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from tests.sim.vtoken.device import Stall, UsbDevice
from tests.vm.bench.host import BenchError
from tests.vm.bench.machine import Machine

_HELLO, _DEVICE_CONNECT, _DEVICE_DISCONNECT, _RESET, _INTERFACE_INFO, _ENDPOINT_INFO = range(6)
_SET_CONFIGURATION, _GET_CONFIGURATION, _CONFIGURATION_STATUS = 6, 7, 8
_SET_ALTERNATE, _GET_ALTERNATE, _ALTERNATE_STATUS = 9, 10, 11
_START_INTERRUPT, _STOP_INTERRUPT, _INTERRUPT_STATUS, _CANCEL = 15, 16, 17, 21
_CONTROL, _BULK, _INTERRUPT = 100, 101, 103
"""Packet types."""

_CAPABILITIES: Final = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 6
"""connect_device_version, ep_info_max_packet_size, 64bits_ids, 32bits_bulk_length: QEMU takes no device at a USB 3
controller without the last three."""

_SUCCESS, _CANCELLED, _STALL = 0, 1, 4
_SPEED = {"low": 0, "full": 1, "high": 2}
_TABLE_LENGTH, _UNUSED_ENDPOINT = 32, 255
_MAX_PACKET_CONTROL = 64

_FIRST_HEADER, _WIDE_HEADER = struct.Struct("<III"), struct.Struct("<IIQ")
_CONTROL_HEADER, _BULK_HEADER, _INTERRUPT_HEADER = (
    struct.Struct("<BBBBHHH"),
    struct.Struct("<BBHIH"),
    struct.Struct("<BBH"),
)


@dataclass(frozen=True, slots=True)
class _InterruptRead:
    """Tag of the standing read of an interrupt endpoint."""

    endpoint: int


class RedirToken:
    """A token at one USB port of the machine. It can be plugged in and pulled out as often as one likes.

    Attributes:
        device: The token.
        sysfs: Its folder in the guest while it is plugged in.
        requests: Control requests so far: (request_type, request, value, index, length).
    """

    def __init__(self, device: UsbDevice, machine: Machine) -> None:
        """Reserve a port; nothing is plugged in yet."""
        self.device, self._machine = device, machine
        self._port = machine.claim_port()
        self.sysfs = f"/sys/bus/usb/devices/1-{self._port}"
        self.requests: list[tuple[int, int, int, int, int]] = []
        self._write_lock = threading.Lock()
        self._greeted, self._configured = threading.Event(), threading.Event()
        self._interrupts: set[int] = set()
        self._interrupt_count = 0
        self.plugged = False
        self._socket, other = socket.socketpair()
        self._name = f"token{self._port}"
        try:
            machine.qmp("getfd", fd=other.fileno(), fdname=self._name)
            address = {"type": "fd", "data": {"str": self._name}}
            backend = {"type": "socket", "data": {"addr": address, "server": False}}
            self._reader = threading.Thread(target=self._serve, name=self._name, daemon=True)
            self._reader.start()
            machine.qmp("chardev-add", id=self._name, backend=backend)
            machine.qmp(
                "device_add", driver="usb-redir", id=f"usb-{self._name}", chardev=self._name, bus="xhci.0",
                port=str(self._port),
            )  # fmt: skip
        finally:
            other.close()
        if not self._greeted.wait(10):
            raise BenchError(f"QEMU does not talk to {self._name}: {machine.console()}")

    def plug(self, *, wait: bool = True, timeout_s: float = 30.0) -> None:
        """Plug it in.

        Args:
            wait: Return only when the guest's kernel has configured it; not for one that is meant to fail.
            timeout_s: Time limit of that.

        Raises:
            BenchError: It was not configured in time.
        """
        device = self.device
        device.reset()
        self._interrupts.clear()
        self._configured.clear()
        self.plugged = True
        self._send_layout()
        ids = (device.id_vendor, device.id_product, device.bcd_device)
        self._send(_DEVICE_CONNECT, _CONTROL_HEADER.pack(_SPEED[device.speed], *device.device_class, *ids))
        if wait and not self._configured.wait(timeout_s):
            raise BenchError(f"the guest did not configure {self._name}: {self._machine.console()}")
        if wait:
            # the kernel creates the interfaces only after the device has taken the configuration
            entries = [f"{self.sysfs}:1.{interface.number}" for interface in device.interfaces]
            limit = f"--timeout={timeout_s:.0f}"
            self._machine.run(["udevadm", "wait", "--settle", limit, self.sysfs, *entries]).check()

    def unplug(self, *, wait: bool = True, timeout_s: float = 30.0) -> None:
        """Pull it out; `wait` until the guest's kernel has noticed."""
        self.plugged = False
        self._send(_DEVICE_DISCONNECT)
        self.device.reset()
        if wait:
            limit = f"--timeout={timeout_s:.0f}"
            self._machine.run(["udevadm", "wait", "--removed", "--settle", limit, self.sysfs]).check()

    def close(self) -> None:
        """Take the token out and give its port back. Fine for a machine that is gone already, and twice."""
        try:
            self._machine.qmp("device_del", id=f"usb-{self._name}")
            self._machine.qmp("chardev-remove", id=self._name)
        except BenchError:
            pass  # the machine has ended, or this was done before
        self.plugged = False
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._reader.join()
        self._socket.close()
        self._machine.release_port(self._port)
        self.device.reset()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # -- the wire

    def _send(self, kind: int, body: bytes = b"", packet_id: int = 0) -> None:
        header = _FIRST_HEADER if kind == _HELLO else _WIDE_HEADER
        try:
            with self._write_lock:
                self._socket.sendall(header.pack(kind, len(body), packet_id) + body)
        except OSError:
            pass  # the machine is gone; so is whoever would read it

    def _receive(self, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            chunk = self._socket.recv(length - len(data))
            if not chunk:
                raise ConnectionResetError
            data += chunk
        return bytes(data)

    def _serve(self) -> None:
        try:
            self._send(_HELLO, b"virtual token".ljust(64, b"\0") + struct.pack("<I", _CAPABILITIES))
            _, length, _ = _FIRST_HEADER.unpack(self._receive(_FIRST_HEADER.size))
            self._receive(length)  # QEMU's capabilities: it has had 64bits_ids since 1.3, so headers are wide from here
            self._greeted.set()
            while True:
                kind, length, packet_id = _WIDE_HEADER.unpack(self._receive(_WIDE_HEADER.size))
                self._packet(kind, self._receive(length), packet_id)
        except OSError:
            return

    def _send_layout(self) -> None:
        """Interfaces and endpoints, each in tables of 32 rows; the index of an endpoint is its number, IN from 16."""
        interfaces = self.device.interfaces
        columns = zip(*interfaces, strict=True)
        body = struct.pack("<I", len(interfaces)) + b"".join(bytes(c).ljust(_TABLE_LENGTH, b"\0") for c in columns)
        self._send(_INTERFACE_INFO, body)
        types, intervals, owners = bytearray([_UNUSED_ENDPOINT] * _TABLE_LENGTH), bytearray(32), bytearray(32)
        packets = [0] * _TABLE_LENGTH
        for index in (0, 16):
            types[index], packets[index] = 0, _MAX_PACKET_CONTROL
        for endpoint in self.device.endpoints:
            index = (endpoint.address & 0x80) >> 3 | endpoint.address & 0x0F
            types[index], intervals[index], owners[index] = endpoint.type, endpoint.interval, endpoint.interface
            packets[index] = endpoint.max_packet
        self._send(_ENDPOINT_INFO, bytes(types + intervals + owners) + struct.pack("<32H", *packets))

    # -- what the guest asks for

    def _packet(self, kind: int, body: bytes, packet_id: int) -> None:
        if kind == _CONTROL:
            self._control(body, packet_id)
        elif kind == _BULK:
            self._bulk(body, packet_id)
        elif kind == _INTERRUPT:
            endpoint, _, length = _INTERRUPT_HEADER.unpack_from(body)
            self._send(_INTERRUPT, _INTERRUPT_HEADER.pack(endpoint, _SUCCESS, length), packet_id)
            self.device.host_out(endpoint, body[_INTERRUPT_HEADER.size :])
        elif kind in (_START_INTERRUPT, _STOP_INTERRUPT):
            self._switch_interrupt(body[0], packet_id, on=kind == _START_INTERRUPT)
        elif kind == _CANCEL:
            if self.device.cancel(packet_id):
                self._send(_BULK, _BULK_HEADER.pack(0x80, _CANCELLED, 0, 0, 0), packet_id)
        elif kind == _RESET:
            self._interrupts.clear()
            self.device.reset()
        else:
            self._configuration(kind, body, packet_id)

    def _configuration(self, kind: int, body: bytes, packet_id: int) -> None:
        if kind in (_SET_CONFIGURATION, _GET_CONFIGURATION):
            if kind == _SET_CONFIGURATION:
                self.device.control(0x00, 9, body[0], 0, 0)
                self._send_layout()
            self._send(_CONFIGURATION_STATUS, bytes([_SUCCESS, self.device.configuration]), packet_id)
            if kind == _SET_CONFIGURATION and body[0]:
                self._configured.set()
        elif kind in (_SET_ALTERNATE, _GET_ALTERNATE):
            number = body[0]
            if kind == _SET_ALTERNATE:
                self.device.control(0x01, 11, body[1], number, 0)
            alternate = self.device.control(0x81, 10, 0, number, 1)
            self._send(_ALTERNATE_STATUS, bytes([_SUCCESS, number]) + alternate, packet_id)

    def _control(self, body: bytes, packet_id: int) -> None:
        endpoint, request, request_type, _, value, index, length = _CONTROL_HEADER.unpack_from(body)
        self.requests.append((request_type, request, value, index, length))
        status, answer = _SUCCESS, b""
        try:
            answer = self.device.control(request_type, request, value, index, length, body[_CONTROL_HEADER.size :])
        except Stall:
            status = _STALL
        done = 0 if status else len(answer) if request_type & 0x80 else length
        header = _CONTROL_HEADER.pack(endpoint, request, request_type, status, value, index, done)
        self._send(_CONTROL, header + answer, packet_id)

    def _bulk(self, body: bytes, packet_id: int) -> None:
        endpoint, _, low, _, high = _BULK_HEADER.unpack_from(body)
        length = low | high << 16

        def finished(tag: Hashable, data: bytes) -> None:
            header = _BULK_HEADER.pack(endpoint, _SUCCESS, len(data) & 0xFFFF, 0, len(data) >> 16)
            self._send(_BULK, header + data, packet_id)

        if endpoint & 0x80:
            self.device.host_in(endpoint, packet_id, length, finished)
        else:
            self._send(_BULK, _BULK_HEADER.pack(endpoint, _SUCCESS, low, 0, high), packet_id)
            self.device.host_out(endpoint, body[_BULK_HEADER.size :])

    def _switch_interrupt(self, endpoint: int, packet_id: int, *, on: bool) -> None:
        if on:
            self._interrupts.add(endpoint)
        else:
            self._interrupts.discard(endpoint)
            self.device.cancel(_InterruptRead(endpoint))
        self._send(_INTERRUPT_STATUS, bytes([_SUCCESS, endpoint]), packet_id)
        if on:
            self._read_interrupt(endpoint)

    def _read_interrupt(self, endpoint: int) -> None:
        packet = next(each.max_packet for each in self.device.endpoints if each.address == endpoint)

        def arrived(tag: Hashable, data: bytes) -> None:
            self._interrupt_count += 1
            header = _INTERRUPT_HEADER.pack(endpoint, _SUCCESS, len(data))
            self._send(_INTERRUPT, header + data, self._interrupt_count)
            if endpoint in self._interrupts:
                self._read_interrupt(endpoint)

        self.device.host_in(endpoint, _InterruptRead(endpoint), packet, arrived)
