"""dpkg, when it is at work for somebody else or was cut off.

dpkg notes what it does in /var/lib/dpkg/updates and merges that into its status file when it ends; files left there mean that it
was cut off (dpkg 1.21, lib/dpkg/dbmodify.c; apt's check is the same). What our own transaction left is put right; what
somebody else left is refused before the first change, because only they know what it was about.
"""

import re

from keyfit.errors import BusyError, HostError
from keyfit.model.plan import Change, DistributionPackages, PackageFile
from keyfit.ports import Completed, Host

LOCK_WAIT_S = 30.0
"""How long another package tool may hold dpkg's locks before we give up."""
INSTALL_TIMEOUT_S = 1800.0
"""A slow machine with a slow network; an install that takes longer has hung."""
UPDATES = "/var/lib/dpkg/updates"
MAX_UPDATE_BYTES = 1_000_000
_NAME = re.compile(r"^Package: (\S+)$", re.MULTILINE)


def is_package(change: Change) -> bool:
    """True if a package tool carries it out."""
    return isinstance(change, DistributionPackages | PackageFile)


def dpkg(host: Host, *arguments: str) -> Completed:
    """Run dpkg on the host's tree, as soon as nobody else works there. In another tree than "/" it asks for no root, and it
    writes no log of this system.

    Raises:
        BusyError: code "package-tool-busy".
        HostError: it is not there, or did not finish.
    """
    wait(host)
    root = host.facts().root
    options = ["--force-confdef", "--force-confold"] if root == "/" else [
        f"--root={root}", f"--log={root}/var/log/dpkg.log", "--force-not-root", "--force-script-chrootless", "--force-confold"]
    return host.run(["dpkg", *options, *arguments], timeout_s=INSTALL_TIMEOUT_S)


def wait(host: Host) -> None:
    """Wait until no other package tool is at work.

    Raises:
        BusyError: code "package-tool-busy": one is, after `LOCK_WAIT_S` too.
    """
    if not host.wait_for_package_tools(LOCK_WAIT_S):
        raise BusyError("package-tool-busy", f"Another package manager has been at work for {LOCK_WAIT_S:.0f} seconds.",
                        hint="Wait until it has finished, then run this again.")


def refuse_unfinished(host: Host) -> None:
    """Before the first change: wait for other tools, and refuse to go on from what one of them left unfinished.

    Raises:
        BusyError: code "package-tool-busy".
        HostError: code "dpkg-interrupted".
    """
    wait(host)
    names = unfinished(host)
    if names or is_cut_off(host):
        what = f" with {', '.join(sorted(names)[:10])}" if names else ""
        raise HostError("dpkg-interrupted", f"dpkg was interrupted{what} before Keyfit began, so nothing is installed or"
                        " removed on top of that.",
                        hint="Finish it with `sudo dpkg --configure -a` (then `sudo apt-get --fix-broken install`, if that"
                        " says so), then run this again.")


def put_right(host: Host, ours: set[str]) -> None:
    """After our own package tool was cut off: have dpkg finish what can be finished, so that the rest can be removed.

    In another tree than "/", packages that are not ours are left alone: their scripts would run on this system.

    Raises:
        BusyError: code "package-tool-busy".
    """
    wait(host)
    others = unfinished(host) - ours
    if (is_cut_off(host) or others) and (host.facts().root == "/" or not others):
        dpkg(host, "--configure", "-a")  # what cannot be configured is removed by who calls this


def is_unfinished(host: Host) -> bool:
    """True if dpkg has begun with something and not finished it."""
    return is_cut_off(host) or bool(unfinished(host))


def is_cut_off(host: Host) -> bool:
    """True if dpkg itself was ended before it could write down what it had done."""
    return bool(_updates(host))


def unfinished(host: Host) -> set[str]:
    """Packages that dpkg has begun with and not finished, also by the notes that it has not merged yet."""
    noted = "\n".join((host.read_bytes(path, MAX_UPDATE_BYTES) or b"").decode("utf-8", "replace") for path in _updates(host))
    return {*host.unfinished_packages(), *_NAME.findall(noted)}


def _updates(host: Host) -> list[str]:
    return [path for path in host.glob(UPDATES, "*") if path.rsplit("/", 1)[1].isdigit()]
