"""What the reports of PKCS#11 modules say about the user's certificate and PIN."""

from collections.abc import Sequence
from datetime import UTC, datetime

from keyfit.model.certificate import (
    CertificateInfo,
    CertificateState,
    ModuleReport,
    PinState,
    Reader,
    SlotReport,
)

DAY_S = 86_400
EXPIRING_DAYS = 30
"""How long before its end a certificate counts as expiring. Keyfit's own choice: time for one visit to the bank."""
SLOT_DESCRIPTION_BYTES = 64
"""CK_SLOT_INFO.slotDescription is 64 bytes, blank-padded (PKCS#11 2.40, section 3.2): longer reader names are cut."""


def certificate_state(reports: Sequence[ModuleReport], now: float,
                      expiring_days: int = EXPIRING_DAYS) -> tuple[CertificateState, CertificateInfo | None]:
    """Judge the user's certificate.

    Certificates of authorities do not count. Of several, the one counts that ends last among those that have begun, so
    that neither an old one beside its successor nor a successor that is yet to begin hides the one in use.

    Args:
        reports: of every module that was loaded for the token; the same certificate may appear in several.
        now: seconds since the epoch, UTC.
        expiring_days: from how many days before its end a certificate is "expiring".

    Returns:
        UNKNOWN with None if no module saw a token, or no certificate has readable dates; ABSENT with None if the token
        shows none without a login; else the state and the certificate it is about.
    """
    slots = [slot for report in reports if report.loaded for slot in report.slots]
    if not slots:
        return CertificateState.UNKNOWN, None
    own = [info for slot in slots for info in slot.certificates if not info.ca]
    if not own:
        return CertificateState.ABSENT, None
    dated = [(begin, end, info) for info in own for begin, end in _period(info)]
    if not dated:
        return CertificateState.UNKNOWN, None
    begun = [item for item in dated if item[0] <= now]
    if not begun:
        return CertificateState.NOT_YET_VALID, min(dated, key=lambda item: item[0])[2]
    _, end, info = max(begun, key=lambda item: (item[1], item[0], item[2].sha256))
    if now > end:
        return CertificateState.EXPIRED, info
    expiring = end - now < expiring_days * DAY_S
    return (CertificateState.EXPIRING if expiring else CertificateState.VALID), info


def pin_state(slot: SlotReport) -> PinState:
    """What a token's flags say about the PIN, the most pressing first (PKCS#11 2.40, section 3.2, CK_TOKEN_INFO).

    A token that is not initialised has no PIN, whatever its other flags say.
    """
    if not slot.initialised:
        return PinState.NOT_SET
    if slot.pin_locked:
        return PinState.LOCKED
    if slot.pin_final_try:
        return PinState.FINAL_TRY
    if not slot.pin_initialised:
        return PinState.NOT_SET if slot.login_required else PinState.OK
    if slot.pin_to_be_changed:
        return PinState.TO_BE_CHANGED
    return PinState.LOW if slot.pin_count_low else PinState.OK


def answering_slots(report: ModuleReport, readers: Sequence[Reader]) -> tuple[SlotReport, ...]:
    """The slots of a module that a reader with a card stands behind.

    Some modules list a slot with a token in it on any machine, so a slot alone proves nothing. A slot that is named
    after a reader needs a card in that very reader; a slot with a name of its own needs a card in some reader.
    """
    if not report.loaded:
        return ()
    return tuple(slot for slot in report.slots if _answers(slot, readers))


def _answers(slot: SlotReport, readers: Sequence[Reader]) -> bool:
    namesakes = [reader for reader in readers if _same_name(slot.slot, reader.name)]
    return any(reader.atr for reader in (namesakes or readers))


def _same_name(slot: str, reader: str) -> bool:
    cut = reader.encode()[:SLOT_DESCRIPTION_BYTES].decode("utf-8", "ignore").rstrip()
    return bool(slot) and slot == cut


def is_over(info: CertificateInfo, now: float) -> bool:
    """True if the certificate has ended, or was never valid for any time. Some modules put one that ends as it begins beside a
    new key, until the bank's own certificate comes (yubico-piv-tool, ykcs11/openssl_utils.c, `do_create_empty_cert`)."""
    return any(end < now or end <= begin for begin, end in _period(info))


def _period(info: CertificateInfo) -> list[tuple[float, float]]:
    """[(begin, end)] in seconds since the epoch; empty if the dates cannot be read."""
    try:
        begin, end = (datetime.fromisoformat(text) for text in (info.not_before, info.not_after))
    except ValueError:
        return []
    if begin.tzinfo is None or end.tzinfo is None:
        begin, end = begin.replace(tzinfo=begin.tzinfo or UTC), end.replace(tzinfo=end.tzinfo or UTC)
    return [(begin.timestamp(), end.timestamp())]
