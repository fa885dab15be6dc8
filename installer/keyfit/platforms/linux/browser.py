"""Opens the bank's page in the user's own browser: never as root, never anything but a checked https address."""

import importlib
import os
import subprocess
from collections.abc import Mapping
from typing import Any

from keyfit.core.handoff import check_page
from keyfit.platforms.linux import programs
from keyfit.platforms.linux.posix import posix

SESSION_VARIABLES = ("DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS",
                     "XDG_CURRENT_DESKTOP", "XDG_SESSION_TYPE", "XDG_DATA_DIRS", "LANG")
"""What a browser needs to find the user's session; nothing else is passed on."""


def open_page(page: str) -> bool:
    """Open `page`; False if there is no graphical session, no opener, or no ordinary user to open it as.

    Raises:
        PolicyError: the page is not a plain https address.
    """
    check_page(page)
    opener = programs.find("xdg-open")
    if opener is None or not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    user = invoking_user(os.environ)
    if posix.geteuid() == 0 and user is None:
        return False
    environment = {k: os.environ[k] for k in SESSION_VARIABLES if k in os.environ}
    environment["PATH"] = programs.CLEAN_ENVIRONMENT["PATH"]
    account = user or _accounts().getpwuid(posix.geteuid())
    environment |= {"HOME": account.pw_dir, "USER": account.pw_name, "LOGNAME": account.pw_name}
    drop: dict[str, Any] = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if user is not None else {}
    subprocess.Popen([opener, page], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                     env=environment, cwd="/", start_new_session=True, **drop)
    return True


def invoking_user(environment: Mapping[str, str]) -> Any:
    """The ordinary user who asked for administrator rights by sudo or pkexec, if this process is root."""
    if posix.geteuid() != 0:
        return None
    for name in ("SUDO_UID", "PKEXEC_UID"):
        value = environment.get(name, "")
        if value.isascii() and value.isdigit() and 0 < int(value) < 2**31:
            try:
                return _accounts().getpwuid(int(value))
            except KeyError:
                continue
    return None


def _accounts() -> Any:
    return importlib.import_module("pwd")  # not there on Windows
