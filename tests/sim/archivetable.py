"""Archives for the tests of the archive reader: good ones of common tools' making, and hostile ones with what is said of each.

The good ones are made by the standard library; the hostile ones are those with a byte, a header or a record changed, because
no library writes them.
"""

import bz2
import gzip
import io
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from functools import cache

FILES = ("lib/module.so", "readme")
"""The signed list that all of them are held against."""
ELF, TEXT = b"\x7fELF" + bytes(range(256)) * 8, b"text\n"
CONTENT = {"lib/module.so": ELF, "readme": TEXT}
Members = list[tuple[str, bytes]]
GOOD_MEMBERS: Members = list(CONTENT.items())
BLOCK = 512

HOSTILE_NAMES = {
    "absolute": "/etc/passwd", "two slashes": "//etc/passwd", "up": "../evil", "up from within": "lib/../../evil",
    "only up": "..", "this folder": "./readme2", "this folder inside": "lib/./x", "empty part": "lib//x",
    "backslash": "a\\b", "up with backslash": "..\\evil", "drive": "C:\\x", "drive and relative": "C:x",
    "alternate stream": "readme:stream", "console": "con", "console with suffix": "CON.txt", "null device": "lib/nul",
    "aux": "aux.so", "serial port": "com1", "printer port": "lpt9.txt", "dot at the end": "x.", "blank at the end": "x ",
    "blank at the beginning": " x", "dot at a part's end": "lib/x./y", "newline": "new\nline", "tab": "tab\tname",
    "bell": "bell\x07", "right-to-left override": "\u202egpj.exe", "zero width": "read\u200bme", "escape": "esc\x1b[0m",
    "201 characters": "x" * 201, "a part of 256 bytes": "\u00e9" * 128, "17 levels": "/".join("a" * 17),
    "other case": "README", "other case of a folder": "LIB/module.so", "decomposed": "re\u0301adme",
    "not listed": "unlisted", "not listed below": "lib/unlisted.so", "below a file": "readme/inside",
    "a file where a folder is": "lib",
}


def tar(members: Members, change: Callable[[tarfile.TarInfo], None] = lambda _: None, *, format: int = tarfile.USTAR_FORMAT,
        pax: dict[str, str] | None = None) -> bytes:
    """A tar; `change` works on the last member."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format, pax_headers=pax) as made:
        for number, (name, data) in enumerate(members):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if number == len(members) - 1:
                change(info)
            made.addfile(info, io.BytesIO(data))
    return out.getvalue()


def header(called: str, length: int = 0, kind: bytes = b"0", **fields: bytes) -> bytes:
    """One block with a right check sum; fields `size`, `magic`, `prefix`, `mode`, `link` and `name` as raw bytes."""
    block = bytearray(tarfile.TarInfo("x").tobuf(tarfile.USTAR_FORMAT))
    places = {"name": (0, 100), "mode": (100, 8), "size": (124, 12), "link": (157, 100), "magic": (257, 8),
              "prefix": (345, 155)}
    for field, value in {"name": called.encode(), "size": b"%011o\0" % length, **fields}.items():
        start, length = places[field]
        block[start : start + length] = value.ljust(length, b"\0")
    block[156:157] = kind
    return checked(block)


def checked(block: bytes | bytearray) -> bytes:
    """The block with its check sum put right."""
    summed = bytearray(block)
    summed[148:156] = b" " * 8
    summed[148:156] = b"%06o\0 " % sum(summed)
    return bytes(summed)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def entry(name: str, data: bytes, **fields: bytes) -> bytes:
    return header(name, len(data), **fields) + padded(data)


def record(key: str, value: bytes) -> bytes:
    """One pax record: its own length in front."""
    body = b" " + key.encode() + b"=" + value + b"\n"
    length = len(body) + 1
    while len(str(length)) + len(body) != length:
        length += 1
    return str(length).encode() + body


def pax(*records: bytes, kind: bytes = b"x") -> bytes:
    return entry("PaxHeader", b"".join(records), kind=kind) if records else header("PaxHeader", kind=kind)


END = bytes(2 * BLOCK)
MODULE, README = entry("lib/module.so", ELF), entry("readme", TEXT)
SPARSE = record("GNU.sparse.major", b"1") + record("GNU.sparse.name", b"readme")
_LONG = "d" * 60 + "/" + "n" * 90


def zipped(members: Members, change: Callable[[zipfile.ZipInfo], None] = lambda _: None, *,
           method: int = zipfile.ZIP_DEFLATED, comment: bytes = b"") -> bytes:
    """A zip; `change` works on the last member before it is written."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as made:
        made.comment = comment
        for number, (name, data) in enumerate(members):
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            info.external_attr = (0o040755 if name.endswith("/") else 0o100644) << 16
            if number == len(members) - 1:
                change(info)
            made.writestr(info, data)
    return out.getvalue()


