"""A signed repository in a folder, made by the publisher's own code with throw-away keys, and a server that misbehaves.

`SignedRepository` can be expired, tampered with, truncated, emptied and set back. `HostileServer` serves a folder on the
loopback address, well until told otherwise for a part of an address.
"""

import gzip
import hashlib
import shutil
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import msgspec

from keyfit.model.catalog import Brand, Manifest, Payload, brand_target
from keyfit.publisher.draft import Draft
from keyfit.publisher.release import Workplace
from keyfit.publisher.repository import PublisherRepository
from keyfit.publisher.roles import ONLINE, kind_of
from keyfit.trust.limits import Limits
from keyfit.trust.repository import TufRepository

IMPATIENT = Limits(connect_s=2, silence_s=1, metadata_s=2, payload_s=4, payload_rate=1_000_000, window_s=0.4,
                   window_rate=1_000, lock_wait_s=2)
"""Limits for tests: the same rules in seconds instead of minutes."""


class SignedRepository:
    """A repository of one's own. `url` is its folder, `trusted_root` what a client embeds."""

    def __init__(self, folder: Path, *, bin_bits: int = 2, expired_root: bool = False) -> None:
        self.folder = folder / "repository"
        self.url = self.folder.as_uri() + "/"
        self.targets: dict[str, bytes] = {}
        layout = msgspec.structs.replace(ONLINE, bin_bits=bin_bits)
        self.work = Workplace(folder, layout=layout)
        for owner in layout.owners.values():
            self.work.keyring.make(f"{owner}-1")
        self._publisher = self.work.repository = _ExpiringRepository(self.folder, layout)
        self._publisher.expired = "root" if expired_root else ""
        self.work.create(dict.fromkeys(layout.owners.values(), 1))
        self.trusted_root = (self.folder / "metadata" / "1.root.json").read_bytes()

    def release(self, *brands: Brand) -> str:
        """Publish brands by name, for linux-amd64; returns the first one's target path."""
        for brand in brands:
            path = brand_target(brand.brand, "linux", "amd64")
            manifest = Manifest(keyfit=1, path=path, system="linux", architecture="amd64", brands=(brand,))
            self.targets[path] = msgspec.json.encode(manifest)
        self.release_raw({})
        return brand_target(brands[0].brand, "linux", "amd64")

    def release_raw(self, targets: Mapping[str, bytes]) -> None:
        """Publish bytes as they are, beside what is there."""
        self.targets |= targets
        self._release()

    def refresh(self) -> None:
        """A new timestamp."""
        self.work.refresh(Draft(self._publisher))

    def refresh_at(self, moment: datetime) -> None:
        """A new timestamp from a publisher whose clock says `moment`."""
        self._publisher.now = lambda: moment
        self.refresh()

    def add_payload(self, name: str, data: bytes, mirrors: Sequence[str] = ()) -> Payload:
        """Store a file and describe it."""
        payload = Payload(file=name, sha256=hashlib.sha256(data).hexdigest(), length_bytes=len(data),
                          mirrors=tuple(mirrors))
        path = self.folder / "payloads" / payload.path
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
        return payload

    def expire(self, role: str) -> None:
        """Sign a role anew, with an expiry in the past, and all above it properly."""
        self._publisher.expired = role
        self._release()

    def _release(self) -> None:
        draft = self.work.begin()
        draft.set_targets(self.targets)
        self.work.finish(draft, ())

    def keep(self, elsewhere: Path) -> None:
        """Remember the repository as it is now."""
        shutil.copytree(self.folder, elsewhere)

    def go_back(self, elsewhere: Path) -> None:
        """Serve what was kept, as a mirror that was set back would."""
        shutil.rmtree(self.folder)
        shutil.copytree(elsewhere, self.folder)

    def newest(self, pattern: str) -> Path:
        """The file last written whose path below the repository matches."""
        return max(self.folder.glob(pattern), key=lambda path: (path.stat().st_mtime_ns, path.name))

    def tamper(self, pattern: str, old: bytes, new: bytes) -> None:
        """Replace bytes in a file, without signing it anew."""
        path = self.newest(pattern)
        data = path.read_bytes()
        if old not in data:
            raise ValueError(f"{path.name} has no {old!r}")
        path.write_bytes(data.replace(old, new))

    def truncate(self, pattern: str, keep_bytes: int) -> None:
        """Cut a file."""
        path = self.newest(pattern)
        path.write_bytes(path.read_bytes()[:keep_bytes])

    def withhold(self, pattern: str) -> None:
        """Take a file away."""
        self.newest(pattern).unlink()

    def client(self, folder: Path, *urls: str, **options: Any) -> TufRepository:
        """A client of this repository with its own directories below `folder`."""
        options.setdefault("limits", IMPATIENT)
        options.setdefault("trusted_root", self.trusted_root)
        return TufRepository(urls=urls or (self.url,), metadata_dir=folder / "metadata", cache_dir=folder / "payloads",
                             **options)


