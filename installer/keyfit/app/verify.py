"""Proof that the token works, link by link."""

from typing import Any

from keyfit.app.context import Context
from keyfit.app.devices import listed_readers
from keyfit.app.select import BRAND_NAME, choices, tokens, unknown_brand
from keyfit.core.chain import Evidence, judge
from keyfit.core.match import Decision
from keyfit.core.plan import Draft, draft, needed_packages
from keyfit.engine import steps, transaction
from keyfit.errors import HostError, KeyfitError, NoTokenError, Outcome, UserError
from keyfit.model.catalog import Brand, Model, brand_target
from keyfit.model.certificate import ModuleReport, Reader
from keyfit.model.plan import DistributionPackages, FirefoxPolicy, NssModule, P11KitModule, PackageFile
from keyfit.model.result import Message, OperationResult, Verdict
from keyfit.model.usb import UsbDevice


def verify(context: Context, name: str | None) -> OperationResult:
    """The `verify` command: the outcome is DONE only if the token answered.

    Raises:
        NoTokenError: no token is plugged in and no brand was named.
    """
    brand, model, device = _whom(context, name)
    verdict = examine(context, brand, model, device)
    return OperationResult(command="verify", outcome=outcome_of(verdict), data={"verdict": as_data(verdict)},
                           messages=(*messages_of(verdict), *_restart_first(context, verdict)))


def examine(context: Context, brand: Brand, model: Model | None, device: UsbDevice | None) -> Verdict:
    """Gather the evidence and judge it."""
    wanted = draft(brand, model, device, context.facts, target="", installed={})
    missing, browsers = _in_place(context, wanted)
    readers, error, hint = _readers(context)
    reports: list[ModuleReport] = []
    if device is not None and not missing:
        reports = [context.tokens.load_module(m.path) for m in wanted.modules]
    expected = tuple(n for v, p, n in listed_readers(context.host)
                     if device is not None and (v, p) == (device.id_vendor, device.id_product))
    return judge(Evidence(
        brand=brand.brand, brand_name=brand.names.get("en", brand.brand), device=device,
        shows_disc=_shows_disc(model, device), missing=missing, readers=readers, reader_error=error, reader_hint=hint,
        expected_readers=expected, modules=tuple(reports), browsers=browsers))


def outcome_of(verdict: Verdict) -> Outcome:
    """DONE if it works; NO_TOKEN if nothing is plugged in or the driver is missing; else FAILED_UNCHANGED."""
    if verdict.works:
        return Outcome.DONE
    broken = verdict.first_broken
    return Outcome.NO_TOKEN if broken and broken.id in ("bus", "driver") else Outcome.FAILED_UNCHANGED


def messages_of(verdict: Verdict) -> tuple[Message, ...]:
    """One message: it works, or the first broken link and its cure."""
    broken = verdict.first_broken
    if verdict.works:
        return (Message(level="info", code="token-works", text="The token answered: it works."),)
    if broken is None:
        text = "Nothing here can ask the token for an answer."
        return (Message(level="warning", code="token-not-proven", text=text),)
    return (Message(level="error", code=f"broken-{broken.id}", text=broken.text, hint=broken.cure),)


def as_data(verdict: Verdict) -> dict[str, Any]:
    """The verdict for the JSON interface."""
    broken = verdict.first_broken
    return {
        "brand": verdict.brand,
        "works": verdict.works,
        "first_broken": broken.id if broken else None,
        "links": [{"id": k.id, "state": k.state, "text": k.text, "cure": k.cure} for k in verdict.links],
    }


def _restart_first(context: Context, verdict: Verdict) -> tuple[Message, ...]:
    """That the computer has to be started again, if that is still to be done and it does not work."""
    if verdict.works:
        return ()
    try:
        pending = transaction.restart_pending(context.host, context.journal)
    except HostError:
        return ()  # the record is open to administrators only
    if verdict.brand not in pending:
        return ()
    return (Message(level="warning", code="restart-required", text="What was installed takes effect when this computer has been"
                    " started again, which it has not been yet.", hint="Restart it, then run this again."),)


def find_brand(context: Context, name: str) -> Brand:
    """The shipped data of a brand; of one that is newer than this program, the signed data.

    Raises:
        UserError: there is no such brand.
    """
    known = {brand.brand: brand for brand in context.catalog.brands}
    if name in known:
        return known[name]
    found = _published(context, name)
    if found is None:
        raise unknown_brand(name, list(known))
    return found


def _published(context: Context, name: str) -> Brand | None:
    """A brand that only the repository has; None also if it cannot be asked."""
    if not BRAND_NAME.match(name):
        return None
    facts = context.facts
    try:
        offered = choices(context, brand_target(name, facts.system, facts.architecture))
    except KeyfitError:
        return None
    return next((brand for brand in offered.brands if brand.brand == name), None) if offered is not None else None


def _whom(context: Context, name: str | None) -> tuple[Brand, Model | None, UsbDevice | None]:
    plugged = tokens(context)
    if name is not None:
        brand = find_brand(context, name)
        own = [(d, c) for d in plugged for c in d.candidates if c.fits and c.brand.brand == name]
        return (brand, own[0][1].model, own[0][0].device) if own else (brand, None, None)
    named: list[Decision] = [d for d in plugged if d.brand is not None] or [d for d in plugged if d.chosen is not None]
    if not named:
        raise NoTokenError("no-token", "No token that Keyfit knows is plugged in.",
                           hint="Plug the token in, or name its brand: `keyfit verify BRAND`.")
    brands = sorted({d.chosen.brand.brand for d in named if d.chosen})
    if len(brands) > 1:
        raise UserError("several-tokens", f"Several tokens are plugged in: {', '.join(brands)}.",
                        hint="Say which: `keyfit verify BRAND`.")
    chosen = named[0].chosen
    if chosen is None:
        raise NoTokenError("no-token", "No token that Keyfit knows is plugged in.")
    return chosen.brand, chosen.model, named[0].device


def _in_place(context: Context, wanted: Draft) -> tuple[tuple[str, ...], dict[str, bool]]:
    """What of the driver is missing, and which browsers know the module."""
    names = needed_packages(wanted.brand, wanted.model, context.facts, installable=True)
    archives = {p.name for p in wanted.brand.package if p.kind == "archive"}  # their files are looked at below
    absent = [name for name in names if name not in archives and not context.host.installed(name)]
    missing, browsers = [f"the package {name}" for name in absent], {}
    for step in wanted.steps:
        there = steps.detect(step.change, context.host).satisfied
        match step.change:
            case FirefoxPolicy():
                browsers["firefox"] = there
            case NssModule():
                browsers["chromium"] = there
            case P11KitModule():
                browsers["p11-kit"] = there
            case DistributionPackages() | PackageFile():
                pass  # counted by name above, wherever they come from
            case _:
                if not there:
                    missing.append(step.action)
    return tuple(missing), browsers


def _readers(context: Context) -> tuple[tuple[Reader, ...] | None, str, str]:
    try:
        return context.tokens.readers(), "", ""
    except HostError as error:
        return None, error.message, error.hint


def _shows_disc(model: Model | None, device: UsbDevice | None) -> bool:
    if model is None or device is None or device.has_class(0x0B):
        return False
    return any(m.cd_rom and (m.id_vendor, m.id_product) == (device.id_vendor, device.id_product) for m in model.match)
