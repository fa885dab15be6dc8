"""Archives of ours (security H3): the names, and the Windows programs among the files.

What is added has to be what the client unpacks, so in the end the client's own reader, `keyfit.engine.archives`, goes through it.
It stops at the first fault; before it, all names are looked at here, so that all that is wrong with them is told at once. Whether
the list is the declared one is compared by `keyfit.publisher.contents`.
"""

import struct
import zipfile
import zlib
from collections.abc import Iterator

from keyfit.engine import archives
from keyfit.engine.archives import name_problem
from keyfit.publisher.inspection.authenticode import Trust
from keyfit.publisher.inspection.findings import Findings
from keyfit.publisher.inspection.limits import MAX_BINARY_BYTES, MAX_MEMBERS, MAX_UNPACKED_BYTES
from keyfit.publisher.inspection.pe import inspect_binary
from keyfit.publisher.inspection.reports import ArchiveReport, BinaryReport
from keyfit.publisher.inspection.source import Capped, Malformed, Source
from keyfit.publisher.inspection.tarlist import Member, members
from keyfit.publisher.inspection.unpack import unpacked

_ZIP = b"PK\x03\x04"


def inspect(source: Source, trust: Trust) -> ArchiveReport:
    """Read the list of an archive and look at its Windows programs.

    Raises:
        Malformed: it is no zip or tar.
    """
    findings = Findings()
    files: list[str] = []
    binaries: list[BinaryReport] = []
    for member in each_member(source, findings):
        files.append(member.name)
        if member.data[:2] == b"MZ":
            binaries.append(binary(member.name, member.data, trust))
    if not findings.problems:
        _as_the_client_does(source, findings)
    return ArchiveReport(files=tuple(files), binaries=tuple(binaries), problems=findings.problems, notes=findings.notes)


def _as_the_client_does(source: Source, findings: Findings) -> None:
    try:
        for _ in archives.read(source.stream()):
            pass  # the content is read over, and checked
    except archives.Refused as error:
        findings.problem(f"expected an archive that Keyfit unpacks; it is refused there: {error}")


def binary(name: str, data: bytes, trust: Trust) -> BinaryReport:
    """A Windows program inside a package.

    Raises:
        Malformed: it begins like one and is none.
    """
    try:
        return inspect_binary(Source.of(data), name, trust)
    except Malformed as error:
        raise Malformed(f"{name}: {error}") from error


def each_member(source: Source, findings: Findings) -> Iterator[Member]:
    """The files of a zip or tar with their bytes, after the checks on names, kinds and sizes."""
    seen: dict[str, str] = {}
    total = 0
    for member in _zip(source) if source.read(0, 4) == _ZIP else _tar(source):
        name = member.name.removeprefix("./")
        total += member.size
        if total > MAX_UNPACKED_BYTES:
            raise Malformed(f"expected at most {MAX_UNPACKED_BYTES} bytes when unpacked, came more")
        if member.kind == "folder":
            if name.rstrip("/") and name_problem(name):
                findings.problem(f"folder {name_problem(name)}")
            continue
        for text in _faults(name, member, seen):
            findings.problem(text)
        seen[name.lower()] = name
        yield Member(name=name, kind=member.kind, mode=member.mode, size=member.size, data=member.data)


def _faults(name: str, member: Member, seen: dict[str, str]) -> Iterator[str]:
    fault = name_problem(name)
    if fault:
        yield fault
    if member.kind != "file":
        yield f"{name!a}: expected a file, came {member.kind}"
    if member.mode & 0o6000:
        yield f"{name!a}: expected no set-id bits, came mode {member.mode:04o}"
    if name.lower() in seen:
        yield f"{name!a}: expected each name once, {seen[name.lower()]!a} is there too"


def _zip(source: Source) -> Iterator[Member]:
    try:
        with zipfile.ZipFile(source.stream()) as archive:
            infos = archive.infolist()
            if len(infos) > MAX_MEMBERS:
                raise Malformed(f"expected at most {MAX_MEMBERS} entries, came {len(infos)}")
            for info in infos:
                mode = info.external_attr >> 16
                kind = _zip_kind(info, mode)
                data = b""
                if kind == "file" and info.file_size <= MAX_BINARY_BYTES:
                    with archive.open(info) as opened:
                        data = Capped(opened, MAX_BINARY_BYTES).rest(MAX_BINARY_BYTES)
                elif kind == "file":
                    raise Malformed(f"expected files of at most {MAX_BINARY_BYTES} bytes, {info.filename!a} is larger")
                yield Member(name=info.orig_filename, kind=kind, mode=mode & 0o7777, size=info.file_size, data=data)
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, RuntimeError, OSError) as error:
        raise Malformed(f"expected a zip, it is damaged or packed in an unusual way: {error}") from error


def _zip_kind(info: zipfile.ZipInfo, mode: int) -> str:
    if info.flag_bits & 1:
        raise Malformed(f"expected nothing encrypted, {info.filename!a} is")
    if not info.filename:
        raise Malformed("expected a name for each entry, came none")
    if info.is_dir():
        return "folder"
    return "file" if mode & 0o170000 in (0, 0o100000) else "a link or device"


def _tar(source: Source) -> Iterator[Member]:
    with unpacked(source) as stream:
        yield from members(stream, keep=MAX_BINARY_BYTES)
