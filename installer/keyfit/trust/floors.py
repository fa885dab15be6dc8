"""What may never go back: the sequence of each brand, what was withdrawn, and the newest signed date (security A5, A6, J4).

One file for all sources: what was learnt from one repository, mirror or medium holds for the others.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from keyfit.errors import StorageError, TrustError, WithdrawnError
from keyfit.model.catalog import Brand, Revocation, Sha256, Slug, Texts
from keyfit.privatefiles import read_private, write_private

FILE_NAME = "floors.json"
MAX_BYTES = 8_000_000
MAX_PER_BRAND = 512
"""Withdrawals kept for one brand. One with more is not used any more: what cannot be kept may not be forgotten either."""
MAX_REASON_BYTES = 2_000
"""Of the JSON of one reason; a longer one is kept in English alone."""
_Sequence = Annotated[int, Meta(ge=1, le=2**31)]
_OLDER = "The repository is out of date or was set back. Try another one, or ask the publisher."
_ALLOW = "If it is needed all the same, an administrator can name exactly this version in the policy: allow = [\"{}={}\"]."


class _Floors(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Attributes:
    full: brands with more withdrawals than are kept.
    """

    keyfit: Literal[1] = 1
    sequences: dict[Slug, _Sequence] = {}
    minimum: dict[Slug, _Sequence] = {}
    revoked: tuple[Revocation, ...] = ()
    full: tuple[Slug, ...] = ()
    signed_at: float = 0.0


class Floors:
    """The file of floors in the metadata directory. Call what changes it with the directory's lock held.

    Args:
        built_at: a date that the program itself carries, in seconds since the epoch; no clock can be right before it.
    """

    def __init__(self, folder: Path, built_at: float = 0.0) -> None:
        self._path = folder / FILE_NAME
        self._built_at = built_at

    def reference_time(self, now: float, slack_s: float) -> float:
        """The time to check expiry against: the clock's, but never before the newest date that was ever signed.

        Raises:
            TrustError: code "clock-behind": the clock is further behind than `slack_s`.
        """
        floor = max(self._read().signed_at, self._built_at)
        if now < floor - slack_s:
            raise clock_behind(now, floor)
        return max(now, floor)

    def newest_date(self) -> float:
        """The newest date of verified metadata, in seconds since the epoch; 0 if none was ever seen."""
        return self._read().signed_at

    def raise_signed_at(self, signed_at: float) -> None:
        """Note a date from verified metadata."""
        floors = self._read()
        if signed_at > floors.signed_at:
            self._write(msgspec.structs.replace(floors, signed_at=signed_at))

    def note(self, minimum: Mapping[str, int], revoked: Iterable[Revocation]) -> None:
        """Note what verified data withdraws.

        Raises:
            StorageError: code "floors-full".
        """
        floors = self._read()
        lowest = dict(floors.minimum)
        for brand, sequence in minimum.items():
            lowest[brand] = max(sequence, lowest.get(brand, 1))
        noted = msgspec.structs.replace(_with_revoked(floors, revoked), minimum=lowest)
        if noted != floors:
            self._write(noted)

    def raise_sequences(self, brands: Iterable[Brand]) -> None:
        """The versions that were found good become the lowest ones."""
        floors = self._read()
        raised = floors.sequences | {b.brand: max(b.sequence, floors.sequences.get(b.brand, 1)) for b in brands}
        if raised != floors.sequences:
            self._write(msgspec.structs.replace(floors, sequences=raised))

    def refusal(self, brand: Brand) -> TrustError | None:
        """Why this version of a brand may not be used: code "revoked", "below-minimum" or "rollback"; None if it may."""
        floors = self._read()
        hint = _ALLOW.format(brand.brand, brand.sequence)
        for revocation in floors.revoked:
            if revocation.brand == brand.brand and (withdrawn := _withdrawn(brand, revocation, hint)) is not None:
                return withdrawn
        if brand.brand in floors.full:
            return WithdrawnError("revoked", f"More versions of {brand.brand} were withdrawn than this computer can keep"
                                  " in mind, so none is used.", {}, hint=hint)
        minimum = floors.minimum.get(brand.brand, 1)
        if brand.sequence < minimum:
            return TrustError("below-minimum", f"The publisher wants {brand.brand} with sequence {minimum} or later, came"
                              f" {brand.sequence}.", hint=f"{_OLDER} {hint}")
        floor = floors.sequences.get(brand.brand, 1)
        if brand.sequence < floor:
            return TrustError("rollback", f"Expected the data of {brand.brand} with sequence {floor} or later, which this"
                              f" computer has used, came {brand.sequence}.", hint=f"{_OLDER} {hint}")
        return None

    def file_refusal(self, name: str, sha256: str) -> TrustError | None:
        """Why a driver file may not be used, whatever asks for it; None if it may."""
        found = next((r for r in self._read().revoked if r.sha256 == sha256), None)
        if found is None:
            return None
        return WithdrawnError("revoked", _file_text(name, found), found.reason,
                              hint="Take the driver back (`keyfit uninstall`) or install the newest one.")

    def _read(self) -> _Floors:
        data = read_private(self._path, MAX_BYTES)
        if data is None:
            return _Floors()
        try:
            return msgspec.json.decode(data, type=_Floors)
        except (msgspec.DecodeError, ValueError) as error:
            raise StorageError("floors-damaged", f"{self._path} is damaged: {error}.",
                               hint="An administrator may remove it; then older signed data is accepted once.") from error

    def _write(self, floors: _Floors) -> None:
        data = msgspec.json.encode(floors, order="deterministic")
        if len(data) > MAX_BYTES:
            raise StorageError("floors-full", f"{self._path} would grow beyond {MAX_BYTES} bytes.",
                               hint="Tell the publisher: the signed data withdraws more than it can be meant to.")
        write_private(self._path, data)


