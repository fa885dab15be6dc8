"""A machine in a box: real pcscd, real drivers, real dpkg, on a fake USB bus, with nothing of the host written to.

    with MockBus() as bus, PcscBox(bus) as box:
        bus.add(find_record("0A89:0030"), ccid=True)
        box.start_pcscd()
        reader, = box.readers(count=1, cards=1)
        box.run(["dpkg", "-i", "/tmp/libacsccid1.deb"])

The box is a mount namespace (and, by default, a network namespace): /run and /tmp/box are empty file systems in
memory, /etc, /usr and /var are overlays whose changes stay in memory. All is gone with the box.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from tests.sim import pcscprobe
from tests.sim.mockbus import CHECKOUT, INSTALL_HINT, SYSTEM_PYTHON, MockBus

PCSCD = "/usr/sbin/pcscd"
PCSCD_SOCKET = "/run/pcscd/pcscd.comm"
"""PCSCLITE_CSOCK_NAME as Debian builds pcsc-lite."""

_PROBE = str(CHECKOUT / "tests/sim/pcscprobe.py")
_LAUNCH = str(CHECKOUT / "tests/sim/pcscdlaunch.py")

_SETUP = r"""
set -eu
store=$1
mount -t tmpfs box "$store"
for name in etc usr var; do
    mkdir -p "$store/$name.new" "$store/$name.work"
    mount -t overlay overlay "/$name" \
        -o "lowerdir=/$name,upperdir=$store/$name.new,workdir=$store/$name.work"
done
mount -t tmpfs box /run
mkdir -p /run/lock /run/pcscd
if [ "$3" = root ]; then
    # no package may start a service here (Debian policy 9.3.3.1, invoke-rc.d)
    printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
fi
if [ "$2" = own-network ]; then
    # room for bursts of uevents; see MockBus. The limit is the namespace's own
    [ ! -w /proc/sys/net/unix/max_dgram_qlen ] || echo 4096 > /proc/sys/net/unix/max_dgram_qlen
    ip link set lo up 2>/dev/null || true
fi
echo ready
read -r _ || true
"""


class PcscBoxError(RuntimeError):
    """The box could not be set up, or pcscd did not come to show what was waited for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """A PC/SC reader as a client of pcscd sees it.

    Attributes:
        name: the name, with the slot numbers that pcscd adds.
        atr: the card's answer to reset; empty without a card.
    """

    name: str
    atr: bytes