class _ExpiringRepository(PublisherRepository):
    """The publisher's code, but one role's expiry lies in the past."""

    expired = ""

    def expiry(self, role: str) -> datetime:
        if kind_of(role) == self.expired:
            return datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
        return super().expiry(role)

    def is_ageing(self, role: str) -> bool:
        return kind_of(role) == self.expired or super().is_ageing(role)

    def check_root_life(self, expires: datetime) -> None:
        if self.expired != "root":
            super().check_root_life(expires)


Behaviour = Callable[["_Handler", bytes], None]
"""Answers a request for a file with the given (well-behaved) content."""


class HostileServer:
    """Serves a folder on 127.0.0.1 in a thread. A context manager; `requests` has every request's path and headers,
    `answers` the status and length of the answers."""

    def __init__(self, folder: Path, *, ranges: bool = True, tls: "CertificateAuthority | None" = None) -> None:
        self.folder = folder
        self.ranges = ranges
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.answers: list[tuple[int, int]] = []
        self.released = threading.Event()
        self.reached = threading.Event()
        self._behaviours: dict[str, list[Behaviour | None]] = {}
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.owner = self
        if tls is not None:
            self._server.socket = tls.server_context().wrap_socket(self._server.socket, server_side=True,
                                                                   do_handshake_on_connect=False)
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self._server.server_address[1]}/"

    def misbehave(self, part: str, *behaviours: Behaviour | None) -> None:
        """Answer requests whose path contains `part` with these behaviours in turn, then with the last for ever. None
        means well."""
        self._behaviours[part] = list(behaviours)

    def behaviour(self, path: str) -> Behaviour | None:
        for part, behaviours in self._behaviours.items():
            if part in path:
                return behaviours.pop(0) if len(behaviours) > 1 else behaviours[0]
        return None

    def asked(self, part: str) -> list[dict[str, str]]:
        """Headers of the requests whose path contains `part`."""
        return [headers for path, headers in self.requests if part in path]

    def __enter__(self) -> "HostileServer":
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    owner: HostileServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are part of the game."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 20
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        owner = self.server.owner
        owner.requests.append((self.path, dict(self.headers.items())))
        path = owner.folder / self.path.lstrip("/")
        behaviour = owner.behaviour(self.path)
        data = path.read_bytes() if path.is_file() else b""
        with suppress(ConnectionError, ssl.SSLError):
            if behaviour is not None:
                behaviour(self, data)
            elif not path.is_file():
                self.answer(404, b"no such file")
            else:
                self.serve(data)

    def serve(self, data: bytes) -> None:
        """As a good server would."""
        start = 0
        etag = '"' + hashlib.sha256(data).hexdigest()[:16] + '"'
        asked = self.headers.get("Range", "")
        if self.server.owner.ranges and asked and self.headers.get("If-Range", etag) == etag:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
        headers = {"ETag": etag}
        if self.headers.get("If-None-Match", "") == etag:
            self.answer(304, b"", headers)
            return
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self.answer(206 if start else 200, data[start:], headers)

    def answer(self, status: int, body: bytes, headers: Mapping[str, str] | None = None,
               length: int | None = None) -> None:
        """Status, headers and body; `length` may lie."""
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
        self.server.owner.answers.append((status, len(body)))

    def wait(self, seconds: float) -> bool:
        """Until the test is over, at most so long; True if it is over."""
        return self.server.owner.released.wait(seconds)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def drip_body(every_s: float = 0.1) -> Behaviour:
    """The body one byte at a time: no single silence is long."""
    def behave(handler: _Handler, data: bytes) -> None:
        data = data or b"{" * 1000
        handler.answer(200, b"", length=len(data))
        for byte in data:
            handler.wfile.write(bytes([byte]))
            if handler.wait(every_s):
                return
    return behave


