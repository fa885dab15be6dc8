"""Starts pcscd the way systemd does, with its socket already listening: `pcscdlaunch.py SOCKET PCSCD ARGUMENT...`

It says "listening" on standard output, which from then on goes where standard error goes. Clients may connect from
then on and wait in the queue until pcscd is up: nobody has to poll for it. Protocol: sd_listen_fds(3). For the
system's own Python.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys

_FIRST_PASSED_FILE = 3
_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Bind the socket and become pcscd."""
    path, *command = arguments
    # a test that is killed must not leave a daemon behind (linux/include/uapi/linux/prctl.h)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if os.path.exists(path):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    os.chmod(path, 0o666)
    listener.listen(16)
    if listener.fileno() == _FIRST_PASSED_FILE:
        os.set_inheritable(_FIRST_PASSED_FILE, True)
    else:
        os.dup2(listener.fileno(), _FIRST_PASSED_FILE, inheritable=True)
    print("listening", flush=True)
    os.dup2(2, 1)
    os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