class _Unseekable(io.RawIOBase):
    """A pipe: what is written to it gets its sizes behind the content."""

    def __init__(self) -> None:
        self.data = b""

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        added = bytes(data)  # type: ignore[call-overload]
        self.data += added
        return len(added)


def streamed_zip(members: Members) -> bytes:
    out = _Unseekable()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in members:
            made.writestr(name, data)
    return out.data


def patched(data: bytes, offset: int, form: str, *values: int) -> bytes:
    """With integers put at an offset."""
    out = bytearray(data)
    struct.pack_into("<" + form, out, offset % len(data), *values)
    return bytes(out)


def local(data: bytes, number: int = 1) -> int:
    """Where the n-th local header is (0: first)."""
    at = -1
    for _ in range(number + 1):
        at = data.index(b"PK\x03\x04", at + 1)
    return at


def central(data: bytes, number: int = 1) -> int:
    at = -1
    for _ in range(number + 1):
        at = data.index(b"PK\x01\x02", at + 1)
    return at


def both(data: bytes, in_local: int, in_central: int, form: str, *values: int) -> bytes:
    """The last entry's field changed in both of its headers."""
    return patched(patched(data, local(data) + in_local, form, *values), central(data) + in_central, form, *values)


def shifted(data: bytes, by: bytes, at: int) -> bytes:
    """Bytes put in before the central list, which is still found; offsets after `at` are not changed."""
    made = data[:at] + by + data[at:]
    start = struct.unpack_from("<L", data, len(data) - 6)[0]
    return patched(made, -6, "L", start + len(by))


def _mode(mode: int) -> Callable[[tarfile.TarInfo], None]:
    return lambda info: setattr(info, "mode", mode)


def _attributes(value: int) -> Callable[[zipfile.ZipInfo], None]:
    return lambda info: setattr(info, "external_attr", value)


def _link(kind: bytes) -> bytes:
    def change(info: tarfile.TarInfo) -> None:
        info.type, info.linkname, info.size = kind, "lib/module.so", 0

    return tar(GOOD_MEMBERS, change)


def _extra(kind: int, data: bytes) -> bytes:
    return zipped(GOOD_MEMBERS, lambda info: setattr(info, "extra", struct.pack("<2H", kind, len(data)) + data))


def _same_data_twice(good: bytes) -> bytes:
    """Both entries of the list lead to the first file, as in a bomb whose files overlap."""
    return patched(good, central(good) + 42, "L", 0)


