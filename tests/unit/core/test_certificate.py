"""Which certificate counts, what its state is, what the PIN flags mean, and which slots prove anything."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyfit.core.certificate import answering_slots, certificate_state, pin_state
from keyfit.model.certificate import (
    CertificateInfo,
    CertificateState,
    ModuleReport,
    PinState,
    Reader,
    SlotReport,
)

NOW = datetime(2026, 6, 1, tzinfo=UTC).timestamp()


def a_certificate(begin: str, end: str, *, subject: str = "CN=Ada", ca: bool = False) -> CertificateInfo:
    return CertificateInfo(label="", subject=subject, issuer="CN=CA", not_before=begin, not_after=end, sha256="0" * 64,
                           ca=ca)


def a_slot(*certificates: CertificateInfo, **fields: Any) -> SlotReport:
    given_: dict[str, Any] = {
        "slot": "Acme One 00 00", "label": "", "model": "", "manufacturer": "", "initialised": True,
        "login_required": True, "pin_initialised": True, "pin_to_be_changed": False, "pin_count_low": False,
        "pin_final_try": False, "pin_locked": False, **fields}
    return SlotReport(certificates=certificates, **given_)


def a_report(*slots: SlotReport, loaded: bool = True) -> ModuleReport:
    return ModuleReport(path="/usr/lib/acme.so", loaded=loaded, slots=slots)


OLD = a_certificate("2020-01-01T00:00:00Z", "2023-01-01T00:00:00Z", subject="CN=old")
CURRENT = a_certificate("2025-01-01T00:00:00Z", "2027-01-01T00:00:00Z", subject="CN=current")
NEXT = a_certificate("2026-12-01T00:00:00Z", "2028-01-01T00:00:00Z", subject="CN=next")
SOON_OVER = a_certificate("2024-06-20T00:00:00Z", "2026-06-20T00:00:00Z", subject="CN=soon")
AUTHORITY = a_certificate("2010-01-01T00:00:00Z", "2040-01-01T00:00:00Z", subject="CN=CA", ca=True)
UNDATED = a_certificate("some day", "never")


@pytest.mark.parametrize(
    ("certificates", "state", "subject"),
    [
        ((), CertificateState.ABSENT, None),
        ((AUTHORITY,), CertificateState.ABSENT, None),
        ((CURRENT,), CertificateState.VALID, "CN=current"),
        ((OLD,), CertificateState.EXPIRED, "CN=old"),
        ((SOON_OVER,), CertificateState.EXPIRING, "CN=soon"),
        ((NEXT,), CertificateState.NOT_YET_VALID, "CN=next"),
        ((OLD, CURRENT), CertificateState.VALID, "CN=current"),
        ((CURRENT, OLD, AUTHORITY), CertificateState.VALID, "CN=current"),
        ((CURRENT, NEXT), CertificateState.VALID, "CN=current"),
        ((SOON_OVER, CURRENT), CertificateState.VALID, "CN=current"),
        ((OLD, NEXT), CertificateState.EXPIRED, "CN=old"),
        ((UNDATED,), CertificateState.UNKNOWN, None),
        ((UNDATED, CURRENT), CertificateState.VALID, "CN=current"),
    ],
)
def test_the_certificate_in_use_decides(certificates: tuple[CertificateInfo, ...], state: CertificateState,
                                        subject: str | None) -> None:
    found, info = certificate_state([a_report(a_slot(*certificates))], NOW)
    assert (found, info.subject if info else None) == (state, subject)


def test_a_module_that_saw_no_token_says_nothing_about_certificates() -> None:
    assert certificate_state([], NOW) == (CertificateState.UNKNOWN, None)
    assert certificate_state([a_report()], NOW) == (CertificateState.UNKNOWN, None)
    assert certificate_state([a_report(a_slot(CURRENT), loaded=False)], NOW) == (CertificateState.UNKNOWN, None)


def test_the_last_second_still_counts_and_the_next_does_not() -> None:
    """RFC 5280, section 4.1.2.5: the period includes notBefore and notAfter."""
    end = datetime(2027, 1, 1, tzinfo=UTC).timestamp()
    report = a_report(a_slot(CURRENT))
    assert certificate_state([report], end)[0] == CertificateState.EXPIRING
    assert certificate_state([report], end + 1)[0] == CertificateState.EXPIRED
    assert certificate_state([report], end - 30 * 86_400)[0] == CertificateState.VALID
    assert certificate_state([report], end - 30 * 86_400 + 1)[0] == CertificateState.EXPIRING


@given(st.permutations([OLD, CURRENT, NEXT, SOON_OVER, AUTHORITY, UNDATED]), st.integers(0, 2**32))
def test_the_order_on_the_token_does_not_matter(certificates: list[CertificateInfo], now: int) -> None:
    one_slot = certificate_state([a_report(a_slot(*certificates))], now)
    many_slots = certificate_state([a_report(a_slot(c)) for c in certificates], now)
    fixed = certificate_state([a_report(a_slot(OLD, CURRENT, NEXT, SOON_OVER, AUTHORITY, UNDATED))], now)
    assert one_slot == many_slots == fixed


@pytest.mark.parametrize(
    ("flags", "state"),
    [
        ({}, PinState.OK),
        ({"pin_count_low": True}, PinState.LOW),
        ({"pin_count_low": True, "pin_to_be_changed": True}, PinState.TO_BE_CHANGED),
        ({"pin_count_low": True, "pin_final_try": True, "pin_to_be_changed": True}, PinState.FINAL_TRY),
        ({"pin_final_try": True, "pin_locked": True}, PinState.LOCKED),
        ({"pin_initialised": False}, PinState.NOT_SET),
        ({"pin_initialised": False, "login_required": False}, PinState.OK),
        ({"initialised": False, "pin_locked": True}, PinState.NOT_SET),
    ],
)
def test_the_most_pressing_pin_flag_wins(flags: dict[str, bool], state: PinState) -> None:
    assert pin_state(a_slot(**flags)) == state


def test_a_slot_without_a_reader_proves_nothing() -> None:
    """Some modules list a token in slot 0 with nothing plugged in."""
    phantom = a_report(a_slot(slot="Slot 0"))
    assert answering_slots(phantom, ()) == ()
    assert answering_slots(phantom, (Reader(name="Acme One 00 00"),)) == ()
    assert answering_slots(phantom, (Reader(name="Acme One 00 00", atr="3B00"),)) == phantom.slots


def test_a_slot_named_after_a_reader_needs_the_card_in_that_reader() -> None:
    report = a_report(a_slot(slot="Acme One 00 00"))
    other = Reader(name="Other 01 00", atr="3B00")
    assert answering_slots(report, (Reader(name="Acme One 00 00"), other)) == ()
    assert answering_slots(report, (Reader(name="Acme One 00 00", atr="3B00"),)) == report.slots


def test_long_reader_names_are_cut_to_the_64_bytes_of_a_slot_description() -> None:
    name = "A very long name of a reader that goes on and on and on until it is too long 00 00"
    report = a_report(a_slot(slot=name[:64].rstrip()))
    assert answering_slots(report, (Reader(name=name), Reader(name="Other 01 00", atr="3B00"))) == ()


def test_a_module_that_was_not_loaded_has_no_answering_slot() -> None:
    assert answering_slots(a_report(a_slot(), loaded=False), (Reader(name="Acme One 00 00", atr="3B00"),)) == ()
