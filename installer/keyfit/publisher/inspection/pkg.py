"""macOS installer packages: flat component packages and product archives (security B7, F2, J3).

Apple describes the form in man pages only (pkgbuild(1), productbuild(1), installer(8)); the rest is after Apple's xar
source and apple-codesign (MPL-2.0; read, not copied). Nothing here has been held against Apple's own tools.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from posixpath import join
from struct import unpack

from msgspec import structs

from keyfit.publisher.inspection import cms
from keyfit.publisher.inspection.authenticode import Trust, check_message, signer_report
from keyfit.publisher.inspection.certificates import load_certificate
from keyfit.publisher.inspection.cpio import members
from keyfit.publisher.inspection.findings import Findings, is_text
from keyfit.publisher.inspection.limits import MAX_TEXT_BYTES, MAX_UNPACKED_BYTES
from keyfit.publisher.inspection.pbzx import Pbzx, is_pbzx
from keyfit.publisher.inspection.reports import PkgReport, SignatureReport
from keyfit.publisher.inspection.source import Capped, Malformed, Source
from keyfit.publisher.inspection.unpack import unpacked
from keyfit.publisher.inspection.xar import Xar, XarFile, XarSignature, read_xar
from keyfit.publisher.inspection.xmltext import Element, parse_xml

DEVELOPER_ID_INSTALLER = "1.2.840.113635.100.4.13"
"""Extended key usage of Developer ID Installer certificates (Apple's certification practice statement for Developer ID)."""
_TRAILER, _TRAILER_BYTES, _TICKET = b"t8lr", 16, 2
"""Behind a stapled package: magic, version, type, length, reserved; little-endian (apple-codesign, stapling.rs)."""


def inspect(source: Source, trust: Trust) -> PkgReport:
    """Read a package.

    Raises:
        Malformed: it is none.
    """
    archive = read_xar(source)
    findings = Findings()
    files = {file.name: file for file in archive.files}
    components, paths, scripts = [], list[str](), list[str]()
    for name, file in files.items():
        if name.rpartition("/")[2] == "PackageInfo":
            folder = name.removesuffix("PackageInfo")
            info = parse_xml(_bytes(file), MAX_TEXT_BYTES)
            components.append(f"{info.attributes.get('identifier', '')} {info.attributes.get('version', '')}".strip())
            paths += _payload(folder, files, info.attributes.get("install-location", "/"), findings)
            scripts += _scripts(folder, files, findings)
    if "Distribution" in files:
        _distribution(parse_xml(_bytes(files["Distribution"]), MAX_TEXT_BYTES), findings)
    if not components:
        raise Malformed("expected an installer package with a PackageInfo, found none")
    stapled = _stapled(source)
    if not stapled:
        findings.note("no notarisation ticket is attached: Gatekeeper will have to ask Apple on the user's machine")
    return PkgReport(components=tuple(components), files=tuple(paths), scripts=tuple(scripts), stapled=stapled,
                     signature=_signature(archive, trust, findings), problems=findings.problems, notes=findings.notes)


def _payload(folder: str, files: dict[str, XarFile], location: str, findings: Findings) -> Iterator[str]:
    """Absolute paths that a component installs."""
    payload = files.get(folder + "Payload")
    if payload is None:
        return
    with _cpio(payload) as stream:
        for member in members(stream):
            path = join("/", location.lstrip("/"), member.name.removeprefix("./")).rstrip("/") or "/"
            if member.name in (".", "./"):
                continue
            findings.system_file(path, kind=member.kind, mode=member.mode, link=member.link)
            if member.kind != "folder":
                if path.startswith("/Library/Extensions/") or path.startswith("/System/"):
                    findings.note(f"{path}: lies where the kernel's extensions or the system's own files are")
                yield path


def _scripts(folder: str, files: dict[str, XarFile], findings: Findings) -> Iterator[str]:
    archive = files.get(folder + "Scripts")
    if archive is None:
        return
    with _cpio(archive) as stream:
        for member in members(stream, keep=MAX_TEXT_BYTES):
            if member.kind != "file":
                continue
            name = folder + member.name.removeprefix("./")
            yield name
            if is_text(member.data):
                findings.script(name, member.data.decode("utf-8", "replace"))
            else:
                findings.note(f"{name} is a program, not a script: what it does cannot be read")


def _distribution(document: Element, findings: Findings) -> None:
    """The product archive's script: what it runs, and packages that are elsewhere."""
    for element in document.each("pkg-ref"):
        if element.text and not element.text.startswith("#"):
            findings.problem(f"Distribution: expected all packages inside, {element.text[:120]!a} is elsewhere")
    for element in document.each("script"):
        findings.script("Distribution's script", element.text)
    for element in document.each("options"):
        if element.attributes.get("allow-external-scripts", "") in ("yes", "true"):
            findings.note("Distribution: its script may run programs before the user agrees (allow-external-scripts)")


@contextmanager
def _cpio(file: XarFile) -> Iterator[Capped]:
    with _decoded(file) as stored:
        if is_pbzx(stored):
            yield Capped(Pbzx(stored), MAX_UNPACKED_BYTES)
        else:
            with unpacked(stored) as stream:
                yield stream


@contextmanager
def _decoded(file: XarFile) -> Iterator[Source]:
    """xar may compress a file once more; large ones are stored as they are."""
    if file.encoding in ("application/octet-stream", ""):
        yield file.stored
    else:
        yield Source.of(_bytes(file))


def _bytes(file: XarFile) -> bytes:
    if file.encoding in ("application/octet-stream", ""):
        return file.stored.read(0, min(file.stored.size, MAX_TEXT_BYTES))
    import bz2
    import zlib

    engine = zlib.decompressobj(47) if file.encoding == "application/x-gzip" else bz2.BZ2Decompressor()
    try:
        data = engine.decompress(file.stored.read(0, min(file.stored.size, MAX_TEXT_BYTES)), MAX_TEXT_BYTES)
    except (zlib.error, OSError, EOFError) as error:
        raise Malformed(f"{file.name}: the compressed data is damaged: {error}") from error
    if len(data) != file.size:
        raise Malformed(f"{file.name}: expected {file.size} bytes, came {len(data)}")
    return data


def _stapled(source: Source) -> bool:
    if source.size < _TRAILER_BYTES:
        return False
    magic, _, kind, length = unpack("<4sHHI4x", source.read(source.size - _TRAILER_BYTES, _TRAILER_BYTES))
    return bool(magic == _TRAILER and kind == _TICKET and 0 < length < source.size)


def _signature(archive: Xar, trust: Trust, findings: Findings) -> SignatureReport | None:
    """The RSA signature decides; the CMS one beside it brings the time-stamp."""
    plain = next((one for one in archive.signatures if one.style == "RSA"), None)
    message = next((one for one in archive.signatures if one.style == "CMS"), None)
    if plain is None:
        return SignatureReport(fault="it has no RSA signature") if message else None
    moment = _stamp(message, archive, trust, findings) if message else None
    report = _rsa(plain, archive, trust, moment)
    teams = [part.removeprefix("OU=") for part in report.subject.split(",") if part.startswith("OU=")]
    return structs.replace(report, team_id=teams[0] if len(teams) == 1 else "", hash=archive.hash_name)


def _rsa(signature: XarSignature, archive: Xar, trust: Trust, moment: datetime | None) -> SignatureReport:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import padding, rsa, utils

    if not signature.certificates:
        return SignatureReport(fault="no certificate lies beside the signature")
    try:
        leaf = load_certificate(signature.certificates[0])
        key = leaf.public_key()
        if not isinstance(key, rsa.RSAPublicKey):
            return SignatureReport(fault="expected a signature by RSA")
        key.verify(signature.value, archive.digest, padding.PKCS1v15(),
                   utils.Prehashed(cms.hash_algorithm(archive.hash_name)))
    except InvalidSignature:
        return SignatureReport(fault="it was not made with the key of the certificate, or the package was changed since")
    except (Malformed, ValueError, UnsupportedAlgorithm) as error:
        return SignatureReport(fault=f"its certificate cannot be used: {error}")
    return signer_report(leaf, signature.certificates[1:], trust, moment, DEVELOPER_ID_INSTALLER)


def _stamp(signature: XarSignature, archive: Xar, trust: Trust, findings: Findings) -> datetime | None:
    try:
        message = cms.signed_data(signature.value)
    except Malformed as error:
        findings.note(f"the second signature (CMS) cannot be read: {error}")
        return None
    with_content = structs.replace(message, content=cms.octets(archive.digest))
    report = check_message(with_content, "", trust, usage="")
    if report.fault:
        findings.note(f"the second signature (CMS) could not be confirmed: {report.fault}")
        return None
    return datetime.fromisoformat(report.signed_at) if report.signed_at else None
