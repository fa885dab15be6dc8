"""Staged rollout: which machines get a newer version first. Pure; nothing about the machine leaves it.

A machine's group for a brand is the first 8 bytes, big-endian, of SHA-256 over `SALT`, a zero byte, the machine's name
(`HostFacts.machine`), a zero byte and the brand's name, modulo `GROUPS`. It never changes, so that a share that grows only
adds machines, and it is another one for every brand, so that no machine is always the first. The remainder of 2**64 by
10 000 makes no group likelier than another by more than one part in 10**15.
"""

import hashlib
from collections.abc import Iterable, Mapping

from msgspec import Struct

from keyfit.model.catalog import Brand, Manifest, Staged

GROUPS = 10_000
"""As many as `Staged.share` has steps."""
SALT = b"keyfit rollout groups 1"
"""Never changed: another salt would give every machine another group in the middle of a rollout."""


class Effective(Struct, frozen=True, kw_only=True):
    """The brands of a manifest as one machine gets them.

    Attributes:
        staged: names of the brands of which it gets the staged version.
    """

    brands: tuple[Brand, ...]
    staged: frozenset[str]


def group(machine: str, brand: str) -> int:
    """The machine's group for a brand, 0 to `GROUPS` - 1."""
    digest = hashlib.sha256(b"\0".join((SALT, machine.encode(), brand.encode()))).digest()
    return int.from_bytes(digest[:8], "big") % GROUPS


def effective(manifest: Manifest, machine: str, installed: Mapping[str, int]) -> Effective:
    """Each brand of the manifest, in the staged version where this machine is to have it.

    Args:
        installed: brand -> sequence that is on record as installed. A machine that has a staged version, or a later one,
            keeps it, whatever became of the share: holding a rollout back is no downgrade.
    """
    main = {b.brand: b for b in manifest.brands}
    chosen, staged = dict(main), set()
    for name, candidates in _by_brand(manifest.staged).items():
        newer = [s for s in candidates if name not in main or s.brand.sequence > main[name].sequence]
        reached = [s for s in newer if _reaches(s, machine, installed.get(name, 0))]
        if reached:
            chosen[name] = max(reached, key=lambda s: s.brand.sequence).brand
            staged.add(name)
    return Effective(brands=tuple(chosen.values()), staged=frozenset(staged))


def _reaches(staged: Staged, machine: str, installed: int) -> bool:
    if installed >= staged.brand.sequence:
        return True
    return not staged.hold and group(machine, staged.brand.brand) < staged.share


def _by_brand(staged: Iterable[Staged]) -> dict[str, list[Staged]]:
    found: dict[str, list[Staged]] = {}
    for each in staged:
        found.setdefault(each.brand.brand, []).append(each)
    return found
