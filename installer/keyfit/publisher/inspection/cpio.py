"""cpio archives, in which macOS packages keep files and scripts (cpio(5): the portable "odc" and the "newc" form)."""

from collections.abc import Iterator

from keyfit.publisher.inspection.limits import MAX_MEMBERS, MAX_NAME_CHARACTERS
from keyfit.publisher.inspection.source import Capped, Malformed
from keyfit.publisher.inspection.tarlist import Member

_ODC, _NEWC = b"070707", b"070701"
_TRAILER = "TRAILER!!!"
_KINDS = {0o100000: "file", 0o040000: "folder", 0o120000: "link"}


def members(stream: Capped, keep: int = 0) -> Iterator[Member]:
    """Read a cpio to its trailer; files of up to `keep` bytes come with their bytes.

    Raises:
        Malformed: it is none.
    """
    count = 0
    while True:
        magic = stream.exactly(6)
        if magic == _ODC:
            fields = _octal(stream.exactly(70))
            mode, name_size, size, fill = fields[2], fields[8], fields[9], 1
        elif magic == _NEWC:
            numbers = _hexadecimal(stream.exactly(104))
            mode, size, name_size, fill = numbers[1], numbers[6], numbers[11], 4
        else:
            raise Malformed("expected a cpio archive")
        if not 1 <= name_size <= MAX_NAME_CHARACTERS:
            raise Malformed(f"expected a name of at most {MAX_NAME_CHARACTERS} characters, came {name_size}")
        name = stream.exactly(name_size).rstrip(b"\0").decode("utf-8", "replace")
        stream.skip(-(6 + (70 if fill == 1 else 104) + name_size) % fill)
        if name == _TRAILER:
            return
        count += 1
        if count > MAX_MEMBERS:
            raise Malformed(f"expected at most {MAX_MEMBERS} entries, came more")
        kind = _KINDS.get(mode & 0o170000, "a device")
        wanted = kind == "link" or (kind == "file" and size <= keep)
        data = stream.exactly(size) if wanted and size <= max(keep, MAX_NAME_CHARACTERS) else b""
        if not data:
            stream.skip(size)
        stream.skip(-size % fill)
        yield Member(name=name, kind=kind, mode=mode & 0o7777, size=size,
                     link=data.decode("utf-8", "replace") if kind == "link" else "", data=data if kind == "file" else b"")


_ODC_WIDTHS = (6, 6, 6, 6, 6, 6, 6, 11, 6, 11)
"""Device, inode, mode, user, group, links, device number, time, name's size, size."""


def _octal(data: bytes) -> list[int]:
    numbers, position = [], 0
    for width in _ODC_WIDTHS:
        numbers.append(_integer(data[position : position + width], 8))
        position += width
    return numbers


def _hexadecimal(data: bytes) -> list[int]:
    return [_integer(data[position : position + 8], 16) for position in range(0, 104, 8)]


def _integer(text: bytes, base: int) -> int:
    try:
        return int(text, base)
    except ValueError as error:
        raise Malformed("expected numbers in a cpio header") from error
