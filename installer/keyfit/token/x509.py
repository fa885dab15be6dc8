"""Reads an X.509 certificate found on a token. Runs in the child process only; the parser is `cryptography`."""

import hashlib
from datetime import UTC, datetime

from cryptography import x509

from keyfit.core.text import clean
from keyfit.model.certificate import CertificateInfo
from keyfit.token.protocol import MAX_NAME

SEQUENCE = 0x30
"""Tag of the outermost element (X.690, section 8.9; RFC 5280, section 4.1)."""


def describe(der: bytes, label: str) -> CertificateInfo | None:
    """What is shown of a certificate; None if it is none.

    Args:
        der: CKA_VALUE of the object, which some tokens fill up to the size of the file that holds it.
        label: CKA_LABEL, cleaned.
    """
    der = _without_filling(der)
    try:
        certificate = x509.load_der_x509_certificate(der)
        return CertificateInfo(
            label=label,
            subject=clean(certificate.subject.rfc4514_string(), MAX_NAME),
            issuer=clean(certificate.issuer.rfc4514_string(), MAX_NAME),
            not_before=_iso(certificate.not_valid_before_utc),
            not_after=_iso(certificate.not_valid_after_utc),
            sha256=hashlib.sha256(der).hexdigest(),
            ca=_is_authority(certificate),
        )
    except (ValueError, TypeError, x509.InvalidVersion):
        return None


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return False


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _without_filling(data: bytes) -> bytes:
    """The first DER element without what follows it (X.690, section 8.1.3: definite lengths)."""
    if len(data) < 2 or data[0] != SEQUENCE:
        return data
    head, length = 2, data[1]
    if length & 0x80:
        head += length & 0x7F
        length = int.from_bytes(data[2:head], "big")
    return data[: head + length]
