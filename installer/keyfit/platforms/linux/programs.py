"""Runs the system's own programs: a closed table of absolute paths, a clean environment, no shell, no terminal.

Security C5, C8, C10: nothing is looked up in PATH, nothing of the caller's environment is passed on, and at the time limit the
whole process tree is ended.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, TYPE_CHECKING

from keyfit.errors import BugError, HostError
from keyfit.platforms.linux.posix import posix
from keyfit.ports import Completed

if TYPE_CHECKING:
    import subprocess

    import psutil

PROGRAMS: dict[str, tuple[str, ...]] = {
    "apt-cache": ("/usr/bin/apt-cache",),
    "apt-get": ("/usr/bin/apt-get",),
    "dpkg": ("/usr/bin/dpkg",),
    "dpkg-deb": ("/usr/bin/dpkg-deb",),
    "dpkg-query": ("/usr/bin/dpkg-query",),
    "dnf": ("/usr/bin/dnf",),
    "rpm": ("/usr/bin/rpm",),
    "systemctl": ("/usr/bin/systemctl", "/bin/systemctl"),
    "udevadm": ("/usr/bin/udevadm", "/bin/udevadm"),
    "modprobe": ("/usr/sbin/modprobe", "/sbin/modprobe"),
    "rmmod": ("/usr/sbin/rmmod", "/sbin/rmmod"),
    "ldd": ("/usr/bin/ldd",),
    "pkttyagent": ("/usr/bin/pkttyagent",),
    "xdg-open": ("/usr/bin/xdg-open",),
    "nsenter": ("/usr/bin/nsenter",),
    "pkexec": ("/usr/bin/pkexec",),
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
    """Absolute path of a program of the table, or None if it is not installed.

    Raises:
        BugError: the table has no such program.
    """
    if name not in PROGRAMS:
        raise BugError("program-not-in-table", f"Keyfit wanted to run {name!r}, which it may not.")
    return next((path for path in PROGRAMS[name] if os.access(path, os.X_OK)), None)


def run(argv: Sequence[str], *, timeout_s: float, environment: Mapping[str, str] | None = None,
        input_text: str = "", network: int | None = None) -> Completed:
    """Run a program of the table and wait for it. `argv[0]` is its name in the table.

    Args:
        network: descriptor of the network namespace to run it in, if that is not this process's own.

    Raises:
        HostError: "program-missing", "program-not-started", or "program-timeout" after the whole tree was ended.
    """
    import subprocess

    path = _needed(argv[0])
    way = () if network is None else (_needed("nsenter"), f"--net=/proc/self/fd/{network}")
    # Files, not pipes: a daemon that the program leaves behind keeps no pipe of ours open, and input that it does not
    # read blocks nobody. In memory, not in a directory that the caller's TMPDIR names (security D1).
    with _memory_file() as given, _memory_file() as out, _memory_file() as err:
        given.write(input_text.encode())
        given.seek(0)
        try:
            process = subprocess.Popen([*way, path, *argv[1:]], stdin=given if input_text else subprocess.DEVNULL,
                                       stdout=out, stderr=err, env={**CLEAN_ENVIRONMENT, **(environment or {})},
                                       cwd="/", start_new_session=True, umask=0o022,
                                       pass_fds=() if network is None else (network,))
        except OSError as error:
            raise HostError("program-not-started", f"{path} could not be started: {error.strerror}.",
                            hint="Reinstall the package that it belongs to.") from error
        try:
            _wait_for_end(process, timeout_s)
        except subprocess.TimeoutExpired as error:
            end_tree(process)
            raise HostError("program-timeout", f"{argv[0]} did not finish within {timeout_s:.0f} seconds and was ended.",
                            hint="Try again; if it happens again, look at what else the machine is doing.") from error
        except BaseException:
            end_tree(process)
            raise
        return Completed(argv=tuple(argv), returncode=process.returncode, stdout=_head(out), stderr=_head(err))


def _wait_for_end(process: "subprocess.Popen[bytes]", timeout_s: float) -> None:
    """As `Popen.wait` with a limit, which looks again and again, up to 50 ms apart; here the kernel says when (pidfd_open(2))."""
    import select

    try:
        handle = posix.pidfd_open(process.pid)
    except OSError:  # a kernel before Linux 5.3
        process.wait(timeout_s)
        return
    try:
        select.select([handle], [], [], timeout_s)
    finally:
        os.close(handle)
    process.wait(0)


def _memory_file() -> IO[bytes]:
    return os.fdopen(posix.memfd_create("keyfit"), "w+b")


def _needed(name: str) -> str:
    path = find(name)
    if path is None:
        raise HostError("program-missing", f"The program {name} is not installed on this system.",
                        hint="Install it with the system's package manager.")
    return path


def end_tree(process: "subprocess.Popen[bytes]") -> None:
    """Ask every process of the tree to end, then make them."""
    tree = _tree(process.pid)
    for member in tree:
        _end(member.terminate)
    # with those that were started meanwhile
    for member in {*_running_after(GRACE_S, tree), *_tree(process.pid)}:
        _end(member.kill)
    process.wait()


def _tree(leader: int) -> "list[psutil.Process]":
    """The children of a session's leader, and the members of the session: those whose own parent ended count as well."""
    import psutil

    found: set[psutil.Process] = set()
    try:
        parent = psutil.Process(leader)
        found = {parent, *parent.children(recursive=True)}
    except psutil.NoSuchProcess:
        pass
    return [*found, *(p for p in psutil.process_iter() if p not in found and _session(p.pid) == leader)]


def _running_after(patience_s: float, tree: "list[psutil.Process]") -> "list[psutil.Process]":
    """Who of the tree still runs when the time is over. Zombies do not: their new parent may be slow to collect them."""
    import psutil

    end = time.monotonic() + patience_s
    while tree and time.monotonic() < end:
        _, alive = psutil.wait_procs(tree, timeout=0.1)
        tree = [member for member in alive if not _is_zombie(member)]
    return tree


def _is_zombie(member: "psutil.Process") -> bool:
    import psutil

    try:
        return bool(member.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def _session(pid: int) -> int:
    try:
        return int(posix.getsid(pid))
    except OSError:
        return -1


def _end(how: Callable[[], None]) -> None:
    import psutil

    try:
        how()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        pass  # gone, or become another user's, whom we may not end


def _head(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read(MAX_OUTPUT_BYTES).decode("utf-8", "replace")
