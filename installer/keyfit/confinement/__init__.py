"""Takes rights from this process that it will not need, as far as the system knows how; for children that may be taken over.

Linux: no new privileges, a seccomp filter (x86-64 and aarch64), and Landlock against writing. Elsewhere these do nothing and say
so. What is taken is gone for this process and all that it starts.
"""

import os
import sys
from collections.abc import Callable
from typing import Any

from keyfit.confinement import filters

NO_NEW_PRIVS = 38
"""`prctl(2)` PR_SET_NO_NEW_PRIVS: no program started from here gains rights by setuid."""
_SET_FILTER, _ALL_THREADS = 1, 1
"""SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC (linux/seccomp.h)."""
_VERSION = 1
"""LANDLOCK_CREATE_RULESET_VERSION (linux/landlock.h)."""
_WRITE, _READ = 0b1_1111_1111_0010, 0b0_0000_0000_1100
"""LANDLOCK_ACCESS_FS_*: write files, remove and make directories, files, devices, sockets, links; read files and directories."""
_LATER = ((2, 1 << 13), (3, 1 << 14))
"""Version of Landlock and what it knows besides: moving between directories, truncating."""
_TCP = (4, 0b11)
"""Binding and connecting."""
_SCOPE = (6, 0b11)
"""Abstract sockets of, and signals to, processes outside."""

_posix: Any = os
"""The module `os`, typed loosely: on Windows it lacks names such as `setuid`, and nothing here is called there."""


def no_new_privileges() -> None:
    """No program that is started from here has more rights than this process.

    Raises:
        OSError: the kernel refuses; it never does since 3.5.
    """
    if sys.platform != "linux":
        return
    import ctypes

    library, zero = ctypes.CDLL(None, use_errno=True), ctypes.c_ulong(0)
    if library.prctl(NO_NEW_PRIVS, ctypes.c_ulong(1), zero, zero, zero):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_NO_NEW_PRIVS) was refused")


def filter_calls(make: Callable[[str], bytes | None]) -> bool:
    """Put a filter of `filters` on all threads of this process; earlier ones stay.

    Returns:
        False if this kernel, or machine, has none.

    Raises:
        OSError: the kernel has filters and does not take this one.
    """
    if sys.platform != "linux" or sys.byteorder != "little":
        return False
    import ctypes
    import errno

    machine = os.uname().machine
    program = make(machine)
    if program is None or ctypes.sizeof(ctypes.c_void_p) != 8:
        return False

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))

    no_new_privileges()
    length = len(program) // 8
    if _call(machine, "seccomp", _SET_FILTER, _ALL_THREADS, ctypes.byref(Program(length, program))) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL):  # built without
        return False
    raise OSError(number, "a seccomp filter was refused")


def no_writing(*, no_reading: bool = False) -> bool:
    """Have the kernel refuse every opening of a file for writing, and every making, moving and removing of names (Landlock).

    What is open already stays usable. From Landlock's later versions on also TCP, and signals to processes outside.

    Args:
        no_reading: refuse the opening of files and directories for reading too. Signals to processes that were started before
            are allowed then: it is for the second time that this is called.

    Returns:
        False if this kernel has no Landlock.
    """
    if sys.platform != "linux":
        return False
    import ctypes

    machine = os.uname().machine
    version = _call(machine, "landlock_create_ruleset", None, 0, _VERSION)
    if version < 1:
        return False
    files = _WRITE | (_READ if no_reading else 0)
    for since, right in _LATER:
        files |= right if version >= since else 0
    scope = 0 if no_reading or version < _SCOPE[0] else _SCOPE[1]
    attributes = (ctypes.c_uint64 * 3)(files, _TCP[1] if version >= _TCP[0] else 0, scope)
    size = 24 if version >= _SCOPE[0] else 16 if version >= _TCP[0] else 8
    rules = _call(machine, "landlock_create_ruleset", attributes, size, 0)
    if rules < 0:
        return False
    try:
        no_new_privileges()
        return _call(machine, "landlock_restrict_self", rules, 0) == 0
    finally:
        os.close(rules)


def become(uid: int, gid: int, groups: tuple[int, ...]) -> None:
    """Be another user from now on, with no way back.

    Raises:
        OSError: this process may not.
    """
    _posix.setgroups(list(groups))
    _posix.setresgid(gid, gid, gid) if hasattr(os, "setresgid") else _posix.setgid(gid)
    _posix.setresuid(uid, uid, uid) if hasattr(os, "setresuid") else _posix.setuid(uid)


def limit(limits: dict[str, int]) -> None:
    """Set resource limits by their names without "RLIMIT_"; those that this system lacks or refuses to lower are left out."""
    if sys.platform == "win32":
        return
    import resource

    for name, value in limits.items():
        kind = getattr(resource, f"RLIMIT_{name}", None)
        if kind is None:
            continue
        _, hard = resource.getrlimit(kind)
        wanted = value if hard == resource.RLIM_INFINITY else min(value, hard)
        try:
            resource.setrlimit(kind, (wanted, wanted))
        except (OSError, ValueError):
            if name != "AS":  # macOS refuses this one
                raise


def _call(machine: str, name: str, *arguments: Any) -> int:
    """One system call; -1 if it failed or this machine's number for it is not known."""
    import ctypes

    from keyfit.confinement.calls import NUMBERS

    number = NUMBERS.get(machine, {}).get(name)
    if number is None:
        return -1
    function = ctypes.CDLL(None, use_errno=True).syscall
    function.restype = ctypes.c_long
    passed = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    return int(function(ctypes.c_long(number), *passed))


__all__ = ["become", "filter_calls", "filters", "limit", "no_new_privileges", "no_writing"]
