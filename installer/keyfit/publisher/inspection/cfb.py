"""Compound files, the container of Windows Installer databases (Microsoft, [MS-CFB]: Compound File Binary File Format)."""

from collections.abc import Iterator
from struct import unpack, unpack_from
from typing import BinaryIO, cast

from msgspec import Struct

from keyfit.publisher.inspection.source import Malformed, Positioned, Source

MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
STORAGE, STREAM, ROOT = 1, 2, 5
_LARGEST_SECTOR = 0xFFFFFFFA
_END = 0xFFFFFFFE
_NO_STREAM = 0xFFFFFFFF
_MINI_SECTOR = 64
_MINI_CUTOFF = 4_096
_HEADER_DIFAT = 109
MAX_SECTORS = 8_000_000
MAX_ENTRIES = 20_000
MAX_DEPTH = 16


class Entry(Struct, frozen=True, kw_only=True):
    """A storage or a stream. `name` is UTF-16LE without the final zero; `raw` the 128 octets of the directory entry."""

    number: int
    name: bytes
    kind: int
    left: int
    right: int
    child: int
    start: int
    size: int
    raw: bytes

    @property
    def class_id(self) -> bytes:
        """The storage's CLSID."""
        return self.raw[80:96]


class CompoundFile:
    """Reads the directory and the streams of a compound file.

    Args:
        source: the whole file.

    Raises:
        Malformed: it is not in the form, or sectors lead in a circle.
    """

    def __init__(self, source: Source) -> None:
        header = source.read(0, 512)
        major, order, shift, mini_shift = unpack_from("<HHHH", header, 26)
        if header[:8] != MAGIC or order != 0xFFFE or (major, shift) not in ((3, 9), (4, 12)) or mini_shift != 6:
            raise Malformed("expected a compound file of version 3 or 4")
        self._source = source
        self._sector = 1 << shift
        fat_count, directory = unpack_from("<I", header, 44)[0], unpack_from("<I", header, 48)[0]
        cutoff, mini_fat, _, difat, _ = unpack_from("<IIIII", header, 56)
        if cutoff != _MINI_CUTOFF or source.size // self._sector > MAX_SECTORS:
            raise Malformed("expected a mini stream cut-off of 4096 bytes and not too many sectors")
        self._fat = self._read_fat(header, fat_count, difat)
        self._mini_fat = _numbers(self._chain_bytes(mini_fat))
        self.entries = self._read_entries(self._chain_bytes(directory), major)
        root = self.entries[0] if self.entries else None
        if root is None or root.kind != ROOT:
            raise Malformed("expected a root entry")
        self.root = root
        self._mini_stream = self._chain(root.start) if root.size else []

    def children(self, storage: Entry) -> list[Entry]:
        """The entries in a storage.

        Raises:
            Malformed: the tree of siblings leads in a circle.
        """
        found: list[Entry] = []
        waiting, seen = [storage.child], set[int]()
        while waiting:
            number = waiting.pop()
            if number == _NO_STREAM:
                continue
            if number in seen or number >= len(self.entries) or self.entries[number].kind not in (STORAGE, STREAM):
                raise Malformed("expected a tree of entries, it leads in a circle or nowhere")
            seen.add(number)
            entry = self.entries[number]
            found.append(entry)
            waiting += [entry.left, entry.right]
        return found

    def chunks(self, entry: Entry) -> Iterator[bytes]:
        """A stream's bytes, sector by sector."""
        mini = entry.size < _MINI_CUTOFF
        size = _MINI_SECTOR if mini else self._sector
        left = entry.size
        for sector in self._chain(entry.start, mini=mini) if left else ():
            if left <= 0:
                break
            piece = self._mini_sector(sector) if mini else self._sector_bytes(sector)
            yield piece[: min(left, size)]
            left -= size
        if left > 0:
            raise Malformed("expected a longer chain of sectors for a stream")

    def read(self, entry: Entry, limit: int) -> bytes:
        """A whole stream.

        Raises:
            Malformed: it is longer than `limit`.
        """
        if entry.size > limit:
            raise Malformed(f"expected a stream of at most {limit} bytes, came {entry.size}")
        return b"".join(self.chunks(entry))

    def open(self, entry: Entry) -> Source:
        """A stream with random access, without taking it into memory."""
        if entry.size < _MINI_CUTOFF:
            return Source.of(self.read(entry, _MINI_CUTOFF))
        return Source(cast(BinaryIO, _StreamFile(self, entry, self._chain(entry.start), self._sector)), 0, entry.size)

    def sector(self, number: int) -> bytes:
        """A sector, by its number."""
        return self._sector_bytes(number)

    def _sector_bytes(self, sector: int) -> bytes:
        offset = (sector + 1) * self._sector
        length = min(self._sector, self._source.size - offset)
        return self._source.read(offset, length).ljust(self._sector, b"\0")  # the last sector may be cut short

    def _mini_sector(self, sector: int) -> bytes:
        big, within = divmod(sector * _MINI_SECTOR, self._sector)
        if big >= len(self._mini_stream):
            raise Malformed("expected a mini sector inside the mini stream")
        offset = (self._mini_stream[big] + 1) * self._sector + within
        length = min(_MINI_SECTOR, self._source.size - offset)
        return self._source.read(offset, length).ljust(_MINI_SECTOR, b"\0")

    def _read_fat(self, header: bytes, count: int, difat: int) -> tuple[int, ...]:
        places = [n for n in unpack_from(f"<{_HEADER_DIFAT}I", header, 76) if n < _LARGEST_SECTOR]
        visited: set[int] = set()
        while difat < _LARGEST_SECTOR:
            if difat in visited:
                raise Malformed("expected a chain of sectors, it leads in a circle")
            visited.add(difat)
            *more, difat = unpack(f"<{self._sector // 4}I", self._sector_bytes(difat))
            places += [n for n in more if n < _LARGEST_SECTOR]
        if len(places) != count or len(set(places)) != count:
            raise Malformed(f"expected {count} sectors of the allocation table, came {len(set(places))}")
        return _numbers(b"".join(self._sector_bytes(place) for place in places))

    def _chain(self, start: int, *, mini: bool = False) -> list[int]:
        table = self._mini_fat if mini else self._fat
        sectors: list[int] = []
        while start < _LARGEST_SECTOR:
            if start >= len(table) or len(sectors) > len(table):
                raise Malformed("expected a chain of sectors, it leads in a circle or outside")
            sectors.append(start)
            start = table[start]
        if start != _END and sectors:
            raise Malformed("expected an end of a chain of sectors")
        return sectors

    def _chain_bytes(self, start: int) -> bytes:
        return b"".join(self._sector_bytes(sector) for sector in self._chain(start))

    def _read_entries(self, data: bytes, major: int) -> list[Entry]:
        if len(data) // 128 > MAX_ENTRIES:
            raise Malformed(f"expected at most {MAX_ENTRIES} streams, came {len(data) // 128}")
        entries = []
        for number in range(len(data) // 128):
            raw = data[number * 128 : number * 128 + 128]
            length = unpack_from("<H", raw, 64)[0]
            left, right, child = unpack_from("<III", raw, 68)
            start, size = unpack_from("<IQ", raw, 116)
            if length > 64 or length % 2:
                raise Malformed("expected an entry's name of at most 64 bytes")
            entries.append(Entry(number=number, name=raw[: max(length - 2, 0)], kind=raw[66], left=left, right=right,
                                 child=child, start=start, size=size & 0xFFFFFFFF if major == 3 else size, raw=raw))
        return entries


class _StreamFile(Positioned):
    """The sectors of a stream as a file."""

    def __init__(self, container: CompoundFile, entry: Entry, sectors: list[int], sector_size: int) -> None:
        super().__init__(entry.size)
        if len(sectors) * sector_size < entry.size:
            raise Malformed("expected a longer chain of sectors for a stream")
        self._container = container
        self._sectors, self._sector_size = sectors, sector_size

    def read(self, size: int = -1) -> bytes:
        end = self._size if size < 0 else min(self._position + size, self._size)
        pieces = []
        while self._position < end:
            index, within = divmod(self._position, self._sector_size)
            piece = self._container.sector(self._sectors[index])[within : within + end - self._position]
            pieces.append(piece)
            self._position += len(piece)
        return b"".join(pieces)


def _numbers(data: bytes) -> tuple[int, ...]:
    return unpack(f"<{len(data) // 4}I", data)
