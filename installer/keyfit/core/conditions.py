"""Does an entry of brand data count on this machine?"""

from keyfit.model.catalog import Condition
from keyfit.model.host import HostFacts


def fits(condition: Condition, facts: HostFacts) -> bool:
    """True if system, architecture, distribution (os-release ID or ID_LIKE) and version all hold."""
    if condition.system != facts.system:
        return False
    if condition.architecture and facts.architecture not in condition.architecture:
        return False
    names = {facts.distribution, *facts.distribution_like}
    if condition.distribution and not names.intersection(condition.distribution):
        return False
    # VERSION_ID counts only for the distribution that was named itself, not for one that is merely like it:
    # a derivative numbers its releases in its own way.
    if condition.version and condition.distribution and facts.distribution not in condition.distribution:
        return True
    return version_holds(condition.version, facts.version)


def version_holds(comparisons: str, version: str) -> bool:
    """True if a dotted version meets every one of the comma-separated comparisons, e.g. ">=12,<14".

    An empty list always holds; a version that is not dotted numbers holds only for an empty list.
    """
    if not comparisons:
        return True
    have = _numbers(version)
    return have is not None and all(_compare(have, part) for part in comparisons.split(","))


def _compare(have: tuple[int, ...], comparison: str) -> bool:
    operator = comparison[:2] if comparison[:2] in (">=", "<=", "==") else comparison[:1]
    want = _numbers(comparison[len(operator) :]) or (0,)
    width = max(len(have), len(want))
    left = have + (0,) * (width - len(have))
    right = want + (0,) * (width - len(want))
    return {">=": left >= right, "<=": left <= right, "==": left == right, ">": left > right, "<": left < right}[
        operator
    ]


def _numbers(version: str) -> tuple[int, ...] | None:
    parts = version.split(".")
    if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        return None
    return tuple(int(part) for part in parts)
