"""A small static server for development: one folder, ranges and validators as a real server has them."""

import hashlib
import re
import ssl
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from keyfit.errors import HostError, UserError
from keyfit.trust.addresses import is_loopback

_CHUNK_BYTES = 262_144
_RANGE = re.compile(r"bytes=([0-9]{1,15})-\Z")


class RepositoryServer(ThreadingHTTPServer):
    """Serves `folder`, and nothing beside it.

    Args:
        bind: address; one that others can reach needs a certificate, since clients refuse plain http there.
        port: 0 for any free one; `url` tells which.

    Raises:
        UserError: no certificate for an address that others can reach.
        HostError: the address cannot be used, or the certificate cannot be read.
    """

    daemon_threads = True

    def __init__(self, folder: Path, bind: str = "127.0.0.1", port: int = 0, certificate: Path | None = None,
                 key: Path | None = None) -> None:
        if certificate is None and not is_loopback(bind):
            raise UserError("https-required", f"Expected a certificate for the address {bind}, came none.",
                            hint="Give --tls-cert and --tls-key, or bind to 127.0.0.1.")
        self.folder = folder.resolve()
        self._scheme = "http" if certificate is None else "https"
        try:
            super().__init__((bind, port), _Handler)
            if certificate is not None:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(certificate, key)
                # handshakes belong into the handler's thread: one that hangs must not keep the others waiting
                self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        except OSError as error:
            raise HostError("cannot-serve", f"Cannot serve on {bind}:{port}: {error}.",
                            hint="Choose another port, or check the certificate files.") from error

    @property
    def url(self) -> str:
        """The repository's address."""
        host = str(self.server_address[0])
        return f"{self._scheme}://{f'[{host}]' if ':' in host else host}:{self.server_address[1]}/"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "keyfit-publish"
    sys_version = ""
    timeout = 30
    wbufsize = 65_536  # head and small bodies in one packet
    disable_nagle_algorithm = True
    server: RepositoryServer

    def do_GET(self) -> None:
        """A file, or the rest of it."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self._answer(send_body=True)

    def do_HEAD(self) -> None:
        """Only the headers."""
        self._answer(send_body=False)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: standard output belongs to the command."""

    def _answer(self, *, send_body: bool) -> None:
        path = self._file()
        if path is None:
            self._head(404, 0, {})
            return
        with path.open("rb") as file:
            size = path.stat().st_size
            etag = f'"{hashlib.sha256(f"{path}{size}{path.stat().st_mtime_ns}".encode()).hexdigest()[:32]}"'
            start = self._start(size, etag)
            headers = {"ETag": etag, "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
            if start:
                headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
            self._head(206 if start else 200, size - start, headers)
            if send_body:
                file.seek(start)
                self._send(file)

    def _send(self, file: BinaryIO) -> None:
        while chunk := file.read(_CHUNK_BYTES):
            self.wfile.write(chunk)

    def _head(self, status: int, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()

    def _file(self) -> Path | None:
        """The file of the request, if it lies in the folder and is no hidden one."""
        parts = unquote(urlsplit(self.path).path).split("/")
        names = [part for part in parts if part]
        if any(name.startswith(".") or "\\" in name or "\0" in name for name in names):
            return None
        path = self.server.folder.joinpath(*names)
        return path if path.is_file() and path.resolve().is_relative_to(self.server.folder) else None

    def _start(self, size: int, etag: str) -> int:
        found = _RANGE.fullmatch(self.headers.get("Range", ""))
        if found is None or self.headers.get("If-Range", etag) != etag:
            return 0
        start = int(found.group(1))
        return start if start < size else 0
