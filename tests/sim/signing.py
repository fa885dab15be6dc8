"""Throw-away certificate authorities, and files signed by the real osslsigncode with certificates of theirs."""

import os
import subprocess
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
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
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    done = subprocess.run([OSSLSIGNCODE, *arguments], capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
                          env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return made


class TimeStampAuthority:
    """A time-stamp authority (RFC 3161) on this machine: `openssl ts` behind http. A context manager.

    osslsigncode of Debian 12 can only ask one; its own, built-in one came later.

    Args:
        folder: made; for what goes between.
        identity: who signs the stamps.
        second: what its clock says, in seconds since the epoch; None for the true time.
    """

    def __init__(self, folder: Path, identity: Identity, second: int | None = None) -> None:
        folder.mkdir(parents=True)
        (folder / "serial").write_text("01\n")
        configuration = folder / "openssl.cnf"
        configuration.write_text(_AUTHORITY.format(folder=folder, certificate=folder / "certificate.pem",
                                                   certificates=identity.certificates, key=identity.key))
        (folder / "certificate.pem").write_bytes(pem(identity.certificate))
        clock = ["faketime", f"@{second}"] if second is not None else []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                (folder / "query").write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
                done = subprocess.run([*clock, "openssl", "ts", "-reply", "-config", configuration, "-queryfile",
                                       folder / "query", "-out", folder / "reply"], capture_output=True, text=True,
                                      timeout=TIMEOUT_S, check=False)
                answer = (folder / "reply").read_bytes() if done.returncode == 0 else done.stderr.encode()
                self.send_response(200 if done.returncode == 0 else 500)
                self.send_header("Content-Type", "application/timestamp-reply")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.options = ("-ts", f"http://127.0.0.1:{self._server.server_port}/")

    def __enter__(self) -> "TimeStampAuthority":
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


_AUTHORITY = """
[tsa]
default_tsa = authority
[authority]
serial = {folder}/serial
crypto_device = builtin
signer_cert = {certificate}
certs = {certificates}
signer_key = {key}
signer_digest = sha256
default_policy = 1.3.6.1.4.1.99999.1
digests = sha1, sha256, sha384
ess_cert_id_alg = sha256
"""
"""openssl-ts(1), "Configuration file options"."""


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
