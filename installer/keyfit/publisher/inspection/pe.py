"""Portable Executable files: what machine they are for, what version they say they are, and their Authenticode hash.

From "PE Format" (learn.microsoft.com) and "Windows Authenticode Portable Executable Signature Format" (Microsoft): the hash
is over the file without the checksum field, the directory entry of the certificate table, and the table itself.
"""

import hashlib
from struct import unpack, unpack_from

from msgspec import Struct

from keyfit.publisher.inspection.authenticode import Trust, inspect_signature
from keyfit.publisher.inspection.limits import MAX_SIGNATURE_BYTES
from keyfit.publisher.inspection.reports import BinaryReport, SignatureReport
from keyfit.publisher.inspection.source import Malformed, Source
from keyfit.publisher.inspection.versioninfo import Versions, read_versions

MACHINES = {0x014C: "i386", 0x8664: "amd64", 0xAA64: "arm64"}
"""IMAGE_FILE_MACHINE_*, PE Format, "Machine types"."""
_OPTIONAL_MAGIC = {0x10B: 96, 0x20B: 112}
"""PE32 and PE32+ -> where the data directories begin in the optional header."""
_CERTIFICATE_TABLE, _RESOURCES = 4, 2
_NATIVE = 1
"""IMAGE_SUBSYSTEM_NATIVE: drivers and native system processes."""
_PKCS_SIGNED_DATA = 0x0002
MAX_SECTIONS = 96


class Layout(Struct, frozen=True, kw_only=True):
    """Where things are in a PE file, in bytes from its beginning."""

    machine: int
    subsystem: int
    checksum: int
    certificate_entry: int
    table: int
    table_size: int
    sections: tuple[tuple[int, int, int, int], ...]
    """(virtual address, virtual size, file offset, size in the file) each."""
    resources: int
    resources_size: int
    end_of_image: int


def layout(source: Source) -> Layout:
    """Read the headers.

    Raises:
        Malformed: they are none, or the certificate table is not the last thing in the file.
    """
    head = source.read(0, 64)
    if head[:2] != b"MZ":
        raise Malformed("expected a PE file, it does not begin with MZ")
    start = unpack_from("<I", head, 60)[0]
    signature, machine, sections, optional_size = unpack("<4sHH12xH", source.read(start, 22))
    if signature != b"PE\0\0" or sections > MAX_SECTIONS:
        raise Malformed("expected a PE header")
    optional = source.read(start + 24, optional_size)
    magic = unpack_from("<H", optional, 0)[0] if len(optional) >= 2 else 0
    directories = _OPTIONAL_MAGIC.get(magic, 0)
    if not directories or len(optional) < directories + 8 * (_CERTIFICATE_TABLE + 1):
        raise Malformed("expected a PE32 or PE32+ header with a certificate table entry")
    if unpack_from("<I", optional, directories - 4)[0] <= _CERTIFICATE_TABLE:
        raise Malformed("expected a certificate table entry among the data directories")
    table, table_size = unpack_from("<II", optional, directories + 8 * _CERTIFICATE_TABLE)
    resources, resources_size = unpack_from("<II", optional, directories + 8 * _RESOURCES)
    rows = source.read(start + 24 + optional_size, 40 * sections)
    placed = tuple((address, size, offset, raw) for size, address, raw, offset in (
        unpack_from("<IIII", rows, 40 * index + 8) for index in range(sections)))
    end = max([unpack_from("<I", optional, 60)[0], *(offset + raw for _, _, offset, raw in placed if raw)])
    if table and (table < end or table % 8 or table + table_size != source.size):
        raise Malformed("expected the certificate table at the end of the file, after the last section")
    return Layout(machine=machine, subsystem=unpack_from("<H", optional, 68)[0], checksum=start + 24 + 64,
                  certificate_entry=start + 24 + directories + 8 * _CERTIFICATE_TABLE, table=table, table_size=table_size,
                  sections=placed, resources=resources, resources_size=resources_size, end_of_image=end)


def image_hash(source: Source, place: Layout, name: str) -> bytes:
    """The Authenticode hash of the file; an unsigned file counts as filled up to a multiple of 8 bytes."""
    running = hashlib.new(name, usedforsecurity=False)
    end = place.table or source.size
    position = 0
    for skipped, length in ((place.checksum, 4), (place.certificate_entry, 8), (end, 0)):
        for piece in source.chunks(position, skipped - position):
            running.update(piece)
        position = skipped + length
    if not place.table:
        running.update(bytes(-end % 8))
    return running.digest()


def inspect_binary(source: Source, name: str, trust: Trust) -> BinaryReport:
    """Everything about one file.

    Raises:
        Malformed: it is not in the form.
    """
    place = layout(source)
    found = Versions()
    if place.resources and place.resources_size:
        found = read_versions(source, place.resources, place.sections)
    return BinaryReport(
        name=name, machine=MACHINES.get(place.machine, f"0x{place.machine:04x}"),
        kernel=place.subsystem == _NATIVE or name.lower().endswith(".sys"), versions=found.versions,
        original_name=found.strings.get("OriginalFilename", ""), product=found.strings.get("ProductName", ""),
        company=found.strings.get("CompanyName", ""), size_bytes=source.size, sha256=source.digest("sha256"),
        image_hashes=tuple(image_hash(source, place, one).hex() for one in ("sha1", "sha256")),
        signature=_signature(source, place, trust))


def _signature(source: Source, place: Layout, trust: Trust) -> SignatureReport | None:
    """All entries of the certificate table have to hold; the first one's signer is told."""
    if not place.table or not place.table_size:
        return None
    reports = []
    position, end = place.table, place.table + place.table_size
    while position < end:
        if end - position < 8:
            return SignatureReport(fault="the certificate table ends in the middle of an entry")
        length, _, kind = unpack("<IHH", source.read(position, 8))
        if kind != _PKCS_SIGNED_DATA or not 8 < length <= min(end - position, MAX_SIGNATURE_BYTES):
            return SignatureReport(fault="the certificate table has an entry that is no PKCS #7 signature")
        data = source.read(position + 8, length - 8)
        used = _der_length(data)
        if any(data[used:]):
            return SignatureReport(fault="bytes were added behind the signature, where it does not cover them")
        reports.append(inspect_signature(data, lambda name: image_hash(source, place, name), trust))
        position += length + -length % 8
    return next((report for report in reports if report.fault), reports[0])


def _der_length(data: bytes) -> int:
    from keyfit.publisher.inspection import der

    try:
        return len(der.parse(data).raw)
    except Malformed:
        return len(data)
