"""What an elevated process does to itself before it listens to anybody: a known environment, no descriptors but its own three,
no network, and no trust in a place that others can write (security C4, C5, D1, E1).

Sources: environ(7), unshare(2), network_namespaces(7), pkexec(1).
"""

import ctypes
import os
import signal
import sys
from collections.abc import MutableMapping
from pathlib import Path

from keyfit.errors import ElevationError, HostError
from keyfit.invoker import CALLERS
from keyfit.platforms.linux.posix import posix
from keyfit.privatefiles import foreign_influence

CLONE_NEWNET = 0x40000000
"""unshare(2), <linux/sched.h>."""
CLEAN = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8", "SHELL": "/bin/sh"}
PRIVATE_UMASK = 0o077
ADMINISTRATOR = (0,)


def clean_process() -> None:
    """Forget the caller's environment, directory, umask and open files, and whatever signals a terminal sends."""
    clean_environment(os.environ)
    os.chdir("/")
    os.umask(PRIVATE_UMASK)
    os.closerange(3, _highest_descriptor() + 1)
    for name in ("SIGINT", "SIGHUP", "SIGQUIT"):  # the caller says by its pipe whether it is still there
        signal.signal(signal.Signals[name], signal.SIG_IGN)


def clean_environment(environment: MutableMapping[str, str]) -> None:
    """Leave nothing in it but what is on the list, and whose request it is, if that is a plain number."""
    kept = {name: environment[name] for name in CALLERS
            if environment.get(name, "").isascii() and environment.get(name, "").isdigit()}
    environment.clear()
    environment.update(CLEAN | kept)


def leave_network() -> int:
    """Go into a network namespace with nothing in it; returns a descriptor of the one that was left, for programs that have
    to fetch from the system's own archives.

    Raises:
        HostError: the system does not let us.
    """
    outer = os.open("/proc/self/ns/net", os.O_RDONLY | posix.O_CLOEXEC)
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        os.close(outer)
        raise HostError("network-not-left", f"The elevated helper could not cut itself off from the network:"
                        f" {os.strerror(number)}.", hint="In a container it needs CAP_SYS_ADMIN; or run Keyfit as root there.")
    return outer


def program_folder() -> Path:
    """Where this program lies: the folder of the frozen one, or of the package."""
    return Path(sys.executable).parent if getattr(sys, "frozen", False) else Path(__file__).parents[2]


def require_admins_place(folder: Path) -> None:
    """Refuse to run from where another user could have put the code.

    Raises:
        ElevationError: code "program-unsafe".
    """
    problem = foreign_influence(folder, owners=ADMINISTRATOR)
    if problem:
        raise ElevationError("program-unsafe", f"Keyfit does not run with administrator rights from here: {problem}.",
                             hint="Install it with its package, which puts it into /opt/keyfit.")


def _highest_descriptor() -> int:
    return max(int(name) for name in os.listdir("/proc/self/fd"))  # noqa: PTH208 - numbers, not paths
