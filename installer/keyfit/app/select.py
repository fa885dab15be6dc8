"""From what the user said and what is plugged in to one brand, one model, one device - or a clear refusal."""

import difflib
import re

from msgspec import Struct

from keyfit.app.context import Context
from keyfit.core.match import Decision, decide
from keyfit.core.rollout import effective
from keyfit.errors import KeyfitError, NoTokenError, Outcome, PolicyError, TrustError, UserError
from keyfit.model.catalog import Brand, Model, brand_target, device_target
from keyfit.model.result import Message
from keyfit.model.usb import CLASS_SMART_CARD, UsbDevice

BRAND_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,47}\Z")


class Selection(Struct, frozen=True, kw_only=True):
    """What a plan is made for.

    Attributes:
        device: None if the brand was asked for by name and is not plugged in.
        by_device: `target` is the device's, not the brand's.
        notes: for the plan: what is worth knowing and is the same every time it is made.
        messages: for the result.
    """

    brand: Brand
    model: Model | None
    device: UsbDevice | None
    target: str
    by_device: bool = False
    notes: tuple[str, ...] = ()
    messages: tuple[Message, ...] = ()


class Choices(Struct, frozen=True, kw_only=True):
    """The brands of a manifest for this machine.

    Attributes:
        brands: each in the version that this machine is to have; those that may not be used are among them, so that they
            can be told as such if they would be chosen.
        refused: brand -> why it may not be used.
        lifted: brand -> why it might not be used, had the administrator's policy not named this version.
        staged: brands of which this machine gets a version that others do not get yet.
    """

    brands: tuple[Brand, ...]
    refused: dict[str, KeyfitError]
    lifted: dict[str, KeyfitError]
    staged: frozenset[str]


def choices(context: Context, target: str) -> Choices | None:
    """What the signed repository offers this machine at a target path; None if it has no such target.

    Raises:
        NetworkError, TrustError: from the repository.
    """
    offer = context.repository.offer(target)
    if offer is None:
        return None
    made = effective(offer.manifest, context.facts.machine, context.installed)
    usable = {b.brand: b for b in made.brands}
    refused = {r.brand.brand: r for r in reversed(offer.refused) if r.brand.brand not in usable}
    lifted = {r.brand.brand: r.error for r in offer.lifted if usable.get(r.brand.brand) == r.brand}
    return Choices(brands=(*usable.values(), *(r.brand for r in refused.values())), lifted=lifted, staged=made.staged,
                   refused={name: r.error for name, r in refused.items()})


def tokens(context: Context) -> list[Decision]:
    """What is plugged in and may be a token, by the shipped brand data."""
    decisions = (context.index.decide(device) for device in context.bus.devices())
    return [d for d in decisions if d.is_token]


def select(context: Context, name: str | None, *, unattended: bool = False) -> Selection:
    """Choose by name, or by what is plugged in. The brand's data comes from the signed repository.

    Args:
        unattended: an administrator prepares the machine: the token need not be there, and another one may be.

    Raises:
        NoTokenError: nothing is plugged in, nothing is known for it, or it is of another brand than asked for.
        UserError: several tokens are plugged in, or no such brand.
        PolicyError: two brands claim the device and nothing tells them apart.
        NetworkError, TrustError: from the repository; or this version of the brand was withdrawn, is too old, or is
            older than the one that is installed.
    """
    plugged = tokens(context)
    if name is not None:
        return _by_name(context, name, plugged, unattended=unattended)
    return _by_device(context, _only_one(plugged))


def select_named(context: Context, target: str, name: str, model_name: str, device: UsbDevice | None) -> Selection:
    """What somebody else has chosen, looked up in signed data: nothing but the choice itself is taken from them.

    Args:
        target: of the device, if it was found by that; else of the brand.
        model_name: "" if no device was plugged in.

    Raises:
        NoTokenError: the signed data has no such brand or model there.
        NetworkError, TrustError: as for `select`.
    """
    offered = choices(context, target)
    brand = next((b for b in offered.brands if b.brand == name), None) if offered else None
    model = next((m for m in brand.model if m.name == model_name), None) if brand else None
    if offered is None or brand is None or (model_name and model is None):
        raise NoTokenError("no-driver", f"The signed data has no {name} like that.", hint=f"keyfit plan {name}")
    return _selected(context, offered, brand, model, device, target)


def brand_label(brand: Brand) -> str:
    """"English name (folder name)"."""
    return f"{brand.names.get('en', brand.brand)} ({brand.brand})"


def describe(device: UsbDevice) -> str:
    """A device in words: product and ids."""
    text = " ".join(dict.fromkeys(t for t in (device.manufacturer, device.product) if t))
    return f"{text or 'unnamed device'} [{device.ids}]"


def _only_one(plugged: list[Decision]) -> UsbDevice:
    if not plugged:
        raise NoTokenError(
            "no-token", "No token is plugged in.",
            hint="Plug the token in and run this again; `keyfit devices --all` shows everything on the bus.")
    named = [d for d in plugged if d.brand is not None or d.tied] or plugged
    labels = {d.brand.brand if d.brand else f"{d.device.ids}": d for d in named}
    if len(labels) > 1:
        listed = ", ".join(f"{label} ({describe(d.device)})" for label, d in sorted(labels.items()))
        raise UserError(
            "several-tokens", f"Several tokens are plugged in: {listed}.",
            hint="Leave one plugged in, or say which: `keyfit install BRAND`.")
    return named[0].device


