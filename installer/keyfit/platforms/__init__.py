"""The one switch on the operating system. Adaptors are imported when they are asked for."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from keyfit.errors import UnsupportedError

if TYPE_CHECKING:
    from keyfit.model.policy import Policy
    from keyfit.ports import Elevator, EventLog, Host, RunLog, UsbBus


def usb_bus() -> "UsbBus":
    """The bus of this machine."""
    if sys.platform == "linux":
        from keyfit.platforms.linux.sysfs import SysfsUsbBus

        return SysfsUsbBus()
    from keyfit.platforms.libusb import LibusbUsbBus

    return LibusbUsbBus()


def host(root: str, log: "EventLog | None" = None) -> "Host":
    """The machine below `root`; programs that it runs are noted in `log`.

    Raises:
        UnsupportedError: there is no adaptor for this operating system yet.
    """
    if sys.platform == "linux":
        from keyfit.platforms.linux.host import LinuxHost

        return LinuxHost(root, log=log)
    raise UnsupportedError("system", f"Keyfit cannot change a {sys.platform} system yet.",
                           hint="Use the driver disk or page that came with the token.")


def event_log(root: str, command: str, *, traffic: bool) -> "RunLog":
    """The log of a command on the machine below `root`; none where Keyfit cannot change a system yet.

    Args:
        traffic: also keep what programs said.
    """
    if sys.platform == "linux":
        from keyfit.platforms.linux import logfiles

        return logfiles.event_log(root, command, traffic=traffic)
    from keyfit.ports import NullLog

    return NullLog()


def policy(root: str) -> "Policy":
    """What the administrator of the machine below `root` has decided; nothing where Keyfit cannot change a system yet.

    Raises:
        PolicyError: there is a policy that is not understood, or that others than the administrator could have written.
    """
    if sys.platform == "linux":
        from keyfit.platforms.linux.policy import read_policy

        return read_policy(root)
    from keyfit.model.policy import Policy

    return Policy()


def browser_opener() -> Callable[[str], bool]:
    """Opens a page in the user's browser; the answer is False if there is no graphical session."""
    if sys.platform == "linux":
        from keyfit.platforms.linux.browser import open_page

        return open_page
    return lambda page: False


def elevator() -> "Elevator | None":
    """Starts the elevated helper; None where it is not installed, as in a checkout."""
    if sys.platform == "linux" and getattr(sys, "frozen", False):
        from pathlib import Path

        from keyfit.platforms.linux.elevator import PkexecElevator, installed_helper

        helper = installed_helper(Path(sys.executable))
        return PkexecElevator(helper) if helper is not None else None
    return None


def require_safe_program() -> None:
    """See that nobody but the administrator can have put this program where it is, if it is one of a release.

    Raises:
        ElevationError: somebody else can.
    """
    if sys.platform == "linux" and getattr(sys, "frozen", False):
        from keyfit.platforms.linux.isolation import program_folder, require_admins_place

        require_admins_place(program_folder())
