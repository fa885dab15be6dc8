"""Facts about the machine that a plan depends on."""

from typing import Literal

from msgspec import Struct

from keyfit.model.catalog import Architecture, SystemName

PackageManager = Literal["apt", "dnf", "dpkg", "rpm"]
Browser = Literal["firefox", "chromium"]


class HostFacts(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the planner may know about a machine.

    Attributes:
        machine: short hash naming this machine and root, so that a saved plan is refused elsewhere; not an identifier
            that leaves the machine.
        root: "/" or the tree to install into. Trees other than "/" have no services, no PC/SC daemon and no "apt".
        distribution: os-release ID; `distribution_like` its ID_LIKE words.
        package_managers: tools usable for this root, best first.
        running_services: True if systemd manages the machine (services can be started).
        browsers: browsers installed, for whose users a PKCS#11 module is registered.
    """

    machine: str
    root: str
    system: SystemName
    architecture: Architecture
    distribution: str = ""
    distribution_like: tuple[str, ...] = ()
    version: str = ""
    package_managers: tuple[PackageManager, ...] = ()
    elevated: bool = False
    running_services: bool = False
    browsers: tuple[Browser, ...] = ()