def drip_headers(every_s: float = 0.1) -> Behaviour:
    """A status line, and then headers without end."""
    def behave(handler: _Handler, _: bytes) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while not handler.wait(every_s):
            handler.wfile.write(b"X")
    return behave


def endless_body() -> Behaviour:
    """A body without length that never ends."""
    def behave(handler: _Handler, data: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(data)
        while not handler.wait(0):
            handler.wfile.write(b" " * 65_536)
    return behave


def silence() -> Behaviour:
    """Nothing at all."""
    def behave(handler: _Handler, _: bytes) -> None:
        handler.wait(20)
        handler.close_connection = True
    return behave


def wrong_bytes() -> Behaviour:
    """The right length, other bytes."""
    def behave(handler: _Handler, data: bytes) -> None:
        handler.serve(bytes(byte ^ 0xFF for byte in data))
    return behave


def cut_after(size: int) -> Behaviour:
    """The right headers, and the connection is cut after `size` bytes of the (rest of the) body."""
    def behave(handler: _Handler, data: bytes) -> None:
        etag = '"' + hashlib.sha256(data).hexdigest()[:16] + '"'
        asked = handler.headers.get("Range", "")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and handler.server.owner.ranges else 0
        headers = {"ETag": etag}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        handler.answer(206 if start else 200, data[start:start + size], headers, length=len(data) - start)
        handler.close_connection = True
    return behave


def ends_early(size: int) -> Behaviour:
    """A complete answer that is simply too short."""
    def behave(handler: _Handler, data: bytes) -> None:
        handler.answer(200, data[:size])
    return behave


def pause_after(size: int) -> Behaviour:
    """`size` bytes, then wait until the test lets go; sets the server's `reached`."""
    def behave(handler: _Handler, data: bytes) -> None:
        etag = '"' + hashlib.sha256(data).hexdigest()[:16] + '"'
        handler.answer(200, data[:size], {"ETag": etag}, length=len(data))
        handler.server.owner.reached.set()
        handler.wait(20)
        handler.close_connection = True
    return behave


def status(code: int, **headers: str) -> Behaviour:
    """A status without the file. Header names have underscores for dashes."""
    def behave(handler: _Handler, _: bytes) -> None:
        handler.answer(code, b"sorry", {name.replace("_", "-"): value for name, value in headers.items()})
    return behave


def packed(change: Callable[[bytes], bytes] = gzip.compress, coding: str = "gzip") -> Behaviour:
    """The content in a coding, whether it was asked for or not; `change` may pack it badly."""
    def behave(handler: _Handler, data: bytes) -> None:
        handler.answer(200, change(data), {"Content-Encoding": coding})
    return behave


def redirect(location: str) -> Behaviour:
    """Somewhere else."""
    return status(302, Location=location)


def sign_in_page(content_type: str = "text/html; charset=utf-8") -> Behaviour:
    """What a hotel's network answers to everything."""
    def behave(handler: _Handler, _: bytes) -> None:
        handler.answer(200, b"\n<!DOCTYPE html><title>Welcome, please sign in</title>", {"Content-Type": content_type})
    return behave


class CertificateAuthority:
    """A throw-away authority with one certificate for `address`. `path` is its own certificate."""

    def __init__(self, folder: Path, address: str = "127.0.0.1") -> None:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        folder.mkdir(parents=True, exist_ok=True)
        self.path, self.certificate, self.key = folder / "ca.pem", folder / "server.pem", folder / "server.key"
        now = datetime.now(UTC)

        def sign(name: str, key: Any, issuer: str, issuer_key: Any, *extensions: tuple[Any, bool]) -> bytes:
            builder = (x509.CertificateBuilder().subject_name(_name(name)).issuer_name(_name(issuer))
                       .public_key(key.public_key()).serial_number(x509.random_serial_number())
                       .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1)))
            for extension, critical in extensions:
                builder = builder.add_extension(extension, critical)
            return builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

        def _name(text: str) -> Any:
            return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

        ca_key, server_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        self.path.write_bytes(sign("Test CA", ca_key, "Test CA", ca_key,
                                   (x509.BasicConstraints(ca=True, path_length=0), True)))
        names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))])
        self.certificate.write_bytes(sign(address, server_key, "Test CA", ca_key, (names, False)))
        self.key.write_bytes(server_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))

    def server_context(self) -> ssl.SSLContext:
        """For a server that shows the certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context
