"""keyfit devices."""

from typing import Any

import click

from keyfit.app.devices import list_devices
from keyfit.model.result import OperationResult
from keyfit.ui.cli import Session
from keyfit.ui.options import common, merge
from keyfit.ui.output import emit
from keyfit.ui.reporters import SilentReporter

STATES = {
    "ready": "driver in place",
    "incomplete": "driver incomplete",
    "missing": "driver missing",
    "disc": "shows itself as a disc, not as a token",
    "no-driver-known": "no driver known for this system",
    "unknown-token": "unknown brand",
    "ambiguous": "may be of several brands",
}


@click.command(epilog="Example: keyfit devices --explain")
@click.option("--explain", is_flag=True, help="Every candidate driver, its rank, and why each lost.")
@click.option("--all", "all_devices", is_flag=True, help="Also USB devices that are no tokens.")
@common
@click.pass_obj
def command(session: Session, /, explain: bool, all_devices: bool, **given: Any) -> int:
    """The tokens plugged in: brand, product, USB ids, the driver they need and whether it is there."""
    merge(session.options, given)
    context = session.compose(session.options, SilentReporter(False))
    result = list_devices(context, all_devices=all_devices, explain=explain)
    return emit(result, session.options, lambda r: render(r, session.options.lang))


def render(result: OperationResult, language: str) -> str:
    """The list as text: one paragraph a device."""
    devices = result.data["devices"]
    if not devices:
        return "No token is plugged in."
    return "\n".join(_device(d, language) for d in devices)


def _device(device: dict[str, Any], language: str) -> str:
    ids = f"{device['id_vendor']:04X}:{device['id_product']:04X}"
    text = " ".join(dict.fromkeys(t for t in (device["manufacturer"], device["product"]) if t)) or "(no name)"
    lines = [f"{device['bus_path']:<8} {ids}  {text}"]
    driver = device["driver"]
    if driver is not None:
        brand = device["brand_names"].get(language) or device["brand_names"].get("en") or device["brand"]
        if brand:
            lines.append(f"         brand:  {brand} ({device['brand']}), {device['model']} - by its USB ids, unverified")
        elif device["tied_brands"]:
            lines.append(f"         brand:  {' or '.join(device['tied_brands'])}")
        lines.append(f"         driver: {STATES[driver['state']]}{_needs(driver)}")
    for candidate in device.get("candidates", ()):
        mark = "chosen" if candidate["chosen"] else "lost"
        lines.append(f"         {candidate['rank']:>5}  {mark:<6}  {candidate['driver']} - {candidate['model']}: "
                     f"{candidate['reason']}")
    return "\n".join(lines)


def _needs(driver: dict[str, Any]) -> str:
    if not driver["required"]:
        return ""
    missing = [name for name in driver["required"] if name not in driver["installed"]]
    return f" (missing: {', '.join(missing)})" if missing else f" ({', '.join(driver['required'])})"
