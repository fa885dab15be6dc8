"""A recorded token in place of a real one, for `--emulate`.

What depends on the machine stays real: the reader is listed only if a PC/SC driver under the machine's root knows the
device, and a PKCS#11 module is there only if its file is. So the emulated token works exactly when the right things
are installed.
"""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

from msgspec import structs

from keyfit.core import ccidlist
from keyfit.errors import DataError, HostError
from keyfit.model.certificate import ModuleReport, Reader, SlotReport
from keyfit.model.usb import CLASS_HUB, CLASS_SMART_CARD, UsbDevice
from keyfit.ports import Host
from keyfit.token.protocol import failed
from keyfit.token.recording import RecordedDevice, Recording, load_recording

DRIVERS = "/usr/lib/pcsc/drivers"
"""The daemon's folder of driver bundles (pcscd(8), usbdropdir)."""
CCID_LIST = "/etc/libccid_Info.plist"
"""libccid's list, to which the Info.plist of its bundle is a link (Debian package libccid)."""
CCID_BUNDLE = "ifd-ccid.bundle"
LOOK_EVERY_S = 0.05
"""How often the recording is looked at while waiting: a file has no event that every system can be asked for."""


class EmulatedUsbBus:
    """The bus as the recording has it. Rewriting the file is plugging and unplugging.

    Args:
        recording: path of the recording.
    """

    def __init__(self, recording: Path) -> None:
        self._recording = recording
        self._known: tuple[UsbDevice, ...] | None = None

    def devices(self) -> tuple[UsbDevice, ...]:
        """Every recorded device but hubs, sorted by bus path.

        Raises:
            DataError: the recording cannot be read or is malformed.
        """
        self._known = self._read()
        return self._known

    def wait_for_change(self, timeout_s: float) -> bool:
        """Block until the recording holds other devices than `devices` gave last; False if it did not in time.

        Raises:
            DataError: the first call ever, and the recording cannot be read or is malformed.
        """
        if self._known is None:
            self._known = self._read()
        end = time.monotonic() + timeout_s
        pause = threading.Event()
        stamp = None
        while True:
            now = self._stamp()
            if now != stamp and self._changed():
                return True
            stamp = now
            left = end - time.monotonic()
            if left <= 0:
                return False
            pause.wait(min(LOOK_EVERY_S, left))

    def _changed(self) -> bool:
        try:
            found = self._read()
        except DataError:
            return False  # half-written; its time stamp will change once more
        changed, self._known = found != self._known, found
        return changed

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            status = self._recording.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _read(self) -> tuple[UsbDevice, ...]:
        devices = (recorded.device for recorded in load_recording(self._recording).devices)
        return tuple(sorted((d for d in devices if d.b_device_class != CLASS_HUB), key=lambda d: d.bus_path))


class EmulatedTokenReader:
    """Readers and modules of the recording, as far as this machine's drivers reach them.

    Args:
        recording: path of the recording.
        host: the machine whose driver bundles and module files count.
    """

    def __init__(self, recording: Path, host: Host) -> None:
        self._recording = recording
        self._host = host

    def readers(self) -> tuple[Reader, ...]:
        """Readers whose device a driver bundle of the machine lists, numbered as the daemon does.

        Raises:
            DataError: the recording cannot be read or is malformed.
        """
        return tuple(reader for _, reader in self._seen(load_recording(self._recording)))

    def load_module(self, path: str) -> ModuleReport:
        """The recorded report of a module whose file is there.

        Raises:
            DataError: the recording cannot be read or is malformed.
        """
        if not self._host.exists(path):
            return failed(path, f"{path}: cannot open shared object file: No such file or directory")
        recording = load_recording(self._recording)
        reached = [device for device, _ in self._seen(recording)]
        report: ModuleReport | None = None
        slots: list[SlotReport] = []
        for recorded in recording.devices:
            if path in recorded.modules:
                report = recorded.modules[path]
                if recorded in reached or not recorded.device.has_class(CLASS_SMART_CARD):
                    slots += report.slots
        if report is None:
            return failed(path, "the recording says nothing about this module")
        return structs.replace(report, slots=tuple(slots))

    def _seen(self, recording: Recording) -> Iterator[tuple[RecordedDevice, Reader]]:
        names = self._listed()
        number = -1
        for recorded in recording.devices:
            name = names.get((recorded.device.id_vendor, recorded.device.id_product))
            if name is not None:
                number += 1
                # "<name> <number of the reader> <slot>", as the daemon writes it (pcsc-lite, src/readerfactory.c)
                yield recorded, Reader(name=recorded.reader or f"{name} {number:02X} 00", atr=recorded.atr)

    def _listed(self) -> dict[tuple[int, int], str]:
        """Name by vendor and product id of what the machine's drivers list; one broken list empties all of them."""
        found: dict[tuple[int, int], str] = {}
        for bundle in self._host.glob(DRIVERS, "*.bundle"):
            lists = ccidlist.parse(self._plist(bundle))
            if not lists.even:
                return {}
            found.update({(e.id_vendor, e.id_product): e.friendly_name for e in lists.entries()})
        return found

    def _plist(self, bundle: str) -> bytes:
        try:
            data = self._host.read_bytes(f"{bundle}/Contents/Info.plist")
            if data is None and bundle.endswith(f"/{CCID_BUNDLE}"):
                data = self._host.read_bytes(CCID_LIST)
        except HostError:
            return b""
        return data or b""
