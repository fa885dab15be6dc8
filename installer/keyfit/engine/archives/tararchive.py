"""Reads a tar front to back: POSIX ustar, with pax or GNU headers for long names and nothing else of theirs.

The formats are POSIX.1-2024, pax, "ustar Interchange Format" and "pax Extended Header", and GNU tar's manual, "Basic Tar Format".
What other readers may understand differently is refused: sparse files, links, devices, numbers in base 256, a size in a pax
header (no allowed file needs one), pax keys that change how the others are read, two long names for one entry, and a GNU
header with something where POSIX has the first part of the name. A pax header for all entries may hold a comment only, as the
one that `git archive` writes. What a pax header says about times, owners and their names is not used, so it is let through.
"""

import re
from collections.abc import Iterator

from msgspec import Struct

from keyfit.engine.archives.policy import Entry, Limits, Meter, Refused, Roll
from keyfit.engine.archives.streams import Stream

BLOCK = 512
MAX_HEADER_BYTES = 8_192
"""Longest header that belongs to another entry: names are at most 200 characters, and pax puts six more values there."""
MAX_PADDING = 1024 * 1024
"""Zeros after the end; tar fills up to its blocking factor, 10 240 bytes if nothing else is said."""
_POSIX, _GNU = b"ustar\x0000", b"ustar  \x00"
_IGNORED_KEYS = frozenset({"mtime", "atime", "ctime", "uid", "gid", "uname", "gname", "comment"})
_OCTAL = re.compile(rb"[0-7]{1,11}")
_RECORD = re.compile(rb"([1-9][0-9]{0,4}) ([^=\n]{1,100})=")


class _Header(Struct, frozen=True):
    """One block."""

    name: str
    mode: int
    size: int
    kind: bytes


def members(stream: Stream, limits: Limits, meter: Meter) -> Iterator[tuple[Entry, Iterator[bytes]]]:
    """Each file and folder with its content; see `archives.read`.

    Raises:
        Refused: it is no such tar.
    """
    roll = Roll(limits)
    long_name = ""
    while (block := stream.exactly(BLOCK)).strip(b"\0"):
        roll.header()
        header = _header(block)
        if header.kind in (b"x", b"g", b"L"):
            found = _extension(header, stream)
            if found and long_name:
                raise Refused("an entry has two long names")
            long_name = found or long_name
            continue
        entry = _entry(header, long_name)
        long_name = ""
        roll.enter(entry)
        if entry.size > limits.total_bytes:
            raise Refused("it would unpack to more than is allowed")
        content = stream.content(entry.size)
        yield entry, content
        for _ in content:
            pass  # what the caller did not want
        if stream.exactly(-entry.size % BLOCK).strip(b"\0"):
            raise Refused(f"there is something between {entry.name!a} and the next entry")
    if long_name:
        raise Refused("a long name belongs to no entry")
    _end(stream)


def _header(block: bytes) -> _Header:
    if _octal(block[148:156]) != sum(block[:148]) + 8 * 0x20 + sum(block[156:]):
        raise Refused("a header's check sum is wrong, or it is no archive")
    magic = block[257:265]
    if magic not in (_POSIX, _GNU):
        raise Refused("a header is neither POSIX's nor GNU's")
    prefix = _text(block[345:500]) if magic == _POSIX else ""
    if magic == _GNU and block[345:512].strip(b"\0"):
        raise Refused("a GNU header says more than it should")
    name = _text(block[0:100])
    if block[156:157] in (b"0", b"\0", b"5") and block[157:257].strip(b"\0"):
        raise Refused(f"{name!a} is no link but names a target")
    return _Header(f"{prefix}/{name}" if prefix else name, _octal(block[100:108]), _octal(block[124:136]), block[156:157])


def _entry(header: _Header, long_name: str) -> Entry:
    name = long_name or header.name
    match header.kind:
        case b"0" | b"\0" if not name.endswith("/"):
            return Entry(name=name, kind="file", mode=header.mode, size=header.size)
        case b"5":
            return Entry(name=name, kind="folder", mode=header.mode, size=header.size)
        case b"1" | b"2":
            raise Refused(f"{name!a} is a link")
        case b"3" | b"4" | b"6":
            raise Refused(f"{name!a} is a device")
        case _:
            raise Refused(f"{name!a} is neither a file nor a folder, but of type {header.kind!a}")


def _extension(header: _Header, stream: Stream) -> str:
    """The long name that a header brings for the next entry, or "" if it brings none."""
    if not 0 < header.size <= MAX_HEADER_BYTES:
        raise Refused(f"a header of {header.size} bytes is empty or too long")
    data = stream.exactly(header.size)
    if stream.exactly(-header.size % BLOCK).strip(b"\0"):
        raise Refused("there is something behind a header")
    if header.kind == b"L":
        if not data.endswith(b"\0") or not data[:-1]:
            raise Refused("a long name has no end, or nothing before it")
        return _utf8(data[:-1])
    records = _records(data)
    allowed = frozenset({"comment"}) if header.kind == b"g" else _IGNORED_KEYS | {"path"}
    odd = sorted(records.keys() - allowed)
    if odd:
        raise Refused(f"a pax header sets {odd[0]!a}, which is not allowed")
    if "path" in records and not records["path"]:
        raise Refused("a pax header takes a name away")
    return records.get("path", "")


def _records(data: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    while data:
        match = _RECORD.match(data)
        length = int(match.group(1)) if match else 0
        if match is None or match.end() >= length or length > len(data) or data[length - 1 : length] != b"\n":
            raise Refused("a pax header is damaged")
        key = _utf8(match.group(2))
        if key in found:
            raise Refused(f"a pax header sets {key!a} twice")
        found[key] = _utf8(data[match.end() : length - 1])
        data = data[length:]
    return found


def _end(stream: Stream) -> None:
    """After the first block of zeros: one more, then nothing but zeros."""
    if stream.exactly(BLOCK).strip(b"\0"):
        raise Refused("a block of zeros stands between its entries")
    padding = 0
    for piece in stream.rest():
        padding += len(piece)
        if piece.strip(b"\0") or padding > MAX_PADDING:
            raise Refused("there is something after its end")


def _octal(field: bytes) -> int:
    digits = field.strip(b" \0")
    if not _OCTAL.fullmatch(digits):
        raise Refused("a header holds a number that is not octal")
    return int(digits, 8)


def _text(field: bytes) -> str:
    text, _, hidden = field.partition(b"\0")
    if hidden.strip(b"\0"):
        raise Refused("a header hides something behind a name")
    return _utf8(text)


def _utf8(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refused(f"the name {data[:60]!a} is not UTF-8") from error
