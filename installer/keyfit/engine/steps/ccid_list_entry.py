"""One device more in libccid's list, for a CCID token that the installed libccid does not know.

The daemon reads the list when it starts and takes no driver at all if a line of it is broken. So the new list is checked before
it replaces the old one, and the daemon is restarted after it.
"""

import hashlib

from keyfit.core import ccidlist
from keyfit.engine.steps import textfile
from keyfit.engine.steps.base import Detected, Fetch, State
from keyfit.errors import HostError
from keyfit.model.plan import CcidListLine
from keyfit.ports import Host

BUNDLES = "/usr/lib/pcsc/drivers"


class Kind:
    """See `base.StepKind`."""

    def detect(self, change: CcidListLine, host: Host) -> Detected:
        """Satisfied if any installed driver lists the device already."""
        old = host.read_bytes(change.path)
        return Detected(satisfied=_listed(change, host),
                        before={"old": textfile.encoded(old)})

    def expect(self, change: CcidListLine, host: Host, before: State, fetch: Fetch) -> State:
        """The list with the entry, and what it is added to."""
        new = self._new(change, before)
        return {"base": before["old"], "sha256": hashlib.sha256(new).hexdigest()}

    def apply(self, change: CcidListLine, host: Host, before: State, fetch: Fetch) -> State:
        """Write that list, and have the daemon read it."""
        new = self._new(change, before)
        host.write_bytes(change.path, new, expected=textfile.decoded(before["old"]))
        restart_daemon(host)
        if not _listed(change, host):
            raise HostError("not-written", f"{change.path} does not list the device after it was added.")
        return {"base": before["old"], "sha256": hashlib.sha256(new).hexdigest()}

    def undo(self, change: CcidListLine, host: Host, before: State, after: State) -> str:
        """The file as it was, byte for byte; if others changed it since, only our entry is taken out."""
        kept = host.settle(change.path)
        now = host.read_bytes(change.path)
        original = textfile.decoded(after.get("base") or before["old"])
        if now is None or original is None:
            return kept
        if now == original:
            restart_daemon(host)  # an undo that was cut off may have put the list back, but not told the daemon
            return kept
        ours = ccidlist.add_entry(original, change.id_vendor, change.id_product, change.friendly_name)
        new = original if now == ours else ccidlist.remove_entry(now, change.id_vendor, change.id_product,
                                                                 change.friendly_name)
        if new != now:
            host.write_bytes(change.path, new, expected=now)
        restart_daemon(host)
        return kept

    def _new(self, change: CcidListLine, before: State) -> bytes:
        now = textfile.decoded(before["old"])
        if now is None:
            raise HostError("ccid-list-missing", f"{change.path} is not there: libccid is not installed.",
                            hint="Install the package libccid.")
        return ccidlist.add_entry(now, change.id_vendor, change.id_product, change.friendly_name)


def restart_daemon(host: Host) -> None:
    """Have pcscd read its drivers again: one that runs is restarted, one that does not reads them when it starts."""
    if host.facts().running_services:
        host.run(["systemctl", "try-restart", "pcscd.service"])


def _listed(change: CcidListLine, host: Host) -> bool:
    for bundle in host.glob(BUNDLES, "*.bundle"):
        data = host.read_bytes(f"{bundle}/Contents/Info.plist")
        if data and any((e.id_vendor, e.id_product) == (change.id_vendor, change.id_product)
                        for e in ccidlist.parse(data).entries()):
            return True
    return False
