"""Cabinet files (Microsoft, [MS-CAB]: Cabinet File Format; [MS-MCI] for MSZIP).

Stored and MSZIP folders are read. LZX and Quantum are not: what is in them is listed and named as unread.
"""

import zlib
from collections.abc import Iterator, Sequence
from struct import unpack, unpack_from

from msgspec import Struct

from keyfit.publisher.inspection.limits import MAX_MEMBERS, MAX_UNPACKED_BYTES
from keyfit.publisher.inspection.source import Malformed, Source

_COMPRESSIONS = {0: "stored", 1: "mszip", 2: "quantum", 3: "lzx"}
_PREVIOUS, _NEXT, _RESERVED = 1, 2, 4
_UTF8_NAME = 0x80
_BLOCK = 32_768
_MAX_NAME = 257


class CabinetFile(Struct, frozen=True, kw_only=True):
    """A file in a cabinet. `folder` is the number of the compressed stretch it is in, `offset` its place there."""

    name: str
    size: int
    folder: int
    offset: int


class _Folder(Struct, frozen=True):
    start: int
    blocks: int
    compression: str


class Cabinet:
    """Lists a cabinet and reads files out of it.

    Raises:
        Malformed: it is not in the form, or goes on in another cabinet.
    """

    def __init__(self, source: Source) -> None:
        header = source.read(0, 36)
        if header[:4] != b"MSCF":
            raise Malformed("expected a cabinet, it does not begin with MSCF")
        files_at = unpack_from("<I", header, 16)[0]
        folders, files, flags = unpack_from("<HHH", header, 26)
        if flags & (_PREVIOUS | _NEXT):
            raise Malformed("expected a cabinet that stands alone, it is one of a set")
        position, extra, self._block_extra = 36, 0, 0
        if flags & _RESERVED:
            size, extra, self._block_extra = unpack("<HBB", source.read(36, 4))
            position += 4 + size
        self._source = source
        self._folders = []
        for number in range(folders):
            start, blocks, kind = unpack("<IHH", source.read(position + number * (8 + extra), 8))
            self._folders.append(_Folder(start, blocks, _COMPRESSIONS.get(kind & 0x0F, "unknown")))
        self.files = list(self._read_files(files_at, files))

    def readable(self, file: CabinetFile) -> bool:
        """Can its bytes be read here?"""
        return self._folders[file.folder].compression in ("stored", "mszip")

    def compression(self, file: CabinetFile) -> str:
        """What it is compressed with."""
        return self._folders[file.folder].compression

    def contents(self, wanted: Sequence[CabinetFile], limit: int) -> Iterator[tuple[CabinetFile, bytes]]:
        """The bytes of some files, each folder unpacked once.

        Raises:
            Malformed: one is longer than `limit`, they overlap, or the data is damaged.
        """
        for file in wanted:
            if file.size > limit:
                raise Malformed(f"expected a file of at most {limit} bytes, {file.name!a} has {file.size}")
        for number, folder in enumerate(self._folders):
            inside = sorted((file for file in wanted if file.folder == number), key=lambda file: file.offset)
            if inside:
                yield from _cut(self._unpacked(folder), inside)

    def _read_files(self, position: int, count: int) -> Iterator[CabinetFile]:
        if count > MAX_MEMBERS:
            raise Malformed(f"expected at most {MAX_MEMBERS} files, came {count}")
        total = 0
        for _ in range(count):
            size, offset, folder, _, _, attributes = unpack("<IIHHHH", self._source.read(position, 16))
            raw = self._source.read(position + 16, min(_MAX_NAME, self._source.size - position - 16))
            end = raw.find(b"\0")
            if end < 1 or folder >= len(self._folders):
                raise Malformed("expected a file's name and folder")
            total += size
            if total > MAX_UNPACKED_BYTES:
                raise Malformed(f"expected at most {MAX_UNPACKED_BYTES} bytes when unpacked, came more")
            encoding = "utf-8" if attributes & _UTF8_NAME else "latin-1"
            yield CabinetFile(name=raw[:end].decode(encoding, "replace"), size=size, folder=folder, offset=offset)
            position += 16 + end + 1

    def _unpacked(self, folder: _Folder) -> Iterator[bytes]:
        position, before = folder.start, b""
        for _ in range(folder.blocks):
            _, packed, size = unpack("<IHH", self._source.read(position, 8))
            data = self._source.read(position + 8 + self._block_extra, packed)
            position += 8 + self._block_extra + packed
            if folder.compression == "mszip":
                data = _inflate(data, before)
                before = data
            if len(data) != size or size > _BLOCK:
                raise Malformed(f"expected a block of {size} bytes, came {len(data)}")
            yield data


def _cut(blocks: Iterator[bytes], files: Sequence[CabinetFile]) -> Iterator[tuple[CabinetFile, bytes]]:
    """Files, in the order of their offsets, out of the blocks of their folder."""
    buffer, base = bytearray(), 0
    for file in files:
        if file.offset < base:
            raise Malformed(f"expected files beside each other, {file.name!a} overlaps another")
        while base + len(buffer) < file.offset + file.size:
            block = next(blocks, None)
            if block is None:
                raise Malformed(f"expected {file.size} bytes of {file.name!a}, the folder ends before")
            buffer += block
            skip = min(max(file.offset - base, 0), len(buffer))
            del buffer[:skip]
            base += skip
        start = file.offset - base
        yield file, bytes(buffer[start : start + file.size])
        del buffer[: start + file.size]
        base = file.offset + file.size


def _inflate(data: bytes, before: bytes) -> bytes:
    """One MSZIP block; it may refer to the 32 KiB before it."""
    if data[:2] != b"CK":
        raise Malformed("expected an MSZIP block, it does not begin with CK")
    engine = zlib.decompressobj(-15, zdict=before) if before else zlib.decompressobj(-15)
    try:
        return engine.decompress(data[2:], _BLOCK + 1)
    except zlib.error as error:
        raise Malformed(f"the compressed data is damaged: {error}") from error
