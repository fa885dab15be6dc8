"""A virtual machine as a test sees it: commands, files, power, and what changed on its disk."""

from __future__ import annotations

import json
import os
import random
import shlex
import signal
import tarfile
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from tests.vm.bench.channel import Channel
from tests.vm.bench.host import BenchError, run
from tests.vm.bench.image import Image
from tests.vm.bench.qemu import CARGO_BYTES, Hardware, Qemu, nameless
from tests.vm.bench.volatile import VolatileDisk

HOST_ADDRESS = "10.0.2.2"
"""The host's loopback as the guest sees it (QEMU user-mode networking, "-netdev user" in QEMU's manual)."""

DURABLE_DISK_BYTES = 2 << 30
"""The file behind it is sparse."""

BOOT_TIMEOUT_S = 240.0
"""A cold boot takes 15 to 25 s on two busy processors."""

_ANSWER_MARGIN_S = 30.0
"""On top of a command's own time limit, for the agent to kill it and say so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a command in the guest ended.

    Attributes:
        returncode: Exit code; -N when signal N ended it.
        stdout: Standard output, undecodable bytes replaced.
        stderr: Standard error, likewise.
        seconds: How long it ran, by the guest's clock.
    """

    returncode: int
    stdout: str
    stderr: str
    seconds: float

    def check(self) -> Self:
        """Return the result, or raise a BenchError with its output when the command failed."""
        if self.returncode != 0:
            raise BenchError(f"ended with {self.returncode}:\n{self.stdout}\n{self.stderr}")
        return self


class CommandTimeout(BenchError):
    """A command in the guest took longer than allowed; it was killed."""


