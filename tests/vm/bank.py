"""The publisher of a test, on the host: a signed repository served over https to the machine, with an authority of its own."""

import datetime
import ipaddress
import os
import subprocess
import sys
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.vm.bench.machine import HOST_ADDRESS

CHECKOUT = Path(__file__).resolve().parents[2]
DRIVERS = CHECKOUT / "drivers"
YEAR = datetime.timedelta(days=365)


class Authority:
    """A certificate authority that the test machine is told to trust; kept in a folder, so that frozen machines fit."""

    def __init__(self, folder: Path) -> None:
        self._key_file, self._certificate_file = folder / "authority.key", folder / "authority.crt"
        if not self._certificate_file.exists():
            folder.mkdir(parents=True, exist_ok=True)
            key = ec.generate_private_key(ec.SECP256R1())
            name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Keyfit test authority")])
            certificate = _builder(name, name, key.public_key()).add_extension(
                x509.BasicConstraints(ca=True, path_length=0), critical=True).sign(key, hashes.SHA256())
            self._key_file.write_bytes(_pem(key))
            self._certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        self.pem = self._certificate_file.read_bytes()

    def issue(self, folder: Path) -> tuple[Path, Path]:
        """Certificate and key for the address under which the machine sees the host."""
        key = ec.generate_private_key(ec.SECP256R1())
        authority = x509.load_pem_x509_certificate(self.pem)
        signer = serialization.load_pem_private_key(self._key_file.read_bytes(), None)
        assert isinstance(signer, ec.EllipticCurvePrivateKey)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST_ADDRESS)])
        certificate = _builder(name, authority.subject, key.public_key()).add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST_ADDRESS))]), critical=False
        ).sign(signer, hashes.SHA256())
        files = folder / "server.crt", folder / "server.key"
        files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        files[1].write_bytes(_pem(key))
        return files


class Bank:
    """A repository, published by `keyfit-publish` and served until `close`."""

    def __init__(self, folder: Path, authority: Authority, drivers: Path = DRIVERS) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.publish("init", folder / "publisher")
        self.release(drivers)
        certificate, key = authority.issue(folder)
        self._server = subprocess.Popen(
            [*_tool(), "serve", str(folder / "publisher"), "--port", "0",
             "--tls-cert", str(certificate), "--tls-key", str(key)],
            stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})
        assert self._server.stdout is not None
        words = self._server.stdout.readline().split()
        port = next(word for word in words if word.startswith("https://")).rsplit(":", 1)[1]
        self.url = f"https://{HOST_ADDRESS}:{port}"

    @property
    def trusted_root(self) -> bytes:
        """What a client has to carry."""
        return (self.folder / "publisher/repository/metadata/1.root.json").read_bytes()

    def release(self, drivers: Path) -> None:
        """Publish brand data."""
        self.publish("release", self.folder / "publisher", "--drivers", drivers, "--hand-off", CHECKOUT / "demo/hand-off.toml")

    def publish(self, *arguments: object) -> None:
        """One `keyfit-publish` command."""
        subprocess.run([*_tool(), *map(str, arguments)], check=True, capture_output=True, text=True)

    def close(self) -> None:
        """Stop serving."""
        self._server.terminate()
        self._server.wait(10)


def _tool() -> list[str]:
    return [sys.executable, "-m", "keyfit.publisher"]


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
            .serial_number(x509.random_serial_number()).not_valid_before(now - YEAR).not_valid_after(now + 2 * YEAR))


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
