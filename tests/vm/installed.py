"""Machines with the Debian package of Keyfit on them, as `make deb` made it."""

from __future__ import annotations

from pathlib import Path

from tests.vm.bank import CHECKOUT
from tests.vm.bench.host import BenchError, digest
from tests.vm.bench.machine import Machine, State
from tests.vm.bench.states import derive

PROGRAM = "/usr/bin/keyfit"
HELPER = "/opt/keyfit/keyfit-helper"
DATA = "/opt/keyfit/_internal/keyfit/data"
APT = "DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Use-Pty=0"
BOOKKEEPING = ("/var/lib/keyfit", "/var/lib/dpkg/", "/var/lib/apt/", "/var/lib/systemd/", "/var/lib/ucf/",
               "/etc/ld.so.cache")
"""Keyfit's own record, and files that the package tools rewrite at any installation, whatever comes and goes."""


def desktop(base: State) -> State:
    """With what apt takes along for it, and with what tests look with: one state for several, since installing takes a while."""
    return with_package(base, "strace", "iproute2", recommended=True)


def package_file() -> Path:
    """The package that was built last.

    Raises:
        BenchError: There is none.
    """
    found = sorted((CHECKOUT / "dist").glob("keyfit_*.deb"))
    if len(found) != 1:
        raise BenchError(f"expected one package in dist, found {len(found)}: run `make deb`")
    return found[0]


def with_package(state: State, *others: str, recommended: bool = False) -> State:
    """A state with the package installed by apt, and other packages from the machine's own archive."""
    options = "" if recommended else " --no-install-recommends"
    command = f"{APT}{options} install /run/keyfit.deb {' '.join(others)}"

    def install(machine: Machine) -> None:
        machine.put("/run/keyfit.deb", package_file().read_bytes())
        machine.run(command, timeout_s=400).check()
        machine.run(f"rm /run/keyfit.deb; {PROGRAM} --version", timeout_s=60).check()

    return derive(state, f"{command} {digest(package_file())}", install)
