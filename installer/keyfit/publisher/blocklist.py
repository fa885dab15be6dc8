"""Drivers that no package may bring, because they are known to be vulnerable (security B6).

Three forms are read: the project's own `blocklist.toml`, Microsoft's recommended driver block rules (an App Control policy in
XML), and the JSON of loldrivers.io. The last two are the publisher's own downloads; they are parsed with limits, and a
document type in the XML is refused.
"""

import re
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

import msgspec
from msgspec import Struct

from keyfit.errors import DataError, UserError
from keyfit.model.catalog import Sha256, SourceKey, Sources, Text
from keyfit.publisher.inspection.reports import BinaryReport
from keyfit.publisher.inspection.source import Malformed
from keyfit.publisher.inspection.xmltext import Element, parse_xml
from keyfit.publisher.toml_lines import line_too_deep

FILE_NAME = "blocklist.toml"
"""Beside the brands' folders."""
MAX_BYTES = 128 * 1024 * 1024
"""The JSON of loldrivers.io had tens of megabytes in 2026; Microsoft's XML half a megabyte."""
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}|[0-9a-f]{96}")
_JSON_LIST = re.compile(rb"\[\s*[{\]]")
MAX_DEPTH = 8
_NUMBERS = re.compile(r"\d{1,9}(?:[.,]\s?\d{1,9}){0,3}")
LAST_VERSION = (65535, 65535, 65535, 65535)

Version = tuple[int, ...]


