"""Takes `Content-Encoding: gzip` off, as it comes and in steps of bounded size, so that every limit counts what was signed.

A server may put it on metadata and manifests, never on payloads. TUF has no compression of its own (TAP 10).
"""

import zlib
from collections.abc import Iterator

from keyfit.trust.limits import CHUNK_BYTES

_GZIP = 16 + zlib.MAX_WBITS
"""zlib's "window bits" for a gzip stream (RFC 1952): header and check sum are looked at too."""
_IDLE_BYTES = 65_536
"""How many more bytes may go in than come out. Deflate (RFC 1951, section 3.2.4) needs 5 bytes for every 65 535 that it cannot
compress; what goes beyond is a stream of empty blocks or a header without end."""


class CodingError(Exception):
    """The bytes are not one complete gzip stream. Says what is wrong with them."""


def gunzip(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Decode one gzip stream, at most `CHUNK_BYTES` at a time.

    Raises:
        CodingError: damaged, cut off, followed by anything (another member too), or much input and no output.
    """
    decoder = zlib.decompressobj(_GZIP)
    surplus = _IDLE_BYTES
    for chunk in chunks:
        while chunk:
            if decoder.eof:
                raise CodingError("more bytes after its end")
            try:
                out = decoder.decompress(chunk, CHUNK_BYTES)
            except zlib.error as error:
                raise CodingError("a damaged stream") from error
            left = decoder.unused_data or decoder.unconsumed_tail
            surplus += len(out) - (len(chunk) - len(left))
            if surplus < 0:
                raise CodingError("a stream with next to nothing in it")
            surplus = min(surplus, 10 * _IDLE_BYTES)
            chunk = left
            if out:
                yield out
    if not decoder.eof:
        raise CodingError("a stream without its end")