class PcscBox:
    """A private machine on a `MockBus`. A context manager; leaving it ends every process in it."""

    def __init__(self, bus: MockBus, *, own_network: bool = True) -> None:
        """Set the namespaces up. Without root a user namespace is tried: pcscd runs in it, but /etc, /usr and /var
        cannot be written to, because their owner has no number there.

        Args:
            bus: the fake bus that programs in the box see.
            own_network: cut the box off from the network, its loopback apart.

        Raises:
            PcscBoxError: this system does not allow it.
        """
        self._bus = bus
        self._pcscd: subprocess.Popen[str] | None = None
        self._log, log_name = tempfile.mkstemp(prefix="keyfit-pcscd-", suffix=".log")
        self._log_path = Path(log_name)
        self._store = tempfile.mkdtemp(prefix="keyfit-box-")
        unprivileged = os.geteuid() != 0
        flags = ["--mount", "--propagation", "private", *(["--net"] if own_network else [])]
        self._enter = ["--mount", *(["--net"] if own_network else [])]
        if unprivileged:
            flags += ["--user", "--map-root-user"]
            self._enter += ["--user", "--preserve-credentials"]
        network = "own-network" if own_network else "host-network"
        self._holder = subprocess.Popen(
            ["unshare", *flags, "sh", "-c", _SETUP, "box", self._store, network, "user" if unprivileged else "root"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        if self._holder.stdout is None or self._holder.stdout.readline() != "ready\n":
            said = self._holder.communicate()[1]
            self.close()
            raise PcscBoxError(f"cannot set up the mount namespace: {said.strip()} (needs root, or user namespaces)")
        if not unprivileged and not self._is_apart():
            self.close()
            raise PcscBoxError("the box would show this machine's own /etc: it cannot be made inside a chroot")

    def _is_apart(self) -> bool:
        """Whether programs in the box see its own /etc. In a chroot they would see, and change, the one outside."""
        done = subprocess.run(self._inside(["stat", "-c", "%d", "/etc"]), capture_output=True, text=True, check=False)
        return done.returncode == 0 and int(done.stdout) != os.stat("/etc").st_dev

    def __enter__(self) -> PcscBox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End pcscd and whatever else runs in the box, and let go of its file systems."""
        self.stop_pcscd()
        for pid in self._processes():
            _kill(pid)
        self._holder.communicate()
        os.close(self._log)
        self._log_path.unlink()
        if Path(self._store).is_dir():
            Path(self._store).rmdir()

    def _processes(self) -> list[int]:
        """Return everyone in the box but its holder: packages may have started what we know nothing of."""
        inside = _namespace(self._holder.pid)
        if inside is None or inside == _namespace(os.getpid()):
            return []
        numbers = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        return [pid for pid in numbers if pid != self._holder.pid and _namespace(pid) == inside]

    # ---- programs

    def _inside(self, argv: Sequence[str]) -> list[str]:
        return ["nsenter", "--target", str(self._holder.pid), *self._enter, "--", *argv]

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        timeout_s: float = 60.0,
        stdin: str = "",
        check: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in the box, as `MockBus.run` does outside it."""
        return self._bus.run(self._inside(argv), env=env, timeout_s=timeout_s, stdin=stdin, check=check)

    def popen(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        stdout: int | IO[str] | None = subprocess.PIPE,
        stderr: int | IO[str] | None = None,
    ) -> subprocess.Popen[str]:
        """Start a program in the box, as `MockBus.popen` does outside it."""
        return self._bus.popen(self._inside(argv), env=env, stdout=stdout, stderr=stderr)

    # ---- pcscd

    def start_pcscd(self, *arguments: str) -> None:
        """Start pcscd, or start it again: drivers and their lists of ids are read at its start only.

        Raises:
            PcscBoxError: there is no pcscd, or it cannot be started.
        """
        self.stop_pcscd()
        if not Path(PCSCD).exists():
            raise PcscBoxError(f"{PCSCD} is not there; {INSTALL_HINT}")
        command = [SYSTEM_PYTHON, _LAUNCH, PCSCD_SOCKET, PCSCD, "--foreground", "--debug", *arguments]
        self._pcscd = self.popen(command, stdout=subprocess.PIPE, stderr=self._log)
        if self._pcscd.stdout is None or self._pcscd.stdout.readline() != "listening\n":
            raise PcscBoxError(f"pcscd cannot be started: {self.pcscd_log[-2000:]}")

    def stop_pcscd(self) -> None:
        """Stop pcscd and wait until it has ended."""
        if self._pcscd is None:
            return
        self._pcscd.terminate()
        try:
            self._pcscd.wait(10)
        except subprocess.TimeoutExpired:
            self._pcscd.kill()
            self._pcscd.wait()
        self._pcscd = None

    @property
    def pcscd_log(self) -> str:
        """What pcscd wrote in this box, over all its starts."""
        return self._log_path.read_text(errors="replace")

    def readers(
        self, *, count: int | None = None, cards: int | None = None, timeout_s: float = 20.0
    ) -> tuple[Reader, ...]:
        """Return the readers that a client sees; wait until there are exactly so many readers and cards, if given.

        Raises:
            PcscBoxError: it did not come to that in time, or pcscd cannot be reached.
        """
        wanted = [str(-1 if number is None else number) for number in (count, cards)]
        done = self.run([SYSTEM_PYTHON, _PROBE, "list", *wanted, str(timeout_s)], timeout_s=timeout_s + 30)
        if done.returncode not in (0, pcscprobe.EXIT_TIMEOUT):
            raise PcscBoxError(f"pcscd cannot be asked: {done.stderr.strip()}\n{self.pcscd_log[-2000:]}")
        found = tuple(Reader(name=item["name"], atr=bytes.fromhex(item["atr"])) for item in json.loads(done.stdout))
        if done.returncode == pcscprobe.EXIT_TIMEOUT:
            raise PcscBoxError(f"waited for {count} readers and {cards} cards, saw {found}\n{self.pcscd_log[-2000:]}")
        return found

    def transmit(self, reader: str, *apdus: bytes) -> tuple[bytes, ...]:
        """Send commands to the card in a reader, and return its responses.

        Raises:
            PcscBoxError: no such reader, or no card that answers.
        """
        done = self.run([SYSTEM_PYTHON, _PROBE, "transmit", reader, *(apdu.hex() for apdu in apdus)])
        if done.returncode:
            raise PcscBoxError(f"{done.stderr.strip()}\n{self.pcscd_log[-2000:]}")
        return tuple(bytes.fromhex(response) for response in json.loads(done.stdout))


def _kill(pid: int) -> None:
    """Kill a process and wait until it has ended, child of ours or not (Linux pidfd_open(2))."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        select.select([handle], [], [], 10)
    except ProcessLookupError:
        pass
    finally:
        os.close(handle)


def _namespace(pid: int) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/mnt")
    except OSError:  # it has ended, or is another user's
        return None
