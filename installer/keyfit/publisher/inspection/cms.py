"""Cryptographic Message Syntax: who signed, and does the signature hold (RFC 5652; RFC 2315 for what Authenticode keeps).

The structures are read by `der`, the mathematics is that of `cryptography`. A signature holds if the content's hash is
the signed attribute `messageDigest` and the signed attributes verify with the key of the certificate that the signer
names. Whose certificate it is, and who vouches for it, is `chain`'s matter.
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from keyfit.publisher.inspection import der
from keyfit.publisher.inspection.certificates import load_certificate
from keyfit.publisher.inspection.limits import MAX_CERTIFICATES
from keyfit.publisher.inspection.source import Malformed

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.hashes import HashAlgorithm
    from cryptography.x509 import Certificate

SIGNED_DATA = "1.2.840.113549.1.7.2"
DATA = "1.2.840.113549.1.7.1"
CONTENT_TYPE = "1.2.840.113549.1.9.3"
MESSAGE_DIGEST = "1.2.840.113549.1.9.4"
SIGNING_TIME = "1.2.840.113549.1.9.5"
COUNTERSIGNATURE = "1.2.840.113549.1.9.6"
"""RFC 5652, sections 4, 5.1, 11."""
HASHES: Mapping[str, str] = {
    "1.3.14.3.2.26": "sha1", "2.16.840.1.101.3.4.2.1": "sha256", "2.16.840.1.101.3.4.2.2": "sha384",
    "2.16.840.1.101.3.4.2.3": "sha512",
}
"""RFC 5754, section 2, and RFC 3370, section 2.1. MD5 is not among them: a signature over it proves nothing."""
RSASSA_PSS = "1.2.840.113549.1.1.10"
_RSA = tuple(f"1.2.840.113549.1.1.{n}" for n in (1, 5, 11, 12, 13))
_ECDSA = ("1.2.840.10045.2.1", "1.2.840.10045.4.1", *(f"1.2.840.10045.4.3.{n}" for n in (2, 3, 4)))
"""RFC 8017, appendix C, and RFC 5753, section 7.1.1: the key's algorithm alone, or with the hash."""


class BadSignature(Exception):
    """The signature does not hold. Says why."""


class SignerInfo(Struct, frozen=True, kw_only=True):
    """One signer: which certificate, over what, with what."""

    issuer: bytes
    serial: bytes
    hash_name: str
    algorithm: str
    signature: bytes
    signed: Mapping[str, tuple[der.Node, ...]]
    signed_raw: bytes
    unsigned: Mapping[str, tuple[der.Node, ...]]


class SignedData(Struct, frozen=True, kw_only=True):
    """A signed message. `content` is the value inside the explicit tag; None if it is elsewhere."""

    content_type: str
    content: der.Node | None
    certificates: tuple[bytes, ...]
    signers: tuple[SignerInfo, ...]


def signed_data(data: bytes) -> SignedData:
    """Read a ContentInfo that holds SignedData. What follows it in `data` is not looked at.

    Raises:
        Malformed: it is something else.
    """
    parts = der.parse(data).expect(der.SEQUENCE, "a ContentInfo").children()
    if len(parts) != 2 or der.oid(parts[0]) != SIGNED_DATA:
        raise Malformed("expected signed data in PKCS #7 form")
    body = _only(parts[1].expect(der.CONTEXT_0, "the content")).expect(der.SEQUENCE, "SignedData")
    fields = body.children()
    if len(fields) < 4:
        raise Malformed("expected the fields of SignedData")
    encapsulated = fields[2].expect(der.SEQUENCE, "the signed content").children()
    if not encapsulated:
        raise Malformed("expected the type of the signed content")
    certificates: list[bytes] = []
    signers: list[SignerInfo] = []
    for field in fields[3:]:
        if field.tag == der.CONTEXT_0:
            certificates += [node.raw for node in field.children() if node.tag == der.SEQUENCE]
        elif field.tag == der.SET:
            signers += [signer_info(node) for node in field.children()]
    if len(certificates) > MAX_CERTIFICATES or len(signers) > MAX_CERTIFICATES:
        raise Malformed(f"expected at most {MAX_CERTIFICATES} certificates and signers, came more")
    content = _only(encapsulated[1].expect(der.CONTEXT_0, "the content")) if len(encapsulated) > 1 else None
    return SignedData(content_type=der.oid(encapsulated[0]), content=content, certificates=tuple(certificates),
                      signers=tuple(signers))


def signer_info(node: der.Node) -> SignerInfo:
    """Read one SignerInfo (RFC 5652, 5.3), named by issuer and serial number.

    Raises:
        Malformed: it is something else.
    """
    fields = node.expect(der.SEQUENCE, "SignerInfo").children()
    if len(fields) < 5:
        raise Malformed("expected the fields of SignerInfo")
    name = fields[1].expect(der.SEQUENCE, "issuer and serial number").children()
    if len(name) != 2:
        raise Malformed("expected issuer and serial number")
    rest = fields[3:]
    signed = rest.pop(0) if rest[0].tag == der.CONTEXT_0 else None
    if len(rest) < 2:
        raise Malformed("expected the fields of SignerInfo")
    unsigned = rest[2] if len(rest) > 2 and rest[2].tag == der.CONTEXT_1 else None
    hash_oid = algorithm(fields[2])
    if hash_oid not in HASHES:
        raise Malformed(f"expected one of the hashes {', '.join(HASHES.values())}, came {hash_oid}")
    return SignerInfo(
        issuer=name[0].raw, serial=name[1].content, hash_name=HASHES[hash_oid], algorithm=algorithm(rest[0]),
        signature=rest[1].expect(der.OCTET_STRING, "the signature").content, signed=_attributes(signed),
        signed_raw=b"\x31" + signed.raw[1:] if signed else b"", unsigned=_attributes(unsigned))


