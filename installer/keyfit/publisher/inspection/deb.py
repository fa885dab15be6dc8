"""Debian packages (deb(5), deb-control(5), ar(5))."""

from collections.abc import Mapping

from keyfit.publisher.inspection.findings import Findings, is_text
from keyfit.publisher.inspection.limits import MAX_TEXT_BYTES
from keyfit.publisher.inspection.reports import DebReport
from keyfit.publisher.inspection.source import Malformed, Source
from keyfit.publisher.inspection.tarlist import Member, members
from keyfit.publisher.inspection.unpack import unpacked

_AR_MAGIC = b"!<arch>\n"
_AR_HEADER = 60
MAX_AR_MEMBERS = 16
SCRIPTS = ("preinst", "postinst", "prerm", "postrm", "config")
"""Control files that dpkg and debconf run as root (deb-preinst(5) and its neighbours; debconf-devel(7))."""


def inspect(source: Source) -> DebReport:
    """Read control data and file list of a package.

    Raises:
        Malformed: it is none.
    """
    parts = _ar_members(source)
    names = list(parts)
    control = next((name for name in names if name.startswith("control.tar")), "")
    data = next((name for name in names if name.startswith("data.tar")), "")
    if names[:1] != ["debian-binary"] or not control or not data or names.index(data) < names.index(control):
        raise Malformed(f"expected debian-binary, control.tar and data.tar, came {', '.join(names)[:200]!a}")
    if not parts["debian-binary"].read(0, 4).startswith(b"2.0\n"):
        raise Malformed("expected the format version 2.0")
    findings = Findings()
    files = _control_files(parts[control], findings)
    fields = control_fields(files.get("control", b""))
    for name in ("Package", "Version", "Architecture"):
        if not fields.get(name):
            raise Malformed(f"expected the field {name} in the control file")
    scripts = tuple(name for name in SCRIPTS if name in files)
    for name in scripts:
        if is_text(files[name]):
            findings.script(name, files[name].decode("utf-8", "replace"))
        else:
            findings.note(f"{name} is a program, not a script: what it does cannot be read")
    return DebReport(name=fields["Package"], version=fields["Version"], architecture=fields["Architecture"],
                     scripts=scripts, files=_data_files(parts[data], findings), problems=findings.problems,
                     notes=findings.notes)


def _ar_members(source: Source) -> dict[str, Source]:
    """Name -> stretch of each member of the outer archive."""
    if source.read(0, 8) != _AR_MAGIC:
        raise Malformed("expected an ar archive")
    found: dict[str, Source] = {}
    position = len(_AR_MAGIC)
    while position + _AR_HEADER <= source.size:
        header = source.read(position, _AR_HEADER)
        name = header[:16].decode("ascii", "replace").strip().removesuffix("/")
        size = header[48:58].strip()
        if header[58:] != b"`\n" or not size.isdigit() or name in found or len(found) >= MAX_AR_MEMBERS:
            raise Malformed("expected members with names of their own in the ar archive")
        found[name] = source.window(position + _AR_HEADER, int(size))
        position += _AR_HEADER + int(size) + int(size) % 2
    return found


def _control_files(source: Source, findings: Findings) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    with unpacked(source, limit=MAX_TEXT_BYTES * 8) as stream:
        for member in members(stream, keep=MAX_TEXT_BYTES):
            name = member.name.removeprefix("./")
            if member.kind == "folder":
                continue
            if member.kind != "file" or "/" in name or name in files or member.size > MAX_TEXT_BYTES:
                findings.problem(f"control file {name!a}: expected small files without folders, each once")
                continue
            files[name] = member.data
    return files


def control_fields(data: bytes) -> Mapping[str, str]:
    """Fields of the first paragraph of a control file; the first line of each."""
    fields: dict[str, str] = {}
    for line in data.decode("utf-8", "replace").split("\n\n")[0].splitlines():
        name, colon, value = line.partition(":")
        if colon and not line[:1].isspace():
            fields.setdefault(name.strip().capitalize(), value.strip())
    return fields


def _data_files(source: Source, findings: Findings) -> tuple[str, ...]:
    seen: dict[str, str] = {}
    with unpacked(source) as stream:
        for member in members(stream):
            path = _absolute(member.name)
            if path in seen and not (member.kind == seen[path] == "folder"):
                findings.problem(f"{path}: expected each path once, came twice")
            seen[path] = member.kind
            findings.system_file(path, kind=member.kind, mode=member.mode, link=_link(member))
    return tuple(path for path, kind in seen.items() if kind != "folder")


def _absolute(name: str) -> str:
    """dpkg puts "./usr/bin/x" and "usr/bin/x" at /usr/bin/x; anything odd is left for the checks to see."""
    return "/" + name.removeprefix("./").rstrip("/") if name not in (".", "./") else "/"


def _link(member: Member) -> str:
    return _absolute(member.link) if member.kind == "hard link" else member.link
