"""Frames on a pair of byte streams: a kind, a length, that many bytes. The same on every system.

    "M" length (4 bytes, big-endian) message: one JSON document
    "D" length                       data: a piece of a file
    "E" 0                            the file's end
"""

import os
import select
import struct
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from keyfit import strictjson
from keyfit.errors import KeyfitError, Outcome

MESSAGE, DATA, END = b"M", b"D", b"E"
MAX_MESSAGE_BYTES = 65_536
"""Messages are a few hundred bytes; an error with a long list of packages may have some thousand."""
MAX_DATA_BYTES = 131_072
_HEAD = struct.Struct(">cI")


class ChannelClosed(KeyfitError):
    """The other side is gone."""

    outcome = Outcome.CANCELLED

    def __init__(self) -> None:
        super().__init__("caller-gone", "The other side has closed the connection.")


class BadFrame(KeyfitError):
    """The other side does not keep to the protocol."""

    outcome = Outcome.INTERNAL

    def __init__(self, why: str) -> None:
        super().__init__("helper-protocol", f"The elevated helper and the program that called it do not understand each other:"
                         f" {why}.", hint="Install Keyfit again, so that both are of one version.")


class Channel:
    """One end. Not for several threads at once.

    Args:
        incoming, outgoing: file descriptors.
        patience_s: how long the other side may be silent in the middle of something.
    """

    def __init__(self, incoming: int, outgoing: int, *, patience_s: float = 120.0) -> None:
        self._in, self._out, self._patience_s = incoming, outgoing, patience_s

    def send(self, message: msgspec.Struct) -> None:
        """Send one message.

        Raises:
            ChannelClosed: nobody reads any more.
        """
        self._write(MESSAGE, msgspec.json.encode(message))

    def send_file(self, chunks: Iterable[bytes]) -> None:
        """Send a file's content and its end.

        Raises:
            ChannelClosed: nobody reads any more.
        """
        for chunk in chunks:
            for start in range(0, len(chunk), MAX_DATA_BYTES):
                self._write(DATA, chunk[start:start + MAX_DATA_BYTES])
        self._write(END, b"")

    def receive(self, kind: Any, *, patience_s: float | None = None) -> Any:
        """The next frame, which has to be a message of this kind.

        Args:
            kind: a Struct, or a union of tagged ones.
            patience_s: how long to wait for it; `float("inf")` for as long as it takes.

        Raises:
            ChannelClosed: the other side is gone.
            BadFrame: it sent something else, or nothing in time.
        """
        found, body = self._read(self._patience_s if patience_s is None else patience_s)
        if found != MESSAGE:
            raise BadFrame("a message was expected, came a piece of a file")
        try:
            return strictjson.decode(body, kind, max_bytes=MAX_MESSAGE_BYTES)
        except ValueError as error:
            raise BadFrame(str(error)) from error

    def file(self) -> Iterator[bytes]:
        """The content of the file that comes next, to its end. Who does not read it to the end cannot go on with this channel.

        Raises:
            ChannelClosed, BadFrame.
        """
        while True:
            found, body = self._read(self._patience_s)
            if found == END and not body:
                return
            if found != DATA:
                raise BadFrame("a piece of a file was expected, came something else")
            yield body

    def stop_sending(self) -> None:
        """From now on `send` raises: its descriptor is about to be closed, and the number may soon be something else's."""
        self._out = -1

    def is_closed(self) -> bool:
        """True if the other side is gone, or has sent something without being asked, which comes to the same."""
        return _readable(self._in, 0.0)

    def _write(self, kind: bytes, body: bytes) -> None:
        rest = memoryview(_HEAD.pack(kind, len(body)) + body)
        try:
            while rest:
                rest = rest[os.write(self._out, rest):]
        except OSError as error:
            raise ChannelClosed from error

    def _read(self, patience_s: float) -> tuple[bytes, bytes]:
        kind, length = _HEAD.unpack(self._exactly(_HEAD.size, patience_s))
        most = {MESSAGE: MAX_MESSAGE_BYTES, DATA: MAX_DATA_BYTES, END: 0}.get(kind, -1)
        if length > most:
            raise BadFrame(f"a frame of kind {kind!a} with {length} bytes came")
        return kind, self._exactly(length, self._patience_s)

    def _exactly(self, size: int, patience_s: float) -> bytes:
        data = b""
        until = time.monotonic() + patience_s
        while len(data) < size:
            if not _readable(self._in, until - time.monotonic()):
                raise BadFrame(f"nothing came for {patience_s:.0f} seconds")
            try:
                piece = os.read(self._in, size - len(data))
            except OSError as error:
                raise ChannelClosed from error
            if not piece:
                raise ChannelClosed
            data += piece
        return data


def _readable(handle: int, seconds: float) -> bool:
    """True when there is something to read, or the end; always on Windows, whose pipes cannot be waited for."""
    if sys.platform == "win32":
        return seconds > 0
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(None if seconds == float("inf") else max(0, int(seconds * 1000))))
