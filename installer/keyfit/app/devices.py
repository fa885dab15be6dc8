"""Which tokens are plugged in, whose they are, what they need and what is there."""

from typing import Any

from keyfit.app.context import Context
from keyfit.core import ccidlist
from keyfit.core.match import Candidate, Decision, why_lost
from keyfit.core.plan import archive_prefix, needed_packages
from keyfit.errors import Outcome
from keyfit.model.catalog import Brand
from keyfit.model.result import OperationResult
from keyfit.model.usb import CLASS_SMART_CARD, UsbDevice
from keyfit.ports import Host

DRIVER_DIRECTORY = "/usr/lib/pcsc/drivers"
"""pcsc-lite's folder of reader drivers (pcscd(8), Debian package pcscd)."""


def list_devices(context: Context, *, all_devices: bool = False, explain: bool = False) -> OperationResult:
    """List the tokens on the bus (`all_devices`: everything on it)."""
    decisions = [context.index.decide(device) for device in context.bus.devices()]
    shown = [d for d in decisions if all_devices or d.is_token]
    drivers = DriverStates(context)
    return OperationResult(
        command="devices",
        outcome=Outcome.DONE,
        data={"devices": [_describe(d, drivers, explain) for d in shown]},
    )


def _describe(decision: Decision, drivers: "DriverStates", explain: bool) -> dict[str, Any]:
    device = decision.device
    brand = decision.brand
    described: dict[str, Any] = {
        "id_vendor": device.id_vendor,
        "id_product": device.id_product,
        "bcd_device": device.bcd_device,
        "hardware_id": device.hardware_id,
        "manufacturer": device.manufacturer,
        "product": device.product,
        "bus_path": device.bus_path,
        "interfaces": [
            {
                "b_interface_number": i.b_interface_number,
                "b_interface_class": i.b_interface_class,
                "b_interface_sub_class": i.b_interface_sub_class,
                "b_interface_protocol": i.b_interface_protocol,
            }
            for i in device.interfaces
        ],
        "is_token": decision.is_token,
        "brand": brand.brand if brand else None,
        "brand_names": dict(brand.names) if brand else {},
        "verified": False if brand else None,  # ids and texts are what any gadget can tell; `verify` asks the token
        "model": decision.chosen.model.name if brand and decision.chosen else None,
        "tied_brands": list(decision.tied),
        "driver": drivers.of(decision) if decision.is_token else None,
    }
    if explain:
        described["candidates"] = _candidates(decision)
    return described


def _candidates(decision: Decision) -> list[dict[str, Any]]:
    lost = why_lost(decision)
    return [
        {
            "driver": candidate.brand.brand,
            "model": candidate.model.name,
            "rank": candidate.rank,
            "chosen": candidate is decision.chosen,
            "reason": lost.get((candidate.brand.brand, candidate.model.id), candidate.reason),
        }
        for candidate in decision.candidates
    ]


class DriverStates:
    """What each device needs and has, looked up once per model and once per list of readers.

    `state` is one of "ready" (all that the brand's data asks for is there), "incomplete", "missing", "disc" (the token
    shows itself as a CD-ROM), "no-driver-known", "unknown-token" (nothing claims it), "ambiguous".
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._packages: dict[str, tuple[list[str], list[str]]] = {}
        self._installed: dict[str, bool] = {}
        self._listed: set[tuple[int, int]] | None = None

    def of(self, decision: Decision) -> dict[str, Any]:
        """{"required": [...], "installed": [...], "state": ...} for a token."""
        if decision.chosen is None:
            state = "ambiguous" if decision.tied else "unknown-token"
            return {"required": [], "installed": [], "state": state}
        required, installed = self._needs(decision.chosen)
        return {"required": required, "installed": installed,
                "state": self._state(decision.device, decision.chosen, required, installed)}

    def _needs(self, candidate: Candidate) -> tuple[list[str], list[str]]:
        key = f"{candidate.brand.brand}/{candidate.model.id}"
        if key not in self._packages:
            context = self._context
            names = list(needed_packages(candidate.brand, candidate.model, context.facts))
            for name in names:
                if name not in self._installed:
                    self._installed[name] = self._is_there(candidate.brand, name)
            self._packages[key] = (names, [name for name in names if self._installed[name]])
        return self._packages[key]

    def _is_there(self, brand: Brand, name: str) -> bool:
        """A package is in the system's database; an archive's files are where it is unpacked."""
        host = self._context.host
        archives = [p for p in brand.package if p.name == name and p.kind == "archive"]
        return any(all(host.exists(f"{archive_prefix(brand, a)}/{file}") for file in a.files) for a in archives) or (
            host.installed(name))

    def _state(self, device: UsbDevice, candidate: Candidate, required: list[str], installed: list[str]) -> str:
        if candidate.match.cd_rom and not device.has_class(CLASS_SMART_CARD):
            return "disc"
        if not required:
            return "no-driver-known"
        if len(installed) < len(required):
            return "incomplete" if installed else "missing"
        if device.has_class(CLASS_SMART_CARD) and (device.id_vendor, device.id_product) not in self._reader_ids():
            return "incomplete"
        return "ready"

    def _reader_ids(self) -> set[tuple[int, int]]:
        if self._listed is None:
            self._listed = {pair[:2] for pair in listed_readers(self._context.host)}
        return self._listed


def listed_readers(host: Host) -> list[tuple[int, int, str]]:
    """(vendor id, product id, friendly name) of every reader that an installed PC/SC driver lists.

    Source of the rule that pcscd matches these exact pairs and nothing else: pcsc-lite, src/hotplug_libudev.c.
    """
    found = []
    for bundle in host.glob(DRIVER_DIRECTORY, "*.bundle"):
        data = host.read_bytes(f"{bundle}/Contents/Info.plist")
        if data:
            found += [(e.id_vendor, e.id_product, e.friendly_name) for e in ccidlist.parse(data).entries()]
    return found
