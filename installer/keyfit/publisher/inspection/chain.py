"""Who vouches for a certificate: the chain up to a root that the publisher trusts (RFC 5280, section 6, what is needed of it).

Revocation is not looked at: the child has no network. The client's system looks at it when it verifies the signature again.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from keyfit.publisher.inspection.certificates import load_certificate
from keyfit.publisher.inspection.source import Malformed

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

MAX_LENGTH = 8
MAX_TRIES = 256
CODE_SIGNING = "1.3.6.1.5.5.7.3.3"
TIME_STAMPING = "1.3.6.1.5.5.7.3.8"
"""RFC 5280, 4.2.1.12."""
_PEM_BEGIN, _PEM_END = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"


class Chain(Struct, frozen=True, kw_only=True):
    """Certificates from the signer upwards. `fault` is empty if the last one is a trusted root and every link holds."""

    certificates: tuple["Certificate", ...]
    fault: str = ""


class Roots:
    """The certificates that a chain may end at.

    Args:
        pem: certificates one after the other; those that cannot be read are left out.
    """

    def __init__(self, pem: bytes = b"") -> None:
        self._certificates: list[Certificate] = []
        for piece in pem.split(_PEM_BEGIN)[1:]:
            text = _PEM_BEGIN + piece.split(_PEM_END)[0] + _PEM_END + b"\n"
            try:
                self._certificates.append(load_certificate(text, pem=True))
            except Malformed:
                continue
        self._identities = {_identity(certificate) for certificate in self._certificates}

    def __len__(self) -> int:
        return len(self._certificates)

    def __contains__(self, certificate: "Certificate") -> bool:
        """Is it one of them, or another certificate for the same name and key?"""
        return _identity(certificate) in self._identities

    def issuers(self, certificate: "Certificate") -> list["Certificate"]:
        """Those with the name of the issuer."""
        return [root for root in self._certificates if root.subject == certificate.issuer]


def system_roots() -> Path | None:
    """The file of roots that this system's OpenSSL uses; None if it has none."""
    import ssl

    places = ssl.get_default_verify_paths()
    for place in (places.cafile, "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"):
        if place and Path(place).is_file():
            return Path(place)
    return None


def build(leaf: "Certificate", others: Sequence[bytes], roots: Roots, moment: datetime, usage: str) -> Chain:
    """Find the way from a signer's certificate to a root.

    Args:
        leaf: the signer's.
        others: DER of the certificates that came along.
        roots: where a way may end.
        moment: when each certificate has to be valid: the time-stamp's, or now.
        usage: object identifier of the extended key usage that the signer needs; empty for any.
    """
    fault = _leaf_fault(leaf, usage)
    search = _Search(_readable(others), roots, moment)
    way = search.upwards((leaf,))
    if way is None:
        way = search.longest
        fault = fault or search.fault or (
            f"the chain ends at {way[-1].issuer.rfc4514_string()!a}, which is none of the roots that are trusted here")
    return Chain(certificates=way, fault=fault)


class _Search:
    """Depth first, each certificate once on a way, with a limit on steps."""

    def __init__(self, pool: list["Certificate"], roots: Roots, moment: datetime) -> None:
        self.longest: tuple[Certificate, ...] = ()
        self.fault = ""
        self._pool = pool
        self._roots = roots
        self._moment = moment
        self._tries = 0

    def upwards(self, way: tuple["Certificate", ...]) -> "tuple[Certificate, ...] | None":
        if len(way) > len(self.longest):
            self.longest = way
        top = way[-1]
        if not self._valid(top):
            return None
        if top in self._roots:
            return way
        for issuer in self._issuers(top):
            self._tries += 1
            if self._tries > MAX_TRIES or len(way) >= MAX_LENGTH:
                return None
            if issuer in way or not self._issued(top, issuer, below=len(way) - 1):
                continue
            found = self.upwards((*way, issuer))
            if found is not None:
                return found
        return None

    def _valid(self, certificate: "Certificate") -> bool:
        first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if first <= self._moment <= last:
            return True
        self.fault = (f"{certificate.subject.rfc4514_string()!a} is valid from {first:%Y-%m-%d} to {last:%Y-%m-%d}, not on"
                      f" {self._moment:%Y-%m-%d}")
        return False

    def _issuers(self, certificate: "Certificate") -> Iterator["Certificate"]:
        yield from self._roots.issuers(certificate)
        yield from (other for other in self._pool if other.subject == certificate.issuer)

    def _issued(self, certificate: "Certificate", issuer: "Certificate", *, below: int) -> bool:
        from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

        if not _may_issue(issuer, below):
            self.fault = f"{issuer.subject.rfc4514_string()!a} may not issue certificates at that place"
            return False
        try:
            certificate.verify_directly_issued_by(issuer)
        except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
            self.fault = f"{certificate.subject.rfc4514_string()!a} was not issued by the one that it names"
            return False
        return True


def _may_issue(issuer: "Certificate", below: int) -> bool:
    """Basic constraints and key usage (RFC 5280, 4.2.1.9 and 4.2.1.3); `below` counts authorities under it."""
    from cryptography import x509

    try:
        constraints = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return issuer.version is x509.Version.v1 and issuer.subject == issuer.issuer  # roots older than the extension
    if not constraints.ca or (constraints.path_length is not None and below > constraints.path_length):
        return False
    try:
        return issuer.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound:
        return True


def usages(certificate: "Certificate") -> tuple[str, ...]:
    """Object identifiers of the extended key usages; empty if it names none or cannot be read."""
    from cryptography import x509

    try:
        value = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(usage.dotted_string for usage in value)


def _leaf_fault(leaf: "Certificate", usage: str) -> str:
    if usage and usage not in usages(leaf):
        return f"its certificate {leaf.subject.rfc4514_string()!a} is not for this use ({usage})"
    return ""


def _readable(raw: Sequence[bytes]) -> list["Certificate"]:
    found = []
    for one in raw:
        try:
            found.append(load_certificate(one))
        except Malformed:
            continue  # it is not needed unless the chain leads over it, and then it is missing
    return found


def _identity(certificate: "Certificate") -> tuple[bytes, bytes]:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return certificate.subject.public_bytes(), certificate.public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
