"""The changes that a publisher makes: each turns brand data and what is remembered into a draft."""

import difflib
from collections.abc import Iterable, Sequence

import msgspec

from keyfit.errors import DataError, UserError
from keyfit.model.catalog import Brand, Match, Revocation
from keyfit.publisher.compile import claimed_ids, manifests, targets_with
from keyfit.publisher.draft import Draft
from keyfit.publisher.keyring import KeyEntry
from keyfit.publisher.overlap import Overlap, overlap
from keyfit.publisher.release import Workplace
from keyfit.publisher.roles import BRAND_PREFIX, OWNERS, brand_role, kind_of, parent_of
from keyfit.publisher.state import BrandState, State, next_states

WHOLE = 10_000
"""All machines, in hundredths of a percent."""


def release(work: Workplace, draft: Draft, brands: Sequence[Brand], *, whole: bool, share: int = WHOLE) -> list[str]:
    """Publish brands as they are now; returns warnings.

    Args:
        brands: with their driver files in them.
        whole: these are all the brands; others are taken out of the repository.
        share: of the machines that get newer sequences.

    Raises:
        DataError: a sequence is too low.
    """
    states, warnings = next_states(brands, work.state, share)
    if not whole:
        _refuse_clashes(states, _known(work))
    if whole:
        named = {state.brand for state in states}
        gone = [msgspec.structs.replace(s, gone=True) for s in work.state.current().values() if s.brand not in named]
        _note(work, [*states, *gone])
        draft.set_targets(manifests(states, _delegated(draft)))
    else:
        for state in states:
            change_brand(work, draft, state)
    return warnings


def change_brand(work: Workplace, draft: Draft, state: BrandState) -> None:
    """Publish one brand's new state; only what it is in is compiled and signed."""
    known = _known(work)
    paths = targets_with(state, *(s for s in [known.get(state.brand)] if s is not None))
    made = manifests(list((known | {state.brand: state}).values()), _delegated(draft), paths)
    draft.change_targets(dict.fromkeys(paths) | made)
    _note(work, [state])


def revoked(state: BrandState, *, sequence: int | None, sha256: str | None, reason: dict[str, str],
            minimum: int | None) -> BrandState:
    """A state with a revocation, a higher minimum, or both.

    Raises:
        UserError: there is no such version, or nothing would be left to install.
    """
    versions = [state.main] + ([state.staged.brand] if state.staged is not None else [])
    if minimum is not None and not state.minimum <= minimum <= state.highest:
        raise UserError("bad-minimum", f"Expected a minimum from {state.minimum} to {state.highest}, came {minimum}.",
                        hint="A minimum only grows, and the newest version has to be above it.")
    if sequence is not None and not 1 <= sequence <= state.highest:
        raise UserError("no-such-version", f"{state.brand} has had the sequences 1 to {state.highest}, came {sequence}.")
    if sha256 is not None and not any(p.payload and p.payload.sha256 == sha256 for b in versions for p in b.package):
        known = ", ".join(sorted({p.payload.sha256[:16] for b in versions for p in b.package if p.payload})) or "none"
        raise UserError("no-such-file", f"{state.brand} has no file with the hash {sha256[:16]}…; it has {known}.",
                        hint="Files of earlier versions are revoked by the version's sequence.")
    added: tuple[Revocation, ...] = ()
    if sequence is not None or sha256 is not None:
        version = next((p.version for b in versions for p in b.package
                        if p.version and (b.sequence == sequence or (p.payload and p.payload.sha256 == sha256))), "")
        added = (Revocation(brand=state.brand, reason=reason, sequence=sequence, sha256=sha256, version=version),)
    fresh = tuple(r for r in added if (r.sequence, r.sha256) not in {(o.sequence, o.sha256) for o in state.revoked})
    staged = state.staged if state.staged is None or state.staged.brand.sequence != sequence else None
    return msgspec.structs.replace(state, revoked=state.revoked + fresh, minimum=minimum or state.minimum, staged=staged)


def rolled_out(state: BrandState, *, share: int | None, hold: bool | None) -> BrandState:
    """A state whose staged version goes to another share of the machines, or waits; with the whole share it is what
    everybody gets.

    Raises:
        UserError: nothing is staged.
    """
    staged = state.staged
    if staged is None:
        raise UserError("nothing-staged", f"{state.brand} has no version that only a part of the machines gets.",
                        hint="Release a newer sequence with: keyfit-publish release DIR --share 1")
    if share is not None and share < staged.share:
        raise UserError("share-shrinks", f"Expected a share of {staged.share / 100:g} % or more, came {share / 100:g} %.",
                        hint="Machines that have it cannot be taken back; use --hold to stop it.")
    staged = msgspec.structs.replace(staged, share=staged.share if share is None else share,
                                     hold=staged.hold if hold is None else hold)
    if staged.share >= WHOLE and not staged.hold:
        return msgspec.structs.replace(state, main=staged.brand, staged=None)
    return msgspec.structs.replace(state, staged=staged)


