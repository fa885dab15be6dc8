"""usbfs over umockdev: answers the ioctls that libusb sends to /dev/bus/usb nodes, from a `DeviceModel`.

Only for the fake bus's server process. Numbers and layouts: linux/include/uapi/linux/usbdevice_fs.h, 64 bit.
"""

from __future__ import annotations

import errno
import importlib
import struct
from typing import Any

from tests.sim.ccidmodel import DeviceModel, Stall


def _ioctl(direction: int, number: int, size: int) -> int:
    # linux/include/uapi/asm-generic/ioctl.h; usbfs has the letter U
    return direction << 30 | size << 16 | ord("U") << 8 | number


_NONE, _WRITE, _READ, _BOTH = 0, 1, 2, 3
_URB = struct.Struct("=BB2xiI4xQiiiiiIQ")
"""struct usbdevfs_urb: type, endpoint, status, flags, buffer, buffer_length, actual_length, ..."""
_URB_STATUS, _URB_BUFFER, _URB_ACTUAL = 4, 16, 28

_SUBMIT, _DISCARD = _ioctl(_READ, 10, _URB.size), _ioctl(_NONE, 11, 0)
_REAP, _REAP_NO_DELAY = _ioctl(_WRITE, 12, 8), _ioctl(_WRITE, 13, 8)
_GET_DRIVER, _GET_CAPABILITIES = _ioctl(_WRITE, 8, 260), _ioctl(_READ, 26, 4)
_ACCEPTED = frozenset(
    {
        _ioctl(_READ, 3, 4),  # RESETEP
        _ioctl(_READ, 4, 8),  # SETINTERFACE
        _ioctl(_READ, 5, 4),  # SETCONFIGURATION
        _ioctl(_READ, 15, 4),  # CLAIMINTERFACE
        _ioctl(_READ, 16, 4),  # RELEASEINTERFACE
        _ioctl(_NONE, 20, 0),  # RESET
        _ioctl(_READ, 21, 4),  # CLEAR_HALT
        _ioctl(_READ, 27, 264),  # DISCONNECT_CLAIM
    }
)
_CAPABILITIES = 0x01 | 0x04
"""ZERO_PACKET and NO_PACKET_SIZE_LIM: libusb then does not split transfers."""
_REAP_HOLD_MS = 10
"""The real node tells poll() when something can be reaped; this one is a plain file, always ready, and libusb would
ask without end. So "nothing yet" is held back until there is something, at most that long. While there is traffic it
is 1 ms only: umockdev lets a second thread of the client submit nothing meanwhile."""
_TYPE_INTERRUPT, _TYPE_CONTROL, _TYPE_BULK = 1, 2, 3


class _Urb:
    """One request block in the client's memory."""

    def __init__(self, block: Any) -> None:
        fields = _URB.unpack(bytes(block.retrieve()))
        self.block = block
        self.type, self.endpoint, length = fields[0], fields[1], fields[5]
        self.buffer = block.resolve(_URB_BUFFER, length) if length else None

    @property
    def data(self) -> bytes:
        return bytes(self.buffer.retrieve()) if self.buffer is not None else b""

    def finish(self, status: int, actual: int) -> None:
        self.block.update(_URB_STATUS, list(struct.pack("=i", status)))
        self.block.update(_URB_ACTUAL, list(struct.pack("=i", actual)))

    def store(self, offset: int, data: bytes) -> None:
        if data and self.buffer is not None:
            self.buffer.update(offset, list(data))


class _OpenFile:
    """The URBs of one open file; a driver may open a node several times, and reaps on each only its own."""

    def __init__(self) -> None:
        self.done: list[_Urb] = []
        self.waiting: list[_Urb] = []
        self.reaping: Any = None
        self.idle_reaps = 0

    def complete(self, urb: _Urb, status: int, actual: int) -> None:
        if urb in self.waiting:
            self.waiting.remove(urb)
        urb.finish(status, actual)
        self.done.append(urb)
        self.answer_reap(errno.EAGAIN)

    def answer_reap(self, error: int) -> None:
        """Give the client that is asking the oldest finished block, or the error if there is none."""
        client, self.reaping = self.reaping, None
        if client is None:
            return
        if self.done:
            client.get_property("arg").resolve(0, 8).set_ptr(0, self.done.pop(0).block)
            client.complete(0, 0)
        else:
            client.complete(-1, error)


