"""Library search paths inside ELF files: python packaging/searchpaths.py FOLDER takes out those that lead out of the program.

A Python that was built for a folder of its own leaves that folder in each of its libraries (DT_RUNPATH). On another machine
the folder may be anybody's: whoever can make it gets a library of theirs loaded into the program, elevated or not. Only paths
relative to the library itself ($ORIGIN) stay. Linux only; the format is in elf(5) and ld.so(8).
"""

import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

MAGIC = b"\x7fELF"
PT_DYNAMIC = 2
DT_NULL, DT_STRTAB, DT_RPATH, DT_RUNPATH = 0, 5, 15, 29
PT_LOAD = 1


class Entry(NamedTuple):
    """One entry of the dynamic section: where it lies in the file, its tag and its value."""

    offset: int
    tag: int
    value: int


class Elf:
    """The dynamic section of a little-endian ELF file."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.wide = data[4] == 2
        if data[5] != 1:
            raise ValueError("not little-endian")
        self._pair = struct.Struct("<qQ" if self.wide else "<iI")

    def entries(self) -> Iterator[Entry]:
        """All entries, DT_NULL being the last."""
        for kind, offset, _, size in self._segments():
            if kind == PT_DYNAMIC:
                for at in range(offset, offset + size, self._pair.size):
                    yield Entry(at, *self._pair.unpack_from(self._data, at))

    def search_paths(self) -> dict[Entry, str]:
        """The entries that name search paths, with what they name."""
        entries = list(self.entries())
        strings = next((self._file_offset(e.value) for e in entries if e.tag == DT_STRTAB), 0)
        found = {}
        for entry in entries:
            if entry.tag in (DT_RPATH, DT_RUNPATH):
                start = strings + entry.value
                found[entry] = self._data[start : self._data.index(b"\0", start)].decode()
        return found

    def without(self, unwanted: set[Entry]) -> bytes:
        """The file without some entries: those after them move up, and DT_NULL fills the end."""
        entries = list(self.entries())
        kept = [e for e in entries if e not in unwanted] + [Entry(0, DT_NULL, 0)] * len(unwanted)
        data = bytearray(self._data)
        for place, entry in zip(entries, kept, strict=True):
            self._pair.pack_into(data, place.offset, entry.tag, entry.value)
        return bytes(data)

    def _segments(self) -> Iterator[tuple[int, int, int, int]]:
        """(kind, offset in the file, address, size in the file) of the program headers."""
        start = struct.unpack_from("<Q" if self.wide else "<I", self._data, 32 if self.wide else 28)[0]
        size, count = struct.unpack_from("<HH", self._data, 54 if self.wide else 42)
        for at in range(start, start + size * count, size):
            if self.wide:
                kind, _, offset, address, _, length = struct.unpack_from("<IIQQQQ", self._data, at)
            else:
                kind, offset, address, _, length = struct.unpack_from("<IIIII", self._data, at)
            yield kind, offset, address, length

    def _file_offset(self, address: int) -> int:
        for kind, offset, start, size in self._segments():
            if kind == PT_LOAD and start <= address < start + size:
                return address - start + offset
        raise ValueError("an address outside of the file")


def foreign(path: Path) -> dict[Entry, str]:
    """The search paths of a file that are not relative to it; none for what is no ELF file."""
    with path.open("rb") as file:
        if file.read(4) != MAGIC:
            return {}
    paths = Elf(path.read_bytes()).search_paths()
    return {entry: text for entry, text in paths.items() if not all(p.startswith("$ORIGIN") for p in text.split(":"))}


def main(arguments: list[str]) -> int:
    """Take them out of every file of the folder; returns the exit code."""
    (folder,) = arguments
    changed = 0
    for path in sorted(p for p in Path(folder).rglob("*") if p.is_file() and not p.is_symlink()):
        unwanted = foreign(path)
        if unwanted:
            path.write_bytes(Elf(path.read_bytes()).without(set(unwanted)))
            changed += 1
    sys.stdout.write(f"search paths taken out of {changed} files\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
