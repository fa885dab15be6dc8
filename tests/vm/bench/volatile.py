"""A disk with a write cache that a power cut empties: what the guest had not flushed is lost, in part, in any order.

QEMU reaches it by the NBD protocol (the NBD project's doc/proto.md) over a socket that only this process and QEMU have a name
for. Writes stay in this process's memory until the guest sends a flush, as file systems and `fsync` do where it matters; then
they go to the file. `cut` decides sector by sector what of the rest had reached the medium.
"""

from __future__ import annotations

import os
import random
import socket
import struct
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

SECTOR = 512
_BLOCK = 4096
_INIT, _OPTION, _REPLY = 0x4E42444D41474943, 0x49484156454F5054, 0x3E889045565A9
_FIXED_NEWSTYLE, _NO_ZEROES = 1, 2
_OPT_ABORT, _OPT_INFO, _OPT_GO = 2, 6, 7
_REP_ACK, _REP_INFO, _REP_UNSUPPORTED = 1, 3, 0x80000001
_HAS_FLAGS, _SEND_FLUSH = 1, 4
_REQUEST, _SIMPLE_REPLY = 0x25609513, 0x67446698
_READ, _WRITE, _DISCONNECT, _FLUSH = 0, 1, 2, 3
_EINVAL = 22


class VolatileDisk:
    """Serves one file to one QEMU.

    Attributes:
        address: What QEMU's -drive takes as "file".
        unflushed: Writes since the last flush, oldest first: (offset, data).
    """

    def __init__(self, file: int, size_bytes: int) -> None:
        """Start to serve.

        Args:
            file: Descriptor of the disk's content, open for reading and writing.
            size_bytes: A multiple of 4096.
        """
        self._file, self._size = file, size_bytes
        self._cache: dict[int, bytes] = {}
        self.unflushed: list[tuple[int, bytes]] = []
        self._folder = tempfile.TemporaryDirectory(prefix="keyfit-disk-")
        path = Path(self._folder.name) / "nbd"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self.address = f"nbd:unix:{path}"
        self._thread = threading.Thread(target=self._serve, name="volatile-disk", daemon=True)
        self._thread.start()

    def cut(self, chance: random.Random | None = None) -> int:
        """The power is gone: QEMU has ended. Settle what was not flushed, and stop serving.

        Args:
            chance: Decides which sectors of it had reached the medium; None keeps them all.

        Returns:
            How many bytes were lost.
        """
        self._stop()
        lost = 0
        share = chance.random() if chance is not None else 1.0
        for offset, data in self.unflushed:
            for start in range(0, len(data), SECTOR):
                if chance is None or chance.random() < share:
                    os.pwrite(self._file, data[start : start + SECTOR], offset + start)
                else:
                    lost += SECTOR
        self.unflushed.clear()
        self._cache.clear()
        return lost

    def _stop(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        self._folder.cleanup()

    def _serve(self) -> None:
        with suppress(OSError, _EndError):
            connection, _ = self._listener.accept()
            with connection:
                self._negotiate(connection)
                while self._answer(connection):
                    pass

    def _negotiate(self, connection: socket.socket) -> None:
        connection.sendall(struct.pack(">QQH", _INIT, _OPTION, _FIXED_NEWSTYLE | _NO_ZEROES))
        _receive(connection, 4)
        while True:
            _, option, length = struct.unpack(">QII", _receive(connection, 16))
            _receive(connection, length)
            if option in (_OPT_GO, _OPT_INFO):
                export = struct.pack(">HQH", 0, self._size, _HAS_FLAGS | _SEND_FLUSH)
                _reply(connection, option, _REP_INFO, export)
                _reply(connection, option, _REP_ACK)
                if option == _OPT_GO:
                    return
            elif option == _OPT_ABORT:
                _reply(connection, option, _REP_ACK)
                raise _EndError
            else:
                _reply(connection, option, _REP_UNSUPPORTED)

    def _answer(self, connection: socket.socket) -> bool:
        magic, _, kind, handle, offset, length = struct.unpack(">IHHQQI", _receive(connection, 28))
        if magic != _REQUEST or kind == _DISCONNECT:
            return False
        data, error = b"", 0
        if kind == _READ:
            data = self._read(offset, length)
        elif kind == _WRITE:
            self._write(offset, _receive(connection, length))
        elif kind == _FLUSH:
            self._flush()
        else:
            error = _EINVAL
        connection.sendall(struct.pack(">IIQ", _SIMPLE_REPLY, error, handle) + data)
        return True

    def _read(self, offset: int, length: int) -> bytes:
        data = bytearray(os.pread(self._file, length, offset))
        data.extend(bytes(length - len(data)))  # a sparse file may end before the disk does
        first = offset - offset % _BLOCK
        for start in range(first, offset + length, _BLOCK):
            block = self._cache.get(start)
            if block is not None:
                low, high = max(start, offset), min(start + _BLOCK, offset + length)
                data[low - offset : high - offset] = block[low - start : high - start]
        return bytes(data)

    def _write(self, offset: int, data: bytes) -> None:
        self.unflushed.append((offset, data))
        first, end = offset - offset % _BLOCK, offset + len(data)
        for start in range(first, end, _BLOCK):
            low, high = max(start, offset), min(start + _BLOCK, end)
            part = data[low - offset : high - offset]
            if len(part) < _BLOCK:
                block = bytearray(self._read(start, _BLOCK))
                block[low - start : high - start] = part
                part = bytes(block)
            self._cache[start] = part

    def _flush(self) -> None:
        for start, block in self._cache.items():
            os.pwrite(self._file, block, start)
        self._cache.clear()
        self.unflushed.clear()


class _EndError(Exception):
    """QEMU has gone."""


def _receive(connection: socket.socket, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        chunk = connection.recv(min(length - len(data), 1 << 20))
        if not chunk:
            raise _EndError
        data += chunk
    return bytes(data)


def _reply(connection: socket.socket, option: int, kind: int, data: bytes = b"") -> None:
    connection.sendall(struct.pack(">QIII", _REPLY, option, kind, len(data)) + data)
