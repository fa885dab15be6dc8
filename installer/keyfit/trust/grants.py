"""What a brand that signs with its own keys may do, and what becomes of its data (security A4).

TUF sees to it that such a key can sign nothing but `brand/<brand>/...`. What is in those files is checked here against the
grant that the publisher signed; which devices are the brand's stays the publisher's word alone.
"""

from collections.abc import Iterable

import msgspec

from keyfit.errors import TrustError
from keyfit.model.catalog import (
    Brand,
    CcidListEntry,
    Grant,
    KernelModuleBlacklist,
    Manifest,
    Model,
    Service,
    Staged,
    UdevRule,
)

BRAND_ROLE = "brand-"
"""The role of the brand x is called brand-x."""
_SHOWN = 8


def delegated_brands(roles: Iterable[str]) -> frozenset[str]:
    """The brands with keys of their own, from the names of the roles that `targets` delegates to."""
    return frozenset(role.removeprefix(BRAND_ROLE) for role in roles if role.startswith(BRAND_ROLE))


def check_named(manifest: Manifest, brand: str) -> None:
    """See that a manifest at a brand's own path is of this brand and of no other.

    Raises:
        TrustError: code "manifest-invalid".
    """
    others = {b.brand for b in (*manifest.brands, *(s.brand for s in manifest.staged))} - {brand}
    if others:
        raise TrustError("manifest-invalid", f"The signed manifest {manifest.path} is not usable: expected {brand} in it,"
                         f" came {', '.join(sorted(others))}.",
                         hint="Update Keyfit; if it is the newest version, tell the publisher.")


def check_granted(manifest: Manifest, brand: str, grant: Grant) -> None:
    """See that what a brand signed itself stays within its grant.

    Raises:
        TrustError: code "grant-exceeded", with all that exceeds.
    """
    problems = list(dict.fromkeys(_exceeding(manifest, brand, grant)))
    if problems:
        listed = "; ".join(problems[:_SHOWN]) + (f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else "")
        raise TrustError("grant-exceeded", f"What {brand} signed itself goes beyond what the publisher granted it:"
                         f" {listed}.", hint="Nothing of it is used. Tell the publisher of this repository.")


def joined(own: Manifest, grant: Grant) -> Manifest:
    """The brand's own manifest with what the grant withdraws."""
    minimum = {grant.brand: max(grant.minimum, own.minimum.get(grant.brand, 1))}
    return msgspec.structs.replace(own, minimum=minimum, revoked=own.revoked + grant.revoked)


def compose(claim: Manifest, own: Manifest, brand: str, device: tuple[int, int]) -> tuple[Brand | None, tuple[Staged, ...]]:
    """The main and the staged versions of a brand for one device: which models it is, says the publisher's manifest
    (`claim`); what they need, the brand's own.

    A staged version that the publisher's manifest has no claim for serves the models of the main one.
    """
    main_claim = next((b for b in claim.brands if b.brand == brand), None)
    staged_claim = next((s.brand for s in claim.staged if s.brand.brand == brand), main_claim)
    main = next((b for b in own.brands if b.brand == brand), None)
    return (_composed(main_claim, main, device) if main_claim is not None and main is not None else None,
            tuple(msgspec.structs.replace(s, brand=_composed(staged_claim, s.brand, device)) for s in own.staged
                  if staged_claim is not None and s.brand.brand == brand))


def _composed(claim: Brand, own: Brand, device: tuple[int, int]) -> Brand:
    models = tuple(_model(model, own) for model in claim.model)
    named = {patch for model in models for patch in model.patches}
    patches = tuple(p for p in own.patch if p.id in named or not isinstance(p, CcidListEntry | UdevRule)
                    or (p.id_vendor, p.id_product) == device)
    return msgspec.structs.replace(
        own, names=claim.names, vendor=claim.vendor, status=claim.status, class_driver=claim.class_driver,
        model=models, patch=patches, sources={**own.sources, **claim.sources})


def _model(claim: Model, own: Brand) -> Model:
    """The publisher's model with the packages and patches that the brand's own model of that name has. One that the
    brand does not have needs, like every model that names none, all of the brand's."""
    known = next((m for m in own.model if m.id == claim.id), None)
    return msgspec.structs.replace(claim, packages=known.packages if known else (), patches=known.patches if known else ())


def _exceeding(manifest: Manifest, brand: str, grant: Grant) -> Iterable[str]:
    """What exceeds the grant, in words."""
    if [b.brand for b in manifest.brands] != [brand]:
        yield f"it has {', '.join(b.brand for b in manifest.brands) or 'no brand'} in it instead of {brand} alone"
    foreign = ({s.brand.brand for s in manifest.staged} | set(manifest.minimum) | {r.brand for r in manifest.revoked})
    yield from (f"it stages or withdraws versions of {name}" for name in sorted(foreign - {brand}))
    for each in (*manifest.brands, *(s.brand for s in manifest.staged)):
        yield from _exceeding_data(each, grant)


def _exceeding_data(brand: Brand, grant: Grant) -> Iterable[str]:
    if brand.class_driver:
        yield "it serves a whole device class"
    for patch in brand.patch:
        match patch:
            case CcidListEntry() | UdevRule():
                if (patch.id_vendor, patch.id_product) not in grant.ids:
                    yield f"the patch {patch.id} is for {patch.id_vendor:04X}:{patch.id_product:04X}"
            case KernelModuleBlacklist():
                yield f"the patch {patch.id} is for kernel modules, which no grant names"
            case Service():
                pass  # one of two units of the PC/SC daemon, for every brand
    if brand.hand_off is not None and brand.hand_off.page not in grant.pages:
        yield f"it leads to the page {brand.hand_off.page}"
    wanted = {p.name for p in brand.package if p.kind == "distribution"} | {c.package for c in brand.conflict}
    yield from (f"it names the system's package {name}" for name in sorted(wanted - set(grant.packages)))