def good_archives() -> dict[str, bytes]:
    """Those that have to be taken."""
    plain = tar(GOOD_MEMBERS)
    return {
        "tar": plain, "tar.gz": gzip.compress(plain), "tar.xz": lzma.compress(plain), "tar.bz2": bz2.compress(plain),
        "tar in GNU format": tar(GOOD_MEMBERS, format=tarfile.GNU_FORMAT),
        "tar in pax format with times": tar(GOOD_MEMBERS, lambda info: setattr(info, "mtime", 1.5), format=tarfile.PAX_FORMAT),
        "tar as git archive makes it": pax(record("comment", b"0" * 40), kind=b"g") + MODULE + README + END,
        "tar with its folders": header("lib/", kind=b"5") + MODULE + README + END,
        "tar with the oldest type of a file": MODULE + header("readme", len(TEXT), kind=b"\0") + padded(TEXT) + END,
        "tar with a name in two parts": header("module.so", len(ELF), prefix=b"lib") + padded(ELF) + README + END,
        "tar with a long name by pax": MODULE + pax(record("path", b"readme")) + entry("x", TEXT) + END,
        "tar with a long name by GNU": MODULE + entry("././@LongLink", b"readme\0", kind=b"L") + entry("x", TEXT) + END,
        "tar filled up to 10 kB": plain + bytes(10_240),
        "zip": zipped(GOOD_MEMBERS), "zip, stored": zipped(GOOD_MEMBERS, method=zipfile.ZIP_STORED),
        "zip written to a pipe": streamed_zip(GOOD_MEMBERS),
        "zip with folders": zipped([("lib/", b""), *GOOD_MEMBERS]),
        "zip with times in an extra field": _extra(0x5455, b"\x01" + bytes(4)),
        "zip without Unix modes": zipped(GOOD_MEMBERS, _attributes(0)),
    }


def hostile_archives() -> dict[str, tuple[bytes, str]]:
    """Those that have to be refused, with a part of what is to be said."""
    return {**_hostile_names(), **_hostile_tars(), **_hostile_streams(), **_hostile_zips()}


def _hostile_names() -> dict[str, tuple[bytes, str]]:
    out: dict[str, tuple[bytes, str]] = {}
    for why, name in HOSTILE_NAMES.items():
        members = [*GOOD_MEMBERS, (name, b"x")]
        out[f"tar.gz: name: {why}"] = gzip.compress(tar(members, format=tarfile.PAX_FORMAT)), ""
        out[f"zip: name: {why}"] = zipped(members), ""
    return out


