"""What will be changed on which kind of machine: the planner's own answer, put together for people.

The site asks `keyfit.core.plan` what the client would do with the same brand on such a machine, so that a page and
`keyfit plan` cannot disagree. Machines with the same answer stand together.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import assert_never

from msgspec import Struct, structs

from keyfit.core.plan import Draft, draft
from keyfit.model.catalog import Brand
from keyfit.model.plan import (
    Archive,
    CcidListLine,
    DistributionPackages,
    FirefoxPolicy,
    KernelModuleBlacklistFile,
    NssModule,
    P11KitModule,
    PackageFile,
    ServiceState,
    Step,
    UdevRuleFile,
)
from keyfit.publisher.compile import SYSTEMS, DeviceId, Payloads, cut
from keyfit.publisher.site.places import Place

NOTHING_CODES = ("no-driver-for-system", "brand-without-driver")
"""Codes of a plan that is blocked as a whole."""


class Item(Struct, frozen=True, kw_only=True):
    """One change.

    Attributes:
        kind: key of its text, as in the plan's own kinds, with "package" for one name of a list.
        subject: package, device, file or module.
        component: what a package is for; "" for other changes.
        reason: (language, text) from brand data, for patches.
        where: files and folders; what differs between architectures is listed together.
        models: the models that need it; empty if all of the brand's do.
    """

    kind: str
    subject: str
    component: str = ""
    reason: tuple[tuple[str, str], ...] = ()
    elevated: bool = True
    where: tuple[str, ...] = ()
    models: tuple[str, ...] = ()


class Group(Struct, frozen=True, kw_only=True):
    """Machines on which the same is changed. Empty tuples mean all of the system's."""

    system: str
    distributions: tuple[tuple[str, str], ...]
    architectures: tuple[str, ...]
    items: tuple[Item, ...]

    @property
    def anything(self) -> bool:
        """True if there is something to change."""
        return bool(self.items)


def changes(brand: Brand, payloads: Payloads, where: Iterable[Place], device: DeviceId | None = None) -> tuple[Group, ...]:
    """Group the machines in `where` by what the brand, or one device of it, changes there."""
    profiles: dict[tuple[str, str, str], dict[str, tuple[Item, ...]]] = {}
    for place in where:
        answers = profiles.setdefault((place.system, place.distribution, place.versions), {})
        answers[place.facts.architecture] = _items(brand, payloads, place, device)
    return tuple(_grouped(profiles))


def _items(brand: Brand, payloads: Payloads, place: Place, device: DeviceId | None) -> tuple[Item, ...]:
    """What one kind of machine gets, and which of the models need it."""
    needed: dict[Item, dict[str, None]] = {}
    models: dict[str, None] = {}
    for made in _drafts(brand, payloads, place, device):
        name = made.model.name if made.model else ""
        models[name] = None
        if not any(blocked.code in NOTHING_CODES for blocked in made.blocked):
            for item in (item for step in made.steps for item in _from_step(made, step)):
                needed.setdefault(item, {})[name] = None
    return tuple(item if len(names) == len(models) else structs.replace(item, models=tuple(names))
                 for item, names in needed.items())


def _drafts(brand: Brand, payloads: Payloads, place: Place, device: DeviceId | None) -> Iterator[Draft]:
    """A plan for each model and each id of it, from the manifest that a client would read for that id."""
    for model in brand.model or (None,):
        ids = dict.fromkeys((m.id_vendor, m.id_product) for m in model.match) if model else {}
        exact: list[DeviceId | None] = [(v, p) for v, p in ids if v is not None and p is not None]
        for known in [device] if device in exact else [] if device else exact or [None]:
            small = cut(brand, place.system, place.facts.architecture, payloads, device=known)
            chosen = next((m for m in small.model if model and m.id == model.id), None)
            yield draft(small, chosen, None, place.facts, target="", installed={})


def _from_step(made: Draft, step: Step) -> Iterator[Item]:
    match change := step.change:
        case DistributionPackages():
            yield from (Item(kind="package", subject=name, component=_component(made.brand, name)) for name in change.names)
        case PackageFile():
            yield Item(kind="package-file", subject=f"{change.name} {change.version}".strip(),
                       component=_component(made.brand, change.name), where=(change.payload.file,))
        case Archive():
            package = next(p for p in made.brand.package if p.payload == change.payload)
            yield Item(kind="archive", subject=change.payload.file, where=(change.prefix,), component=package.component)
        case CcidListLine() | UdevRuleFile():
            yield _patched(made, step, f"{change.id_vendor:04X}:{change.id_product:04X}", change.path)
        case KernelModuleBlacklistFile():
            yield _patched(made, step, ", ".join(change.modules), change.path)
        case ServiceState():
            yield _patched(made, step, change.unit)
        case P11KitModule() | FirefoxPolicy() | NssModule():
            yield _registered(made, step, change)
        case _:
            assert_never(change)


def _registered(made: Draft, step: Step, change: P11KitModule | FirefoxPolicy | NssModule) -> Item:
    name = next((m.name for m in made.brand.module if m.path == change.module), change.module)
    place = f"~/{change.database}" if isinstance(change, NssModule) else change.path
    return Item(kind=step.kind, subject=name, elevated=step.elevated, where=(place, change.module))


def _patched(made: Draft, step: Step, subject: str, *where: str) -> Item:
    reason = next((patch.reason for patch in made.brand.patch if f"patch-{patch.id}" == step.id), {"en": step.reason})
    return Item(kind=step.kind, subject=subject, reason=tuple(reason.items()), where=where)


def _component(brand: Brand, name: str) -> str:
    return next((package.component for package in brand.package if package.name == name), "")


def _grouped(profiles: dict[tuple[str, str, str], dict[str, tuple[Item, ...]]]) -> Iterator[Group]:
    """Put architectures with the same changes together, then distributions whose architectures look alike."""
    alike: dict[tuple[object, ...], list[tuple[tuple[str, str], list[tuple[tuple[str, ...], list[Item]]]]]] = {}
    for (system, distribution, versions), answers in profiles.items():
        parts = _by_content(system, answers)
        shape: tuple[object, ...] = (system, *((names, tuple(_bare(items))) for names, items in parts))
        alike.setdefault(shape, []).append(((distribution, versions), parts))
    for shape, rows in alike.items():
        for index, (names, _) in enumerate(rows[0][1]):
            yield Group(system=str(shape[0]), distributions=tuple(place for place, _ in rows), architectures=names,
                        items=tuple(_merged([parts[index][1] for _, parts in rows])))


def _by_content(system: str, answers: dict[str, tuple[Item, ...]]) -> list[tuple[tuple[str, ...], list[Item]]]:
    """(architectures, changes); () for all the architectures of the system."""
    same: dict[tuple[Item, ...], list[str]] = {}
    for architecture, items in answers.items():
        same.setdefault(tuple(_bare(items)), []).append(architecture)
    every = next(architectures for name, architectures in SYSTEMS if name == system)
    return [((() if len(names) == len(every) else tuple(names)), _merged([answers[name] for name in names]))
            for names in same.values()]


def _bare(items: Iterable[Item]) -> Iterator[Item]:
    """Without the paths, which differ between architectures."""
    return (structs.replace(item, where=()) for item in items)


def _merged(alike: Sequence[Sequence[Item]]) -> list[Item]:
    """One list out of several that differ in nothing but paths."""
    return [structs.replace(row[0], where=tuple(dict.fromkeys(path for item in row for path in item.where)))
            for row in zip(*alike, strict=True)]
