"""A fake USB bus that real programs see: lsusb, libusb, libudev and pcscd, with plugging and unplugging.

    with MockBus() as bus:
        port = bus.add(find_record("0A89:0030"), serial="1234", ccid=True)
        bus.run(["lsusb"])
        bus.remove(port)

Built on umockdev: programs started by `run` and `popen` have its preload library in them and see /sys and /dev/bus/usb
of the testbed. Static programs, and children that are started with an emptied environment, see the real system.

Limits, all of umockdev's preload: a listener that leaves more than /proc/sys/net/unix/max_dgram_qlen uevents unread
(10 by default) makes the testbed abort, so plug many devices before the listener starts, or start it through `PcscBox`,
which raises the limit; and libusb built without libudev enumerates but hears no events.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from tests.sim.ccidmodel import fitting_atr
from tests.sim.usbnodes import (
    MAX_DEVICES_PER_BUS,
    UsbLocation,
    interface_nodes,
    root_hub,
    umockdev_block,
    umockdev_blocks,
)
from tests.sim.usbrecords import UsbRecord

PRELOAD = "libumockdev-preload.so.0"
"""umockdev's preload library, on the loader's path (Debian libumockdev-preload0 or umockdev)."""
SYSTEM_PYTHON = "/usr/bin/python3"
"""The Python that distributions build GObject introspection (python3-gi) for."""
INSTALL_HINT = "sudo tests/platforms/install-packages.sh installs what is missing"
CHECKOUT = Path(__file__).resolve().parents[2]

_FILES_BETWEEN_LISTENERS = 32
"""umockdev names a listener's event socket by its file number; see `MockBus.popen`."""