def known_state(work: Workplace, brand: str) -> BrandState:
    """A released brand.

    Raises:
        UserError: there is no such brand in the repository.
    """
    states = work.state.current()
    if brand not in states:
        near = difflib.get_close_matches(brand[:48], states, n=3, cutoff=0.5)
        raise UserError("no-such-brand", f"Expected a released brand, came {brand[:48]!a}.",
                        hint="Did you mean " + " or ".join(near) + "?" if near else
                        f"{len(states)} brands are released; their names are those of the folders of brand data.")
    return states[brand]


def holders(work: Workplace, owner: str) -> tuple[dict[str, KeyEntry], int]:
    """The keys of an owner, by name, and how many have to sign.

    Raises:
        UserError: there is no such owner.
    """
    repository = work.repository
    roles = [role for role, who in work.layout.owners.items() if who == owner]
    if owner.startswith(BRAND_PREFIX) and owner.removeprefix(BRAND_PREFIX) in repository.delegated_brands():
        roles = [owner]
    if not roles:
        raise UserError("no-such-role", f"Expected a role with keys, came {owner[:80]!a}.", hint="Roles are " + ", ".join(
            [*OWNERS, *map(brand_role, repository.delegated_brands())]) + ".")
    role = next(iter(repository.bin_names())) if roles[0] == "bins" else roles[0]
    delegator = repository.load(parent_of(role)).signed
    delegated = delegator.get_delegated_role(role)
    known = {entry.keyid: entry for entry in work.keyring.entries()}
    entries = [known.get(k) or KeyEntry(name=k[:12], keyid=k, location="", public=delegator.get_key(k).to_dict())
               for k in delegated.keyids]
    return {entry.name: entry for entry in entries}, delegated.threshold


def give_keys(work: Workplace, draft: Draft, brand: str, keyids: Sequence[str], threshold: int) -> None:
    """Let a brand sign its own paths with its own keys; what it has published moves to its role."""
    keys = [entry.key() for entry in work.keyring.entries() if entry.keyid in set(keyids)]
    if brand in _delegated(draft):
        draft.set_keys(brand_role(brand), keys, threshold)
        return
    known = _known(work)
    paths = targets_with(known[brand]) if brand in known else set()
    draft.change_targets(dict.fromkeys(paths))  # out of the bins, then into the brand's role
    draft.delegate(brand, keys, threshold)
    draft.change_targets(dict(manifests(list(known.values()), _delegated(draft), paths)))


def take_keys(work: Workplace, draft: Draft, brand: str) -> None:
    """End a brand's own keys; the publisher signs its data again.

    Raises:
        UserError: it has none.
    """
    if brand not in _delegated(draft):
        raise UserError("not-delegated", f"{brand} has no keys of its own.",
                        hint="Those that have: " + (", ".join(_delegated(draft)) or "none") + ".")
    known = _known(work)
    draft.end_delegation(brand)
    paths = targets_with(known[brand]) if brand in known else set()
    draft.change_targets(dict.fromkeys(paths) | manifests(list(known.values()), _delegated(draft), paths))


def _delegated(draft: Draft) -> list[str]:
    roles = draft.now("targets").delegations.roles or {}
    return [role.removeprefix("brand-") for role in roles if kind_of(role) == "brand"]


def _refuse_clashes(states: Sequence[BrandState], known: dict[str, BrandState]) -> None:
    """See that no released brand claims the same devices in the same way; a whole release is checked by lint.

    Raises:
        DataError: code "lint-failed".
    """
    problems = [f"{state.brand} and {other.brand}: a device {vendor:04x}:{product:04x} could fit either equally well"
                for state in states for other in known.values() if other.brand != state.brand
                for vendor, product in sorted(_ties(state.main, other.main))]
    if problems:
        raise DataError("lint-failed", "expected brands that a device can be told apart by", tuple(problems),
                        hint="Tell them apart by strings, bcdDevice, interface class or answer-to-reset.")


def _ties(one: Brand, other: Brand) -> set[tuple[int, int]]:
    mine, theirs = set(claimed_ids(one)), set(claimed_ids(other))
    return {device for device in mine & theirs
            if any(overlap(a, b) is Overlap.TIE for a in _matches(one, device) for b in _matches(other, device))}


def _matches(brand: Brand, device: tuple[int, int]) -> list[Match]:
    return [m for model in brand.model for m in model.match if (m.id_vendor, m.id_product) == device]


def _known(work: Workplace) -> dict[str, BrandState]:
    """Every brand that is released, with what this change has already noted."""
    return work.state.current() | State(work.request_folder / "state").current()


def _note(work: Workplace, states: Iterable[BrandState]) -> None:
    beside = State(work.request_folder / "state")
    for state in states:
        beside.write(state)

