"""Bounded reading of a file that nobody vouches for."""

import hashlib
import io
import lzma
import zlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO, Protocol, cast

CHUNK_BYTES = 1_048_576


class Malformed(Exception):
    """The file is not in the form that its kind asks for, or goes beyond a limit. Says what was expected and what came."""


class Source:
    """A stretch of a file with random access. Reads what was asked for or raises; never reads beyond its end.

    Args:
        file: seekable.
        start: where the stretch begins, in bytes.
        size: its length; None for all the rest.
    """

    def __init__(self, file: BinaryIO, start: int = 0, size: int | None = None) -> None:
        self._file = file
        self._start = start
        end = file.seek(0, io.SEEK_END)
        self.size = end - start if size is None else size
        if start < 0 or self.size < 0 or start + self.size > end:
            raise Malformed(f"expected {self.size} bytes at {start}, the file ends at {end}")

    @classmethod
    def of(cls, data: bytes) -> "Source":
        """Bytes that are in memory."""
        return cls(io.BytesIO(data))

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset` on.

        Raises:
            Malformed: there are fewer.
        """
        if offset < 0 or length < 0 or (length and offset + length > self.size):
            raise Malformed(f"expected {length} bytes at {offset}, there are {self.size} in all")
        self._file.seek(self._start + offset)
        data = self._file.read(length)
        if len(data) != length:
            raise Malformed(f"expected {length} bytes at {offset}, came {len(data)}")
        return data

    def window(self, offset: int, length: int) -> "Source":
        """A stretch of this stretch."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise Malformed(f"expected {length} bytes at {offset}, there are {self.size} in all")
        return Source(self._file, self._start + offset, length)

    def chunks(self, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The bytes of a stretch, piece by piece."""
        left = self.size - offset if length is None else length
        while left:
            piece = self.read(offset, min(left, CHUNK_BYTES))
            yield piece
            offset += len(piece)
            left -= len(piece)

    def stream(self) -> BinaryIO:
        """As a file of its own, for readers that want one."""
        return cast(BinaryIO, SourceStream(self))

    def digest(self, algorithm: str) -> str:
        """Hash over all of it, in hex."""
        return digest(self.chunks(), algorithm)


class Positioned(io.RawIOBase):
    """A readable, seekable file of `size` bytes; what `read` gives is the matter of its kind."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As every file."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError("seek before the beginning")
        self._position = base + offset
        return self._position


class SourceStream(Positioned):
    """A `Source` as a file."""

    def __init__(self, source: Source) -> None:
        super().__init__(source.size)
        self._source = source

    def read(self, size: int = -1) -> bytes:
        """As every file."""
        left = max(self._source.size - self._position, 0)
        data = self._source.read(self._position, left if size < 0 else min(size, left))
        self._position += len(data)
        return data


class Readable(Protocol):
    """What can be read forward."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""


class Capped:
    """A stream that raises once more than `limit` bytes have come out of it: what a decompressor makes of a few bytes."""

    def __init__(self, stream: Readable, limit: int) -> None:
        self._stream = stream
        self._left = limit
        self._limit = limit

    def read(self, size: int) -> bytes:
        """At most `size` bytes; none at the end.

        Raises:
            Malformed: the limit is passed, or what is compressed is damaged.
        """
        try:
            data = self._stream.read(min(size, self._left + 1))
        except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
            raise Malformed(f"the compressed data is damaged: {error}") from error
        self._left -= len(data)
        if self._left < 0:
            raise Malformed(f"expected at most {self._limit} bytes when unpacked, came more")
        return data

    def exactly(self, size: int) -> bytes:
        """That many bytes.

        Raises:
            Malformed: there are fewer.
        """
        pieces, left = [], size
        while left:
            piece = self.read(min(left, CHUNK_BYTES))
            if not piece:
                raise Malformed(f"expected {size} bytes, the data ends {left} before")
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    def skip(self, size: int) -> None:
        """Pass over that many bytes."""
        while size:
            size -= len(self.exactly(min(size, CHUNK_BYTES)))

    def rest(self, limit: int) -> bytes:
        """All that is left.

        Raises:
            Malformed: there are more than `limit` bytes.
        """
        pieces, total = [], 0
        while piece := self.read(CHUNK_BYTES):
            total += len(piece)
            if total > limit:
                raise Malformed(f"expected at most {limit} bytes, came more")
            pieces.append(piece)
        return b"".join(pieces)


def digest(pieces: Iterable[bytes], algorithm: str) -> str:
    """Hash over pieces, in hex."""
    running = hashlib.new(algorithm, usedforsecurity=False)
    for piece in pieces:
        running.update(piece)
    return running.hexdigest()