def verify(signer: SignerInfo, content_type: str, content: bytes, certificates: Sequence[bytes]) -> "Certificate":
    """See that a signature holds over `content`.

    Args:
        content_type: what the signed attribute of that name has to say; empty if there need not be one.
        content: the octets of the content's value, without its tag and length.
        certificates: those that came along.

    Returns:
        The signer's certificate.

    Raises:
        BadSignature: it does not hold, or the certificate is not there.
        Malformed: the certificate is out of form.
    """
    certificate = _signer_certificate(signer, certificates)
    message = content
    if signer.signed_raw:
        found = _single(signer, MESSAGE_DIGEST).expect(der.OCTET_STRING, "messageDigest").content
        if not hmac.compare_digest(found, hashlib.new(signer.hash_name, content, usedforsecurity=False).digest()):
            raise BadSignature("the signed hash is not that of the content")
        if content_type and der.oid(_single(signer, CONTENT_TYPE)) != content_type:
            raise BadSignature(f"expected a signature over {content_type}, it is over something else")
        message = signer.signed_raw
    _verify_key(signer, certificate, message)
    return certificate


def _signer_certificate(signer: SignerInfo, certificates: Sequence[bytes]) -> "Certificate":
    for raw in certificates:
        serial, issuer = certificate_names(raw)
        if (issuer, serial) == (signer.issuer, signer.serial):
            return load_certificate(raw)
    raise BadSignature("the signer's certificate is not among those that came along")


def certificate_names(raw: bytes) -> tuple[bytes, bytes]:
    """(serial number's octets, issuer's DER) of a certificate (RFC 5280, 4.1).

    Raises:
        Malformed: it is no certificate.
    """
    outer = der.parse(raw).expect(der.SEQUENCE, "a certificate").children()
    fields = outer[0].expect(der.SEQUENCE, "a certificate's body").children() if outer else []
    fields = fields[1:] if fields and fields[0].tag == der.CONTEXT_0 else fields
    if len(fields) < 3:
        raise Malformed("expected the fields of a certificate")
    return fields[0].expect(der.INTEGER, "a serial number").content, fields[2].raw


def _verify_key(signer: SignerInfo, certificate: "Certificate", message: bytes) -> None:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

    chosen = hash_algorithm(signer.hash_name)
    try:
        key = certificate.public_key()
        if isinstance(key, rsa.RSAPublicKey) and signer.algorithm in _RSA:
            key.verify(signer.signature, message, padding.PKCS1v15(), chosen)
        elif isinstance(key, rsa.RSAPublicKey) and signer.algorithm == RSASSA_PSS:
            key.verify(signer.signature, message, padding.PSS(padding.MGF1(chosen), padding.PSS.AUTO), chosen)
        elif isinstance(key, ec.EllipticCurvePublicKey) and signer.algorithm in _ECDSA:
            key.verify(signer.signature, message, ec.ECDSA(chosen))
        else:
            raise BadSignature(f"expected a signature by RSA or ECDSA, came {signer.algorithm}")
    except InvalidSignature as error:
        raise BadSignature("it was not made with the key of the certificate, or what it is over was changed") from error
    except (UnsupportedAlgorithm, ValueError) as error:
        raise BadSignature(f"its key cannot be used: {error}") from error


def hash_algorithm(name: str) -> "HashAlgorithm":
    """The hash of that name, for `cryptography`."""
    from cryptography.hazmat.primitives import hashes

    known: dict[str, HashAlgorithm] = {"sha1": hashes.SHA1(), "sha256": hashes.SHA256(), "sha384": hashes.SHA384(),  # noqa: S303
                                       "sha512": hashes.SHA512()}
    return known[name]


def algorithm(node: der.Node) -> str:
    """The object identifier of an AlgorithmIdentifier."""
    parts = node.expect(der.SEQUENCE, "an algorithm").children()
    if not parts:
        raise Malformed("expected an algorithm's identifier")
    return der.oid(parts[0])


def octets(data: bytes) -> der.Node:
    """Content that lies beside a message, as if it were in it."""
    return der.Node(der.OCTET_STRING, data, data)


def _attributes(node: der.Node | None) -> dict[str, tuple[der.Node, ...]]:
    """Object identifier -> values. An attribute that is there twice would be ambiguous."""
    found: dict[str, tuple[der.Node, ...]] = {}
    for attribute in node.children() if node else ():
        parts = attribute.expect(der.SEQUENCE, "an attribute").children()
        if len(parts) != 2 or parts[1].tag != der.SET:
            raise Malformed("expected an attribute with values")
        name = der.oid(parts[0])
        if name in found:
            raise Malformed(f"expected the attribute {name} once, came twice")
        found[name] = tuple(parts[1].children())
    return found


def _single(signer: SignerInfo, name: str) -> der.Node:
    values = signer.signed.get(name, ())
    if len(values) != 1:
        raise BadSignature(f"expected one signed attribute {name}, came {len(values)}")
    return values[0]


def _only(node: der.Node) -> der.Node:
    inner = node.children()
    if len(inner) != 1:
        raise Malformed(f"expected one value, came {len(inner)}")
    return inner[0]
