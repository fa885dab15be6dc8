"""A QEMU process: its command line, its monitor, freezing and restoring. Nothing here knows what runs inside."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import subprocess
import tempfile
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tests.vm.bench.host import BenchError
from tests.vm.bench.image import Image

AGENT_PORT = "bench"
CARGO_BYTES = 1 << 30
"""Size of the sparse disk through which big trees enter the guest."""

USB_PORTS = 8
"""USB 2 ports of the controller. QEMU's default is 4, and it slips in a hub when they are used up."""

_KERNEL_OPTIONS = (
    "console=ttyS0 quiet loglevel=3 mitigations=off tsc=reliable no_timer_check random.trust_cpu=on panic=-1 "
    "net.ifnames=0"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What a frozen machine and the one restored from it must have in common.

    Attributes:
        memory_mb: RAM.
        processors: Virtual processors; two threads of the host run them.
        durable: Writes go to a disk that survives a power cut, instead of to memory.
    """

    memory_mb: int = 1024
    processors: int = 2
    durable: bool = False


def nameless(file: IO[bytes]) -> Path:
    """A path by which a child process can open, and open again, a file that has no name (proc(5), /proc/PID/fd).

    Disks of a machine are such files, so that none stays behind when a test is killed.
    """
    return Path(f"/proc/{os.getpid()}/fd/{file.fileno()}")


class Qemu:
    """A running QEMU. It is killed when this process ends, however it ends.

    Attributes:
        folder: Scratch folder of this machine; gone after `close`.
        agent: Socket connected to the guest's virtio-serial port.
        cargo: The disk that the guest sees as /dev/vdb, for this process to write to.
    """

    def __init__(self, image: Image, hardware: Hardware, *, disk: str | None, incoming: bool) -> None:
        """Start QEMU, stopped if it is to be `incoming`.

        Args:
            image: What to boot.
            hardware: Machine options.
            disk: The disk of a durable machine, as -drive takes it.
            incoming: Wait for `restore` instead of booting.
        """
        self.folder = Path(tempfile.mkdtemp(prefix="keyfit-vm-"))
        self.cargo = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self.cargo.truncate(CARGO_BYTES)
        self._events: deque[dict[str, Any]] = deque()
        self._lock = threading.RLock()
        self.agent, agent_end = socket.socketpair()
        self._monitor, monitor_end = socket.socketpair()
        command = _command(
            image, hardware, self.folder, nameless(self.cargo), disk, agent_end.fileno(), monitor_end.fileno(), incoming
        )
        self._log = (self.folder / "qemu.log").open("w")
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
            pass_fds=(agent_end.fileno(), monitor_end.fileno()),
        )  # fmt: skip
        agent_end.close()
        monitor_end.close()
        self._lines = self._monitor.makefile("rb")
        try:
            self._read_message()  # greeting
            self.execute("qmp_capabilities")
            capabilities = [{"capability": "events", "state": True}]
            self.execute("migrate-set-capabilities", capabilities=capabilities)
        except BenchError:
            self.close()
            raise

    def execute(self, command: str, /, *, fd: int | None = None, **arguments: object) -> Any:
        """Run a monitor command and return its result.

        Args:
            command: QMP command name.
            fd: File descriptor to hand over with it (for `getfd`).
            arguments: The command's arguments, named as QMP names them.

        Raises:
            BenchError: QEMU refuses the command or has ended.
        """
        message = {"execute": command, "arguments": arguments}
        with self._lock:
            if self._process.poll() is not None:
                raise BenchError(f"QEMU has ended: {self.output()}")
            try:
                socket.send_fds(self._monitor, [json.dumps(message).encode() + b"\n"], [] if fd is None else [fd])
            except OSError as problem:
                raise BenchError(f"QEMU has ended: {self.output()}") from problem
            while True:
                reply = self._read_message()
                if "event" in reply:
                    self._events.append(reply)
                elif "error" in reply:
                    raise BenchError(f"{command}: {reply['error']['desc']}")
                else:
                    return reply["return"]

    def freeze(self, path: Path) -> None:
        """Stop the machine and write its memory and devices to a file. It cannot go on afterwards."""
        self.execute("stop")
        self.execute("migrate-set-parameters", **{"max-bandwidth": 1 << 40})
        self.execute("migrate", uri=f"exec:cat > {shlex.quote(str(path))}")
        self._await_migration()

    def restore(self, path: Path) -> None:
        """Go on where `freeze` stopped. The machine must have been started as `incoming`."""
        self.execute("migrate-incoming", uri=f"exec:cat {shlex.quote(str(path))}")
        self._await_migration()
        self.execute("cont")

    def wait(self, timeout_s: float) -> None:
        """Wait until QEMU ends by itself, because the guest powered off.

        Raises:
            BenchError: It did not in time.
        """
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise BenchError(f"the machine did not power off within {timeout_s} s") from None

    def kill(self) -> None:
        """Pull the mains plug."""
        self._process.kill()
        self._process.wait()

    def output(self) -> str:
        """What QEMU and the guest's console printed, the last 3000 characters of each."""
        texts = [self.folder / name for name in ("qemu.log", "console.log")]
        return "\n".join(path.read_text(errors="replace")[-3000:] for path in texts if path.exists())

    def close(self) -> None:
        """End QEMU and remove the scratch folder."""
        if self._process.poll() is None:
            self.kill()
        self.cargo.close()
        self._lines.close()
        self._monitor.close()
        self._log.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _await_migration(self) -> None:
        with self._lock:
            while True:
                event = self._events.popleft() if self._events else self._read_message()
                status = event.get("data", {}).get("status") if event.get("event") == "MIGRATION" else None
                if status == "completed":
                    return
                if status == "failed":
                    raise BenchError(f"QEMU could not move the machine's state: {self.output()}")

    def _read_message(self) -> dict[str, Any]:
        line = self._lines.readline()
        if not line:
            raise BenchError(f"QEMU has ended: {self.output()}")
        message: dict[str, Any] = json.loads(line)
        return message


def _command(
    image: Image,
    hardware: Hardware,
    folder: Path,
    cargo: Path,
    disk: str | None,
    agent: int,
    monitor: int,
    incoming: bool,
) -> list[str]:
    append = _KERNEL_OPTIONS + (" durable" if hardware.durable else "")
    command = ["setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot"]
    command += ["-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-display", "none"]
    command += ["-smp", str(hardware.processors), "-m", str(hardware.memory_mb)]
    command += ["-kernel", str(image.kernel), "-initrd", str(image.initramfs), "-append", append]
    # the order of the disks is their names in the guest: vda, vdb, vdc
    command += _drive("root", f"{image.root},file.locking=off,readonly=on") + _drive("cargo", f"{cargo},file.locking=off")
    if disk is not None:
        command += _drive("durable", disk)
    command += ["-device", "virtio-serial-pci,id=serial", "-chardev", f"socket,id=agent,fd={agent}"]
    command += ["-device", f"virtserialport,bus=serial.0,chardev=agent,name={AGENT_PORT}"]
    command += ["-chardev", f"socket,id=monitor,fd={monitor}", "-mon", "chardev=monitor,mode=control"]
    command += ["-chardev", f"file,id=console,path={folder}/console.log", "-serial", "chardev:console"]
    command += ["-netdev", "user,id=net,ipv6=off", "-device", "virtio-net-pci,netdev=net,romfile="]
    command += ["-device", f"qemu-xhci,id=xhci,p2={USB_PORTS},p3={USB_PORTS}"]
    if incoming:
        command += ["-S", "-incoming", "defer"]
    return command


def _drive(name: str, file: str) -> list[str]:
    return [
        "-drive", f"file={file},format=raw,if=none,id={name}",
        "-device", f"virtio-blk-pci,drive={name},serial={name}",
    ]  # fmt: skip