def _hostile_tars() -> dict[str, tuple[bytes, str]]:
    good = MODULE + README
    bomb = tar([GOOD_MEMBERS[0], ("readme", bytes(30_000_000))])
    many = tar([(f"f{number}", b"") for number in range(1_025)])
    return {
        "tar: symbolic link": (_link(tarfile.SYMTYPE), "is a link"),
        "tar: hard link": (_link(tarfile.LNKTYPE), "is a link"),
        "tar: character device": (_link(tarfile.CHRTYPE), "device"),
        "tar: block device": (_link(tarfile.BLKTYPE), "device"),
        "tar: fifo": (_link(tarfile.FIFOTYPE), "device"),
        "tar: contiguous file": (_link(tarfile.CONTTYPE), "neither"),
        "tar: type of nobody": (MODULE + entry("readme", TEXT, kind=b"Z") + END, "neither"),
        "tar: GNU dump directory": (MODULE + entry("readme", TEXT, kind=b"D") + END, "neither"),
        "tar: GNU multi-volume": (MODULE + entry("readme", TEXT, kind=b"M") + END, "neither"),
        "tar: GNU volume label": (header("label", kind=b"V") + good + END, "neither"),
        "tar: GNU long link": (MODULE + entry("x", b"readme\0", kind=b"K") + README + END, "neither"),
        "tar: old sparse file": (MODULE + entry("readme", TEXT, kind=b"S") + END, "neither"),
        "tar: pax sparse file": (MODULE + pax(SPARSE) + README + END, "GNU.sparse"),
        "tar: pax size": (MODULE + pax(record("size", b"5")) + README + END, "'size'"),
        "tar: pax target of a link": (MODULE + pax(record("linkpath", b"/etc/passwd")) + README + END, "linkpath"),
        "tar: pax character set": (MODULE + pax(record("hdrcharset", b"BINARY")) + README + END, "hdrcharset"),
        "tar: pax attribute": (MODULE + pax(record("SCHILY.xattr.security.capability", b"x")) + README + END, "SCHILY"),
        "tar: pax name for all": (pax(record("path", b"readme"), kind=b"g") + good + END, "'path'"),
        "tar: pax name twice": (MODULE + pax(record("path", b"a"), record("path", b"readme")) + README + END, "twice"),
        "tar: pax name empty": (MODULE + pax(record("path", b"")) + README + END, "takes a name away"),
        "tar: pax name up": (MODULE + pax(record("path", b"../readme")) + README + END, "leaves the folder"),
        "tar: pax name with NUL": (MODULE + pax(record("path", b"readme\0x")) + README + END, "not printable"),
        "tar: pax record too long": (MODULE + entry("p", b"99 path=readme\n", kind=b"x") + README + END, "damaged"),
        "tar: pax record too short": (MODULE + entry("p", b"9 path=readme\n", kind=b"x") + README + END, "damaged"),
        "tar: pax record without end": (MODULE + entry("p", b"14 path=readmeX", kind=b"x") + README + END, "damaged"),
        "tar: pax header empty": (MODULE + pax() + README + END, "empty or too long"),
        "tar: pax header of 1 MB": (MODULE + pax(record("comment", b"x" * 1_000_000)) + README + END, "too long"),
        "tar: pax and GNU name": (MODULE + pax(record("path", b"readme")) + entry("L", b"readme\0", kind=b"L") + README + END,
                                  "two long names"),
        "tar: long name of nothing": (good + entry("L", b"readme\0", kind=b"L") + END, "belongs to no entry"),
        "tar: long name without end": (MODULE + entry("L", b"readme", kind=b"L") + README + END, "no end"),
        "tar: long name with NUL": (MODULE + entry("L", b"readme\0x\0", kind=b"L") + README + END, "not printable"),
        "tar: set-user-id": (tar(GOOD_MEMBERS, _mode(0o4755)), "set-id"),
        "tar: set-group-id": (tar(GOOD_MEMBERS, _mode(0o2755)), "set-id"),
        "tar: size in base 256": (MODULE + header("readme", size=b"\x80" + bytes(10) + b"\x05") + padded(TEXT) + END,
                                  "not octal"),
        "tar: negative size": (MODULE + header("readme", size=b"-0000000005\0") + END, "not octal"),
        "tar: no size": (MODULE + header("readme", size=b"") + END, "not octal"),
        "tar: size of 8 GB": (MODULE + header("readme", 0o77777777777) + END, "more than is allowed"),
        "tar: size beyond the end": (MODULE + header("readme", 100_000) + padded(TEXT) + END, "too early"),
        "tar: mode of nonsense": (MODULE + header("readme", len(TEXT), mode=b"rwxr-xr") + padded(TEXT) + END, "not octal"),
        "tar: folder with content": (header("lib/", 5, kind=b"5") + padded(TEXT) + good + END, "folder with content"),
        "tar: file whose name ends as a folder's": (header("lib/") + good + END, "neither a file nor a folder"),
        "tar: folder twice": (header("lib/", kind=b"5") * 2 + good + END, "twice"),
        "tar: folder where a file is": (good + header("readme/", kind=b"5") + END, "twice"),
        "tar: file that names a target": (MODULE + header("readme", len(TEXT), link=b"/etc/passwd") + padded(TEXT) + END,
                                          "names a target"),
        "tar: something hidden behind a name": (MODULE + header("", len(TEXT), name=b"readme\0../evil")
                                                + padded(TEXT) + END, "hides something"),
        "tar: name that is not UTF-8": (good + header("", name=b"\xff\xfe") + END, "not UTF-8"),
        "tar: name that is empty": (good + header("") + END, "empty"),
        "tar: GNU header with a prefix": (header("module.so", len(ELF), magic=b"ustar  \0", prefix=b"lib") + padded(ELF)
                                          + README + END, "says more"),
        "tar: before POSIX": (header("readme", len(TEXT), magic=b"") + padded(TEXT) + END, "neither POSIX's nor GNU's"),
        "tar: wrong check sum": (MODULE + bytes([README[0] ^ 1]) + README[1:] + END, "check sum"),
        "tar: file twice": (good + README + END, "twice"),
        "tar: one file missing": (MODULE + END, "not in it"),
        "tar: no file": (END, "not in it"),
        "tar: no end": (good, "too early"),
        "tar: half an end": (good + bytes(BLOCK), "too early"),
        "tar: zeros between entries": (MODULE + bytes(BLOCK) + README + END, "between its entries"),
        "tar: entries behind the end": (good + END + entry("evil", b"x"), "after its end"),
        "tar: something in the padding": (MODULE + README[:-1] + b"x" + END, "between 'readme' and the next"),
        "tar: 2 MB of zeros behind the end": (good + END + bytes(2_000_000), "after its end"),
        "tar: cut in a header": (MODULE + README[:100], "too early"),
        "tar: cut in the content": (MODULE + README[: BLOCK + 2], "too early"),
        "tar: 1 025 files": (many, "not on the signed list"),
        "tar: 1 025 headers for one file": (pax(record("comment", b"x")) * 1_025 + good + END, "more entries"),
        "tar.gz: bomb": (gzip.compress(bomb), "more than is allowed"),
        "tar.xz: bomb": (lzma.compress(bomb), "more than is allowed"),
        "tar.bz2: bomb": (bz2.compress(bomb), "more than is allowed"),
        "tar.gz: bomb within a bomb": (gzip.compress(gzip.compress(bomb)), ""),
    }


