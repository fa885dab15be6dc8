"""pbzx, the chunked xz that Apple packs payloads with; after github.com/NiklasRosenstein/pbzx (GPL; read, not copied).

Magic and eight bytes; then for each chunk eight bytes that readers take for flags or for its unpacked size, its stored size
in eight bytes, and xz data or plain bytes.
"""

import lzma
from struct import unpack

from keyfit.publisher.inspection.source import Malformed, Source
from keyfit.publisher.inspection.unpack import MAX_LZMA_MEMORY

_MAGIC = b"pbzx"
_XZ = b"\xfd7zXZ\x00"
MAX_CHUNK_BYTES = 64 * 1024 * 1024


def is_pbzx(source: Source) -> bool:
    """Does it begin like one?"""
    return source.size > 12 and source.read(0, 4) == _MAGIC


class Pbzx:
    """Unpacks chunk after chunk."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._position = 12
        self._waiting = b""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""
        if not self._waiting and self._position < self._source.size:
            stored = unpack(">8xQ", self._source.read(self._position, 16))[0]
            data = self._source.read(self._position + 16, min(stored, MAX_CHUNK_BYTES + 1))
            self._position += 16 + stored
            if data.startswith(_XZ):
                data = lzma.LZMADecompressor(memlimit=MAX_LZMA_MEMORY).decompress(data, max_length=MAX_CHUNK_BYTES + 1)
            if len(data) > MAX_CHUNK_BYTES or not data:
                raise Malformed(f"expected chunks of 1 to {MAX_CHUNK_BYTES} bytes, came {len(data)}")
            self._waiting = data
        data, self._waiting = self._waiting[:size], self._waiting[size:]
        return data
