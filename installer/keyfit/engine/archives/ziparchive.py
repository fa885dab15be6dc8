"""Reads a zip whose two lists of entries say the same, and whose entries fill the file from its first byte to its last.

The format is PKWARE's APPNOTE 6.3.10. The central list is what is gone by; each local header has to agree with it, and entries
have to lie one behind the other without a gap or an overlap, so that no reader can find anything else in the file. Refused
besides: comments, encryption, zip64 (nothing that large is allowed), more than one disk, other methods than "stored" and
"deflated", names that are neither ASCII nor marked as UTF-8, and extra fields that give a name or size once more.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from msgspec import Struct

from keyfit.engine.archives.policy import Entry, Limits, Meter, Refused, Roll
from keyfit.engine.archives.streams import inflated, pieces

_END, _CENTRAL, _LOCAL = struct.Struct("<4s4H2LH"), struct.Struct("<4s6H3L5H2L"), struct.Struct("<4s5H3L2H")
"""Sections 4.3.16, 4.3.12 and 4.3.7."""
_DESCRIPTOR = b"PK\x07\x08"
"""Section 4.3.9.3; the signature may be missing."""
_STORED, _DEFLATED = 0, 8
_HAS_DESCRIPTOR, _UTF8 = 0x0008, 0x0800
_FLAGS = 0x0006 | _HAS_DESCRIPTOR | _UTF8
"""Section 4.4.4. Bits 1 and 2 say how hard the packer tried; all others change what the bytes mean."""
_REFUSED_EXTRAS = {0x0001: "zip64", 0x0017: "encryption", 0x7075: "another name", 0x6375: "a comment", 0x9901: "encryption"}
"""Section 4.5 and 4.6; the last is WinZip's AES."""
_MAX_LIST_BYTES = 1_000_000
_FOLDER_ATTRIBUTE = 0x10
"""FILE_ATTRIBUTE_DIRECTORY (learn.microsoft.com, File Attribute Constants)."""


class _Listed(Struct, frozen=True, kw_only=True):
    """What the central list has of one entry."""

    name: bytes
    entry: Entry
    flags: int
    method: int
    crc: int
    packed: int
    offset: int


def members(file: BinaryIO, size: int, limits: Limits, meter: Meter) -> Iterator[tuple[Entry, Iterator[bytes]]]:
    """Each file and folder with its content; see `archives.read`.

    Raises:
        Refused: it is no such zip.
    """
    listed, end = _central(file, size, limits)
    roll = Roll(limits)
    for one in listed:
        roll.header()
        roll.enter(one.entry)
    if not listed and end:
        raise Refused("there is something before its list of entries")
    at = 0
    for one, upto in zip(listed, [*(each.offset for each in listed), end][1:], strict=True):
        at = _local(file, one, at)
        content = _content(file, one, meter)
        yield one.entry, content
        for _ in content:
            pass  # what the caller did not want
        _descriptor(file, one, upto - at - one.packed)
        at = upto


def _central(file: BinaryIO, size: int, limits: Limits) -> tuple[list[_Listed], int]:
    """The central list in the order in which the entries lie, and where it begins."""
    file.seek(max(0, size - _END.size))
    tail = file.read(_END.size)
    if len(tail) < _END.size or not tail.startswith(b"PK\x05\x06"):
        raise Refused("it does not end where its list of entries ends")
    _, disk, list_disk, here, count, length, start, comment = _END.unpack(tail)
    if disk or list_disk or here != count or comment:
        raise Refused("it has a comment or more than one disk")
    if count > limits.entries or length > _MAX_LIST_BYTES:
        raise Refused("it has more entries than is allowed")
    if start + length != size - _END.size:
        raise Refused("there is something before or behind its list of entries")
    file.seek(start)
    data = file.read(length)
    listed = []
    for _ in range(count):
        one, data = _listed(data)
        listed.append(one)
    if data:
        raise Refused("its list of entries is longer than it says")
    listed.sort(key=lambda each: each.offset)
    return listed, start


def _listed(data: bytes) -> tuple[_Listed, bytes]:
    """The first entry of the list, and the rest of the list."""
    if len(data) < _CENTRAL.size or not data.startswith(b"PK\x01\x02"):
        raise Refused("its list of entries is damaged")
    (_, _, _, flags, method, _, _, crc, packed, length, name_length, extra_length, comment_length, disk, _, attributes,
     offset) = _CENTRAL.unpack_from(data)
    end = _CENTRAL.size + name_length + extra_length
    name = data[_CENTRAL.size : _CENTRAL.size + name_length]
    if len(data) < end or comment_length or disk:
        raise Refused("its list of entries is damaged, or an entry has a comment")
    _check_extras(data[end - extra_length : end])
    _check_coding(name, flags, method)
    entry = _entry(_decoded(name, flags), attributes, length)
    if method == _STORED and packed != length:
        raise Refused(f"{entry.name!a} is stored, but not in its own size")
    return _Listed(name=name, entry=entry, flags=flags, method=method, crc=crc, packed=packed, offset=offset), data[end:]


