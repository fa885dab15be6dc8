"""xar archives, the outer form of macOS installer packages (Apple's xar source: `include/xar.h`, `lib/archive.c`).

A header, a compressed table of contents in XML, and a heap. The table names a checksum of every file and lies itself under
one, which is what the signature is over. All of them are recomputed.
"""

import base64
import binascii
import hashlib
import zlib
from collections.abc import Iterator
from struct import unpack

from msgspec import Struct

from keyfit.publisher.inspection.limits import MAX_MEMBERS, MAX_TEXT_BYTES
from keyfit.publisher.inspection.source import Malformed, Source
from keyfit.publisher.inspection.xmltext import Element, parse_xml

HASHES = {"sha1": "sha1", "sha256": "sha256", "sha-256": "sha256", "sha512": "sha512", "sha-512": "sha512"}
"""Names that xar writes into `style`. MD5 is left out: it binds nothing."""
MAX_TOC_BYTES = MAX_TEXT_BYTES * 4
_ENCODINGS = ("application/octet-stream", "application/x-gzip", "application/x-bzip2", "")


class XarFile(Struct, frozen=True, kw_only=True):
    """A file in the archive; `stored` is the stretch in the heap, compressed as `encoding` says."""

    name: str
    stored: Source
    encoding: str
    size: int


class XarSignature(Struct, frozen=True, kw_only=True):
    """A signature over the table's digest. `certificates` are DER, the signer's first."""

    style: str
    value: bytes
    certificates: tuple[bytes, ...]


class Xar(Struct, frozen=True, kw_only=True):
    """What is in an archive."""

    files: tuple[XarFile, ...]
    hash_name: str
    digest: bytes
    signatures: tuple[XarSignature, ...]


def read_xar(source: Source) -> Xar:
    """Read the table of contents and recompute all checksums.

    Raises:
        Malformed: it is no xar, or a checksum does not hold.
    """
    magic, size, version, packed, unpacked, _ = unpack(">4sHHQQI", source.read(0, 28))
    if magic != b"xar!" or version != 1 or size < 28 or packed > MAX_TOC_BYTES or unpacked > MAX_TOC_BYTES:
        raise Malformed("expected a xar archive of version 1 with a table of contents of reasonable size")
    table = source.read(size, packed)
    engine = zlib.decompressobj()
    try:
        text = engine.decompress(table, unpacked + 1)
    except zlib.error as error:
        raise Malformed(f"the table of contents is damaged: {error}") from error
    if len(text) != unpacked or not engine.eof:
        raise Malformed(f"expected a table of contents of {unpacked} bytes, came {len(text)}")
    heap = source.window(size + packed, source.size - size - packed)
    toc = parse_xml(text, MAX_TOC_BYTES).find("toc")
    checksum = toc.find("checksum") if toc else None
    if toc is None or checksum is None:
        raise Malformed("expected a table of contents with a checksum")
    name = _hash_name(checksum.attributes.get("style", ""))
    digest = heap.read(_number(checksum, "offset"), _number(checksum, "size"))
    if hashlib.new(name, table, usedforsecurity=False).digest() != digest:
        raise Malformed("the table of contents does not have the checksum that the archive names")
    signatures = tuple(_signature(element, heap) for element in toc.children if element.name in ("signature", "x-signature"))
    return Xar(files=tuple(_files(toc, heap)), hash_name=name, digest=digest, signatures=signatures)


def _files(toc: Element, heap: Source) -> Iterator[XarFile]:
    waiting = [("", element) for element in reversed(toc.children) if element.name == "file"]
    seen: set[str] = set()
    while waiting:
        folder, element = waiting.pop()
        name = folder + element.value("name")
        if not element.value("name") or "/" in element.value("name") or name in seen or len(seen) >= MAX_MEMBERS:
            raise Malformed(f"expected a name of its own for each file, came {name[:80]!a}")
        seen.add(name)
        waiting += [(name + "/", child) for child in reversed(element.children) if child.name == "file"]
        data = element.find("data")
        if data is not None and element.value("type") in ("file", ""):
            yield _file(name, data, heap)
        elif element.value("type") not in ("file", "directory", ""):
            raise Malformed(f"expected files and folders, {name!a} is a {element.value('type')!a}")


def _file(name: str, data: Element, heap: Source) -> XarFile:
    stored = heap.window(_number(data, "offset"), _number(data, "length"))
    checksum = data.find("archived-checksum")
    if checksum is None:
        raise Malformed(f"{name}: expected a checksum, found none")
    if stored.digest(_hash_name(checksum.attributes.get("style", ""))) != checksum.text.lower():
        raise Malformed(f"{name}: the bytes do not have the checksum that the table of contents names")
    encoding = data.find("encoding")
    style = encoding.attributes.get("style", "") if encoding else ""
    if style not in _ENCODINGS:
        raise Malformed(f"{name}: expected one of the encodings gzip and bzip2, came {style!a}")
    return XarFile(name=name, stored=stored, encoding=style, size=_number(data, "size"))


def _signature(element: Element, heap: Source) -> XarSignature:
    certificates = []
    for one in element.each("X509Certificate"):
        try:
            certificates.append(base64.b64decode("".join(one.text.split()), validate=True))
        except (binascii.Error, ValueError) as error:
            raise Malformed("expected certificates in base64 beside the signature") from error
    value = heap.read(_number(element, "offset"), min(_number(element, "size"), MAX_TEXT_BYTES))
    return XarSignature(style=element.attributes.get("style", ""), value=value, certificates=tuple(certificates))


def _hash_name(style: str) -> str:
    if style.lower() not in HASHES:
        raise Malformed(f"expected a checksum in one of {', '.join(HASHES)}, came {style!a}")
    return HASHES[style.lower()]


def _number(element: Element, name: str) -> int:
    text = element.value(name)
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise Malformed(f"expected a number in <{name}>, came {text[:30]!a}")
    return int(text)
