"""What ends a process with SIGKILL at a moment beside a journal commit, and a plan and a package database to end it in."""

import hashlib
import os
import signal
from pathlib import Path

from keyfit.model.catalog import Payload
from keyfit.model.plan import P11KitModule, PackageFile, Plan, UdevRuleFile
from tests.sim.plans import plan
from tests.sim.power import Power

PRESENT = "".join(
    f"Package: {name}\nStatus: install ok installed\nMaintainer: Keyfit tests <tests@example.org>\nArchitecture: amd64\n"
    f"Version: {version}\nDescription: there already\n\n" for name, version in (("libc6", "2.36"), ("libusb-1.0-0", "2:1.0.26")))
"""A package database with what drivers usually depend on."""


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
