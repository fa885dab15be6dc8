"""What may never go back: the sequence of each brand, and the newest signed date (security A5, A6)."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from keyfit.errors import StorageError, TrustError
from keyfit.model.catalog import Manifest, Slug
from keyfit.privatefiles import read_private, write_private

FILE_NAME = "floors.json"
_MAX_BYTES = 1_000_000


class _Floors(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    keyfit: Literal[1] = 1
    sequences: dict[Slug, Annotated[int, Meta(ge=1)]] = {}
    signed_at: float = 0.0


class Floors:
    """The file of floors in the metadata directory. Call with the directory's lock held."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE_NAME

    def check_clock(self, now: float, slack_s: float) -> None:
        """Compare the clock with the newest date that was ever signed.

        Raises:
            TrustError: code "clock-behind".
        """
        from datetime import UTC, datetime

        signed_at = self._read().signed_at
        if now < signed_at - slack_s:
            seen, shown = (datetime.fromtimestamp(t, UTC).strftime("%Y-%m-%d") for t in (signed_at, max(now, 0.0)))
            raise TrustError("clock-behind", f"This computer's clock says {shown}, but data signed on {seen} was already"
                             " seen here.", hint="Set the computer's date and time, then try again.")

    def raise_signed_at(self, signed_at: float) -> None:
        """Note a date from verified metadata."""
        floors = self._read()
        if signed_at > floors.signed_at:
            self._write(msgspec.structs.replace(floors, signed_at=signed_at))

    def check_and_raise(self, manifest: Manifest) -> None:
        """Refuse a manifest with a brand below its floor; otherwise its sequences become the floors.

        Raises:
            TrustError: code "rollback".
        """
        floors = self._read()
        for brand in manifest.brands:
            floor = floors.sequences.get(brand.brand, 0)
            if brand.sequence < floor:
                raise TrustError("rollback", f"Expected the data of {brand.brand} with sequence {floor} or later, which"
                                 f" this computer has used, came {brand.sequence}.",
                                 hint="The repository is out of date or was set back. Try another one, or ask the"
                                 " publisher.")
        raised = floors.sequences | {b.brand: b.sequence for b in manifest.brands}
        if raised != floors.sequences:
            self._write(msgspec.structs.replace(floors, sequences=raised))

    def _read(self) -> _Floors:
        data = read_private(self._path, _MAX_BYTES)
        if data is None:
            return _Floors()
        try:
            return msgspec.json.decode(data, type=_Floors)
        except (msgspec.DecodeError, ValueError) as error:
            raise StorageError("floors-damaged", f"{self._path} is damaged: {error}.",
                               hint="An administrator may remove it; then older signed data is accepted once.") from error

    def _write(self, floors: _Floors) -> None:
        write_private(self._path, msgspec.json.encode(floors, order="deterministic"))
