"""Takes rights and room from this process before it looks at a file (security H2).

As far as the system knows the means: on Linux all of them; on macOS no address space limit that holds; on Windows none but the
parent's timeout, which is said in the documentation.
"""

import os
import sys

from keyfit import confinement
from keyfit.publisher.inspection import limits

_NEW_NETWORK = 0x40000000
"""Linux `unshare(2)` CLONE_NEWNET: a network without interfaces."""
NOBODY = 65_534
"""User and group of no one (Linux kernel, DEFAULT_OVERFLOWUID; Debian's base-passwd)."""


def restrict() -> None:
    """Limit processor time, memory, files and writing; as root also change to a user who owns nothing.

    Programs can still be started; they are under the same limits.
    """
    if sys.platform == "win32":
        return
    confinement.no_new_privileges()
    confinement.limit({"CORE": 0, "FSIZE": 0, "CPU": limits.CPU_S, "NOFILE": limits.OPEN_FILES, "AS": limits.MEMORY_BYTES})
    if os.geteuid() == 0:
        _leave_network()
        confinement.become(NOBODY, NOBODY, ())
    confinement.no_writing()
    confinement.filter_calls(confinement.filters.token_child)


def close() -> None:
    """From here on nothing can be opened, started or connected to; what is open stays."""
    confinement.no_writing(no_reading=True)
    confinement.filter_calls(confinement.filters.reader)


def _leave_network() -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).unshare(_NEW_NETWORK)  # containers may refuse it; `close` is what counts
