"""Opens the bank's page in the user's own browser: never as root, never anything but a checked https address."""

import os
from typing import Any

from keyfit.core.handoff import check_page
from keyfit.invoker import Account, account, invoking_user
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
    user = invoking_user() if posix.geteuid() == 0 else account(posix.geteuid())
    if user is None:
        return False
    drop: dict[str, Any] = {}
    if posix.geteuid() == 0:
        drop = {"user": user.uid, "group": user.gid, "extra_groups": ()}
    try:
        subprocess.Popen([opener, page], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                         env=_session(user), cwd="/", start_new_session=True, **drop)
    except (OSError, subprocess.SubprocessError):
        return False  # for example, the kernel does not let this process become the user
    return True


def _session(user: Account) -> dict[str, str]:
    """The environment of the user's graphical session. Elevated, the run-time directory is root's: use the user's."""
    environment = {name: os.environ[name] for name in SESSION_VARIABLES if name in os.environ}
    environment |= {"PATH": programs.CLEAN_ENVIRONMENT["PATH"], **user.environment}
    if posix.geteuid() == 0:
        runtime = f"{RUNTIME_DIRECTORIES}/{user.uid}"
        environment["XDG_RUNTIME_DIR"] = runtime
        environment["DBUS_SESSION_BUS_ADDRESS"] = f"unix:path={runtime}/bus"
    return environment
