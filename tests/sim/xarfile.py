"""macOS installer packages, written here: no tool on this system makes signed ones.

The form is that of Apple's xar source: header, compressed table of contents, heap with checksum, signature and files. The
signature is RSA over the table's digest, as productsign(1) makes it; the certificates' extended key usage is Apple's for
Developer ID Installer.
"""

import base64
import gzip
import hashlib
import io
import zlib
from collections.abc import Mapping
from pathlib import Path
from struct import pack
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, utils

from tests.sim import signing

DEVELOPER_ID_INSTALLER = x509.ObjectIdentifier("1.2.840.113635.100.4.13")
TEAM = "ABCDE12345"
DEVELOPER = f"CN=Developer ID Installer: Acme Ltd. ({TEAM}),OU={TEAM},O=Acme Ltd.,C=US"
PACKAGE_INFO = """<?xml version="1.0" encoding="utf-8"?>
<pkg-info format-version="2" identifier="com.example.acme" version="{version}" install-location="{location}" auth="root">
 <payload numberOfFiles="2" installKBytes="1"/>{more}
</pkg-info>"""


def developer(folder: Path, subject: str = DEVELOPER) -> signing.Identity:
    """A developer whom an authority of the test's vouches for."""
    return signing.make(folder, "developer", subject=subject, usages=(DEVELOPER_ID_INSTALLER,))


def component(files: Mapping[str, tuple[int, bytes]] | None = None, *, scripts: Mapping[str, bytes] | None = None,
              version: str = "1.2.3", location: str = "/", more: str = "") -> dict[str, bytes]:
    """The parts of a component package. `files` are (mode with type, bytes) by path."""
    given = {"./Library/Acme/acme.dylib": (0o100755, b"code")} if files is None else files
    parts = {"PackageInfo": PACKAGE_INFO.format(version=version, location=location, more=more).encode(),
             "Payload": gzip.compress(cpio(given))}
    if scripts:
        parts["Scripts"] = gzip.compress(cpio({f"./{name}": (0o100755, data) for name, data in scripts.items()}))
    return parts


def cpio(files: Mapping[str, tuple[int, bytes]]) -> bytes:
    """The portable "odc" form (cpio(5)), with folders as they are met."""
    entries: dict[str, tuple[int, bytes]] = {".": (0o040755, b"")}
    for path, value in files.items():
        parts = path.split("/")
        for count in range(2, len(parts)):
            entries.setdefault("/".join(parts[:count]), (0o040755, b""))
        entries[path] = value
    buffer = io.BytesIO()
    for path, (mode, data) in (*entries.items(), ("TRAILER!!!", (0, b""))):
        name = path.encode() + b"\0"
        buffer.write(b"070707" + b"".join(f"{value:06o}".encode() for value in (0, 0, mode, 0, 0, 1, 0))
                     + f"{0:011o}{len(name):06o}{len(data):011o}".encode() + name + data)
    return buffer.getvalue()


def xar(parts: Mapping[str, bytes], identity: signing.Identity | None = None, *, style: str = "sha1",
        toc: str = "", compressed: bool = True) -> bytes:
    """An archive of files by path, signed if there is an identity. `toc` goes before the table's XML."""
    digest_bytes = hashlib.new(style).digest_size
    signature_bytes = 256 if identity else 0
    heap, tree = b"", dict[str, Any]()
    for path, data in parts.items():
        stored = zlib.compress(data) if compressed and not path.endswith(("Payload", "Scripts")) else data
        encoding = "application/x-gzip" if stored is not data else "application/octet-stream"
        *folders, name = path.split("/")
        place = tree
        for folder in folders:
            place = place.setdefault(folder, {})
        place[name] = _data(digest_bytes + signature_bytes + len(heap), data, stored, encoding, style)
        heap += stored
    signature = ""
    if identity:
        listed = "".join(f"<X509Certificate>{base64.b64encode(_der(one)).decode()}</X509Certificate>" for one in identity.chain)
        signature = (f'<signature style="RSA"><offset>{digest_bytes}</offset><size>{signature_bytes}</size>'
                     f'<KeyInfo xmlns="http://www.w3.org/2000/09/xmldsig#"><X509Data>{listed}</X509Data></KeyInfo></signature>')
    text = (f'<?xml version="1.0" encoding="UTF-8"?>{toc}<xar><toc><checksum style="{style}"><offset>0</offset>'
            f"<size>{digest_bytes}</size></checksum>{signature}{_files(tree)}</toc></xar>").encode()
    table = zlib.compress(text)
    digest = hashlib.new(style, table).digest()
    signed = _sign(identity, digest, style) if identity else b""
    return pack(">4sHHQQI", b"xar!", 28, 1, len(table), len(text), 1) + table + digest + signed + heap


def stapled(package: bytes, ticket: bytes = b"ticket") -> bytes:
    """With a notarisation ticket behind it, as stapler(1) puts it."""
    return package + pack("<4sHHII", b"t8lr", 1, 1, 0, 0) + ticket + pack("<4sHHII", b"t8lr", 1, 2, len(ticket), 0)


def _files(tree: Mapping[str, Any], first: int = 1) -> str:
    rows = []
    for number, (name, inner) in enumerate(tree.items(), start=first):
        kind, body = ("file", inner) if isinstance(inner, str) else ("directory", _files(inner, number * 1000))
        rows.append(f'<file id="{number}"><name>{name}</name><type>{kind}</type>{body}</file>')
    return "".join(rows)


def _data(offset: int, data: bytes, stored: bytes, encoding: str, style: str) -> str:
    return (f"<data><length>{len(stored)}</length><offset>{offset}</offset><size>{len(data)}</size>"
            f'<encoding style="{encoding}"/>'
            f'<archived-checksum style="{style}">{hashlib.new(style, stored).hexdigest()}</archived-checksum>'
            f'<extracted-checksum style="{style}">{hashlib.new(style, data).hexdigest()}</extracted-checksum></data>')


def _sign(identity: signing.Identity, digest: bytes, style: str) -> bytes:
    chosen = {"sha1": hashes.SHA1(), "sha256": hashes.SHA256()}[style]
    return identity.private_key.sign(digest, padding.PKCS1v15(), utils.Prehashed(chosen))


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)
