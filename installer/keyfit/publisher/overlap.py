"""Can one device fit two matches equally well? The rank is that of `keyfit.core.match`."""

from enum import Enum, auto

from keyfit.core import match as rank
from keyfit.core.text import glob_match
from keyfit.model.catalog import Match


class Overlap(Enum):
    """How two matches for the same USB ids relate."""

    APART = auto()
    """No device fits both, or the answer-to-reset decides."""
    RANKED = auto()
    """A device may fit both, and one of them wins."""
    TIE = auto()
    """A device may fit both, and neither wins."""


def overlap(one: Match, other: Match) -> Overlap:
    """Compare two matches for the same vendor and product id."""
    if not _bcd_meet(one, other) or not _texts_meet(one.manufacturer, other.manufacturer) or not _texts_meet(
            one.product, other.product):
        return Overlap.APART
    if one.atr and other.atr and not set(one.atr) & set(other.atr):
        return Overlap.APART
    return Overlap.TIE if _points(one) == _points(other) else Overlap.RANKED


def _points(match: Match) -> int:
    """The rank of a device that fits; the answer-to-reset, which is not always known, left out."""
    points = rank.RANK_INFERRED if match.inferred else 0
    if match.bcd_device_min is not None or match.bcd_device_max is not None:
        points += rank.RANK_BCD
    if match.b_interface_class is not None:
        points += rank.RANK_INTERFACE
    if match.manufacturer is not None:
        points += rank.RANK_MANUFACTURER_TEXT
    if match.product is not None:
        points += rank.RANK_PRODUCT_TEXT
    return points


def _bcd_meet(one: Match, other: Match) -> bool:
    def span(match: Match) -> tuple[int, int]:
        return match.bcd_device_min or 0, 0xFFFF if match.bcd_device_max is None else match.bcd_device_max

    (low, high), (other_low, other_high) = span(one), span(other)
    return low <= other_high and other_low <= high


def _texts_meet(one: str | None, other: str | None) -> bool:
    """False only if no text fits both patterns."""
    if one is None or other is None:
        return True
    if "*" not in one:
        return glob_match(other, one)
    if "*" not in other:
        return glob_match(one, other)
    start, other_start = one.split("*")[0], other.split("*")[0]
    end, other_end = one.rsplit("*")[-1], other.rsplit("*")[-1]
    return (start.startswith(other_start) or other_start.startswith(start)) and (
        end.endswith(other_end) or other_end.endswith(end))
