"""Frozen machines in the cache: the plain one, and ones built on it by doing something first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.vm.bench.host import BENCH, built_once, digest, qemu_version
from tests.vm.bench.image import Image
from tests.vm.bench.machine import Machine, State
from tests.vm.bench.qemu import Hardware

_WAIT_FOR_SYSTEMD = ["systemctl", "is-system-running", "--wait"]
_WARM_UP = "modprobe -a xhci_pci usbhid; udevadm settle; lsusb; apt-cache policy bash; dpkg -s dpkg; openssl version"
"""What every test uses: a restored machine then finds it in memory."""


def base_state(image: Image, hardware: Hardware | None = None) -> State:
    """The machine just after its boot, with nothing plugged in. Booted once, then taken from the cache."""
    machine_options = hardware or Hardware()
    made_from = (image.key, qemu_version(), BENCH / "qemu.py", BENCH / "states.py", repr(machine_options))
    key = digest(*made_from)
    with built_once(f"state-{key}") as (folder, to_build):
        if to_build:
            with Machine.boot(image, machine_options) as machine:
                machine.run(_WAIT_FOR_SYSTEMD)  # its result is "degraded" when any unit failed; tests look themselves
                machine.run(_WARM_UP).check()
                machine.freeze(folder)
    return State(folder=folder.parent / f"state-{key}", image=image, hardware=machine_options, key=key)


def derive(state: State, made_from: str, prepare: Callable[[Machine], None]) -> State:
    """A state made from another by changing the machine; made once, then taken from the cache.

    Args:
        state: Where to start.
        made_from: Names everything the change depends on: the same text must mean the same machine.
        prepare: Changes the running machine.
    """
    key = digest(state.key, made_from)
    with built_once(f"state-{key}") as (folder, to_build):
        if to_build:
            with Machine.restore(state) as machine:
                prepare(machine)
                machine.freeze(folder)
    return State(folder=folder.parent / f"state-{key}", image=state.image, hardware=state.hardware, key=key)


def with_tree(state: State, local_dir: Path, remote_dir: str) -> State:
    """A state with a folder of the host copied in, for example a frozen program; made anew when its content changes."""
    made_from = f"tree {remote_dir} {digest(local_dir)}"
    return derive(state, made_from, lambda machine: machine.put_tree(local_dir, remote_dir))
