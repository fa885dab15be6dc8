"""One process at a time: a lock of the kernel's on a file, gone with the process that holds it (security D3)."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from keyfit.errors import BusyError, StorageError

RETRY_S = 0.1


@contextmanager
def file_lock(path: Path, *, wait_s: float = 0.0) -> Iterator[None]:
    """Hold an exclusive lock on `path`, waiting at most `wait_s` for it.

    Raises:
        BusyError: somebody else holds it.
        StorageError: the file cannot be made.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0), 0o600)
    except OSError as error:
        raise StorageError("cannot-write", f"{path} cannot be written: {error.strerror}.",
                           hint="Run it with administrator rights, or choose another place.") from error
    try:
        end = time.monotonic() + wait_s
        while not _try_lock(handle):
            if time.monotonic() >= end:
                raise BusyError("another-installation", "Another Keyfit is at work on this system.",
                                hint="Wait until it has finished, then run this again.")
            time.sleep(RETRY_S)
        yield
    finally:
        os.close(handle)


def _try_lock(handle: int) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
