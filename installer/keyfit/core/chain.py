"""The chain token - USB - driver - reader - module - browser: which link is the first to break?

Success means that the token answered: a reader that reports a card, or a module that lists the token. Files in the
right place are no proof.
"""

import re
from collections.abc import Mapping

from msgspec import Struct

from keyfit.model.certificate import ModuleReport, Reader
from keyfit.model.result import Link, Verdict
from keyfit.model.usb import CLASS_SMART_CARD, UsbDevice

_SERIAL = re.compile(r" \([0-9A-Za-z]{1,126}\)(?= [0-9A-F]{2} [0-9A-F]{2}$)")
"""The serial number that pcscd puts into a reader's name, before the numbers of reader and slot (pcsc-lite,
src/hotplug_libudev.c)."""


class Evidence(Struct, frozen=True, kw_only=True):
    """What was found, link by link.

    Attributes:
        device: the token on the bus, or None.
        shows_disc: True if it shows itself as a CD-ROM now and cannot be reached as a token.
        missing: what of the driver is not in place, in plain words (unsatisfied steps that are no registrations).
        readers: what PC/SC lists; None if PC/SC did not answer, with `reader_error` and `reader_hint`.
        expected_readers: names that the installed drivers give this device; any of them may carry a suffix.
        modules: one report per PKCS#11 module of the brand; empty if the brand has none.
        browsers: browser -> True if the module is registered there, for browsers that are installed.
    """

    brand: str
    brand_name: str
    device: UsbDevice | None
    shows_disc: bool = False
    missing: tuple[str, ...] = ()
    readers: tuple[Reader, ...] | None = None
    reader_error: str = ""
    reader_hint: str = ""
    expected_readers: tuple[str, ...] = ()
    modules: tuple[ModuleReport, ...] = ()
    browsers: Mapping[str, bool] = {}


def judge(evidence: Evidence) -> Verdict:
    """Make the links; once one is broken, those that depend on it are "not-checked"."""
    links = [_bus(evidence)]
    for make in (_driver, _reader, _module, _token):
        links.append(_unchecked(make.__name__[1:]) if _is_broken(links) else make(evidence))
    broken_before_browsers = _is_broken(links)
    for browser, registered in sorted(evidence.browsers.items()):
        link_id = f"browser-{browser}"
        links.append(_unchecked(link_id) if broken_before_browsers else _browser(link_id, browser, registered))
    answered = any(link.id == "token" and link.state == "ok" for link in links)
    return Verdict(brand=evidence.brand, works=answered and not _is_broken(links), links=tuple(links))


def own_readers(evidence: Evidence) -> tuple[Reader, ...]:
    """The readers that belong to the device: by the name its driver gives it, else by its product string."""
    readers = evidence.readers or ()
    names = tuple(n for n in evidence.expected_readers if n)
    found = tuple(r for r in readers if names and r.name.startswith(names))
    if not found and evidence.device is not None and evidence.device.product:
        found = tuple(r for r in readers if evidence.device.product in r.name)
    return found


def _shown(name: str) -> str:
    """A reader's name without the token's serial number: what `verify` says is sent to those who help (security I2)."""
    return _SERIAL.sub("", name)


def _is_broken(links: list[Link]) -> bool:
    return any(link.state == "broken" for link in links)


def _unchecked(link_id: str) -> Link:
    return Link(id=link_id, state="not-checked", text="Not looked at: an earlier link is broken.")


def _bus(evidence: Evidence) -> Link:
    if evidence.device is None:
        return Link(id="bus", state="broken", text=f"No {evidence.brand_name} token is plugged in.",
                    cure="Plug the token in, straight into the computer rather than into a hub.")
    return Link(id="bus", state="ok", text=f"{evidence.device.ids} is on the bus at {evidence.device.bus_path}.")


def _driver(evidence: Evidence) -> Link:
    if evidence.missing:
        return Link(id="driver", state="broken", text="Not in place: " + "; ".join(evidence.missing),
                    cure=f"keyfit install {evidence.brand}")
    return Link(id="driver", state="ok", text="Everything that the driver needs is in place.")


def _reader(evidence: Evidence) -> Link:
    device = evidence.device
    if evidence.shows_disc:
        return Link(id="reader", state="broken", text="The token shows itself as a disc.",
                    cure="Eject the disc in the file manager and leave the token plugged in.")
    if device is not None and not device.has_class(CLASS_SMART_CARD) and not evidence.expected_readers:
        return Link(id="reader", state="not-needed", text="This token does not use PC/SC.")
    if evidence.readers is None:
        return Link(id="reader", state="broken", text=evidence.reader_error, cure=evidence.reader_hint)
    own = own_readers(evidence)
    if not own:
        others = ", ".join(_shown(r.name) for r in evidence.readers) or "none"
        return Link(id="reader", state="broken", text=f"PC/SC does not list the token; it lists: {others}.",
                    cure="Unplug the token and plug it in again; if that does not help: "
                    f"keyfit repair {evidence.brand}")
    if not any(r.atr for r in own):
        return Link(id="reader", state="broken", cure="Unplug the token and plug it in again.",
                    text=f"PC/SC lists {_shown(own[0].name)}, but the token in it does not answer.")
    answered = next(r for r in own if r.atr)
    return Link(id="reader", state="ok", text=f"PC/SC lists {_shown(answered.name)}; it answered with {answered.atr}.")


def _module(evidence: Evidence) -> Link:
    if not evidence.modules:
        return Link(id="module", state="not-needed", text="This brand has no PKCS#11 module for this system.")
    loaded = [m for m in evidence.modules if m.loaded]
    if not loaded:
        first = evidence.modules[0]
        return Link(id="module", state="broken", text=f"{first.path} could not be used: {first.error}",
                    cure=f"keyfit repair {evidence.brand}")
    return Link(id="module", state="ok", text=f"{loaded[0].path} works: {loaded[0].description}")


def _token(evidence: Evidence) -> Link:
    own = own_readers(evidence)
    if not evidence.modules:
        if any(r.atr for r in own):
            return Link(id="token", state="ok", text="The token answered its reader.")
        return Link(id="token", state="not-needed", text="Nothing of this brand can ask the token here.")
    # A slot that is there without a reader behind it proves nothing: some modules list one on any machine.
    reader_answers = any(r.atr for r in own) or (evidence.device is not None and not evidence.device.has_class(
        CLASS_SMART_CARD))
    slots = [s for m in evidence.modules if m.loaded for s in m.slots]
    if not slots or not reader_answers:
        return Link(id="token", state="broken", text="The module works but does not see the token.",
                    cure="Unplug the token and plug it in again; close other programs that use it.")
    names = ", ".join(s.label or s.model or _shown(s.slot) for s in slots)
    count = sum(len(s.certificates) for s in slots)
    return Link(id="token", state="ok", text=f"The token answered: {names}; certificates on it: {count}.")


def _browser(link_id: str, browser: str, registered: bool) -> Link:
    if registered:
        return Link(id=link_id, state="ok", text=f"The module is registered in {browser.capitalize()}.")
    return Link(id=link_id, state="broken", text=f"The module is not registered in {browser.capitalize()}.",
                cure="keyfit repair")
