"""What the child process answers, and how the answer is read: a child that holds a foreign module is not trusted."""

from typing import Literal

from msgspec import Struct, structs

from keyfit.core.text import clean
from keyfit.model.certificate import CertificateInfo, ModuleReport, Reader, SlotReport

MAX_ANSWER_BYTES = 4_000_000
"""Cap on a child's answer: 16 slots of 64 certificates with full-length names are under 2 MB."""
MAX_SLOTS = 16
MAX_CERTIFICATES = 64
"""Caps on what one module may report; real tokens hold a handful (Keyfit's own choice)."""
MAX_READERS = 64
"""Four times PCSCLITE_MAX_READERS_CONTEXTS (pcsclite.h)."""
MAX_NAME = 400
"""Cap on a certificate's subject or issuer, in characters."""
MAX_ERROR = 300
MAX_READER_NAME = 128
"""MAX_READERNAME (pcsclite.h)."""

PcscError = Literal["", "no-library", "no-daemon", "no-access", "failed"]


class ReadersAnswer(Struct, frozen=True, kw_only=True):
    """The child's answer to `readers`: the list, or what stood in the way with a detail for people."""

    readers: tuple[Reader, ...] = ()
    error: PcscError = ""
    detail: str = ""


def safe_readers(readers: tuple[Reader, ...]) -> tuple[Reader, ...]:
    """Reader names made safe to show (security H1), answers-to-reset in hex only, the number capped."""
    return tuple(Reader(name=clean(r.name, MAX_READER_NAME), atr=_hex(r.atr, 66)) for r in readers[:MAX_READERS])


def safe_report(report: ModuleReport, path: str) -> ModuleReport:
    """A report with every text made safe to show (security H1) and every number capped, about the module at `path`."""
    return ModuleReport(path=path, loaded=report.loaded, error=clean(report.error, MAX_ERROR),
                        description=clean(report.description), slots=tuple(map(_safe_slot, report.slots[:MAX_SLOTS])))


def failed(path: str, error: str) -> ModuleReport:
    """A report of a module that could not be used."""
    return ModuleReport(path=path, loaded=False, error=clean(error, MAX_ERROR))


def _safe_slot(slot: SlotReport) -> SlotReport:
    return structs.replace(slot, slot=clean(slot.slot), label=clean(slot.label), model=clean(slot.model),
                           manufacturer=clean(slot.manufacturer),
                           certificates=tuple(map(_safe_certificate, slot.certificates[:MAX_CERTIFICATES])))


def _safe_certificate(info: CertificateInfo) -> CertificateInfo:
    return CertificateInfo(label=clean(info.label), subject=clean(info.subject, MAX_NAME),
                           issuer=clean(info.issuer, MAX_NAME), not_before=clean(info.not_before, 40),
                           not_after=clean(info.not_after, 40), sha256=_hex(info.sha256, 64), ca=info.ca)


def _hex(text: str, limit: int) -> str:
    return text if len(text) <= limit and all(c in "0123456789abcdefABCDEF" for c in text) else ""
