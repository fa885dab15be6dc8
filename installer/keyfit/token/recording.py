"""A recorded token, for `--emulate`: what was on the bus, what PC/SC listed, what the PKCS#11 modules reported."""

from pathlib import Path
from typing import Literal

from msgspec import Struct, structs

from keyfit.core.text import clean
from keyfit.errors import DataError
from keyfit.model.certificate import ModuleReport
from keyfit.model.usb import UsbDevice
from keyfit.strictjson import decode
from keyfit.token.protocol import safe_report

MAX_BYTES = 1_000_000
MAX_DEVICES = 64
MAX_MODULES = 16
MAX_ATR_HEX = 66
"""33 bytes (ISO/IEC 7816-3)."""


class RecordedDevice(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One device of the bus and what was seen of it.

    Attributes:
        reader: name that PC/SC gave it; empty if it was no reader, or to have it made from the driver's list.
        atr: answer-to-reset of the card in it, upper-case hex; empty if there was none.
        modules: reports of PKCS#11 modules by the path of the module.
    """

    device: UsbDevice
    reader: str = ""
    atr: str = ""
    modules: dict[str, ModuleReport] = {}


class Recording(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file's content. `note` says where it comes from."""

    keyfit: Literal[1]
    note: str = ""
    devices: tuple[RecordedDevice, ...] = ()


def load_recording(path: Path) -> Recording:
    """Read a recording.

    Raises:
        DataError: "recording-unreadable" or "recording-malformed", with every problem found.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DataError("recording-unreadable", f"The recording {path} cannot be read: {error.strerror}.",
                        hint="Name a file that `keyfit record FILE` has written.") from error
    return parse_recording(data, str(path))


def parse_recording(data: bytes, name: str) -> Recording:
    """Decode a recording strictly; texts come out safe to show.

    Raises:
        DataError: "recording-malformed", with every problem found.
    """
    try:
        recording = decode(data, Recording, max_bytes=MAX_BYTES)
    except ValueError as error:
        raise _malformed(name, (str(error),)) from error
    problems = [f"{len(recording.devices)} devices; at most {MAX_DEVICES}"] if len(
        recording.devices) > MAX_DEVICES else []
    for index, device in enumerate(recording.devices[:MAX_DEVICES]):
        problems += [f"devices[{index}]: {problem}" for problem in _device_problems(device)]
    if problems:
        raise _malformed(name, tuple(problems))
    return structs.replace(recording, devices=tuple(map(_safe, recording.devices)))


def _device_problems(recorded: RecordedDevice) -> list[str]:
    device = recorded.device
    words = {"id_vendor": device.id_vendor, "id_product": device.id_product, "bcd_device": device.bcd_device}
    found = [f"{name} is not within 16 bits" for name, value in words.items() if not 0 <= value <= 0xFFFF]
    for interface in device.interfaces:
        if any(not 0 <= value <= 0xFF for value in structs.astuple(interface)):
            found.append(f"interface {interface.b_interface_number} has a field that is not within 8 bits")
    if not device.bus_path:
        found.append("bus_path is empty")
    if len(recorded.atr) > MAX_ATR_HEX or len(recorded.atr) % 2 or set(recorded.atr) - set("0123456789ABCDEF"):
        found.append("atr is no upper-case hex of at most 33 bytes")
    if len(recorded.modules) > MAX_MODULES:
        found.append(f"{len(recorded.modules)} modules; at most {MAX_MODULES}")
    for path, report in recorded.modules.items():
        if not path.startswith("/") or report.path != path:
            found.append(f"module {clean(path, 80)!r}: the path has to be absolute and the report's own")
    return found


def _safe(recorded: RecordedDevice) -> RecordedDevice:
    device = structs.replace(recorded.device, manufacturer=clean(recorded.device.manufacturer),
                             product=clean(recorded.device.product), bus_path=clean(recorded.device.bus_path, 40))
    return structs.replace(recorded, device=device, reader=clean(recorded.reader),
                           modules={path: safe_report(report, path) for path, report in recorded.modules.items()})


def _malformed(name: str, problems: tuple[str, ...]) -> DataError:
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return DataError("recording-malformed", f"{name} is no recording: {problems[0]}{more}", problems,
                     hint="Record the token again with `keyfit record FILE`.")
