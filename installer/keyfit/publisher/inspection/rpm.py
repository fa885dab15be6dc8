"""RPM packages (rpm.org: "RPM V4 Package Format", "Header Format", "Package Tags").

What rpm installs is what the main header lists; the payload only has the bytes. So the header is read, and the digests
that bind header and payload are recomputed.
"""

import hashlib
import stat
from collections.abc import Iterator, Mapping
from struct import unpack, unpack_from

from keyfit.publisher.inspection.findings import Findings
from keyfit.publisher.inspection.limits import MAX_MEMBERS
from keyfit.publisher.inspection.reports import RpmReport
from keyfit.publisher.inspection.source import Malformed, Source

_LEAD_BYTES = 96
_LEAD_MAGIC = b"\xed\xab\xee\xdb"
_HEADER_MAGIC = b"\x8e\xad\xe8\x01"
MAX_HEADER_BYTES = 64 * 1024 * 1024
MAX_TAGS = 4_096
_NAME, _VERSION, _RELEASE, _EPOCH, _ARCH = 1000, 1001, 1002, 1003, 1022
_MODES, _LINKS, _FOLDER_INDEXES, _BASE_NAMES, _FOLDERS, _OLD_NAMES = 1030, 1036, 1116, 1117, 1118, 1027
_PAYLOAD_DIGESTS, _PAYLOAD_DIGEST_ALGORITHM = 5092, 5093
_HEADER_SHA256, _HEADER_SHA1 = 273, 269
_SCRIPTS = {1023: "%pre", 1024: "%post", 1025: "%preun", 1026: "%postun", 1079: "%verifyscript", 1151: "%pretrans",
            1152: "%posttrans", 1065: "%trigger", 5066: "%filetrigger", 5076: "%transfiletrigger"}
_HASHES = {2: "sha1", 8: "sha256", 9: "sha384", 10: "sha512"}
"""PGPHASHALGO_* (RFC 4880, 9.4)."""
_INTEGERS = {2: "B", 3: "H", 4: "I", 5: "Q"}
_TEXTS = (6, 8, 9)
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "noarch": "all", "i386": "i386", "i586": "i386", "i686": "i386"}

Tags = Mapping[int, tuple[int, ...] | tuple[str, ...] | bytes]


def inspect(source: Source) -> RpmReport:
    """Read the headers of a package.

    Raises:
        Malformed: it is none, or its digests do not hold.
    """
    if source.read(0, 4) != _LEAD_MAGIC:
        raise Malformed("expected an RPM package")
    signature, end = _header(source, _LEAD_BYTES)
    start = end + -end % 8
    tags, payload = _header(source, start)
    findings = Findings()
    _check_digests(source, signature, tags, (start, payload), findings)
    files = tuple(_files(tags, findings))
    scripts = []
    for tag, name in _SCRIPTS.items():
        for text in _texts(tags, tag):
            findings.script(name, text)
            scripts.append(name)
    epoch = _integers(tags, _EPOCH)
    version = f"{_text(tags, _VERSION)}-{_text(tags, _RELEASE)}"
    architecture = _text(tags, _ARCH)
    return RpmReport(name=_text(tags, _NAME), version=f"{epoch[0]}:{version}" if epoch else version,
                     architecture=_ARCHITECTURES.get(architecture, architecture), scripts=tuple(dict.fromkeys(scripts)),
                     files=files, problems=findings.problems, notes=findings.notes)


def _header(source: Source, start: int) -> tuple[Tags, int]:
    """(tags, position behind the header)."""
    magic, count, size = unpack(">4s4xII", source.read(start, 16))
    if magic != _HEADER_MAGIC or count > MAX_TAGS or size > MAX_HEADER_BYTES:
        raise Malformed("expected an RPM header")
    index = source.read(start + 16, 16 * count)
    store = source.read(start + 16 + 16 * count, size)
    tags: dict[int, tuple[int, ...] | tuple[str, ...] | bytes] = {}
    for row in range(count):
        tag, kind, offset, length = unpack_from(">IIII", index, 16 * row)
        if offset > size or length > MAX_HEADER_BYTES:
            raise Malformed(f"expected the value of tag {tag} inside the header")
        tags[tag] = _value(store, kind, offset, length)
    return tags, start + 16 + 16 * count + size