def _hostile_streams() -> dict[str, tuple[bytes, str]]:
    plain = tar(GOOD_MEMBERS)
    packed, xz = gzip.compress(plain), lzma.compress(plain)
    return {
        "nothing": (b"", "too early"),
        "nonsense": (b"nonsense" * 100, ""),
        "only a gzip header": (packed[:10], "too early"),
        "tar.gz: cut off": (packed[:-40], "too early"),
        "tar.gz: without its check sum": (packed[:-8], "too early"),
        "tar.gz: wrong check sum": (packed[:-8] + bytes(4) + packed[-4:], "damaged"),
        "tar.gz: wrong length": (packed[:-4] + b"\xff" * 4, "damaged"),
        "tar.gz: bytes behind": (packed + b"x", "after the end of a stream"),
        "tar.gz: two streams": (gzip.compress(plain[:BLOCK]) + gzip.compress(plain[BLOCK:]), ""),
        "tar.gz: flipped bit": (packed[:60] + bytes([packed[60] ^ 4]) + packed[61:], ""),
        "tar.xz: cut off": (xz[:-20], "too early"),
        "tar.xz: two streams": (xz + lzma.compress(b""), "after the end of a stream"),
        "tar.xz: needs 1.5 GB of memory": (_large_dictionary(xz), "memory"),
        "tar.lzma": (lzma.compress(plain, format=lzma.FORMAT_ALONE), ""),
        "tar.zst": (b"\x28\xb5\x2f\xfd" + bytes(20), "zstd"),
        "7z": (b"7z\xbc\xaf\x27\x1c" + bytes(600), ""),
        "cabinet": (b"MSCF" + bytes(600), ""),
        "program": (b"MZ" + bytes(600), ""),
    }


def _large_dictionary(xz: bytes) -> bytes:
    """The LZMA2 filter of the first block asks for a dictionary of 4 GB (the .xz file format, 5.3.1: 40 is 4 GiB - 1)."""
    out = bytearray(xz)
    size = (out[12] + 1) * 4
    place = out.index(b"\x21\x01", 12) + 2
    out[place] = 40
    struct.pack_into("<L", out, 12 + size - 4, zlib.crc32(bytes(out[12 : 12 + size - 4])))
    return bytes(out)


