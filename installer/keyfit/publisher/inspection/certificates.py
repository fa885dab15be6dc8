"""Certificates from files that nobody vouches for. `cryptography` reads them part by part when asked, and each part may be
out of form: here all that is needed is asked for once, so that nothing fails later."""

from typing import TYPE_CHECKING

from keyfit.publisher.inspection.source import Malformed

if TYPE_CHECKING:
    from cryptography.x509 import Certificate


def load_certificate(raw: bytes, *, pem: bool = False) -> "Certificate":
    """Read a certificate with its names, key, dates and extensions.

    Raises:
        Malformed: a part of it is out of form or of a kind that is not supported.
    """
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        certificate = (x509.load_pem_x509_certificate if pem else x509.load_der_x509_certificate)(raw)
        _ = (certificate.subject.rfc4514_string(), certificate.issuer.rfc4514_string(), certificate.public_key(),
             certificate.not_valid_before_utc, certificate.not_valid_after_utc, tuple(certificate.extensions),
             certificate.tbs_certificate_bytes)
    except (ValueError, TypeError, LookupError, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension,
            x509.UnsupportedGeneralNameType) as error:
        raise Malformed(f"expected a certificate, it is out of form or of an unusual kind: {error}") from error
    return certificate