class BlockedDriver(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """An entry of `blocklist.toml`.

    Attributes:
        file: the driver's file name, and its OriginalFilename.
        sha256: over whole files.
        image_hashes: Authenticode hashes in SHA-1 or SHA-256.
        max_version: highest version that is blocked by name; empty means that only the hashes count, "*" any version.
    """

    file: str
    sources: Sources
    cve: tuple[str, ...] = ()
    sha256: tuple[Sha256, ...] = ()
    image_hashes: tuple[str, ...] = ()
    max_version: str = ""


class _File(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    schema: int
    sources: dict[SourceKey, Text]
    driver: tuple[BlockedDriver, ...] = ()


class NameRule(Struct, frozen=True, kw_only=True):
    """Blocks by name and version, and by signer if any are named. `name` is lower case; empty means every file."""

    name: str
    what: str
    lowest: Version = (0, 0, 0, 0)
    highest: Version = LAST_VERSION
    signer: str = ""


class Blocklist:
    """What is blocked. `match` says why a driver is."""

    def __init__(self, hashes: dict[str, str] | None = None, names: Iterable[NameRule] = ()) -> None:
        self.hashes = dict(hashes or {})
        self.names: dict[str, list[NameRule]] = {}
        for rule in names:
            self.names.setdefault(rule.name, []).append(rule)

    def __len__(self) -> int:
        return len(self.hashes) + sum(map(len, self.names.values()))

    def joined(self, other: "Blocklist") -> "Blocklist":
        """Both lists as one."""
        rules = [rule for one in (self, other) for named in one.names.values() for rule in named]
        return Blocklist({**self.hashes, **other.hashes}, rules)

    def match(self, binary: BinaryReport) -> str:
        """What of the list a file is; empty if it is not on it."""
        for one in (binary.sha256, *binary.image_hashes):
            if one in self.hashes:
                return f"{self.hashes[one]} (by its hash {one[:16]}…)"
        names = {PurePosixPath(binary.name.lower()).name, binary.original_name.lower()} - {""}
        for rule in (rule for name in (*sorted(names), "") for rule in self.names.get(name, ())):
            if rule.signer and (binary.signature is None or rule.signer not in binary.signature.identities):
                continue
            found = [numbers(text) for text in binary.versions if numbers(text)]
            if not found or any(rule.lowest <= version <= rule.highest for version in found):
                return f"{rule.what} (by its name{', version' if found else ''}{' and signer' if rule.signer else ''})"
        return ""


def numbers(text: str) -> Version:
    """"10, 0, 1" or "10.0.1 built by: x" -> (10, 0, 1, 0); empty if it begins with no number."""
    found = _NUMBERS.match(text.strip())
    if found is None:
        return ()
    parts = [int(part) for part in re.split(r"[.,]\s?", found.group())]
    return tuple([*parts, 0, 0, 0][:4])


def load_blocklist(path: Path) -> Blocklist:
    """Read a list in any of the three forms.

    Raises:
        DataError: code "blocklist-invalid".
        UserError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError("no-such-file", f"{path} cannot be read: {error.strerror or error}.",
                        hint="Known vulnerable drivers are looked for in every Windows package: name the list with"
                        " --blocklist FILE.") from error
    try:
        if len(data) > MAX_BYTES:
            raise Malformed(f"expected at most {MAX_BYTES} bytes, came more")
        found = _read(data)
        if not len(found):
            raise Malformed("expected at least one driver, found none")
    except (Malformed, ValueError) as error:
        raise DataError("blocklist-invalid", f"Expected a driver block list, {path.name} is none.", (f"{path.name}: {error}",),
                        hint="Accepted are this project's blocklist.toml, Microsoft's SiPolicy XML, and the JSON of"
                        " loldrivers.io.") from error
    return found


def _read(data: bytes) -> Blocklist:
    start = data[:1_024].removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"<"):
        return _microsoft(parse_xml(data, MAX_BYTES))
    if _JSON_LIST.match(start):
        return _loldrivers(data)
    return _own(data)


def _own(data: bytes) -> Blocklist:
    text = data.decode("utf-8")
    line = line_too_deep(text, MAX_DEPTH)
    if line:
        raise Malformed(f"line {line}: expected at most {MAX_DEPTH} levels of nesting, came more")
    try:
        content = msgspec.convert(tomllib.loads(text), _File)
    except msgspec.ValidationError as error:
        raise Malformed(str(error)) from error
    hashes, rules = dict[str, str](), list[NameRule]()
    for driver in content.driver:
        _check_entry(driver, content.sources)
        what = " ".join((driver.file, *driver.cve))
        hashes |= dict.fromkeys((*driver.sha256, *driver.image_hashes), what)
        if driver.max_version:
            highest = LAST_VERSION if driver.max_version == "*" else numbers(driver.max_version)
            rules.append(NameRule(name=driver.file.lower(), what=what, highest=highest))
    unused = set(content.sources) - {key for driver in content.driver for key in driver.sources}
    if unused:
        raise Malformed(f"the source {sorted(unused)[0]!r} is used nowhere")
    return Blocklist(hashes, rules)


def _check_entry(driver: BlockedDriver, sources: dict[str, str]) -> None:
    for key in driver.sources:
        if key not in sources:
            raise Malformed(f"{driver.file}: expected a key of [sources], came {key!r}")
    for one in driver.image_hashes:
        if not _HASH.fullmatch(one):
            raise Malformed(f"{driver.file}: expected a hash in lower-case hex, came {one[:40]!a}")
    if driver.max_version not in ("", "*") and not numbers(driver.max_version):
        raise Malformed(f"{driver.file}: expected a version or '*' as max_version, came {driver.max_version[:40]!a}")
    if not (driver.max_version or driver.sha256 or driver.image_hashes):
        raise Malformed(f"{driver.file}: expected hashes or max_version, came neither")


def _microsoft(root: Element) -> Blocklist:
    """An App Control policy: Deny rules, and signers that are denied for the files they name (learn.microsoft.com:
    "Microsoft recommended driver block rules", "Understand App Control policy rules and file rules")."""
    if root.name != "SiPolicy":
        raise Malformed(f"expected a SiPolicy, came <{root.name[:40]}>")
    hashes = {}
    rules = []
    attributes: dict[str, Element] = {}
    for element in root.each("Deny", "FileAttrib"):
        what = element.attributes.get("FriendlyName") or element.attributes.get("ID", "")
        value = element.attributes.get("Hash", "").lower()
        if element.name == "FileAttrib":
            attributes[element.attributes.get("ID", "")] = element
        elif _HASH.fullmatch(value):
            hashes[value] = what
        elif element.attributes.get("FileName"):
            rules.append(_name_rule(element, what, ""))
    denied = {element.attributes.get("SignerId", "") for element in root.each("DeniedSigner")}
    for signer in root.each("Signer"):
        if signer.attributes.get("ID", "") in denied:
            rules += _signer_rules(signer, attributes)
    return Blocklist(hashes, rules)


def _signer_rules(signer: Element, attributes: dict[str, Element]) -> Iterator[NameRule]:
    root = signer.find("CertRoot")
    identity = root.attributes.get("Value", "").lower() if root and root.attributes.get("Type") == "TBS" else ""
    what = signer.attributes.get("Name") or signer.attributes.get("ID", "")
    files = [attributes[ref] for ref in (one.attributes.get("RuleID", "") for one in signer.each("FileAttribRef"))
             if ref in attributes]
    if not _HASH.fullmatch(identity):
        return
    if files:
        yield from (_name_rule(file, what, identity) for file in files)
    elif signer.find("CertPublisher") is None:  # with a publisher it would need that name compared too
        yield NameRule(name="", what=what, signer=identity)


def _name_rule(element: Element, what: str, signer: str) -> NameRule:
    return NameRule(name=element.attributes.get("FileName", "").lower(), what=what, signer=signer,
                    lowest=numbers(element.attributes.get("MinimumFileVersion", "")) or (0, 0, 0, 0),
                    highest=numbers(element.attributes.get("MaximumFileVersion", "")) or LAST_VERSION)


class _Sample(Struct):
    Filename: str | None = None
    OriginalFilename: str | None = None
    SHA1: str | None = None
    SHA256: str | None = None
    Authentihash: dict[str, str | None] | None = None


class _LolDriver(Struct):
    Id: str = ""
    Tags: list[str] = []
    KnownVulnerableSamples: list[_Sample] = []


def _loldrivers(data: bytes) -> Blocklist:
    """The API's list: each driver has samples with hashes (github.com/magicsword-io/LOLDrivers, bin/spec/drivers.spec.json)."""
    try:
        drivers = msgspec.json.decode(data, type=list[_LolDriver])
    except (msgspec.DecodeError, RecursionError) as error:
        raise Malformed(f"expected the list of loldrivers.io: {error}") from error
    hashes = {}
    for driver in drivers:
        for sample in driver.KnownVulnerableSamples:
            name = sample.Filename or sample.OriginalFilename or (driver.Tags or [driver.Id])[0]
            for one in (sample.SHA1, sample.SHA256, *(sample.Authentihash or {}).values()):
                if one and _HASH.fullmatch(one.strip().lower()):
                    hashes[one.strip().lower()] = f"{name} (loldrivers.io {driver.Id})"
    return Blocklist(hashes)
