"""The sequence of each brand in the last release: it may never go down, since clients refuse what is below."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from keyfit.errors import DataError, HostError, StorageError
from keyfit.model.catalog import Brand

FILE_NAME = "released.json"


def check_sequences(folder: Path, brands: Sequence[Brand]) -> None:
    """Compare brand data with the last release.

    Raises:
        DataError: code "sequence-too-low".
    """
    released = _read(folder)
    problems = tuple(f"{brand.brand}: expected sequence {released[brand.brand]} or more, came {brand.sequence}"
                     for brand in brands if brand.sequence < released.get(brand.brand, 0))
    if problems:
        raise DataError("sequence-too-low", "expected sequences that only grow: clients would refuse this release",
                        problems, hint="Raise `sequence` in the brand files named above.")


def write_sequences(folder: Path, brands: Sequence[Brand]) -> None:
    """Note what was released. Brands that are gone keep their number."""
    path = folder / FILE_NAME
    released = _read(folder) | {brand.brand: brand.sequence for brand in brands}
    try:
        fresh = path.with_name(path.name + ".new")
        fresh.write_bytes(msgspec.json.format(msgspec.json.encode(released, order="deterministic")))
        fresh.replace(path)
    except OSError as error:
        raise StorageError("cannot-write", f"{path} cannot be written: {error.strerror}.") from error


def _read(folder: Path) -> dict[str, int]:
    try:
        return msgspec.json.decode((folder / FILE_NAME).read_bytes(), type=dict[str, int])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise HostError("released-damaged", f"{folder / FILE_NAME} cannot be read: {error}.") from error
