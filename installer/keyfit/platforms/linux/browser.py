"""Opens the bank's page in the user's own browser: never as root, never anything but a checked https address."""

import importlib
import os
from collections.abc import Mapping
from typing import Any

from keyfit.core.handoff import check_page
from keyfit.platforms.linux import programs
from keyfit.platforms.linux.posix import posix

SESSION_VARIABLES = ("DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS",
                     "XDG_CURRENT_DESKTOP", "XDG_SESSION_TYPE", "XDG_DATA_DIRS", "LANG")
"""What a browser needs to find the user's session; nothing else is passed on."""
RUNTIME_DIRECTORIES = "/run/user"
"""Where systemd-logind makes XDG_RUNTIME_DIR (pam_systemd(8)); the session's message bus is "bus" in it."""


def open_page(page: str) -> bool:
    """Open `page`; False if there is no graphical session, no opener, or no ordinary user to open it as.

    Raises:
        PolicyError: the page is not a plain https address.
    """
    import subprocess

    check_page(page)
    opener = programs.find("xdg-open")
    if opener is None or not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    account = invoking_user(os.environ) if posix.geteuid() == 0 else _account(posix.geteuid())
    if account is None:
        return False
    drop: dict[str, Any] = {}
    if posix.geteuid() == 0:
        drop = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": ()}
    try:
        subprocess.Popen([opener, page], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                         env=_session(account), cwd="/", start_new_session=True, **drop)
    except (OSError, subprocess.SubprocessError):
        return False  # for example, the kernel does not let this process become the user
    return True


def _session(account: Any) -> dict[str, str]:
    """The environment of the account's graphical session. Elevated, the run-time directory is root's: use the user's."""
    environment = {name: os.environ[name] for name in SESSION_VARIABLES if name in os.environ}
    environment |= {"PATH": programs.CLEAN_ENVIRONMENT["PATH"], "HOME": account.pw_dir, "USER": account.pw_name,
                    "LOGNAME": account.pw_name}
    if posix.geteuid() == 0:
        runtime = f"{RUNTIME_DIRECTORIES}/{account.pw_uid}"
        environment["XDG_RUNTIME_DIR"] = runtime
        environment["DBUS_SESSION_BUS_ADDRESS"] = f"unix:path={runtime}/bus"
    return environment


def invoking_user(environment: Mapping[str, str]) -> Any:
    """The ordinary user who asked for administrator rights by sudo or pkexec, if this process is root."""
    if posix.geteuid() != 0:
        return None
    for name in ("SUDO_UID", "PKEXEC_UID"):
        value = environment.get(name, "")
        if value.isascii() and value.isdigit() and 0 < int(value) < 2**31:
            account = _account(int(value))
            if account is not None:
                return account
    return None


def _account(uid: int) -> Any:
    accounts: Any = importlib.import_module("pwd")  # not there on Windows
    try:
        return accounts.getpwuid(uid)
    except KeyError:
        return None