def _check_coding(name: bytes, flags: int, method: int) -> None:
    if flags & 0x2041:
        raise Refused(f"{name[:60]!a} is encrypted")
    if flags & ~_FLAGS:
        raise Refused(f"{name[:60]!a} is packed in an unusual way (flags {flags:#06x})")
    if method not in (_STORED, _DEFLATED):
        raise Refused(f"{name[:60]!a} is compressed in a way that is not taken (method {method})")


def _entry(name: str, attributes: int, length: int) -> Entry:
    mode = attributes >> 16
    is_folder = name.endswith("/")
    kind = mode & 0o170000
    if kind not in (0, 0o040000 if is_folder else 0o100000) or (not is_folder and attributes & _FOLDER_ATTRIBUTE):
        raise Refused(f"{name!a} is neither a file nor a folder, or not what its name says")
    return Entry(name=name, kind="folder" if is_folder else "file", mode=mode & 0o7777, size=length)


def _decoded(name: bytes, flags: int) -> str:
    try:
        return name.decode("utf-8" if flags & _UTF8 else "ascii")
    except UnicodeDecodeError as error:
        raise Refused(f"the name {name[:60]!a} is neither ASCII nor marked as UTF-8") from error


def _check_extras(data: bytes) -> None:
    while data:
        if len(data) < 4:
            raise Refused("an extra field is damaged")
        kind, length = struct.unpack_from("<2H", data)
        if kind in _REFUSED_EXTRAS:
            raise Refused(f"an extra field holds {_REFUSED_EXTRAS[kind]}")
        if len(data) < 4 + length:
            raise Refused("an extra field is damaged")
        data = data[4 + length :]


def _local(file: BinaryIO, one: _Listed, at: int) -> int:
    """Hold the local header against the list; returns where the content begins, with the file there."""
    shown = one.entry.name
    if one.offset != at:
        raise Refused(f"{shown!a} overlaps another entry, or there is something before it")
    file.seek(at)
    head = file.read(_LOCAL.size)
    if len(head) < _LOCAL.size or not head.startswith(b"PK\x03\x04"):
        raise Refused(f"{shown!a} is not where the list says")
    _, _, flags, method, _, _, crc, packed, length, name_length, extra_length = _LOCAL.unpack(head)
    name, extra = file.read(name_length), file.read(extra_length)
    if name != one.name:
        raise Refused(f"{shown!a} has another name in its own header: {name[:60]!a}")
    expected = (one.crc, one.packed, one.entry.size)
    later = flags & _HAS_DESCRIPTOR and (crc, packed, length) == (0, 0, 0)
    if (flags, method) != (one.flags, one.method) or not (later or (crc, packed, length) == expected):
        raise Refused(f"{shown!a} is described differently in its own header")
    if len(extra) < extra_length:
        raise Refused("it ends too early")
    _check_extras(extra)
    return int(at + _LOCAL.size + name_length + extra_length)


def _content(file: BinaryIO, one: _Listed, meter: Meter) -> Iterator[bytes]:
    packed = pieces(file, one.packed)
    crc = length = 0
    for piece in inflated(packed) if one.method == _DEFLATED else packed:
        length += len(piece)
        meter.count(len(piece))
        if length > one.entry.size:
            break
        crc = zlib.crc32(piece, crc)
        yield piece
    if length != one.entry.size:
        raise Refused(f"{one.entry.name!a} is not of the size that the list says")
    if crc != one.crc:
        raise Refused(f"{one.entry.name!a} has another check sum than the list says")


def _descriptor(file: BinaryIO, one: _Listed, gap: int) -> None:
    """What lies between the content and the next entry: a descriptor if there is to be one, and nothing else."""
    values = struct.pack("<3L", one.crc, one.packed, one.entry.size)
    allowed = (_DESCRIPTOR + values, values) if one.flags & _HAS_DESCRIPTOR else (b"",)
    if gap not in map(len, allowed):
        raise Refused(f"{one.entry.name!a} overlaps the next entry, or there is something between them")
    if file.read(gap) not in allowed:
        raise Refused(f"{one.entry.name!a} is described differently behind its content")
