"""A disc in a CD-ROM drive at a USB port of the machine, as with computers that have no drive of their own."""

from __future__ import annotations

import shlex
from pathlib import Path

from tests.vm.bench.host import BenchError
from tests.vm.bench.machine import Machine

_APPEARS = "modprobe -a usb-storage sr_mod isofs && for n in $(seq 300); do [ -b /dev/sr0 ] && exit 0; sleep 0.1; done; exit 1"


def insert_disc(machine: Machine, image: Path) -> None:
    """Plug a drive in with the disc in it, for as long as the machine lives: `/dev/sr0` there.

    Raises:
        BenchError: The machine does not see it.
    """
    file = {"driver": "file", "filename": str(image.absolute()), "locking": "off"}
    machine.qmp("blockdev-add", **{"node-name": "disc", "driver": "raw", "read-only": True, "file": file})
    # a drive that is plugged into a running machine gets its disc before it is attached (QEMU's docs/usb-storage.txt)
    machine.qmp("device_add", driver="usb-bot", id="drive", bus="xhci.0", port=str(machine.claim_port()))
    machine.qmp("device_add", driver="scsi-cd", id="disc-reader", bus="drive.0", drive="disc")
    machine.qmp("qom-set", path="/machine/peripheral/drive", property="attached", value=True)
    if machine.run(_APPEARS).returncode != 0:
        raise BenchError(f"the machine does not see the disc: {machine.console()}")


def mount_disc(machine: Machine, folder: str, options: str = "ro") -> None:
    """Mount the disc with the machine's own kernel."""
    where = shlex.quote(folder)
    machine.run(f"mkdir -p {where} && mount -t iso9660 -o {options} /dev/sr0 {where}").check()