class MockBusError(RuntimeError):
    """The fake bus could not be set up, or its server died."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CardSpec:
    """The card in a reader.

    Attributes:
        atr: its answer to reset; by default an invented one in a protocol that the reader speaks.
        replies: responses by exact command APDU; every other command gets 6D00.
        factory: "package.module:callable" giving a `ccidmodel.Card` instead, made in the server process.
        options: keyword arguments for the factory, as JSON can carry them.
    """

    atr: bytes | None = None
    replies: Mapping[bytes, bytes] = field(default_factory=dict)
    factory: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def to_wire(self, record: UsbRecord) -> dict[str, Any]:
        """Return the form that the server reads, for a card in this reader."""
        if self.factory:
            return {"factory": self.factory, "options": dict(self.options)}
        replies = {command.hex(): reply.hex() for command, reply in self.replies.items()}
        atr = fitting_atr(record) if self.atr is None else self.atr
        return {"atr": atr.hex(), "replies": replies}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSpec:
    """A simulated device with an inside of its own, in place of a record's.

    Attributes:
        factory: "package.module:callable" giving a `ccidmodel.DeviceModel`, made in the server process.
        options: keyword arguments for it, as JSON can carry them.
    """

    factory: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def to_wire(self) -> dict[str, Any]:
        """Return the form that the server reads."""
        return {"factory": self.factory, "options": dict(self.options)}


DEFAULT_CARD = CardSpec()


class MockBus:
    """The buses of one fake machine. A context manager; `close` ends every program started through it."""

    def __init__(self, python: str = SYSTEM_PYTHON) -> None:
        """Start the server.

        Raises:
            MockBusError: umockdev or its bindings are not installed.
        """
        self._records: dict[UsbLocation, UsbRecord] = {}
        self._last_address: dict[int, int] = {}
        self._children: dict[int, subprocess.Popen[str]] = {}
        self._server = subprocess.Popen(
            [python, "-m", "tests.sim.mockbus_server"],
            cwd=CHECKOUT,
            env=self._server_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        self._root = ""
        try:
            self._root = self._answer()["root"]
        except MockBusError:
            self.close()
            raise

    @staticmethod
    def _server_environment() -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        kept |= {"LD_PRELOAD": PRELOAD, "PYTHONPATH": str(CHECKOUT), "PYTHONDONTWRITEBYTECODE": "1"}
        if os.access("/dev/shm", os.W_OK):
            # filling the testbed is many small files: several times faster in memory
            kept["TMPDIR"] = "/dev/shm"
        return kept

    def __enter__(self) -> MockBus:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all programs and the server, and remove the testbed."""
        for child in self._children.values():
            if child.poll() is None:
                child.terminate()
        for child in self._children.values():
            _end(child)
        if self._server.stdin is not None:
            self._server.stdin.close()
        _end(self._server)
        if self._server.stdout is not None:
            self._server.stdout.close()
        if self._root:
            shutil.rmtree(self._root, ignore_errors=True)

    # ---- talking to the server

    def _answer(self) -> dict[str, Any]:
        line = self._server.stdout.readline() if self._server.stdout is not None else ""
        if not line:
            code = self._server.wait()
            raise MockBusError(f"the testbed's process ended with {code}; {INSTALL_HINT}")
        answer: dict[str, Any] = json.loads(line)
        if not answer["ok"]:
            raise MockBusError(answer["error"])
        return answer

    def _ask(self, operation: str, **request: Any) -> dict[str, Any]:
        if self._server.stdin is None:
            raise MockBusError("the testbed is closed")
        try:
            self._server.stdin.write(json.dumps({"op": operation, **request}) + "\n")
            self._server.stdin.flush()
        except BrokenPipeError:
            pass  # _answer says what became of it
        return self._answer()

    # ---- plugging

    @property
    def root(self) -> Path:
        """The testbed's directory; `root / "sys"` is what programs see as /sys."""
        return Path(self._root)

    @property
    def ports(self) -> tuple[UsbLocation, ...]:
        """Where devices are plugged in, oldest first."""
        return tuple(self._records)

    def add(
        self,
        record: UsbRecord,
        *,
        serial: str | None = None,
        strings: bool = True,
        ccid: bool = False,
        card: CardSpec | None = DEFAULT_CARD,
        bus: int | None = None,
        port: int | None = None,
    ) -> UsbLocation:
        """Plug a device in; "add" events go out.

        Args:
            record: the device.
            serial: its serial number.
            strings: answer requests for strings; False is a device that stalls them.
            ccid: answer the CCID bulk protocol, for pcscd.
            card: the card in the reader when `ccid`; None for an empty slot.
            bus: the bus number, by default the first with room.
            port: the root hub's port, by default the lowest free one. A device plugged in again gets a new address.
        """
        model = {
            "record": record.to_json(),
            "serial": serial,
            "strings": strings,
            "card": card.to_wire(record) if card is not None and ccid else None,
        }
        return self._plug(record, serial, model if strings or ccid else None, bus, port)

    def add_device(
        self, record: UsbRecord, device: DeviceSpec, *, serial: str | None = None, bus: int | None = None
    ) -> UsbLocation:
        """Plug in a simulated device: sysfs shows `record` (see `UsbRecord.from_descriptors`), `device` answers."""
        return self._plug(record, serial, device.to_wire(), bus, None)

    def _plug(
        self, record: UsbRecord, serial: str | None, model: dict[str, Any] | None, bus: int | None, port: int | None
    ) -> UsbLocation:
        where = self._place(bus, port)
        blocks = umockdev_blocks(record, where, serial)
        if where.bus not in self._last_address:
            blocks = (umockdev_block(root_hub(where.bus)), *blocks)
        self._ask("plug", blocks=blocks, node=where.node, model=model)
        self._last_address[where.bus] = where.device
        self._records[where] = record
        return where

    def _place(self, bus: int | None, port: int | None) -> UsbLocation:
        if bus is None:
            counts = {number: sum(w.bus == number for w in self._records) for number in range(1, 256)}
            bus = next(number for number, count in counts.items() if count < MAX_DEVICES_PER_BUS - 1)
        used = [where for where in self._records if where.bus == bus]
        ports = {where.port for where in used}
        if port in ports:
            raise MockBusError(f"something is plugged in at {bus}-{port}")
        if port is None:
            port = next(number for number in range(1, MAX_DEVICES_PER_BUS) if number not in ports)
        addresses = {where.device for where in used}
        # like the kernel (linux/drivers/usb/core/hub.c, choose_devnum): onwards from the last, then round
        last = self._last_address.get(bus, 1)
        candidates = (*range(last + 1, MAX_DEVICES_PER_BUS + 2), *range(2, last + 1))
        device = next(number for number in candidates if number not in addresses)
        return UsbLocation(bus=bus, port=port, device=device)

    def remove(self, port: UsbLocation) -> None:
        """Unplug a device; "remove" events go out, interfaces first. Open files see ENODEV.

        Raises:
            KeyError: nothing is plugged in there.
        """
        record = self._records.pop(port)
        paths = [node.sys_path for node in interface_nodes(record, port)]
        self._ask("unplug", paths=[*paths, port.sys_path], node=port.node)

    def insert(self, port: UsbLocation, card: CardSpec | None) -> None:
        """Put a card into a reader added with `ccid`, or take it out (None)."""
        wire = card.to_wire(self._records[port]) if card is not None else None
        self._ask("insert", node=port.node, card=wire)

    def apdus(self, port: UsbLocation) -> tuple[bytes, ...]:
        """Return every block the host sent to the card, oldest first."""
        return tuple(bytes.fromhex(item) for item in self._ask("apdus", node=port.node)["apdus"])

    # ---- programs

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the environment that makes a program see this bus."""
        return {**os.environ, "LD_PRELOAD": PRELOAD, "UMOCKDEV_DIR": self._root, **(extra or {})}

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        timeout_s: float = 60.0,
        stdin: str = "",
        check: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program on the bus and return what it said.

        Raises:
            subprocess.TimeoutExpired: it took longer than `timeout_s`.
            subprocess.CalledProcessError: `check` was asked for and it failed.
        """
        return subprocess.run(
            list(argv),
            env=self.environment(env),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=check,
        )

    def popen(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        stdout: int | IO[str] | None = subprocess.PIPE,
        stderr: int | IO[str] | None = None,
    ) -> subprocess.Popen[str]:
        """Start a program on the bus; it is ended with the bus at the latest.

        Two programs that listen for events must not have the same file number for it: umockdev would send to the last
        one only. Each further program is therefore started with some more files open.
        """
        slot = next(number for number in range(1000) if number not in self._running())
        child = subprocess.Popen(
            [*_with_open_files(slot * _FILES_BETWEEN_LISTENERS), *argv],
            env=self.environment(env),
            stdin=subprocess.PIPE,
            stdout=stdout,
            stderr=stderr,
            text=True,
        )
        self._children[slot] = child
        return child

    def _running(self) -> set[int]:
        return {slot for slot, child in self._children.items() if child.poll() is None}


def _with_open_files(count: int) -> list[str]:
    if not count:
        return []
    opening = 'for ((n = 3; n < 3 + $1; n++)); do eval "exec $n</dev/null"; done; shift; exec "$@"'
    return ["bash", "-c", opening, "bash", str(count)]


def _end(process: subprocess.Popen[str], grace_s: float = 10.0) -> None:
    try:
        process.wait(grace_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
