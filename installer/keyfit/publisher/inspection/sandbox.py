"""Takes rights and room from this process before it looks at a file (security H2).

As far as the system knows the means: on Linux all of them; on macOS no address space limit that holds; on Windows none but the
parent's timeout, which is said in the documentation.
"""

import os
import sys

from keyfit.publisher.inspection import limits

_NO_NEW_PRIVS = 38
"""Linux `prctl(2)` PR_SET_NO_NEW_PRIVS: no program started from here gains rights by setuid."""
_NEW_NETWORK = 0x40000000
"""Linux `unshare(2)` CLONE_NEWNET: a network without interfaces."""
NOBODY = 65_534
"""User and group of no one (Linux kernel, DEFAULT_OVERFLOWUID; Debian's base-passwd)."""


def restrict() -> None:
    """Limit processor time, memory, files and writing; as root also change to a user who owns nothing."""
    if sys.platform == "win32":
        return
    import resource

    if sys.platform == "linux":
        _linux()
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    wanted = [(resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CPU, limits.CPU_S),
              (resource.RLIMIT_NOFILE, limits.OPEN_FILES), (resource.RLIMIT_AS, limits.MEMORY_BYTES)]
    for kind, value in wanted:
        _, hard = resource.getrlimit(kind)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        try:
            resource.setrlimit(kind, (value, value))
        except (OSError, ValueError):
            if kind != resource.RLIMIT_AS:  # macOS refuses this one
                raise


def _linux() -> None:
    if sys.platform != "linux":
        return
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    if library.prctl(_NO_NEW_PRIVS, ctypes.c_ulong(1), zero, zero, zero):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_NO_NEW_PRIVS) was refused")
    if os.geteuid() == 0:
        library.unshare(_NEW_NETWORK)  # containers may refuse it; the user change below is what counts
