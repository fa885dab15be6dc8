"""The real nginx of Debian, serving a folder on the loopback address as docs/publishers tells administrators to."""

import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType

from msgspec import Struct

PROGRAM = "/usr/sbin/nginx"
STARTS_WITHIN_S = 10
_CONFIGURATION = """
daemon off;
master_process off;
pid {state}/pid;
error_log {state}/errors;
events {{ worker_connections 256; }}
http {{
    log_format answers '$status $body_bytes_sent "$sent_http_content_encoding" $uri';
    access_log {state}/answers answers;
    client_body_temp_path {state}/body;
    proxy_temp_path {state}/proxy;
    fastcgi_temp_path {state}/fastcgi;
    uwsgi_temp_path {state}/uwsgi;
    scgi_temp_path {state}/scgi;
    server {{
        listen 127.0.0.1:{port};
        root {folder};
        gzip_static on;
        gzip_vary on;
        default_type application/octet-stream;
        location ~ /\\. {{ deny all; }}
    }}
}}
"""


class Answered(Struct, frozen=True):
    """A line of the access log. `coding` is the Content-Encoding, "-" if there was none."""

    status: int
    body_bytes: int
    coding: str
    path: str


class Nginx:
    """A context manager; `url` ends with a slash. `state` is a folder of its own, made when it starts."""

    def __init__(self, folder: Path, state: Path) -> None:
        self.folder = folder
        self._state = state
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}/"

    def __enter__(self) -> "Nginx":
        self._state.mkdir(parents=True)
        configuration = self._state / "nginx.conf"
        configuration.write_text(_CONFIGURATION.format(state=self._state, port=self._port, folder=self.folder))
        self._process = subprocess.Popen([PROGRAM, "-c", configuration, "-e", self._state / "errors", "-p", self._state])
        until = time.monotonic() + STARTS_WITHIN_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
            except OSError:
                if time.monotonic() > until or self._process.poll() is not None:
                    errors = self._state / "errors"
                    raise RuntimeError(f"nginx did not start: {errors.read_text() if errors.exists() else ''}") from None
                time.sleep(0.02)
            else:
                return self

    def answers(self) -> list[Answered]:
        """What it has answered, in order."""
        lines = (self._state / "answers").read_text().splitlines()
        return [Answered(int(status), int(size), coding.strip('"'), path)
                for status, size, coding, path in (line.split(" ", 3) for line in lines)]

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
