"""Whom a process with administrator rights works for: the ordinary user who called sudo or pkexec."""

import importlib
import os
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

CALLERS = ("SUDO_UID", "PKEXEC_UID")
"""Set by sudo(8) and pkexec(1) themselves, each of which clears the other's."""
MAX_UID = 2**32 - 2
"""Linux numbers users with 32 bits, of which the last is none (credentials(7))."""
_posix: Any = os
"""The module `os`, typed loosely: on Windows it lacks `geteuid`, which is not called there."""


class Account(Struct, frozen=True, kw_only=True):
    """A user of the machine, as passwd(5) has it."""

    uid: int
    gid: int
    name: str
    home: str

    @property
    def environment(self) -> dict[str, str]:
        """Who and where this user is, for programs that run as that user."""
        return {"HOME": self.home, "USER": self.name, "LOGNAME": self.name}


def invoking_user(environment: Mapping[str, str] | None = None) -> Account | None:
    """The ordinary user behind this process; None if it is not root's, or nobody but root is behind it."""
    if os.name != "posix" or _posix.geteuid() != 0:
        return None
    given = os.environ if environment is None else environment
    for name in CALLERS:
        uid = given.get(name, "")
        if uid.isascii() and uid.isdigit() and len(uid) <= 10 and 0 < int(uid) <= MAX_UID:
            found = account(int(uid))
            if found is not None:
                return found
    return None


def account(uid: int) -> Account | None:
    """The user with this number; None if there is none, or on Windows."""
    if os.name != "posix":
        return None
    users: Any = importlib.import_module("pwd")
    try:
        entry = users.getpwuid(uid)
    except (KeyError, OverflowError):
        return None
    return Account(uid=entry.pw_uid, gid=entry.pw_gid, name=entry.pw_name, home=entry.pw_dir)
