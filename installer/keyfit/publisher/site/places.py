"""The kinds of machines that the site speaks of: every system, distribution, version and architecture that matters."""

import re
from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct

from keyfit.core.conditions import version_holds
from keyfit.model.catalog import Architecture, Brand, Condition, SystemName
from keyfit.model.host import HostFacts, PackageManager
from keyfit.publisher.compile import SYSTEMS

OTHER = ""
"""Stands for every distribution that no brand names."""
_TOOLS: dict[str, tuple[PackageManager, ...]] = {"debian": ("apt", "dpkg"), "ubuntu": ("apt", "dpkg"), "fedora": ("dnf", "rpm")}
_ALL_TOOLS: tuple[PackageManager, ...] = ("apt", "dpkg", "dnf", "rpm")
_LIKE = {"ubuntu": ("debian",)}
"""ID_LIKE in the os-release file of a distribution (Ubuntu package base-files)."""
_NUMBER = re.compile(r"[0-9][0-9.]*")


class Place(Struct, frozen=True, kw_only=True):
    """One kind of machine. `versions` is "" for any, else comparisons such as ">=12,<14"."""

    system: SystemName
    distribution: str
    versions: str
    facts: HostFacts


def places(brands: Sequence[Brand]) -> tuple[Place, ...]:
    """Every kind of machine on which some brand may need something else than on the others, in a fixed order."""
    conditions = [condition for brand in brands for condition in _conditions(brand)]
    named = sorted({name for condition in conditions for name in condition.distribution})
    found: list[Place] = []
    for system, architectures in SYSTEMS:
        for distribution in [*named, OTHER] if system == "linux" else [""]:
            for versions, version in _versions(conditions, distribution):
                found += [Place(system=system, distribution=distribution, versions=versions, facts=_facts(
                    system, architecture, distribution, version)) for architecture in architectures]
    return tuple(found)


def _conditions(brand: Brand) -> Iterator[Condition]:
    entries: list[Iterable[object]] = [brand.package, brand.module, brand.patch]
    for entry in (entry for group in entries for entry in group):
        condition = getattr(entry, "on", None)
        if isinstance(condition, Condition):
            yield condition


def _facts(system: SystemName, architecture: Architecture, distribution: str, version: str) -> HostFacts:
    return HostFacts(machine="", root="/", system=system, architecture=architecture, distribution=distribution,
                     distribution_like=_LIKE.get(distribution, ()), version=version, elevated=True,
                     package_managers=_TOOLS.get(distribution, _ALL_TOOLS) if system == "linux" else (),
                     running_services=True, browsers=("firefox", "chromium"))


def _versions(conditions: Sequence[Condition], distribution: str) -> list[tuple[str, str]]:
    """(comparisons, a version for which they hold) of each range in which no condition on versions changes."""
    asked = {c.version for c in conditions if c.version and (distribution in c.distribution or not c.distribution)}
    if not asked or not distribution:
        return [("", "")]
    bounds = sorted({number for text in asked for number in _NUMBER.findall(text)}, key=_parts)
    ranges = [(f"<{bounds[0]}", "0")]
    for bound, following in zip(bounds, [*bounds[1:], ""], strict=True):
        ranges.append((f"=={bound}", bound))
        ranges.append((f">{bound}" + (f",<{following}" if following else ""), f"{bound}.0.0.1"))
    return _joined(ranges, asked)


def _joined(ranges: Sequence[tuple[str, str]], asked: Iterable[str]) -> list[tuple[str, str]]:
    """Neighbouring ranges for which every condition gives the same answer, as one."""
    groups: list[tuple[tuple[bool, ...], list[tuple[str, str]]]] = []
    for comparisons, version in ranges:
        answers = tuple(version_holds(text, version) for text in sorted(asked))
        if groups and groups[-1][0] == answers:
            groups[-1][1].append((comparisons, version))
        else:
            groups.append((answers, [(comparisons, version)]))
    return [(_span([comparisons for comparisons, _ in group]), group[0][1]) for _, group in groups]


def _span(parts: Sequence[str]) -> str:
    """"==12" and ">12,<14" together are ">=12,<14"."""
    first, last = parts[0].split(",")[0], parts[-1].split(",")[-1]
    if len(parts) == 1:
        return parts[0]
    low = "" if first.startswith("<") else first.replace("==", ">=")
    high = "" if last.startswith(">") else last.replace("==", "<=")
    return ",".join(part for part in (low, high) if part)


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part)
