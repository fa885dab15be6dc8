"""A small server for development: the repository on a loopback address. In earnest, any static https server does."""

import functools
import ssl
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from keyfit.errors import HostError


class _Handler(SimpleHTTPRequestHandler):
    """Static files, without a line of log for each."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def make_server(folder: Path, port: int, bind: str = "127.0.0.1", certificate: Path | None = None,
                key: Path | None = None) -> tuple[ThreadingHTTPServer, str]:
    """A server that is bound but not yet serving, and its address.

    Raises:
        HostError: the port is taken, or the certificate cannot be loaded.
    """
    try:
        server = ThreadingHTTPServer((bind, port), functools.partial(_Handler, directory=str(folder)))
        scheme = "http"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
            server.socket = context.wrap_socket(server.socket, server_side=True)
            scheme = "https"
    except (OSError, ssl.SSLError) as error:
        raise HostError("cannot-serve", f"Port {port} on {bind} cannot be served: {error}.",
                        hint="Choose another port with --port.") from error
    return server, f"{scheme}://{bind}:{server.server_address[1]}"