def clock_behind(now: float, seen: float) -> TrustError:
    """The error for a clock that is behind a date that was signed or built in."""
    from datetime import UTC, datetime

    shown, known = (datetime.fromtimestamp(max(t, 0.0), UTC).strftime("%Y-%m-%d") for t in (now, seen))
    return TrustError("clock-behind", f"This computer's clock says {shown}, but this program or its signed data is of"
                      f" {known}.", hint="Set the computer's date and time, then try again.")


def _with_revoked(floors: _Floors, revoked: Iterable[Revocation]) -> _Floors:
    known = {(r.brand, r.sequence, r.sha256) for r in floors.revoked}
    kept, full = list(floors.revoked), set(floors.full)
    count: dict[str, int] = {}
    for each in kept:
        count[each.brand] = count.get(each.brand, 0) + 1
    for each in revoked:
        key = (each.brand, each.sequence, each.sha256)
        if key in known:
            continue
        if count.get(each.brand, 0) == MAX_PER_BRAND:
            full.add(each.brand)
            continue
        known.add(key)
        count[each.brand] = count.get(each.brand, 0) + 1
        kept.append(msgspec.structs.replace(each, reason=_short(each.reason)))
    return msgspec.structs.replace(floors, revoked=tuple(kept), full=tuple(sorted(full)))


def _short(reason: Texts) -> Texts:
    if len(msgspec.json.encode(reason)) <= MAX_REASON_BYTES:
        return reason
    return {"en": reason.get("en") or next(iter(reason.values()))}


def _withdrawn(brand: Brand, revocation: Revocation, hint: str) -> WithdrawnError | None:
    if revocation.sequence == brand.sequence:
        version = f" ({revocation.version})" if revocation.version else ""
        return WithdrawnError("revoked", f"Number {brand.sequence}{version} of {brand.brand} was withdrawn by its"
                              " publisher.", revocation.reason, hint=f"Wait for a newer one. {hint}")
    if revocation.sha256 is not None:
        for package in brand.package:
            if package.payload is not None and package.payload.sha256 == revocation.sha256:
                return WithdrawnError("revoked", _file_text(package.payload.file, revocation), revocation.reason,
                                      hint=f"Wait for a newer one. {hint}")
    return None


def _file_text(name: str, revocation: Revocation) -> str:
    version = f" ({revocation.version})" if revocation.version else ""
    return f"The file {name}{version} of {revocation.brand} was withdrawn by its publisher."


def files_of(brand: Brand) -> Iterable[Sha256]:
    """Hashes of the driver files that a brand's data names."""
    return (p.payload.sha256 for p in brand.package if p.payload is not None)
