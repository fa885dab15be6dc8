"""What a publisher's directory remembers of its releases: each brand as it was last released, versions that only a share
of the machines gets, and what was revoked. One JSON file a brand, so that a change of one brand reads only that one."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from keyfit.errors import DataError, HostError
from keyfit.model.catalog import Brand, Revocation, Slug, Staged
from keyfit.privatefiles import write_private


class BrandState(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A brand in the repository.

    Attributes:
        main: what everybody gets, with the driver files in it.
        staged: a newer version for a share of the machines.
        minimum: lowest sequence that may be used.
        revoked: what may not be installed any more.
        highest: highest sequence ever released, staged ones among them.
        gone: no longer released; kept for its numbers.
    """

    brand: Slug
    main: Brand
    staged: Staged | None = None
    minimum: int = 1
    revoked: tuple[Revocation, ...] = ()
    highest: int = 0
    gone: bool = False


class State:
    """The folder of brand states."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def current(self) -> dict[str, BrandState]:
        """Every brand that is released."""
        states = (self.read(path.stem) for path in sorted(self._folder.glob("*.json")))
        return {state.brand: state for state in states if state is not None and not state.gone}

    def read(self, brand: str) -> BrandState | None:
        """A brand's state, or None if it was never released.

        Raises:
            HostError: the file is damaged.
        """
        path = self._folder / f"{brand}.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=BrandState)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise HostError("state-damaged", f"{path} cannot be read: {error}.",
                            hint="Restore it from a copy; without it clients might be sent back to an older version."
                            ) from error

    def write(self, state: BrandState) -> None:
        """Replace a brand's state, if it is another one."""
        path = self._folder / f"{state.brand}.json"
        data = msgspec.json.format(msgspec.json.encode(state, order="deterministic"))
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            if path.read_bytes() == data:
                return
        except OSError:
            pass
        write_private(path, data)

    def take(self, other: Path) -> None:
        """Take over the files of another folder of states."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(other.glob("*.json")) if other.exists() else ():
            write_private(self._folder / path.name, path.read_bytes())


def next_states(brands: Sequence[Brand], old: State, share: int) -> tuple[list[BrandState], list[str]]:
    """The states after a release, and what is worth a warning.

    Args:
        brands: with their driver files in them.
        share: of the machines, in hundredths of a percent, that get a newer sequence; 10 000 for all.

    Raises:
        DataError: code "sequence-too-low" or "sequence-revoked", with every brand that it is true of.
    """
    states, low, revoked, warnings = [], [], [], []
    for brand in brands:
        known = old.read(brand.brand)
        if known is None:
            states.append(BrandState(brand=brand.brand, main=brand, highest=brand.sequence))
            continue
        if brand.sequence in {r.sequence for r in known.revoked}:
            revoked.append(f"{brand.brand}: expected a sequence that was not revoked, came {brand.sequence}")
        newest = known.staged.brand if known.staged is not None else known.main
        if brand.sequence < max(known.highest, known.main.sequence):
            low.append(f"{brand.brand}: expected sequence {max(known.highest, known.main.sequence)} or more, came"
                       f" {brand.sequence}")
        elif brand.sequence == newest.sequence and brand != newest:
            warnings.append(f"{brand.brand} has changed, but its sequence is still {brand.sequence}: machines that have"
                            " it are not told of an update.")
        states.append(_after(known, brand, share))
    if revoked:
        raise DataError("sequence-revoked", "expected brands with sequences that may be installed", tuple(revoked),
                        hint="Raise `sequence` in the brand files named above.")
    if low:
        raise DataError("sequence-too-low", "expected sequences that only grow: clients would refuse this release",
                        tuple(low), hint="Raise `sequence` in the brand files named above.")
    return states, warnings


def _after(known: BrandState, brand: Brand, share: int) -> BrandState:
    highest = max(known.highest, brand.sequence)
    replaced = msgspec.structs.replace
    known = replaced(known, gone=False)
    if known.staged is not None and brand.sequence == known.staged.brand.sequence:
        return replaced(known, staged=replaced(known.staged, brand=brand), highest=highest)
    if brand.sequence > known.main.sequence and share < 10_000:
        return replaced(known, staged=Staged(brand=brand, share=share), highest=highest)
    return replaced(known, main=brand, staged=None, highest=highest)


def revocations(states: Iterable[BrandState], brands: Iterable[str]) -> tuple[dict[str, int], tuple[Revocation, ...]]:
    """(minimum by brand, revocations) of some brands."""
    wanted = set(brands)
    named = [state for state in states if state.brand in wanted]
    return ({s.brand: s.minimum for s in named if s.minimum > 1},
            tuple(revocation for s in named for revocation in s.revoked))
