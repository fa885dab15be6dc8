"""Microsoft's signatures on files: PKCS #7 over an SpcIndirectDataContent that holds the file's hash.

From "Windows Authenticode Portable Executable Signature Format" (Microsoft, 2008-03-21) and RFC 3161. Three things have to
hold: the hash in it is the file's, recomputed here (security B3); the signature holds over it; the certificate leads to a
trusted root and is one for code signing. Whose it is, is compared elsewhere (B2).
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from msgspec import structs

from keyfit.publisher.inspection import chain, cms, der
from keyfit.publisher.inspection.reports import SignatureReport
from keyfit.publisher.inspection.source import Malformed

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

INDIRECT_DATA = "1.3.6.1.4.1.311.2.1.4"
NESTED_SIGNATURE = "1.3.6.1.4.1.311.2.4.1"
RFC3161_TIMESTAMP = "1.3.6.1.4.1.311.3.3.1"
TST_INFO = "1.2.840.113549.1.9.16.1.4"
MAX_NESTED = 4
CLOCK_SKEW = timedelta(days=1)
"""How far the publisher's clock may be behind a time-stamp authority's."""
_UTC = re.compile(r"(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(?:\.\d+)?Z", re.ASCII)

FileHash = Callable[[str], bytes]
"""Name of a hash -> the file's hash as its format defines it."""


class Trust:
    """What a signature is held against: the roots, and what the time is."""

    def __init__(self, roots: chain.Roots, now: datetime) -> None:
        self.roots = roots
        self.now = now


def inspect_signature(data: bytes, file_hash: FileHash, trust: Trust) -> SignatureReport:
    """Check a signature that is embedded in a file, and those nested in it.

    Args:
        data: a PKCS #7 structure; what follows it is not looked at.
        file_hash: recomputes the file's hash.
        trust: roots and time.

    Returns:
        The outer signature's report, with a fault if any of them is at fault.
    """
    report = _inspect(data, file_hash, trust)
    if report.fault:
        return report
    for number, nested in enumerate(_nested(data)):
        if number >= MAX_NESTED:
            return structs.replace(report, fault=f"expected at most {MAX_NESTED} signatures inside the first, came more")
        other = _inspect(nested, file_hash, trust)
        if other.fault:
            return structs.replace(report, fault=f"a signature inside the first: {other.fault}")
    return report


def _inspect(data: bytes, file_hash: FileHash, trust: Trust) -> SignatureReport:
    try:
        message = cms.signed_data(data)
        name, signed_hash = indirect_data(message)
    except Malformed as error:
        return SignatureReport(fault=str(error))
    report = check_message(message, INDIRECT_DATA, trust)
    if not report.fault and file_hash(name) != signed_hash:
        return structs.replace(report, hash=name, fault="the signed hash is not the file's: it was changed after signing,"
                               " or the signature is another file's")
    return structs.replace(report, hash=name)


def indirect_data(message: cms.SignedData) -> tuple[str, bytes]:
    """(name of the hash, hash) that the content names.

    Raises:
        Malformed: it is no SpcIndirectDataContent.
    """
    if message.content_type != INDIRECT_DATA or message.content is None:
        raise Malformed(f"expected a signature over a file's hash, came one over {message.content_type}")
    parts = message.content.expect(der.SEQUENCE, "SpcIndirectDataContent").children()
    info = parts[1].expect(der.SEQUENCE, "DigestInfo").children() if len(parts) == 2 else []
    if len(info) != 2:
        raise Malformed("expected a DigestInfo")
    name = cms.HASHES.get(cms.algorithm(info[0]))
    if name is None:
        raise Malformed(f"expected one of the hashes {', '.join(cms.HASHES.values())}, came {cms.algorithm(info[0])}")
    return name, info[1].expect(der.OCTET_STRING, "the file's hash").content


def check_message(message: cms.SignedData, content_type: str, trust: Trust, *,
                  usage: str = chain.CODE_SIGNING) -> SignatureReport:
    """Check the one signature of a message over its own content, its time-stamp, and the signer's chain."""
    if len(message.signers) != 1:
        return SignatureReport(fault=f"expected one signer, came {len(message.signers)}")
    signer = message.signers[0]
    content = message.content.content if message.content is not None else b""
    try:
        leaf = cms.verify(signer, content_type, content, message.certificates)
    except (cms.BadSignature, Malformed) as error:
        return SignatureReport(fault=str(error))
    try:
        moment = _stamped(signer, message.certificates, trust)
    except (cms.BadSignature, Malformed) as error:
        report = signer_report(leaf, message.certificates, trust, None, usage)
        return structs.replace(report, fault=report.fault or str(error))
    return signer_report(leaf, message.certificates, trust, moment, usage)