class Entry(NamedTuple):
    """One file in a snapshot.

    Attributes:
        kind: "file", "folder", "link" or "other".
        mode: Permission bits.
        owner: "uid:gid".
        content: SHA-256 in hex of a file, target of a link, else empty.
    """

    kind: str
    mode: int
    owner: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A frozen machine on disk; any number of machines can be restored from it, also at the same time.

    Attributes:
        folder: Holds the memory and, for a durable machine, its disk.
        image: What it was booted from.
        hardware: Its options.
        key: What it is made from, as a short hash.
    """

    folder: Path
    image: Image
    hardware: Hardware
    key: str


class Process:
    """A command that runs in the guest while the test goes on."""

    def __init__(self, channel: Channel, request_id: int, command: str) -> None:
        self._channel, self._id, self._command = channel, request_id, command
        self._output = {"stdout": bytearray(), "stderr": bytearray()}
        self._result: Result | None = None
        self.pid: int = channel.receive(request_id, _ANSWER_MARGIN_S).header["started"]

    @property
    def stdout(self) -> str:
        """Standard output received so far."""
        return self._output["stdout"].decode(errors="replace")

    @property
    def stderr(self) -> str:
        """Standard error received so far."""
        return self._output["stderr"].decode(errors="replace")

    def read_until(self, text: str, timeout_s: float = 60.0, *, stream: str = "stdout") -> str:
        """Wait until `text` has come out; return all output of that stream.

        Raises:
            BenchError: The process ended, or the time was up, without it.
        """
        deadline = time.monotonic() + timeout_s
        while text.encode() not in self._output[stream]:
            if self._result is not None:
                raise BenchError(f"{self._command} ended without {text!r}: {self.stdout}\n{self.stderr}")
            self._step(deadline)
        return self._output[stream].decode(errors="replace")

    def wait(self, timeout_s: float = 120.0) -> Result:
        """Wait for the end.

        Raises:
            CommandTimeout: It was killed because its own time limit was up.
            BenchError: It runs on after `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        while self._result is None:
            self._step(deadline)
        return self._result

    def write(self, data: bytes) -> None:
        """Write to the standard input of a process started as interactive; nothing (b"") closes it."""
        self._channel.call("write", data, process=self._id)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process and its children."""
        self._channel.call("signal", process=self._id, number=int(number))

    def _step(self, deadline: float) -> None:
        frame = self._channel.receive(self._id, max(0.0, deadline - time.monotonic()))
        if "stream" in frame.header:
            self._output[frame.header["stream"]] += frame.payload
            return
        header = frame.header
        self._channel.finish(self._id)
        self._result = Result(
            returncode=header["exit"], stdout=self.stdout, stderr=self.stderr, seconds=header["seconds"]
        )
        if header["timed_out"]:
            seconds = self._result.seconds
            raise CommandTimeout(f"{self._command} killed after {seconds:.0f} s:\n{self.stdout}\n{self.stderr}")


class Machine:
    """A running virtual machine. Use it as a context manager, or call `close`."""

    def __init__(self, image: Image, hardware: Hardware, state: State | None = None) -> None:
        """Start a machine; `boot` and `restore` say it shorter.

        Args:
            image: What to boot from.
            hardware: Machine options.
            state: Frozen machine to go on with; None boots.
        """
        self.image, self.hardware = image, hardware
        self._ports: set[int] = set()
        self._disk: Path | None = None
        self._drive: VolatileDisk | None = None
        self._files = ExitStack()
        if hardware.durable:
            file = self._files.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
            self._disk, self._disk_fd = nameless(file), file.fileno()
            if state is not None:
                _copy_sparse(state.folder / "disk", self._disk)
            else:
                run(["mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", self._disk, f"{DURABLE_DISK_BYTES >> 10}K"])
        try:
            self._start(state)
        except BaseException:
            self._files.close()
            raise

    @classmethod
    def boot(cls, image: Image, hardware: Hardware | None = None) -> Machine:
        """Boot from cold and wait for the agent."""
        return cls(image, hardware or Hardware())

    @classmethod
    def restore(cls, state: State) -> Machine:
        """Go on with a frozen machine; its clock is set to now."""
        os.utime(state.folder)  # used last: it stays in the cache
        return cls(state.image, state.hardware, state)

    def _start(self, state: State | None) -> None:
        if self._disk is not None:
            self._drive = VolatileDisk(self._disk_fd, DURABLE_DISK_BYTES)
        address = self._drive.address if self._drive is not None else None
        self._qemu = Qemu(self.image, self.hardware, disk=address, incoming=state is not None)
        self._channel = Channel(self._qemu.agent)
        try:
            if state is None:
                self._channel.await_hello(BOOT_TIMEOUT_S)
            else:
                self._qemu.restore(state.folder / "memory")
                self._channel.call("clock", now=time.time())
        except BenchError as problem:
            output = self._qemu.output()
            self._stop()
            raise BenchError(f"{problem}\n{output}") from problem
        except BaseException:
            self._stop()
            raise

    # -- commands

    def run(
        self,
        argv: Sequence[str] | str,
        timeout_s: float = 120.0,
        env: Mapping[str, str] | None = None,
        input: bytes = b"",
        *,
        user: str | None = None,
        cwd: str = "/",
    ) -> Result:
        """Run a command to its end.

        Args:
            argv: Program and arguments; a string is given to /bin/sh.
            timeout_s: It is killed with its children after this many seconds.
            env: Variables on top of the agent's.
            input: Its standard input.
            user: Account to run it as, with the account's groups and home; the image has "person". None is root.
            cwd: Its working directory.

        Raises:
            CommandTimeout: It took too long.
            BenchError: It could not be started, or the machine ended.
        """
        process = self._launch(argv, timeout_s, env, input, user, cwd, interactive=False)
        return process.wait(timeout_s + _ANSWER_MARGIN_S)

    def start(
        self,
        argv: Sequence[str] | str,
        *,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        cwd: str = "/",
        interactive: bool = False,
    ) -> Process:
        """Start a command and return while it runs. Arguments as for `run`; `interactive` leaves its input open."""
        return self._launch(argv, None, env, b"", user, cwd, interactive)

    def _launch(
        self,
        argv: Sequence[str] | str,
        timeout_s: float | None,
        env: Mapping[str, str] | None,
        payload: bytes,
        user: str | None,
        cwd: str,
        interactive: bool,
    ) -> Process:
        command = ["/bin/sh", "-c", argv] if isinstance(argv, str) else list(argv)
        request = self._channel.request(
            "start", payload, argv=command, env=dict(env or {}), cwd=cwd, timeout_s=timeout_s, user=user,
            interactive=interactive,
        )  # fmt: skip
        return Process(self._channel, request, argv if isinstance(argv, str) else shlex.join(argv))

    # -- files

    def put(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """Write a file, making its folders."""
        self._channel.call("put", content, path=path, mode=mode)

    def get(self, path: str) -> bytes:
        """Read a file."""
        return self._channel.call("get", path=path, timeout_s=120.0)

    def put_tree(self, local_dir: Path, remote_dir: str) -> None:
        """Copy a folder, owned by root, through a disk that host and guest share: about 50 MB in two seconds."""
        file = self._qemu.cargo
        file.seek(0)
        with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as archive:
            archive.add(local_dir, ".", filter=_owned_by_root)
        file.flush()
        if file.tell() > CARGO_BYTES:
            raise BenchError(f"{local_dir} is larger than {CARGO_BYTES} bytes")
        # tar stops at the archive's end mark, so what an earlier, longer one left behind it does no harm
        folder = shlex.quote(remote_dir)
        unpack = f"mkdir -p {folder} && blockdev --flushbufs /dev/vdb && tar -x -b 2048 -f /dev/vdb -C {folder}"
        self.run(unpack, timeout_s=300).check()

    def snapshot(self, paths: Iterable[str]) -> dict[str, Entry]:
        """Describe every file below some paths, in order to compare before with after. Nothing is followed."""
        listing = json.loads(self._channel.call("snapshot", paths=list(paths), timeout_s=120.0))
        return {path: Entry(kind, mode, owner, content) for path, kind, mode, owner, content in listing}

    def packages(self) -> dict[str, str]:
        """Version of every package dpkg knows, with its state: {"libc6": "ii 2.36-9+deb12u10"}."""
        query = ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Abbrev}${Version}\\n"]
        lines = self.run(query).check().stdout.splitlines()
        return dict(line.split(" ", 1) for line in lines)

    # -- power and state

    def qmp(self, command: str, /, *, fd: int | None = None, **arguments: object) -> Any:
        """Run a command of QEMU's monitor; see `Qemu.execute`."""
        return self._qemu.execute(command, fd=fd, **arguments)

    def freeze(self, folder: Path) -> None:
        """Write the machine to a folder, from which it can be restored; it ends here.

        Raises:
            BenchError: A token is still attached, or QEMU fails.
        """
        if self._ports:
            raise BenchError("detach the tokens before freezing")
        if self.hardware.durable:
            self.run(["sync"]).check()
        self._qemu.freeze(folder / "memory")
        self._stop()
        if self._disk is not None:
            _copy_sparse(self._disk, folder / "disk")
        self.close()

    def power_cut(self, chance: random.Random | None = None) -> int:
        """Pull the mains plug. What a durable machine had on its disk stays there; see `power_on`.

        Args:
            chance: Decides which of the sectors that the guest had written but not flushed are lost. None loses none of
                them, as when only QEMU ended.

        Returns:
            How many bytes of those were lost.
        """
        self._qemu.kill()
        return self._stop(chance)

    def check_disk(self) -> str:
        """Have e2fsck look at a copy of a durable machine's disk while the machine is off; what it says.

        Raises:
            BenchError: The journal's replay does not make the file system sound.
        """
        assert self._disk is not None, "not a durable machine"
        with tempfile.TemporaryFile() as copy:
            _copy_sparse(self._disk, nameless(copy))
            run(["e2fsck", "-E", "journal_only", "-y", nameless(copy)])
            return run(["e2fsck", "-f", "-n", nameless(copy)])

    def power_off(self, timeout_s: float = 90.0) -> None:
        """Shut down in good order."""
        self.start(["systemctl", "poweroff"])
        self._qemu.wait(timeout_s)
        self._stop()

    def power_on(self) -> None:
        """Boot again after `power_cut` or `power_off`: from its own disk if it is durable, else from a fresh one."""
        self._start(None)

    def settle(self) -> None:
        """Wait until udev has worked through what it was told."""
        self.run(["udevadm", "settle", "--timeout=60"]).check()

    def console(self) -> str:
        """The end of what QEMU and the guest's console printed."""
        return self._qemu.output()

    def claim_port(self) -> int:
        """Reserve a USB port of the machine, from 1; for token transports."""
        port = next(number for number in range(1, 9) if number not in self._ports)
        self._ports.add(port)
        return port

    def release_port(self, port: int) -> None:
        """Give a USB port back."""
        self._ports.discard(port)

    def close(self) -> None:
        """End the machine and remove its scratch files. Closing twice is fine."""
        self._stop()
        self._files.close()

    def _stop(self, chance: random.Random | None = None) -> int:
        self._channel.close()
        self._qemu.close()
        drive, self._drive = self._drive, None
        return drive.cut(chance) if drive is not None else 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member


def _copy_sparse(source: Path, target: Path) -> None:
    run(["cp", "--sparse=always", "--reflink=auto", source, target])
