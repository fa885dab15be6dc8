"""The real nginx of Debian, serving a folder on the loopback address with packaging/nginx/keyfit.conf, as administrators do."""

import socket
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from types import TracebackType

from msgspec import Struct

from tests.sim.repository import CertificateAuthority
from tests.sim.started import WAIT_S, Started

PROGRAM = "/usr/sbin/nginx"
PACKAGING = Path(__file__).resolve().parents[2] / "packaging" / "nginx"
REPOSITORY = f"include {PACKAGING}/keyfit.conf;"
"""What is in a server block for a repository: the file that is shipped, and nothing else."""
_MARKER = "/.sim-marker-"
_CONFIGURATION = """
daemon off;
{processes}
pid {state}/pid;
error_log {state}/errors;
error_log stderr notice;
events {{ worker_connections 4096; }}
http {{
    log_format answers '$status $request_method $request_length $bytes_sent $body_bytes_sent "$sent_http_content_encoding" $uri';
    access_log {log};
    client_body_temp_path {state}/body;
    proxy_temp_path {state}/proxy;
    fastcgi_temp_path {state}/fastcgi;
    uwsgi_temp_path {state}/uwsgi;
    scgi_temp_path {state}/scgi;
    {http}
    server {{
        listen {address}:{port} {tls};
        root {folder};
        {server}
    }}
}}
"""


class Answered(Struct, frozen=True):
    """A line of the access log. Bytes are those of the request, of the answer with its headers, and of its body; `coding` is
    the Content-Encoding, "-" if there was none."""

    status: int
    method: str
    request_bytes: int
    sent_bytes: int
    body_bytes: int
    coding: str
    path: str


class Nginx:
    """A context manager; `url` ends with a slash.

    Args:
        folder: what is served.
        state: a folder of nginx's own, made when it starts.
        server: what is in the server block.
        http: what stands before it.
        tls: whose certificate is shown.
        workers: processes beside the master; 0 for one process in all.
        log: whether answers are written down. Without, `answers` has nothing.
        before: program and arguments that nginx is started by, such as taskset.
    """

    def __init__(self, folder: Path, state: Path, *, server: str = REPOSITORY, http: str = "",
                 tls: CertificateAuthority | None = None, workers: int = 0, log: bool = True, before: Sequence[str] = (),
                 address: str = "127.0.0.1") -> None:
        self.folder = folder
        self._state = state
        self._before = before
        self._program: Started | None = None
        self._marks = count()
        self._address = address
        with socket.socket() as free:
            free.bind((address, 0))
            self.port: int = free.getsockname()[1]
        self.url = f"http{'s' if tls else ''}://{address}:{self.port}/"
        certificate = f" ssl_certificate {tls.certificate}; ssl_certificate_key {tls.key};" if tls else ""
        self._text = _CONFIGURATION.format(
            state=state, port=self.port, folder=folder, http=http, server=server + certificate, address=address,
            tls="ssl" if tls else "", log=f"{state}/answers answers" if log else "off",
            processes=f"user root; worker_processes {workers};" if workers else "master_process off;")

    def __enter__(self) -> "Nginx":
        self._state.mkdir(parents=True)
        configuration = self._state / "nginx.conf"
        configuration.write_text(self._text)
        # it says this when its sockets listen already
        self._program = Started([*self._before, PROGRAM, "-c", configuration, "-e", self._state / "errors", "-p",
                                 self._state], ready='using the "epoll" event method')
        return self

    @property
    def pid(self) -> int:
        """Of its first process."""
        if self._program is None:
            raise RuntimeError("nginx was not started")
        return self._program.pid

    def errors(self) -> str:
        """What it has complained of."""
        errors = self._state / "errors"
        return errors.read_text() if errors.exists() else ""

    def answers(self) -> list[Answered]:
        """What it has answered, in order, without connections that asked for nothing. Only over plain http, from one
        process: that writes the line of an answer before it looks at the next request, and before it closes."""
        mark = f"{_MARKER}{next(self._marks)}"
        with socket.create_connection((self._address, self.port), timeout=WAIT_S) as connection:
            connection.sendall(f"GET {mark} HTTP/1.0\r\n\r\n".encode())
            while connection.recv(4096):
                pass
        lines = (self._state / "answers").read_text().splitlines()
        if not any(line.endswith(mark) for line in lines):
            raise RuntimeError("nginx closed a connection without a line in its log")
        found = (line.split(" ", 6) for line in lines if _MARKER not in line)
        return [Answered(int(status), method, int(asked), int(sent), int(body), coding.strip('"'), path)
                for status, method, asked, sent, body, coding, path in found if method != "-"]

    def forget(self) -> None:
        """Begin a new list of answers."""
        self.answers()
        (self._state / "answers").write_bytes(b"")  # nginx appends

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self._program is not None:
            self._program.stop()
