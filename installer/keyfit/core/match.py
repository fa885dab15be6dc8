"""Which brand's driver a device needs, and why: pure, total, sorted.

The rank of a candidate is a published number; higher wins:

=====================================================  ======
the match names                                          adds
=====================================================  ======
an interface class and no ids (a class driver)            100
the vendor id alone                                       200
vendor and product id                                     500
a bcdDevice range that holds                             +100
an interface class that is there (besides ids)            +50
a manufacturer string that fits                           +80
a product string that fits                               +120
an answer-to-reset that fits                             +400
(the fact is marked as inferred)                          -20
=====================================================  ======

A match one of whose conditions fails has rank 0 and loses. The numbers follow from one rule: what names a device more
narrowly wins over what names it more widely, whatever the number of wide hints.
"""

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from keyfit.core.text import atr_match, glob_match
from keyfit.model.catalog import Brand, Match, Model
from keyfit.model.usb import CLASS_SMART_CARD, UsbDevice

RANK_CLASS = 100
RANK_VENDOR = 200
RANK_PRODUCT = 500
RANK_BCD = 100
RANK_INTERFACE = 50
RANK_MANUFACTURER_TEXT = 80
RANK_PRODUCT_TEXT = 120
RANK_ATR = 400
RANK_INFERRED = -20


class Candidate(Struct, frozen=True, kw_only=True):
    """A model that might serve a device. `rank` 0 means it does not; `reason` says why in either case."""

    brand: Brand
    model: Model
    match: Match
    rank: int
    reason: str

    @property
    def fits(self) -> bool:
        """True if every condition of the match holds."""
        return self.rank > 0


class Decision(Struct, frozen=True, kw_only=True):
    """What was decided for a device.

    Attributes:
        chosen: the winner; None if nothing fits or two brands fit equally well.
        tied: the brands that fit equally well, if that is why nothing was chosen.
        candidates: best first; losers after that, each with its reason.
    """

    device: UsbDevice
    chosen: Candidate | None
    tied: tuple[str, ...]
    candidates: tuple[Candidate, ...]

    @property
    def brand(self) -> Brand | None:
        """The brand, unless the winner is a class driver, which names no brand."""
        return self.chosen.brand if self.chosen and not self.chosen.brand.class_driver else None

    @property
    def is_token(self) -> bool:
        """True for anything that a brand or the smart-card class claims."""
        return bool(self.chosen or self.tied) or self.device.has_class(CLASS_SMART_CARD)


class MatchIndex:
    """The matches of many brands, arranged so that a device meets only those that could be its own."""

    def __init__(self, brands: Iterable[Brand]) -> None:
        self._by_id: dict[tuple[int, int], list[tuple[Brand, Model, Match]]] = {}
        self._by_vendor: dict[int, list[tuple[Brand, Model, Match]]] = {}
        self._by_class: dict[int, list[tuple[Brand, Model, Match]]] = {}
        for brand in brands:
            for model in brand.model:
                for match in model.match:
                    self._add(brand, model, match)

    def _add(self, brand: Brand, model: Model, match: Match) -> None:
        row = (brand, model, match)
        if match.id_vendor is None:
            if match.b_interface_class is not None:
                self._by_class.setdefault(match.b_interface_class, []).append(row)
        elif match.id_product is None:
            self._by_vendor.setdefault(match.id_vendor, []).append(row)
        else:
            self._by_id.setdefault((match.id_vendor, match.id_product), []).append(row)

    def decide(self, device: UsbDevice, atr: str = "") -> Decision:
        """Decide for one device. `atr` is upper-case hex, empty if not known."""
        rows = list(self._by_id.get((device.id_vendor, device.id_product), ()))
        rows += self._by_vendor.get(device.id_vendor, ())
        if self._by_class:
            for b_interface_class in {i.b_interface_class for i in device.interfaces}:
                rows += self._by_class.get(b_interface_class, ())
        if not rows:
            return Decision(device=device, chosen=None, tied=(), candidates=())
        return _choose(device, [judge(device, *row, atr=atr) for row in rows])


