"""A publisher's own certificate pages, added to brands that name none."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from keyfit.core.handoff import check_page
from keyfit.errors import DataError, KeyfitError
from keyfit.model.catalog import Brand, HandOff

SOURCE = "publisher"
MAX_BYTES = 256_000


def merge(brands: Sequence[Brand], file: Path) -> tuple[Brand, ...]:
    """The brands with the pages of `file`.

    Raises:
        DataError: the file is malformed; lists every problem.
    """
    pages = _read(file, {b.brand for b in brands})
    return tuple(_with(brand, pages[brand.brand]) if brand.hand_off is None and brand.brand in pages else brand
                 for brand in brands)


def _with(brand: Brand, page: HandOff) -> Brand:
    return msgspec.structs.replace(
        brand, hand_off=page, sources={**brand.sources, SOURCE: "hand-off page given by the publisher of this repository"})


def _read(file: Path, known: set[str]) -> dict[str, HandOff]:
    try:
        data = file.read_bytes()
        document: dict[str, Any] = tomllib.loads(data[:MAX_BYTES].decode())
    except (OSError, ValueError) as error:
        raise DataError("hand-off-invalid", f"The hand-off file {file} cannot be read: {error}.") from error
    problems = [f"{file}: unknown field {key!r}; expected only [[hand_off]]" for key in document if key != "hand_off"]
    pages: dict[str, HandOff] = {}
    entries = document.get("hand_off", [])
    for number, entry in enumerate(entries if isinstance(entries, list) else [], 1):
        where = f"{file}: hand_off number {number}"
        names = entry.pop("brands", None) if isinstance(entry, dict) else None
        if not isinstance(names, list) or not names:
            problems.append(f"{where}: `brands` has to list at least one brand")
            continue
        problems += [f"{where}: there is no brand {name!r}" for name in names if name not in known]
        try:
            page = msgspec.convert({**entry, "sources": [SOURCE]}, HandOff)
            check_page(page.page)
        except (msgspec.ValidationError, KeyfitError) as error:
            problems.append(f"{where}: {error}")
            continue
        pages |= dict.fromkeys(map(str, names), page)
    if problems:
        raise DataError("hand-off-invalid", f"The hand-off file {file} has {len(problems)} problems.", tuple(problems),
                        hint="demo/hand-off.toml is an example.")
    return pages
