"""A udev rule that gives the logged-in user access to a token that no PC/SC driver handles.

Format: udev(7); the tag: systemd, "uaccess". Built from typed fields only: nothing of the text comes from data.
"""

from keyfit.engine.steps import textfile
from keyfit.engine.steps.base import Detected, Fetch, State
from keyfit.model.plan import UdevRuleFile
from keyfit.ports import Host


class Kind:
    """See `base.StepKind`."""

    def detect(self, change: UdevRuleFile, host: Host) -> Detected:
        """Is the file there as we write it?"""
        return textfile.detect(host, change.path, content(change))

    def expect(self, change: UdevRuleFile, host: Host, before: State, fetch: Fetch) -> State:
        """The hash of the file."""
        return textfile.expect(content(change))

    def apply(self, change: UdevRuleFile, host: Host, before: State, fetch: Fetch) -> State:
        """Write it and have udev look at the device again: a rule alone does not change one that is plugged in."""
        after = textfile.write(host, change.path, before, content(change))
        _reload(change, host)
        return after

    def undo(self, change: UdevRuleFile, host: Host, before: State, after: State) -> str:
        """Delete it and have udev look again."""
        kept = textfile.undo(host, change.path, before, after, content(change))
        _reload(change, host)
        return kept


def content(change: UdevRuleFile) -> bytes:
    """The file: an attribute match for the device itself, or for its parent where the node is a child."""
    word = "ATTR" if change.subsystem == "usb" else "ATTRS"
    return (
        "# Written by Keyfit; `keyfit uninstall` removes it.\n"
        f'SUBSYSTEM=="{change.subsystem}", {word}{{idVendor}}=="{change.id_vendor:04x}", '
        f'{word}{{idProduct}}=="{change.id_product:04x}", TAG+="uaccess"\n'
    ).encode()


def _reload(change: UdevRuleFile, host: Host) -> None:
    if host.facts().root == "/" and host.has_program("udevadm"):
        host.run(["udevadm", "control", "--reload"])
        host.run(["udevadm", "trigger", "--action=change", f"--subsystem-match={change.subsystem}"])
