"""Loads what readers load on first use, while the process can still read its own files."""

import codecs
from datetime import UTC, datetime, timedelta

_ENCODINGS = ("ascii", "latin-1", "utf-8-sig", "utf-16", "utf-16-le", "cp437", "cp850", "cp852", "cp866", "cp874", "cp932",
              "cp936", "cp949", "cp950", *(f"cp{number}" for number in range(1250, 1259)))
"""Windows code pages that Windows Installer names (learn.microsoft.com: "Code Page Handling"), and those of zip and INF."""


def load_encodings() -> None:
    """So that a text in any of them can be read later."""
    for name in _ENCODINGS:
        codecs.lookup(name)


def warm_up() -> None:
    """Make a certificate, and check a chain and a signature with it, so that nothing is left to be imported."""
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

    from keyfit.publisher.inspection import chain, cms

    now = datetime.now(UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "warm-up")])
    certificate = (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
                   .serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
                   .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
                   .sign(key, hashes.SHA256()))
    chain.build(certificate, (), chain.Roots(), now, chain.CODE_SIGNING)
    for one in cms.HASHES.values():
        cms.hash_algorithm(one)
    _ = (InvalidSignature, UnsupportedAlgorithm, padding.PKCS1v15(), rsa.RSAPublicKey, utils.Prehashed(hashes.SHA256()))
