"""A network of one's own with an address that is not this machine's, and the real tinyproxy of Debian in it.

What is on this machine is never asked for through a proxy; so a server that proxies lead to needs another address.
"""

import ctypes
import os
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from tests.sim.started import Started

ELSEWHERE = "192.0.2.1"
"""Of a network that is kept for documentation (RFC 5737)."""
_CLONE_NEWNET = 0x40000000
"""linux/sched.h"""
_TINYPROXY = "/usr/bin/tinyproxy"
_CONFIGURATION = """
Port {port}
Listen 127.0.0.1
LogLevel Info
PidFile "{state}/pid"
MaxClients 50
Timeout 60
Allow 127.0.0.1
ConnectPort {allowed}
"""


class OwnNetwork:
    """A context manager: within it, this thread and what it starts have a network with a loopback device and the address
    `ELSEWHERE`, and no way out. Needs root."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._before = -1

    def __enter__(self) -> "OwnNetwork":
        self._before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        self._check(self._libc.unshare(_CLONE_NEWNET))
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        subprocess.run(["ip", "address", "add", f"{ELSEWHERE}/32", "dev", "lo"], check=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._check(self._libc.setns(self._before, _CLONE_NEWNET))
        os.close(self._before)

    def _check(self, result: int) -> None:
        if result != 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))


class Tinyproxy:
    """A context manager; `url` is what goes into `https_proxy`.

    Args:
        folder: made; for its configuration.
        leads_to: the port that may be connected to.
        login: user and password that are asked for; none if empty.
    """

    def __init__(self, folder: Path, leads_to: int, login: Sequence[str] = ()) -> None:
        self._folder = folder
        self._program: Started | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port: int = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self._text = _CONFIGURATION.format(port=self._port, state=folder, allowed=leads_to)
        if login:
            self._text += f"BasicAuth {' '.join(login)}\n"

    def __enter__(self) -> "Tinyproxy":
        self._folder.mkdir(parents=True)
        (self._folder / "conf").write_text(self._text)
        self._program = Started([_TINYPROXY, "-d", "-c", self._folder / "conf"], ready="Accepting connections")
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self._program is not None:
            self._program.stop()

    def asked(self) -> list[str]:
        """The first lines of the requests that came, as it logged them."""
        return [line.split("): ", 1)[1] for line in self._said().splitlines() if "Request (file descriptor" in line]

    def _said(self) -> str:
        return self._program.said() if self._program is not None else ""
