"""An install into a tree that is killed (SIGKILL) at the n-th journal commit: `python -m tests.sim.killed`.

Arguments: tree, state directory, package file, name, version, verb ("install" or "uninstall"), commit number.
"""

import hashlib
import os
import signal
import sys
from pathlib import Path

from keyfit.engine import transaction
from keyfit.model.catalog import Payload
from keyfit.model.plan import P11KitModule, PackageFile, Plan, UdevRuleFile
from keyfit.platforms.linux.host import LinuxHost
from tests.sim.plans import plan
from tests.sim.power import Power, PoweredJournal
from tests.sim.world import SimReporter


class SuddenDeath(Power):
    """Ends this process at once instead of raising."""

    def tick(self) -> None:
        self.moments += 1
        if self.moments == self.cut_at:
            os.kill(os.getpid(), signal.SIGKILL)


def plan_for(deb: Path, name: str, version: str) -> Plan:
    """A package file, a udev rule and a p11-kit module."""
    data = deb.read_bytes()
    file = Payload(file=deb.name, sha256=hashlib.sha256(data).hexdigest(), length_bytes=len(data))
    return plan(
        PackageFile(format="deb", name=name, version=version, payload=file),
        UdevRuleFile(path="/etc/udev/rules.d/70-keyfit-acme-x.rules", subsystem="usb", id_vendor=0x72F, id_product=0xB200),
        P11KitModule(path="/etc/pkcs11/modules/keyfit-acme.module", module="/usr/lib/acme.so"),
    )


def main(tree: str, state: str, deb: str, name: str, version: str, verb: str, cut_at: str) -> None:
    """See the module's text."""
    power = SuddenDeath(int(cut_at) or None)
    host, journal = LinuxHost(tree), PoweredJournal(Path(state), power)
    if verb == "uninstall":
        transaction.uninstall("acme", host=host, journal=journal, reporter=SimReporter())
        return
    transaction.carry_out(plan_for(Path(deb), name, version), host=host, journal=journal, reporter=SimReporter(),
                          fetch=lambda payload: Path(deb), wait=lambda wait: None)


if __name__ == "__main__":
    main(*sys.argv[1:])
