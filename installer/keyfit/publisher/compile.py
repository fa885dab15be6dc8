"""Turns brand files into what clients read: one device manifest per USB id, one per brand, and the shipped catalogs.

Same brands in, same bytes out: entries keep the order of the brand files, everything else is sorted. Run as
`python -m keyfit.publisher.compile DRIVERS OUT` to write the catalogs.
"""

import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from keyfit.errors import DataError
from keyfit.model.catalog import (
    Architecture,
    Brand,
    Catalog,
    CcidListEntry,
    Condition,
    Grant,
    Manifest,
    Match,
    Model,
    Package,
    Patch,
    Payload,
    Pkcs11Module,
    Staged,
    SystemName,
    UdevRule,
    brand_target,
    device_target,
    grant_target,
)
from keyfit.publisher.brandfile import load_brands
from keyfit.publisher.state import BrandState, revocations

SYSTEMS: tuple[tuple[SystemName, tuple[Architecture, ...]], ...] = (
    ("linux", ("amd64", "arm64", "i386")),
    ("windows", ("amd64", "arm64", "i386")),
    ("macos", ("amd64", "arm64")),
)
"""What clients exist for. Apple ended 32-bit programs with macOS 10.15 (Apple support article HT208436)."""

DeviceId = tuple[int, int]
Payloads = Mapping[tuple[str, str], Payload]
"""(brand, package id) -> the file that the publisher added for it."""


def platforms() -> Iterator[tuple[SystemName, Architecture]]:
    """Every system and architecture that manifests are made for."""
    for system, architectures in SYSTEMS:
        for architecture in architectures:
            yield system, architecture


def with_files(brands: Iterable[Brand], payloads: Payloads) -> list[Brand]:
    """The brands with the files that the publisher added in their packages."""
    return [msgspec.structs.replace(brand, package=tuple(
        msgspec.structs.replace(package, payload=payloads.get((brand.brand, package.id), package.payload))
        for package in brand.package)) for brand in brands]


def manifests(states: Sequence[BrandState], delegated: Collection[str] = (),
              paths: Collection[str] | None = None) -> dict[str, bytes]:
    """Every target but those of Keyfit itself: target path -> compact JSON.

    A device's manifest holds all brands that claim its exact id, cut down to it; a brand's manifest holds the brand
    with all its models. A brand with nothing for a system stays in it without packages, so that it can be named there.
    Of a brand with keys of its own, the device's manifest holds only which devices it may claim, and its grant what it
    may ask for.

    Args:
        states: every brand of the repository.
        delegated: brands with keys of their own.
        paths: make only these.
    """
    def asked(path: str) -> bool:
        return paths is None or path in paths

    targets: dict[str, bytes] = {}
    by_id = _claims(states)
    for system, architecture in platforms():
        for state in states:
            path = brand_target(state.brand, system, architecture)
            if asked(path):
                targets[path] = _manifest(path, system, architecture, [state], None, ())
        for device, claiming in by_id.items():
            path = device_target(*device, system, architecture)
            if asked(path):
                targets[path] = _manifest(path, system, architecture, claiming, device, delegated)
    for state in states:
        path = grant_target(state.brand)
        if state.brand in delegated and asked(path):
            targets[path] = msgspec.json.encode(_grant(path, state), order="deterministic")
    return dict(sorted(targets.items()))


def targets_with(*states: BrandState) -> set[str]:
    """Every target path that a brand may be in, in any of these states of it."""
    return {path for state in states for path in (
        grant_target(state.brand),
        *(brand_target(state.brand, *platform) for platform in platforms()),
        *(device_target(*device, *platform) for platform in platforms() for device in _ids(state)))}


def catalog(brands: Sequence[Brand], system: SystemName, architecture: Architecture) -> bytes:
    """The catalog that a build for one system ships, as compact JSON."""
    return _json(Catalog(keyfit=1, system=system, architecture=architecture,
                         brands=tuple(cut(brand, system, architecture, {}, keep_files=True) for brand in brands)))


def write_catalogs(drivers: Path, out: Path) -> None:
    """Write `catalog-<system>-<architecture>.json` into `out` for every system, from the brand files in `drivers`.

    Raises:
        DataError: a brand file is at fault; nothing was written.
    """
    brands = load_brands(drivers)
    out.mkdir(parents=True, exist_ok=True)
    for system, architecture in platforms():
        (out / f"catalog-{system}-{architecture}.json").write_bytes(catalog(brands, system, architecture))


def cut(brand: Brand, system: SystemName, architecture: Architecture, payloads: Payloads, *,
        device: DeviceId | None = None, keep_files: bool = False) -> Brand:
    """The brand as one kind of machine needs it.

    Left out are: entries for other systems; packages of a file kind without a file, unless `keep_files` (to name what a
    brand needs); modules named (`id`) like a package (`name`) that all of these left out, since nothing would bring them;
    and sources that nothing refers to any more. With `device`, also other models and matches, packages that no model left
    needs, and patches for other devices unless a model left names them.

    A model keeps the ids of packages that were left out: an empty list would mean all of them.
    """
    models = brand.model if device is None else tuple(_models_for(brand, device))
    packages = tuple(_packages(brand, system, architecture, payloads, models if device else (), keep_files=keep_files))
    patches = tuple(p for p in _on(brand.patch, system, architecture)
                    if device is None or _is_for(p, device, models))
    modules = _modules(brand, packages, system, architecture)
    small = msgspec.structs.replace(brand, model=models, package=packages, module=modules, patch=patches,
                                    conflict=brand.conflict if system == "linux" else ())
    used = set(used_sources(small))
    return msgspec.structs.replace(small, sources={k: v for k, v in brand.sources.items() if k in used})