def signer_report(leaf: "Certificate", certificates: tuple[bytes, ...], trust: Trust, moment: datetime | None,
                  usage: str) -> SignatureReport:
    """Who a signer is, and whether the chain leads to a root. `moment` is the time-stamp's; None means now."""
    way = chain.build(leaf, certificates, trust.roots, moment or trust.now, usage)
    return SignatureReport(
        fault=way.fault, subject=leaf.subject.rfc4514_string(), issuer=leaf.issuer.rfc4514_string(),
        chain=tuple(one.subject.rfc4514_string() for one in way.certificates[1:]), usages=chain.usages(leaf),
        signed_at=moment.isoformat() if moment else "", identities=tuple(_identities(way.certificates)))


def _identities(certificates: tuple["Certificate", ...]) -> Iterator[str]:
    """Hash over the body of each certificate with the hash of its own signature, as in the TBS values of block rules."""
    from cryptography.exceptions import UnsupportedAlgorithm

    for certificate in certificates:
        try:
            used = certificate.signature_hash_algorithm
        except UnsupportedAlgorithm:
            continue
        if used is not None:
            yield hashlib.new(used.name, certificate.tbs_certificate_bytes, usedforsecurity=False).hexdigest()


def _nested(data: bytes) -> Iterator[bytes]:
    for signer in cms.signed_data(data).signers:
        yield from (node.raw for node in signer.unsigned.get(NESTED_SIGNATURE, ()))


def _stamped(signer: cms.SignerInfo, certificates: tuple[bytes, ...], trust: Trust) -> datetime | None:
    """The moment that a time-stamp proves; None without one.

    Raises:
        BadSignature: there is one that does not hold.
    """
    for node in signer.unsigned.get(RFC3161_TIMESTAMP, ()):
        return _rfc3161(node, signer, trust)
    for node in signer.unsigned.get(cms.COUNTERSIGNATURE, ()):
        return _countersigned(node, signer, certificates, trust)
    return None


def _rfc3161(node: der.Node, signer: cms.SignerInfo, trust: Trust) -> datetime:
    """RFC 3161, 2.4.2: TSTInfo with the hash of the signature's octets."""
    message = cms.signed_data(node.raw)
    if message.content_type != TST_INFO or message.content is None or len(message.signers) != 1:
        raise cms.BadSignature("the time-stamp is none")
    content = message.content.expect(der.OCTET_STRING, "TSTInfo").content
    leaf = cms.verify(message.signers[0], TST_INFO, content, message.certificates)
    fields = der.parse(content).expect(der.SEQUENCE, "TSTInfo").children()
    imprint = fields[2].expect(der.SEQUENCE, "the time-stamp's hash").children() if len(fields) > 4 else []
    if len(imprint) != 2:
        raise cms.BadSignature("the time-stamp has no hash")
    name = cms.HASHES.get(cms.algorithm(imprint[0]))
    if name is None or hashlib.new(name, signer.signature, usedforsecurity=False).digest() != imprint[1].content:
        raise cms.BadSignature("the time-stamp is for another signature")
    moment = _time(fields[4])
    _check_authority(leaf, message.certificates, trust, moment)
    return moment


def _countersigned(node: der.Node, signer: cms.SignerInfo, certificates: tuple[bytes, ...], trust: Trust) -> datetime:
    """PKCS #9 countersignature over the signature's octets, with the signed attribute signingTime (RFC 5652, 11.3, 11.4)."""
    counter = cms.signer_info(node)
    leaf = cms.verify(counter, "", signer.signature, certificates)
    values = counter.signed.get(cms.SIGNING_TIME, ())
    if len(values) != 1:
        raise cms.BadSignature("the time-stamp has no time")
    moment = _time(values[0])
    _check_authority(leaf, certificates, trust, moment)
    return moment


def _check_authority(leaf: "Certificate", certificates: tuple[bytes, ...], trust: Trust, moment: datetime) -> None:
    if moment > trust.now + CLOCK_SKEW:
        raise cms.BadSignature(f"the time-stamp is of {moment:%Y-%m-%d}, which has not come yet")
    way = chain.build(leaf, certificates, trust.roots, moment, chain.TIME_STAMPING)
    if way.fault:
        raise cms.BadSignature(f"the time-stamp's signer: {way.fault}")


def _time(node: der.Node) -> datetime:
    """GeneralizedTime or UTCTime in UTC (X.680, 46 and 47); fractions of a second are dropped."""
    text = node.content.decode("ascii", "replace")
    if node.tag == der.UTC_TIME:
        text = ("19" if text[:2] >= "50" else "20") + text  # RFC 5280, 4.1.2.5.1
    found = _UTC.fullmatch(text)
    try:
        if found is None:
            raise ValueError
        return datetime(*map(int, found.groups()), tzinfo=UTC)  # type: ignore[arg-type,misc]
    except ValueError as error:
        raise Malformed(f"expected a time in UTC, came {text[:30]!a}") from error
