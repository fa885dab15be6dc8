"""Compressed streams, taken apart in pieces of bounded size: one stream to its very end, and nothing after it."""

import bz2
import lzma
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

from keyfit.engine.archives.policy import Meter, Refused

CHUNK = 131_072
MAX_LZMA_MEMORY = 128 * 1024 * 1024
"""xz -9 asks for 65 MiB when it unpacks; the format would allow 4 GiB (xz(1))."""
_GZIP = 16 + zlib.MAX_WBITS
"""zlib's "window bits" for a gzip stream (RFC 1952): header and check sum are looked at too."""
_MAGIC = ((b"\x1f\x8b", "gzip"), (b"\xfd7zXZ\x00", "xz"), (b"BZh", "bzip2"), (b"\x28\xb5\x2f\xfd", "zstd"))
"""RFC 1952; the .xz file format, 2.1.1.1; bzip2; RFC 8878, 3.1.1."""


def pieces(file: BinaryIO, length: int = -1) -> Iterator[bytes]:
    """The next `length` bytes of a file; all that are left if it is negative.

    Raises:
        Refused: the file ends before.
    """
    while length:
        piece = file.read(CHUNK if length < 0 else min(CHUNK, length))
        if not piece:
            if length > 0:
                raise Refused("it ends too early")
            return
        length -= len(piece) if length > 0 else 0
        yield piece


def inflated(packed: Iterator[bytes], window_bits: int = -zlib.MAX_WBITS) -> Iterator[bytes]:
    """One deflate stream, by default without a header (RFC 1951).

    Raises:
        Refused: it is damaged, cut off, or followed by anything.
    """
    decoder = zlib.decompressobj(window_bits)
    try:
        for piece in packed:
            while piece:
                if decoder.eof:
                    raise Refused("there are more bytes after the end of a stream")
                out = decoder.decompress(piece, CHUNK)
                piece = decoder.unconsumed_tail or decoder.unused_data
                if out:
                    yield out
        while not decoder.eof:  # what the last piece was not yet made of
            out = decoder.decompress(b"", CHUNK)
            if not out:
                raise Refused("a stream ends too early")
            yield out
    except zlib.error as error:
        raise Refused("a stream is damaged") from error


def _engine_output(packed: Iterator[bytes], engine: Any) -> Iterator[bytes]:
    """The same with an engine of `lzma` or `bz2`, which keep the input that they did not use yet."""
    try:
        for piece in packed:
            if engine.eof:
                raise Refused("there are more bytes after the end of a stream")
            out = engine.decompress(piece, CHUNK)
            yield out
            while not engine.eof and not engine.needs_input:
                yield engine.decompress(b"", CHUNK)
            if engine.unused_data:
                raise Refused("there are more bytes after the end of a stream")
    except (lzma.LZMAError, OSError, EOFError, ValueError) as error:
        raise Refused("a stream is damaged, or needs too much memory") from error
    if not engine.eof:
        raise Refused("a stream ends too early")


class Stream:
    """The content of a file that is compressed or not, from its beginning to its end.

    Raises:
        Refused: from every method: damaged, too short, too long, too slow, or compressed in another way than gzip, xz or bzip2.
    """

    def __init__(self, file: BinaryIO, meter: Meter) -> None:
        self._meter = meter
        self._waiting = b""
        self._pieces = self._opened(file)

    def exactly(self, length: int) -> bytes:
        """The next bytes, as many as were asked for."""
        return b"".join(self.content(length))

    def content(self, length: int) -> Iterator[bytes]:
        """The same, piece by piece."""
        while length:
            piece = self._next()
            if not piece:
                raise Refused("it ends too early")
            taken, self._waiting = piece[:length], piece[length:]
            length -= len(taken)
            yield taken

    def rest(self) -> Iterator[bytes]:
        """All that is left, piece by piece."""
        while piece := self._next():
            self._waiting = b""
            yield piece

    def _next(self) -> bytes:
        while not self._waiting:
            fresh = next(self._pieces, None)
            if fresh is None:
                return b""
            self._meter.count(len(fresh))
            self._waiting = fresh
        return self._waiting

    @staticmethod
    def _opened(file: BinaryIO) -> Iterator[bytes]:
        first = file.read(6)
        file.seek(0)
        kind = next((name for magic, name in _MAGIC if first.startswith(magic)), "")
        match kind:
            case "gzip":
                return inflated(pieces(file), _GZIP)
            case "xz":
                return _engine_output(pieces(file), lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_LZMA_MEMORY))
            case "bzip2":
                return _engine_output(pieces(file), bz2.BZ2Decompressor())
            case "zstd":
                raise Refused("it is compressed with zstd; expected gzip, xz or bzip2")
            case _:
                return pieces(file)