class UsbfsNode:
    """The ioctl side of one device; `handle` is the handler of umockdev's "handle-ioctl" signal."""

    def __init__(self, model: DeviceModel) -> None:
        self.model = model
        self._files: dict[int, _OpenFile] = {}
        self._gone = False
        self._glib: Any = importlib.import_module("gi.repository.GLib")

    def unplug(self) -> None:
        """Fail what is waiting, and every later request, as the kernel does when a device is pulled."""
        self._gone = True

    def handle(self, _handler: object, client: Any) -> bool:
        """Answer one ioctl. True: it was answered, umockdev need not look further."""
        file = self._file(client)
        request = client.get_property("request")
        if request in (_REAP, _REAP_NO_DELAY):
            self._reap(file, client)
        else:
            client.complete(*self._answer(file, request, client.get_property("arg")))
        return True

    def _file(self, client: Any) -> _OpenFile:
        key = hash(client)
        if key not in self._files:
            self._files[key] = _OpenFile()
            client.connect("notify::connected", lambda *_: self._files.pop(key, None))
        return self._files[key]

    def _answer(self, file: _OpenFile, request: int, arg: Any) -> tuple[int, int]:
        if self._gone:
            return -1, errno.ENODEV
        if request in _ACCEPTED:
            return 0, 0
        if request == _SUBMIT:
            self._submit(file, _Urb(arg.resolve(0, _URB.size)))
            return 0, 0
        if request == _DISCARD:
            return self._discard(file, struct.unpack("=Q", bytes(arg.retrieve()))[0])
        if request == _GET_CAPABILITIES:
            arg.resolve(0, 4).update(0, list(struct.pack("=I", _CAPABILITIES)))
            return 0, 0
        return -1, errno.ENODATA if request == _GET_DRIVER else errno.ENOTTY

    def _reap(self, file: _OpenFile, client: Any) -> None:
        if self._gone:
            for urb in tuple(file.waiting):
                file.complete(urb, -errno.ESHUTDOWN, 0)
        file.reaping = client
        if file.done or self._gone:
            file.answer_reap(errno.ENODEV)
            return

        def give_up() -> bool:
            if file.reaping is client:
                file.answer_reap(errno.ENODEV if self._gone else errno.EAGAIN)
            return False

        # in the handler's own context, so that everything about one device stays in one thread
        file.idle_reaps += 1
        source = self._glib.timeout_source_new(min(1 + file.idle_reaps // 20, _REAP_HOLD_MS))
        source.set_callback(lambda *_: give_up())
        source.attach(self._glib.MainContext.ref_thread_default())

    def _discard(self, file: _OpenFile, address: int) -> tuple[int, int]:
        for urb in file.waiting:
            if urb.block.client_addr == address:
                self.model.cancel(urb)
                file.complete(urb, -errno.ENOENT, 0)
                return 0, 0
        return -1, errno.EINVAL

    def _submit(self, file: _OpenFile, urb: _Urb) -> None:
        file.idle_reaps = 0
        number, to_host = urb.endpoint & 0x0F, bool(urb.endpoint & 0x80)
        if urb.type == _TYPE_CONTROL:
            self._control(file, urb)
        elif urb.type not in (_TYPE_BULK, _TYPE_INTERRUPT):
            file.complete(urb, -errno.EINVAL, 0)
        elif to_host:
            file.waiting.append(urb)

            def done(data: bytes) -> None:
                urb.store(0, data)
                file.complete(urb, 0, len(data))

            self.model.host_in(number, urb, len(urb.data), done)
        else:
            data = urb.data
            self.model.host_out(number, data)
            file.complete(urb, 0, len(data))

    def _control(self, file: _OpenFile, urb: _Urb) -> None:
        data = urb.data
        request_type, request, value, index, length = struct.unpack_from("<BBHHH", data)
        try:
            answer = self.model.control(request_type, request, value, index, length, data[8:])
        except Stall:
            file.complete(urb, -errno.EPIPE, 0)
            return
        if request_type & 0x80:
            urb.store(8, answer[:length])
            file.complete(urb, 0, len(answer[:length]))
        else:
            file.complete(urb, 0, length)