def used_sources(brand: Brand) -> Iterator[str]:
    """Every key into `[sources]` that the brand's entries use, with repetitions."""
    waiting: list[object] = [brand]
    while waiting:
        node = waiting.pop()
        if isinstance(node, tuple):
            waiting += node
        elif isinstance(node, msgspec.Struct):
            for name in node.__struct_fields__:
                value = getattr(node, name)
                if name in ("sources", "insert_order_sources") and isinstance(value, tuple):
                    yield from value
                else:
                    waiting.append(value)


def _claims(states: Sequence[BrandState]) -> dict[DeviceId, list[BrandState]]:
    claims: dict[DeviceId, dict[str, BrandState]] = {}
    for state in states:
        for device in _ids(state):
            claims.setdefault(device, {})[state.brand] = state
    return {device: list(claims[device].values()) for device in sorted(claims)}


def _ids(state: BrandState) -> Iterator[DeviceId]:
    yield from claimed_ids(state.main)
    if state.staged is not None:
        yield from claimed_ids(state.staged.brand)


def claimed_ids(brand: Brand) -> Iterator[DeviceId]:
    """The exact ids that a brand's matches name, with repetitions."""
    for model in brand.model:
        for match in model.match:
            if match.id_vendor is not None and match.id_product is not None:
                yield match.id_vendor, match.id_product


def _models_for(brand: Brand, device: DeviceId) -> Iterator[Model]:
    for model in brand.model:
        matches = tuple(match for match in model.match if _names(match, device))
        if matches:
            yield msgspec.structs.replace(model, match=matches)


def _names(match: Match, device: DeviceId) -> bool:
    return (match.id_vendor, match.id_product) == device


def _here(condition: Condition, system: str, architecture: str) -> bool:
    return condition.system == system and (not condition.architecture or architecture in condition.architecture)


def _on(patches: Iterable[Patch], system: str, architecture: str) -> Iterator[Patch]:
    return (patch for patch in patches if _here(patch.on, system, architecture))


def _packages(brand: Brand, system: str, architecture: str, payloads: Payloads,
              models: Sequence[Model], *, keep_files: bool = False) -> Iterator[Package]:
    needed = {name for model in models for name in model.packages}
    if any(not model.packages for model in models):
        needed = set()  # that model needs all of them
    for package in brand.package:
        payload = payloads.get((brand.brand, package.id), package.payload)
        if not _here(package.on, system, architecture) or (needed and package.id not in needed):
            continue
        if package.kind == "distribution" or payload is not None or keep_files:
            yield msgspec.structs.replace(package, payload=payload)


def _modules(brand: Brand, packages: Sequence[Package], system: str, architecture: str) -> tuple[Pkcs11Module, ...]:
    bringers = {package.name for package in brand.package}
    there = {package.name for package in packages}
    return tuple(module for module in brand.module if _here(module.on, system, architecture)
                 and (module.id not in bringers or module.id in there))


def _is_for(patch: Patch, device: DeviceId, models: Sequence[Model]) -> bool:
    if isinstance(patch, CcidListEntry | UdevRule) and (patch.id_vendor, patch.id_product) != device:
        return any(patch.id in model.patches for model in models)
    return True


def _manifest(path: str, system: SystemName, architecture: Architecture, states: Sequence[BrandState],
              device: DeviceId | None, delegated: Collection[str]) -> bytes:
    """A manifest of the brands in `states`; with `device`, of those versions that claim it."""
    def cut_down(brand: Brand, claim_only: bool) -> Brand:
        small = cut(brand, system, architecture, {}, device=device)
        return claim_of(small) if claim_only else small

    def claims(brand: Brand) -> bool:
        return device is None or device in set(claimed_ids(brand))

    minimum, revoked = revocations(states, [state.brand for state in states])
    return _json(Manifest(
        keyfit=1, path=path, system=system, architecture=architecture, minimum=minimum, revoked=revoked,
        brands=tuple(cut_down(s.main, s.brand in delegated) for s in states if claims(s.main)),
        staged=tuple(Staged(brand=cut_down(s.staged.brand, s.brand in delegated), share=s.staged.share,
                            hold=s.staged.hold) for s in states if s.staged is not None and claims(s.staged.brand))))


def claim_of(brand: Brand) -> Brand:
    """Which devices a brand claims, and nothing that it would do."""
    small = msgspec.structs.replace(brand, package=(), module=(), patch=(), conflict=(), pin=None, hand_off=None)
    used = set(used_sources(small))
    return msgspec.structs.replace(small, sources={k: v for k, v in brand.sources.items() if k in used})


def _grant(path: str, state: BrandState) -> Grant:
    """What the brand's data, which the publisher has looked at, asks for: no more than that may the brand do alone."""
    versions = [state.main] + ([state.staged.brand] if state.staged is not None else [])
    return Grant(
        keyfit=1, path=path, brand=state.brand, ids=tuple(sorted(set(_ids(state)))),
        pages=tuple(sorted({b.hand_off.page for b in versions if b.hand_off is not None})),
        packages=tuple(sorted({p.name for b in versions for p in b.package if p.kind == "distribution"}
                              | {c.package for b in versions for c in b.conflict})),
        minimum=state.minimum, revoked=state.revoked)


def _json(value: Manifest | Catalog) -> bytes:
    return msgspec.json.encode(value, order="deterministic")


def main(arguments: Sequence[str]) -> int:
    """Command line: DRIVERS OUT. Returns the exit code."""
    if len(arguments) != 2:
        sys.stderr.write("usage: python -m keyfit.publisher.compile DRIVERS OUT\n")
        return 2
    try:
        write_catalogs(Path(arguments[0]), Path(arguments[1]))
    except DataError as error:
        sys.stderr.write("\n".join([error.message, *error.problems, error.hint, ""]))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
