"""Runs the system's own programs: a closed table of absolute paths, a clean environment, no shell, no terminal.

Security C5, C8, C10: nothing is looked up in PATH, nothing of the caller's environment is passed on, and at the time limit the
whole process tree is ended.
"""

import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from keyfit.errors import HostError
from keyfit.ports import Completed

PROGRAMS: dict[str, tuple[str, ...]] = {
    "apt-get": ("/usr/bin/apt-get",),
    "dpkg": ("/usr/bin/dpkg",),
    "dpkg-deb": ("/usr/bin/dpkg-deb",),
    "dpkg-query": ("/usr/bin/dpkg-query",),
    "dnf": ("/usr/bin/dnf",),
    "rpm": ("/usr/bin/rpm",),
    "systemctl": ("/usr/bin/systemctl", "/bin/systemctl"),
    "udevadm": ("/usr/bin/udevadm", "/bin/udevadm"),
    "modprobe": ("/usr/sbin/modprobe", "/sbin/modprobe"),
    "ldd": ("/usr/bin/ldd",),
    "xdg-open": ("/usr/bin/xdg-open",),
}
"""Name -> where it lies, by the packages of Debian and Fedora that bring it."""
CLEAN_ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "LANGUAGE": "C",
    "HOME": "/root",
    "DEBIAN_FRONTEND": "noninteractive",
    "DEBCONF_NONINTERACTIVE_SEEN": "true",
    "APT_LISTCHANGES_FRONTEND": "none",
}
"""All that a program sees. Package tools ask nothing and speak English, so that their messages can be understood."""
MAX_OUTPUT_BYTES = 1_000_000
GRACE_S = 10.0
"""How long the tree gets to end by itself before it is killed."""


def find(name: str) -> str | None:
    """Absolute path of a program of the table, or None if it is not installed."""
    return next((path for path in PROGRAMS[name] if os.access(path, os.X_OK)), None)


def run(argv: Sequence[str], *, timeout_s: float, environment: Mapping[str, str] | None = None,
        input_text: str = "") -> Completed:
    """Run a program of the table and wait for it. `argv[0]` is its name in the table.

    Raises:
        HostError: "program-missing", or "program-timeout" after the whole tree was ended.
    """
    path = find(argv[0])
    if path is None:
        raise HostError("program-missing", f"The program {argv[0]} is not installed on this system.",
                        hint="Install it with the system's package manager.")
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        # Files, not pipes: a daemon that the program leaves behind keeps no pipe of ours open.
        process = subprocess.Popen([path, *argv[1:]], stdin=subprocess.PIPE if input_text else subprocess.DEVNULL,
                                   stdout=out, stderr=err, env={**CLEAN_ENVIRONMENT, **(environment or {})}, cwd="/",
                                   start_new_session=True, umask=0o022)
        try:
            if input_text and process.stdin is not None:
                process.stdin.write(input_text.encode())
                process.stdin.close()
            process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            end_tree(process)
            raise HostError("program-timeout", f"{argv[0]} did not finish within {timeout_s:.0f} seconds and was ended.",
                            hint="Try again; if it happens again, look at what else the machine is doing.") from error
        except BaseException:
            end_tree(process)
            raise
        return Completed(argv=tuple(argv), returncode=process.returncode, stdout=_head(out), stderr=_head(err))


def end_tree(process: subprocess.Popen[bytes]) -> None:
    """Ask every process of the tree to end, then make them."""
    import psutil

    try:
        parent = psutil.Process(process.pid)
        tree = [*parent.children(recursive=True), parent]
    except psutil.NoSuchProcess:
        tree = []
    for member in tree:
        _signal(member.pid, signal.SIGTERM)
    _, alive = psutil.wait_procs(tree, timeout=GRACE_S)
    for member in alive:
        _signal(member.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
    process.wait()


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _head(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read(MAX_OUTPUT_BYTES).decode("utf-8", "replace")


def exists_under(root: str, path: str) -> bool:
    """True if `path` is there below `root`."""
    return Path(root + path if root != "/" else path).exists()