def _by_device(context: Context, device: UsbDevice) -> Selection:
    facts = context.facts
    target = device_target(device.id_vendor, device.id_product, facts.system, facts.architecture)
    offered = choices(context, target)
    if offered is None:
        hint = "Ask the bank which brand it is and run `keyfit install BRAND`."
        if device.has_class(CLASS_SMART_CARD):
            hint = "It may work with the general smart-card driver: `keyfit install` with the name of that driver " \
                   "(see `keyfit devices --explain`)."
        raise NoTokenError("unknown-token", f"No driver is known for {describe(device)}.", hint=hint)
    decision = decide(device, offered.brands)
    if decision.tied:
        decision = decide(device, offered.brands, atr=_atr(context, device))
    if decision.tied:
        raise PolicyError(
            "two-brands", f"{describe(device)} may be of either brand: {' or '.join(decision.tied)}.",
            hint="Look at the back of the token, or ask the bank, then: " +
                 " or ".join(f"`keyfit install {brand}`" for brand in decision.tied))
    if decision.chosen is None:
        reasons = "; ".join(f"{c.brand.brand}: {c.reason}" for c in decision.candidates)
        raise NoTokenError("unknown-token", f"{describe(device)} fits none of the brands that use these ids. {reasons}",
                           hint="Ask the bank which brand it is and run `keyfit install BRAND`.")
    return _selected(context, offered, decision.chosen.brand, decision.chosen.model, device, target)


def _by_name(context: Context, name: str, plugged: list[Decision], *, unattended: bool) -> Selection:
    _check_known(context, name)
    own = [d for d in plugged if any(c.fits and c.brand.brand == name for c in d.candidates)]
    if not own and not unattended:
        _refuse_other_brand(name, plugged)
    facts = context.facts
    if own:
        device = own[0].device
        target = device_target(device.id_vendor, device.id_product, facts.system, facts.architecture)
        offered = choices(context, target)
        brand = next((b for b in offered.brands if b.brand == name), None) if offered else None
        if offered is not None and brand is not None:
            chosen = decide(device, [brand]).chosen
            return _selected(context, offered, brand, chosen.model if chosen else None, device, target)
    target = brand_target(name, facts.system, facts.architecture)
    offered = choices(context, target)
    if offered is None or not offered.brands:
        raise NoTokenError("no-driver", f"The repository has nothing for {name} on {facts.system}"
                           f" {facts.architecture}.",
                           hint="Ask the publisher of the repository, or use another one with --repository.")
    brand = offered.brands[0]
    model = decide(own[0].device, [brand]).chosen if own else None
    return _selected(context, offered, brand, model.model if model else None, own[0].device if own else None, target)


def _selected(context: Context, offered: Choices, brand: Brand, model: Model | None, device: UsbDevice | None,
              target: str) -> Selection:
    """The selection, if this version of the brand may be used here (security A5)."""
    if brand.brand in offered.refused:
        raise offered.refused[brand.brand]
    lifted = [offered.lifted[brand.brand]] if brand.brand in offered.lifted else []
    older = _older_than_installed(context, brand)
    if older is not None:
        if not context.policy.allows(brand.brand, brand.sequence):
            raise older
        lifted.append(older)
    notes = (f"number {brand.sequence} of {brand.brand} is handed out in stages, and this machine is among those that get"
             " it already",) if brand.brand in offered.staged else ()
    messages = tuple(Message(level="warning", code="allowed-by-policy", text=f"{error.message} It is used because the"
                             " administrator's policy names exactly this version.") for error in lifted)
    facts = context.facts
    return Selection(brand=brand, model=model, device=device, target=target, notes=notes, messages=messages,
                     by_device=target != brand_target(brand.brand, facts.system, facts.architecture))


def _older_than_installed(context: Context, brand: Brand) -> TrustError | None:
    installed = context.installed.get(brand.brand, 0)
    if brand.sequence >= installed:
        return None
    return TrustError("older-than-installed", f"Number {installed} of {brand.brand} is installed here, the signed data"
                      f" offers {brand.sequence}.", hint="Wait for a newer one. To go back all the same, an administrator"
                      f" can name exactly this version in the policy: allow = [\"{brand.brand}={brand.sequence}\"].")


def _check_known(context: Context, name: str) -> None:
    known = [b.brand for b in context.catalog.brands]
    if name in known:
        return
    if BRAND_NAME.match(name):
        facts = context.facts
        if context.repository.offer(brand_target(name, facts.system, facts.architecture)) is not None:
            return
    raise unknown_brand(name, known)


def unknown_brand(name: str, known: list[str]) -> UserError:
    """The refusal of a brand that there is not, with the nearest ones."""
    close = difflib.get_close_matches(name[:48], known, n=3, cutoff=0.5)
    return UserError("unknown-brand", f"There is no brand {name[:48]!r}.",
                     hint=("Did you mean " + " or ".join(close) + "?") if close else "Brands: " + ", ".join(known))


def _refuse_other_brand(name: str, plugged: list[Decision]) -> None:
    others = [d for d in plugged if d.brand is not None]
    if others:
        listed = ", ".join(f"{d.brand.brand} ({describe(d.device)})" for d in others if d.brand)
        raise NoTokenError(
            "wrong-brand", f"You asked for {name}, but the token that is plugged in is {listed}. "
            "A driver of one brand does not work with a token of another.", outcome=Outcome.NO_TOKEN,
            hint="Run `keyfit install` without a brand, or plug the right token in. "
                 "To prepare a machine for a token that comes later, use --silent.")


def _atr(context: Context, device: UsbDevice) -> str:
    """The answer-to-reset of the reader that is this device, if PC/SC works already; else empty."""
    from keyfit.errors import HostError

    try:
        readers = [r for r in context.tokens.readers() if r.atr]
    except HostError:
        return ""
    own = [r for r in readers if device.product and device.product in r.name]
    chosen = own or (readers if len(readers) == 1 else [])
    return chosen[0].atr if chosen else ""