def _value(store: bytes, kind: int, offset: int, count: int) -> tuple[int, ...] | tuple[str, ...] | bytes:
    if kind in _INTEGERS:
        form = f">{count}{_INTEGERS[kind]}"
        if offset + count * int("1248"[kind - 2]) > len(store):
            raise Malformed("expected numbers inside the header")
        return tuple(unpack_from(form, store, offset))
    if kind in _TEXTS:
        found = store[offset:].split(b"\0", count)[:count] if kind != 6 else [store[offset:].split(b"\0", 1)[0]]
        return tuple(text.decode("utf-8", "replace") for text in found)
    return store[offset : offset + count]


def _integers(tags: Tags, tag: int) -> tuple[int, ...]:
    return tuple(value for value in tags.get(tag, ()) if isinstance(value, int))


def _texts(tags: Tags, tag: int) -> tuple[str, ...]:
    return tuple(value for value in tags.get(tag, ()) if isinstance(value, str))


def _text(tags: Tags, tag: int) -> str:
    found = _texts(tags, tag)
    if not found or not found[0]:
        raise Malformed(f"expected the tag {tag} in the header")
    return found[0]


def _check_digests(source: Source, signature: Tags, tags: Tags, place: tuple[int, int], findings: Findings) -> None:
    """The signature header has the main header's digest, the main header the payload's."""
    start, payload = place
    header = source.read(start, payload - start)
    for tag, name in ((_HEADER_SHA256, "sha256"), (_HEADER_SHA1, "sha1")):
        for declared in _texts(signature, tag):
            if hashlib.new(name, header, usedforsecurity=False).hexdigest() != declared.lower():
                raise Malformed(f"expected the header's {name} {declared[:16]}, it is another: the file is damaged")
    digests = _texts(tags, _PAYLOAD_DIGESTS)
    algorithms = _integers(tags, _PAYLOAD_DIGEST_ALGORITHM)
    if not digests or not algorithms or algorithms[0] not in _HASHES:
        findings.note("the header has no digest of the payload: a newer rpmbuild would write one")
        return
    found = source.window(payload, source.size - payload).digest(_HASHES[algorithms[0]])
    if found != digests[0].lower():
        raise Malformed(f"expected the payload's digest {digests[0][:16]}, it is {found[:16]}: the file is damaged")


def _files(tags: Tags, findings: Findings) -> Iterator[str]:
    """Absolute paths of everything but folders."""
    names = _names(tags)
    modes, links = _integers(tags, _MODES), _texts(tags, _LINKS)
    if len(names) > MAX_MEMBERS or len(modes) != len(names) or len(links) not in (0, len(names)):
        raise Malformed(f"expected at most {MAX_MEMBERS} files with a mode each, came {len(names)} and {len(modes)}")
    for number, (path, mode) in enumerate(zip(names, modes, strict=True)):
        link = links[number] if links else ""
        kind = ("folder" if stat.S_ISDIR(mode) else "link" if stat.S_ISLNK(mode) else "file" if stat.S_ISREG(mode)
                else "a device")
        findings.system_file(path, kind=kind, mode=mode & 0o7777, link=link)
        if kind != "folder":
            yield path


def _names(tags: Tags) -> tuple[str, ...]:
    bases, folders, indexes = _texts(tags, _BASE_NAMES), _texts(tags, _FOLDERS), _integers(tags, _FOLDER_INDEXES)
    if not bases:
        return _texts(tags, _OLD_NAMES)
    if len(indexes) != len(bases) or any(index >= len(folders) for index in indexes):
        raise Malformed("expected a folder for each file")
    return tuple(folders[index] + base for index, base in zip(indexes, bases, strict=True))
