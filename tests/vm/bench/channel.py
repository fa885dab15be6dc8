"""The host's end of the agent: frames over a socket, answered by the agent in the guest (see guest/agent.py)."""

from __future__ import annotations

import json
import queue
import socket
import threading
from dataclasses import dataclass
from typing import Any

from tests.vm.bench.host import BenchError

_CHUNK = 1 << 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One message of the agent: the JSON header and the raw bytes after it."""

    header: dict[str, Any]
    payload: bytes


class Channel:
    """Sends requests and hands each answer to the one who asked; usable from several threads."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._write_lock = threading.Lock()
        self._waiting: dict[int, queue.SimpleQueue[Frame | None]] = {0: queue.SimpleQueue()}
        self._guard = threading.Lock()
        self._last_id = 0
        self._closed = False
        self._reader = threading.Thread(target=self._read, name="agent-reader", daemon=True)
        self._reader.start()

    def await_hello(self, timeout_s: float) -> None:
        """Wait until the agent of a booting guest says that it is there.

        Raises:
            BenchError: It did not in time, or the machine ended.
        """
        self.receive(0, timeout_s)

    def request(self, op: str, payload: bytes = b"", **fields: object) -> int:
        """Send a request; the returned id is for `receive` and `finish`."""
        with self._guard:
            self._last_id += 1
            request_id = self._last_id
            self._waiting[request_id] = queue.SimpleQueue()
        header = json.dumps({"op": op, "id": request_id, "size": len(payload), **fields}).encode()
        try:
            with self._write_lock:
                self._socket.sendall(header + b"\n" + payload)
        except OSError as problem:
            raise BenchError(f"the machine does not take requests: {problem}") from problem
        return request_id

    def receive(self, request_id: int, timeout_s: float | None) -> Frame:
        """Wait for the next frame that answers a request.

        Raises:
            BenchError: None came in time, the machine ended, or the agent reports a failure.
        """
        with self._guard:
            waiting = self._waiting[request_id]
            if self._closed:
                waiting.put(None)
        try:
            frame = waiting.get(timeout=timeout_s)
        except queue.Empty:
            raise BenchError(f"the agent did not answer within {timeout_s} s") from None
        if frame is None:
            raise BenchError("the machine ended")
        if "error" in frame.header:
            raise BenchError(f"in the guest: {frame.header['error']}")
        return frame

    def finish(self, request_id: int) -> None:
        """Forget a request: nothing more is expected."""
        with self._guard:
            self._waiting.pop(request_id, None)

    def call(self, op: str, payload: bytes = b"", *, timeout_s: float = 60.0, **fields: object) -> bytes:
        """Send a request that has one answer, and return the answer's bytes."""
        request_id = self.request(op, payload, **fields)
        try:
            return self.receive(request_id, timeout_s).payload
        finally:
            self.finish(request_id)

    def close(self) -> None:
        """Close the connection; whoever waits gets a BenchError."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._reader.join()
        self._socket.close()

    def _read(self) -> None:
        buffer = bytearray()
        try:
            while True:
                while (end := buffer.find(b"\n")) < 0:
                    self._fill(buffer)
                header = json.loads(bytes(buffer[:end]))
                del buffer[: end + 1]
                size = header["size"]
                while len(buffer) < size:
                    self._fill(buffer)
                frame = Frame(header=header, payload=bytes(buffer[:size]))
                del buffer[:size]
                with self._guard:
                    waiting = self._waiting.get(header["id"])
                if waiting is not None:
                    waiting.put(frame)
        except OSError:
            with self._guard:
                self._closed = True
                for waiting in self._waiting.values():
                    waiting.put(None)

    def _fill(self, buffer: bytearray) -> None:
        chunk = self._socket.recv(_CHUNK)
        if not chunk:
            raise ConnectionResetError
        buffer += chunk
