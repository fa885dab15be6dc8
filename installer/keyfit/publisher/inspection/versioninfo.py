"""The version resource of a PE file (learn.microsoft.com: "PE Format", .rsrc; VS_VERSIONINFO, StringFileInfo)."""

from collections.abc import Iterator, Mapping, Sequence
from struct import unpack_from

from msgspec import Struct

from keyfit.publisher.inspection.source import Malformed, Source

_RT_VERSION = 16
_FIXED_MARK = 0xFEEF04BD
MAX_RESOURCE_BYTES = 65_536
MAX_ENTRIES = 4_096
MAX_STRINGS = 256
_KEPT = ("OriginalFilename", "ProductName", "CompanyName", "FileVersion", "ProductVersion")


class Versions(Struct, frozen=True):
    """`strings` by their English names; `versions` are all forms of the file's and the product's version, each once."""

    versions: tuple[str, ...] = ()
    strings: Mapping[str, str] = {}


def read_versions(source: Source, resources: int, sections: Sequence[tuple[int, int, int, int]]) -> Versions:
    """Find and read the first version resource.

    Args:
        source: the PE file.
        resources: virtual address of the resource directory.
        sections: (virtual address, virtual size, file offset, size in the file) each.

    Raises:
        Malformed: the resource is not in the form.
    """
    base = _offset(resources, sections)
    entry = _find(source, base)
    if entry is None:
        return Versions()
    address, size = unpack_from("<II", source.read(entry, 8))
    if size > MAX_RESOURCE_BYTES:
        raise Malformed(f"expected a version resource of at most {MAX_RESOURCE_BYTES} bytes, came {size}")
    block = source.read(_offset(address, sections), size)
    strings = dict(_strings(block))
    versions = [*_fixed(block), *(strings[key] for key in ("FileVersion", "ProductVersion") if strings.get(key))]
    return Versions(versions=tuple(dict.fromkeys(versions)), strings=strings)


def _offset(address: int, sections: Sequence[tuple[int, int, int, int]]) -> int:
    for start, virtual, offset, size in sections:
        if start <= address < start + max(virtual, size):
            return offset + address - start
    raise Malformed(f"expected the virtual address 0x{address:x} in a section")


def _find(source: Source, base: int) -> int | None:
    """Type, then the first name, then the first language: file offset of the data entry."""
    place = base
    for level in range(3):
        named, numbered = unpack_from("<HH", source.read(place + 12, 4))
        count = named + numbered
        if count > MAX_ENTRIES:
            raise Malformed(f"expected at most {MAX_ENTRIES} resources in a folder, came {count}")
        rows = source.read(place + 16, 8 * count)
        entries = [unpack_from("<II", rows, 8 * index) for index in range(count)]
        if level == 0:
            entries = [entry for entry in entries if entry[0] == _RT_VERSION]
        if not entries:
            return None
        target = entries[0][1]
        place = base + (target & 0x7FFFFFFF)
        if bool(target & 0x80000000) is (level == 2):
            raise Malformed("expected three levels of resource folders")
    return place


def _fixed(block: bytes) -> Iterator[str]:
    """File and product version as numbers."""
    at = block.find(_FIXED_MARK.to_bytes(4, "little"))
    if at < 0 or at + 24 > len(block):
        return
    for offset in (8, 16):
        high, low = unpack_from("<II", block, at + offset)
        yield f"{high >> 16}.{high & 0xFFFF}.{low >> 16}.{low & 0xFFFF}"


def _strings(block: bytes) -> Iterator[tuple[str, str]]:
    """The strings with known names, wherever in the block they stand: (length, value length, type, name, value)."""
    for name in _KEPT:
        at = block.find((name + "\0").encode("utf-16-le"))
        if at < 6:
            continue
        length, characters, kind = unpack_from("<HHH", block, at - 6)
        start = at + 2 * (len(name) + 1)
        start += -start % 4
        end = min(start + 2 * characters, at - 6 + length, len(block))
        if kind == 1 and characters <= 4_096 and start < end:
            yield name, block[start:end].decode("utf-16-le", "replace").split("\0")[0].strip()
