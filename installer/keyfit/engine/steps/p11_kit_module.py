"""A module file of p11-kit's: makes a PKCS#11 module known to every program that uses p11-kit.

Format: p11-kit manual, "Module Configuration".
"""

from keyfit.engine.steps import textfile
from keyfit.engine.steps.base import Detected, Fetch, State
from keyfit.model.plan import P11KitModule
from keyfit.ports import Host


class Kind:
    """See `base.StepKind`."""

    def detect(self, change: P11KitModule, host: Host) -> Detected:
        """Is the file there as we write it?"""
        return textfile.detect(host, change.path, content(change))

    def expect(self, change: P11KitModule, host: Host, before: State, fetch: Fetch) -> State:
        """The hash of the file."""
        return textfile.expect(content(change))

    def apply(self, change: P11KitModule, host: Host, before: State, fetch: Fetch) -> State:
        """Write it."""
        return textfile.write(host, change.path, before, content(change))

    def undo(self, change: P11KitModule, host: Host, before: State, after: State) -> str:
        """Delete it, or put back what was there."""
        return textfile.undo(host, change.path, before, after, content(change))


def content(change: P11KitModule) -> bytes:
    """The file."""
    return f"# Written by Keyfit; `keyfit uninstall` removes it.\nmodule: {change.module}\n".encode()
