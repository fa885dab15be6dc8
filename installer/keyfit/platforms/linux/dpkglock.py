"""Waits until nobody works on dpkg's database: its two locks, which package tools hold while they work, and package tools that
a Keyfit has started which is gone, since such a one may not have come to its lock yet.

Source: dpkg 1.21, doc/frontend.txt, "How to (optionally) lock": record locks (fcntl(2)) on the whole of these files, the
frontend's taken before the database's. Both are looked at: a dpkg whose frontend was killed holds the second one only.
"""

import errno
import os
import sys
import time

from keyfit.errors import HostError
from keyfit.platforms.linux.posix import posix
from keyfit.platforms.linux.walk import walk

LOCKS = ("/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock")
TOOLS = frozenset({"dpkg", "apt-get"})
MAX_COMMAND_BYTES = 100_000
POLL_S = 0.25
"""apt looks once a second; a person would notice that."""


def wait_until_free(root: str, wait_s: float) -> bool:
    """Wait until no other process works on the database below `root`; False if one still does after that time."""
    end = time.monotonic() + wait_s
    while any(_is_held(root, path) for path in LOCKS) or _runs(root):
        if time.monotonic() >= end:
            return False
        time.sleep(POLL_S)  # fcntl cannot wait with a limit
    return True


def _runs(root: str) -> bool:
    """True if a package tool that we start runs on the root: one that leads its session, as no person's and no timer's does."""
    for entry in os.listdir("/proc"):  # noqa: PTH208 - numbers, not paths
        try:
            if not entry.isdigit() or posix.getsid(int(entry)) != int(entry):
                continue
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                words = os.fsdecode(file.read(MAX_COMMAND_BYTES)).split("\0")
        except OSError:
            continue  # it has ended
        given = [word for word in words if word.startswith("--root=")] or ["--root=/"]
        if words[0].rsplit("/", 1)[-1] in TOOLS and given == [f"--root={root}"]:
            return True
    return False


def _is_held(root: str, path: str) -> bool:
    """True if another process holds the lock. One that is not there yet, or may not be opened, is held by nobody we know."""
    try:
        with walk(root, path) as place:
            if place is None or place.found is None or place.is_directory:
                return False
            flags = os.O_RDWR | posix.O_CLOEXEC | posix.O_NOFOLLOW | posix.O_NONBLOCK
            handle = os.open(place.name, flags, dir_fd=place.directory)
    except (OSError, HostError):
        return False
    try:
        return not _try(handle)
    finally:
        os.close(handle)


if sys.platform == "win32":
    def _try(handle: int) -> bool:
        return True
else:
    import fcntl

    def _try(handle: int) -> bool:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            return False
        return True