def decide(device: UsbDevice, brands: Sequence[Brand], atr: str = "") -> Decision:
    """Decide for one device among `brands`."""
    return MatchIndex(brands).decide(device, atr)


def judge(device: UsbDevice, brand: Brand, model: Model, match: Match, *, atr: str = "") -> Candidate:
    """Rank one match against a device whose ids it already names."""
    rank, failed, held = _base(match)
    for holds, points, text in _conditions(device, match, atr):
        if holds:
            rank += points
            held.append(text)
        else:
            failed.append(text)
    if match.inferred:
        rank += RANK_INFERRED
        held.append("inferred, not stated by a source")
    if failed:
        return Candidate(brand=brand, model=model, match=match, rank=0, reason="; ".join(failed))
    return Candidate(brand=brand, model=model, match=match, rank=rank, reason="; ".join(held))


def _base(match: Match) -> tuple[int, list[str], list[str]]:
    if match.id_vendor is None:
        return RANK_CLASS, [], ["serves the whole device class"]
    if match.id_product is None:
        return RANK_VENDOR, [], [f"vendor {match.id_vendor:04X}"]
    return RANK_PRODUCT, [], [f"ids {match.id_vendor:04X}:{match.id_product:04X}"]


def _conditions(device: UsbDevice, match: Match, atr: str) -> Iterable[tuple[bool, int, str]]:
    """(holds, points, text) for each condition that the match makes; an ATR that is not known makes none."""
    if match.bcd_device_min is not None or match.bcd_device_max is not None:
        low, high = match.bcd_device_min or 0, 0xFFFF if match.bcd_device_max is None else match.bcd_device_max
        yield (low <= device.bcd_device <= high, RANK_BCD,
               f"bcdDevice {device.bcd_device:04X}, asked for {low:04X} to {high:04X}")
    if match.b_interface_class is not None:
        points = RANK_INTERFACE if match.id_vendor is not None else 0
        yield (device.has_class(match.b_interface_class), points,
               f"interface class {match.b_interface_class:02X} "
               f"among {sorted({i.b_interface_class for i in device.interfaces})}")
    if match.manufacturer is not None:
        yield (glob_match(match.manufacturer, device.manufacturer), RANK_MANUFACTURER_TEXT,
               f"manufacturer {device.manufacturer!r}, asked for {match.manufacturer!r}")
    if match.product is not None:
        yield (glob_match(match.product, device.product), RANK_PRODUCT_TEXT,
               f"product {device.product!r}, asked for {match.product!r}")
    if match.atr and atr:
        yield (any(atr_match(pattern, atr) for pattern in match.atr), RANK_ATR,
               f"answer-to-reset {atr}, asked for {' or '.join(match.atr)}")


def _choose(device: UsbDevice, candidates: list[Candidate]) -> Decision:
    candidates.sort(key=lambda c: (-c.rank, c.brand.brand, c.model.id))
    best_of: dict[tuple[str, str], Candidate] = {}
    for candidate in candidates:
        best_of.setdefault((candidate.brand.brand, candidate.model.id), candidate)
    ordered = tuple(best_of.values())
    top = [c for c in ordered if c.fits and c.rank == ordered[0].rank]
    brands = {c.brand.brand for c in top}
    if len(brands) > 1:
        return Decision(device=device, chosen=None, tied=tuple(sorted(brands)), candidates=ordered)
    return Decision(device=device, chosen=top[0] if top else None, tied=(), candidates=ordered)


def why_lost(decision: Decision) -> Mapping[tuple[str, str], str]:
    """(brand, model id) -> why it was not chosen, in plain words, for every candidate but the winner."""
    reasons = {}
    for candidate in decision.candidates:
        if decision.chosen is not None and candidate is decision.chosen:
            continue
        if not candidate.fits:
            text = candidate.reason
        elif decision.chosen is None:
            text = f"ranks equal ({candidate.rank}) with {', '.join(b for b in decision.tied)}"
        else:
            text = f"rank {candidate.rank} is below {decision.chosen.rank} of {decision.chosen.brand.brand}"
        reasons[(candidate.brand.brand, candidate.model.id)] = text
    return reasons
