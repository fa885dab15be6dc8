"""Throw-away certificate authorities, and files signed by the real osslsigncode with certificates of theirs."""

import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

OSSLSIGNCODE = "/usr/bin/osslsigncode"
TIMEOUT_S = 60
CODE_SIGNING = ExtendedKeyUsageOID.CODE_SIGNING
TIME_STAMPING = ExtendedKeyUsageOID.TIME_STAMPING
VENDOR = "CN=Acme Ltd.,O=Acme Ltd.,L=Springfield,C=US"
ISSUER = "CN=Example Code Signing CA 1,O=Example Trust,C=US"
ROOT = "CN=Example Root,O=Example Trust,C=US"


class Identity:
    """A key with its certificate and those above it, root last; PEM files of all of them in `folder`."""

    def __init__(self, folder: Path, name: str, key: rsa.RSAPrivateKey, chain: Sequence[x509.Certificate]) -> None:
        self.private_key = key
        self.chain = tuple(chain)
        self.certificate = chain[0]
        self.key, self.certificates, self.root = (folder / f"{name}.{part}.pem" for part in ("key", "chain", "root"))
        self.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                               serialization.NoEncryption()))
        self.certificates.write_bytes(b"".join(pem(one) for one in (chain[:-1] or chain)))
        self.root.write_bytes(pem(chain[-1]))


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def make(folder: Path, name: str = "vendor", *, subject: str = VENDOR, issuer: str = ISSUER, root: str = ROOT,
         usages: Sequence[x509.ObjectIdentifier] = (CODE_SIGNING,), valid: tuple[int, int] = (-30, 365),
         authority: "Identity | None" = None, intermediate_is_authority: bool = True) -> Identity:
    """A signer below an intermediate authority below a root, all made now.

    Args:
        valid: days from today between which the signer's certificate counts.
        authority: an identity whose authorities are used again.
        intermediate_is_authority: False makes an intermediate that may not issue.
    """
    if authority is None:
        root_key, middle_key = _key(), _key()
        top = _certificate(root, root_key, root, root_key, authority=True)
        middle = _certificate(issuer, middle_key, root, root_key, authority=intermediate_is_authority)
    else:
        middle, top = authority.chain[1:]
        middle_key = authority.middle_key  # type: ignore[attr-defined]
    key = _key()
    leaf = _certificate(subject, key, middle.subject.rfc4514_string(), middle_key, usages=usages, valid=valid)
    made = Identity(folder, name, key, (leaf, middle, top))
    made.middle_key = middle_key  # type: ignore[attr-defined]
    return made


def self_signed(folder: Path, name: str = "selfmade", subject: str = VENDOR) -> Identity:
    """A certificate that vouches for itself, under the vendor's name."""
    key = _key()
    return Identity(folder, name, key, (_certificate(subject, key, subject, key, usages=(CODE_SIGNING,)),))


def sign(identity: Identity, source: Path, target: Path, *options: str) -> Path:
    """Sign a file as a vendor does."""
    return tool("sign", "-certs", str(identity.certificates), "-key", str(identity.key), *options, "-in", str(source),
                "-out", str(target), made=target)


def tool(*arguments: str, made: Path) -> Path:
    """Run osslsigncode."""
    done = subprocess.run([OSSLSIGNCODE, *arguments], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return made


def verdict(identity: Identity, file: Path) -> bool:
    """What osslsigncode itself says of a file, with the identity's root as the only trusted one."""
    done = subprocess.run([OSSLSIGNCODE, "verify", "-CAfile", str(identity.root), "-TSA-CAfile", str(identity.root),
                           "-in", str(file)], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    return done.returncode == 0


def _key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65_537, key_size=2_048)


def _certificate(subject: str, key: rsa.RSAPrivateKey, issuer: str, issuer_key: rsa.RSAPrivateKey, *,
                 authority: bool = False, usages: Sequence[x509.ObjectIdentifier] = (),
                 valid: tuple[int, int] = (-365, 3_650)) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = (x509.CertificateBuilder()
               .subject_name(x509.Name.from_rfc4514_string(subject)).issuer_name(x509.Name.from_rfc4514_string(issuer))
               .public_key(key.public_key()).serial_number(x509.random_serial_number())
               .not_valid_before(now + timedelta(days=valid[0])).not_valid_after(now + timedelta(days=valid[1]))
               .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True))
    if usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=TIME_STAMPING in usages)
    return builder.sign(issuer_key, hashes.SHA256())