def _hostile_zips() -> dict[str, tuple[bytes, str]]:
    good, stored, piped = zipped(GOOD_MEMBERS), zipped(GOOD_MEMBERS, method=zipfile.ZIP_STORED), streamed_zip(GOOD_MEMBERS)
    first, second, end = local(good, 0), local(good), central(good, 0)
    name = good.replace(b"readme", b"r\xe9adme")
    with_extra = _extra(0x5455, b"\x01" + bytes(4))
    descriptor = piped.index(b"PK\x07\x08")
    return {
        "zip: symbolic link": (zipped(GOOD_MEMBERS, _attributes((stat.S_IFLNK | 0o777) << 16)), "neither"),
        "zip: device": (zipped(GOOD_MEMBERS, _attributes((stat.S_IFCHR | 0o666) << 16)), "neither"),
        "zip: set-user-id": (zipped(GOOD_MEMBERS, _attributes((stat.S_IFREG | 0o4755) << 16)), "set-id"),
        "zip: file that says it is a folder": (zipped(GOOD_MEMBERS, _attributes(0x10)), "neither"),
        "zip: folder with content": (zipped([*GOOD_MEMBERS, ("lib/", b"x")]), ""),
        "zip: encrypted": (both(good, 6, 8, "H", 1), "encrypted"),
        "zip: strongly encrypted": (both(good, 6, 8, "H", 0x41), "encrypted"),
        "zip: encrypted list": (both(good, 6, 8, "H", 0x2000), "encrypted"),
        "zip: patched data": (both(good, 6, 8, "H", 0x20), "unusual"),
        "zip: bzip2": (zipped(GOOD_MEMBERS, method=zipfile.ZIP_BZIP2), "method 12"),
        "zip: LZMA": (zipped(GOOD_MEMBERS, method=zipfile.ZIP_LZMA), "method 14"),
        "zip: method of nobody": (both(good, 8, 10, "H", 93), "method 93"),
        "zip: deflated data said to be stored": (both(good, 8, 10, "H", 0), ""),
        "zip: other name in the header": (good.replace(b"readme", b"../eme", 1), "another name"),
        "zip: other name in the list": (good[: central(good)] + good[central(good):].replace(b"readme", b"README"), ""),
        "zip: name longer in the header": (patched(good, second + 26, "H", 7), ""),
        "zip: other method in the header": (patched(good, second + 8, "H", 0), "differently"),
        "zip: other flags in the header": (patched(good, second + 6, "H", 0x0802), "differently"),
        "zip: other size in the header": (patched(good, second + 22, "L", 6), "differently"),
        "zip: other packed size in the header": (patched(good, second + 18, "L", 6), "differently"),
        "zip: other check sum in the header": (patched(good, second + 14, "L", 6), "differently"),
        "zip: sizes missing without a descriptor": (patched(good, second + 14, "3L", 0, 0, 0), "differently"),
        "zip: smaller size in both": (both(good, 22, 24, "L", 4), "not of the size"),
        "zip: larger size in both": (both(good, 22, 24, "L", 6), "not of the size"),
        "zip: wrong check sum in both": (both(good, 14, 16, "L", 1), "another check sum"),
        "zip: smaller packed size in both": (both(good, 18, 20, "L", 3), ""),
        "zip: size of 4 GB in both": (both(good, 22, 24, "L", 0xFFFFFFF0), "not of the size"),
        "zip: zip64 by its marks": (both(good, 22, 24, "L", 0xFFFFFFFF), "not of the size"),
        "zip: zip64 by its extra field": (_extra(1, struct.pack("<2Q", 5, 5)), "zip64"),
        "zip: zip64 list": (good[:-22] + b"PK\x06\x06" + bytes(52) + b"PK\x06\x07" + bytes(16) + good[-22:], "before or behind"),
        "zip: another name in an extra field": (_extra(0x7075, b"\x01" + bytes(4) + b"../evil"), "another name"),
        "zip: AES in an extra field": (_extra(0x9901, bytes(7)), "encryption"),
        "zip: extra field cut off": (patched(with_extra, with_extra.index(b"UT", local(with_extra)) + 2, "H", 60), "extra field"),
        "zip: descriptor lies about the size": (patched(piped, descriptor + 12, "L", 9), "behind its content"),
        "zip: descriptor lies about the check sum": (patched(piped, descriptor + 4, "L", 9), "behind its content"),
        "zip: descriptor without its mark": (patched(piped, descriptor, "L", 9), "behind its content"),
        "zip: descriptor missing": (piped[:descriptor] + piped[descriptor + 16:], ""),
        "zip: both entries are the same bytes": (_same_data_twice(good), "overlaps"),
        "zip: an entry within another": (patched(good, central(good) + 42, "L", second - 4), "overlaps"),
        "zip: an entry beyond the list": (patched(good, central(good) + 42, "L", len(good)), ""),
        "zip: program in front": (b"MZ" + bytes(100) + good, ""),
        "zip: script in front, offsets right": (shifted(good, b"#!/bin/sh\n", 0), ""),
        "zip: bytes between entries": (shifted(good, b"hidden", second), ""),
        "zip: bytes before the list": (shifted(good, b"hidden", end), "between them"),
        "zip: entry that is not listed": (_unlisted(good), ""),
        "zip: bytes behind": (good + b"x", "does not end"),
        "zip: comment": (zipped(GOOD_MEMBERS, comment=b"PK"), "does not end"),
        "zip: comment that is another end": (zipped(GOOD_MEMBERS, comment=good[-22:]), ""),
        "zip: comment of an entry": (zipped(GOOD_MEMBERS, lambda info: setattr(info, "comment", b"x")), "comment"),
        "zip: second disk": (patched(good, len(good) - 18, "H", 1), "more than one disk"),
        "zip: fewer entries than listed": (patched(good, len(good) - 14, "2H", 1, 1), "longer than it says"),
        "zip: more entries than listed": (patched(good, len(good) - 14, "2H", 3, 3), "damaged"),
        "zip: numbers of entries differ": (patched(good, len(good) - 14, "2H", 2, 1), "more than one disk"),
        "zip: 65 535 entries": (patched(good, len(good) - 14, "2H", 65_535, 65_535), "more entries"),
        "zip: list elsewhere": (patched(good, -6, "L", 3), "before or behind"),
        "zip: name that is not marked as UTF-8": (name, "neither ASCII"),
        "zip: name that is marked and is not UTF-8": (both(name, 6, 8, "H", 0x800), "neither ASCII"),
        "zip: name with NUL": (good.replace(b"readme", b"read\0e"), "not printable"),
        "zip: no name": (zipped([*GOOD_MEMBERS, ("", b"x")]), "empty"),
        "zip: file twice": (_twice(), "twice"),
        "zip: one file missing": (zipped(GOOD_MEMBERS[:1]), "not in it"),
        "zip: no entry": (b"PK\x05\x06" + bytes(18), "not in it"),
        "zip: no entry, but something before": (shifted(b"PK\x05\x06" + bytes(18), b"PK\x03\x04", 0), "before its list"),
        "zip: cut off": (good[:-30], "does not end"),
        "zip: only the end": (good[-22:], ""),
        "zip: bomb": (zipped([GOOD_MEMBERS[0], ("readme", bytes(30_000_000))]), "more than is allowed"),
        "zip: bomb that says it is small": (_small_bomb(), ""),
        "zip: 1 025 entries": (zipped([(f"f{number}", b"") for number in range(1_025)]), "more entries"),
        "zip: damaged stream": (stored[: local(stored) + 36] + b"\xff" + stored[local(stored) + 37:], "check sum"),
        "zip: deflate stream longer than said": (good[:first] + _longer(good), ""),
    }


def _unlisted(good: bytes) -> bytes:
    """An entry lies among the others, but the list does not have it."""
    hidden = zipped([("evil", b"x")])
    return shifted(good, hidden[: central(hidden, 0)], central(good, 0))


def _twice() -> bytes:
    made = zipped([*GOOD_MEMBERS, ("readmf", TEXT)])
    return made.replace(b"readmf", b"readme")


def _small_bomb() -> bytes:
    made = zipped([GOOD_MEMBERS[0], ("readme", bytes(3_000_000))])
    return both(made, 22, 24, "L", 10)


def _longer(good: bytes) -> bytes:
    """The packed data of the last entry ends before its packed size does."""
    packed = struct.unpack_from("<L", good, central(good) + 20)[0]
    at = local(good) + 30 + len("readme")
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    short = stream.compress(TEXT) + stream.flush()
    made = good[:at] + short + b"x" + good[at + packed:]
    grown = len(short) + 1 - packed
    start = struct.unpack_from("<L", good, len(good) - 6)[0]
    made = patched(made, -6, "L", start + grown)
    return both(made, 18, 20, "L", len(short) + 1)


@cache
def table() -> dict[str, tuple[bytes, str]]:
    """`hostile_archives`, made once."""
    return hostile_archives()
