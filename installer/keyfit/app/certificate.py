"""The certificate on the token: its state, the PIN rules, where to get one, and waiting until it has arrived."""

from typing import Any

from keyfit.app.context import Context
from keyfit.app.verify import find_brand
from keyfit.core import certificate as judge
from keyfit.core.conditions import fits
from keyfit.core.handoff import check_page
from keyfit.core.plan import text_in
from keyfit.errors import NoTokenError, Outcome, UserError
from keyfit.model.catalog import Brand, HandOff, brand_target
from keyfit.model.certificate import CertificateInfo, CertificateState, ModuleReport, PinState
from keyfit.model.result import Message, OperationResult

POLL_S = 2.0
"""How often the token is looked at while waiting; a token answers a listing in well under a second."""


def certificate(context: Context, name: str | None, *, open_page: bool, wait_s: float | None,
                language: str = "en") -> OperationResult:
    """The `certificate` command.

    Args:
        open_page: open the bank's page in the browser.
        wait_s: None not to wait; otherwise return when a certificate that was not there at the start is on the token.

    Raises:
        NoTokenError: no token of a known brand is plugged in and none was named; or waiting took too long.
    """
    brand = _brand(context, name)
    reports = load_modules(context, brand)
    page = hand_off(context, brand)
    messages = []
    if open_page:
        messages.append(open_hand_off(context, page, language))
    if wait_s is not None:
        reports = _wait_for_new(context, brand, reports, wait_s)
    data = describe(context, brand, reports, page, language)
    messages.insert(0, _summary(data))
    return OperationResult(command="certificate", outcome=Outcome.DONE, data=data, messages=tuple(messages))


def load_modules(context: Context, brand: Brand) -> tuple[ModuleReport, ...]:
    """Reports of the brand's PKCS#11 modules that are installed here."""
    return tuple(context.tokens.load_module(m.path) for m in brand.module
                 if fits(m.on, context.facts) and context.host.exists(m.path))


def describe(context: Context, brand: Brand, reports: tuple[ModuleReport, ...], page: HandOff | None,
             language: str) -> dict[str, Any]:
    """State of certificate and PIN, rules and hand-off, for the JSON interface."""
    state, info = judge.certificate_state(reports, context.clock.now())
    slots = [s for r in reports if r.loaded for s in r.slots]
    used = next((s for s in slots if s.initialised), None)
    pin = judge.pin_state(used) if used else PinState.UNKNOWN
    return {
        "brand": brand.brand,
        "certificate": {"state": state.value, **(_certificate_data(info) if info else {})},
        "pin": {"state": pin.value, **_pin_rules(brand, language)},
        "hand_off": _hand_off_data(page, language) if page else None,
    }


def hand_off(context: Context, brand: Brand) -> HandOff | None:
    """The hand-off as the signed data has it: from the record of the installation, else from the repository."""
    for record in context.journal.records(brand.brand):
        if record.plan.handoff is not None:
            return record.plan.handoff
    facts = context.facts
    manifest = context.repository.manifest(brand_target(brand.brand, facts.system, facts.architecture))
    return manifest.brands[0].hand_off if manifest and manifest.brands else None


def open_hand_off(context: Context, page: HandOff | None, language: str) -> Message:
    """Open the page, or say where it is."""
    if page is None:
        return Message(level="warning", code="no-hand-off", text="No bank's page is known for this brand.",
                       hint="Ask the bank or the certificate authority where to download the certificate.")
    check_page(page.page)
    bank = text_in(page.bank, language)
    if context.open_page(page.page):
        return Message(level="info", code="hand-off-opened", text=f"{bank}: {page.page} was opened in the browser.")
    return Message(level="info", code="hand-off-shown", text=f"{bank}: open {page.page} in a browser.",
                   hint=text_in(page.steps, language))


def _brand(context: Context, name: str | None) -> Brand:
    if name is not None:
        return find_brand(context, name)
    brands = {d.brand.brand: d.brand for d in map(context.index.decide, context.bus.devices()) if d.brand}
    if not brands:
        raise NoTokenError("no-token", "No token that Keyfit knows is plugged in.",
                           hint="Plug the token in, or name its brand: `keyfit certificate BRAND`.")
    if len(brands) > 1:
        raise UserError("several-tokens", f"Several tokens are plugged in: {', '.join(sorted(brands))}.",
                        hint="Say which: `keyfit certificate BRAND`.")
    return next(iter(brands.values()))


def _wait_for_new(context: Context, brand: Brand, before: tuple[ModuleReport, ...],
                  wait_s: float) -> tuple[ModuleReport, ...]:
    known = _fingerprints(before, context.clock.now())
    context.reporter.wait("certificate", "Waiting for the new certificate to arrive on the token.")
    end = context.clock.now() + wait_s
    while context.clock.now() < end:
        context.bus.wait_for_change(POLL_S)
        reports = load_modules(context, brand)
        if _fingerprints(reports, context.clock.now()) - known:
            return reports
    raise NoTokenError("no-new-certificate", f"No new certificate arrived on the token within {wait_s:.0f} seconds.",
                       hint="Finish the download on the bank's page, then run `keyfit certificate` again.")


def _fingerprints(reports: tuple[ModuleReport, ...], now: float) -> set[str]:
    """Of certificates that are the user's and not over."""
    return {c.sha256 for r in reports for s in r.slots for c in s.certificates if not c.ca and not judge.is_over(c, now)}


def _certificate_data(info: CertificateInfo) -> dict[str, Any]:
    return {"subject": info.subject, "issuer": info.issuer, "not_before": info.not_before,
            "not_after": info.not_after, "label": info.label, "sha256": info.sha256}


def _pin_rules(brand: Brand, language: str) -> dict[str, Any]:
    if brand.pin is None:
        return {}
    return {"min_length": brand.pin.min_length, "max_length": brand.pin.max_length,
            "advice": text_in(brand.pin.advice, language)}


def _hand_off_data(page: HandOff, language: str) -> dict[str, Any]:
    return {
        "bank": text_in(page.bank, language),
        "page": page.page,
        "steps": text_in(page.steps, language),
        "forgotten": text_in(page.forgotten, language),
        "lost": text_in(page.lost, language),
        "replacement": text_in(page.replacement, language),
    }


STATE_TEXTS = {
    CertificateState.UNKNOWN: "The token cannot be asked for its certificate here.",
    CertificateState.ABSENT: "There is no certificate on the token yet.",
    CertificateState.VALID: "The certificate on the token is valid.",
    CertificateState.EXPIRING: "The certificate on the token expires soon.",
    CertificateState.EXPIRED: "The certificate on the token has expired.",
    CertificateState.NOT_YET_VALID: "The certificate on the token is not valid yet.",
}


def _summary(data: dict[str, Any]) -> Message:
    found = data["certificate"]
    text = STATE_TEXTS[CertificateState(found["state"])]
    if "subject" in found:
        text += f" Subject: {found['subject']}; issuer: {found['issuer']}; valid from {found['not_before']}" \
                f" to {found['not_after']}."
    return Message(level="info", code=f"certificate-{found['state']}", text=text)
