"""A publisher's own certificate pages, merged into brands that name none."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from keyfit.errors import DataError
from keyfit.model.catalog import Brand, HandOff, HttpsUrl, Slug, Texts
from keyfit.publisher.lint import page_faults

SOURCE = "hand-off-file"
"""Source key of what comes from the file, if the file names no source itself."""


class _Entry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A `[[hand_off]]` table: the fields of `HandOff`, and for which brands."""

    brands: Annotated[tuple[Slug, ...], Meta(min_length=1)]
    bank: Texts
    page: HttpsUrl
    steps: Texts
    forgotten: Texts = {}
    lost: Texts = {}
    replacement: Texts = {}


class _File(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    hand_off: tuple[_Entry, ...]


def merge_hand_offs(brands: Sequence[Brand], path: Path, *,
                    partial: bool = False) -> tuple[tuple[Brand, ...], tuple[str, ...]]:
    """Give each brand that the file names and that has no hand-off the file's one.

    Args:
        partial: `brands` are not all there are, so the file may name others.

    Returns:
        The brands, and the names of those that kept the hand-off of their own.

    Raises:
        DataError: the file is malformed, names an unknown brand, or holds a page that would not be opened.
    """
    entries = _read(path)
    wanted: dict[str, _Entry] = {}
    problems: list[str] = []
    known = {brand.brand for brand in brands}
    for entry in entries:
        problems += [f"{path.name}: {entry.page}: {fault}" for fault in page_faults(entry.page)]
        problems += [f"{path.name}: {entry.page}: expected {name} in English, came {', '.join(sorted(texts)) or 'none'}"
                     for name, texts in (("bank", entry.bank), ("steps", entry.steps)) if "en" not in texts]
        for name in entry.brands:
            if name not in known and not partial:
                problems.append(f"{path.name}: expected a brand of the drivers folder, came {name}")
            if name in wanted:
                problems.append(f"{path.name}: expected one hand-off for {name}, came two")
            wanted[name] = entry
    if problems:
        raise _error(path, problems)
    kept = tuple(brand.brand for brand in brands if brand.brand in wanted and brand.hand_off is not None)
    merged = tuple(_with(brand, wanted[brand.brand], path)
                   if brand.brand in wanted and brand.hand_off is None else brand for brand in brands)
    return merged, kept


def _read(path: Path) -> tuple[_Entry, ...]:
    try:
        return msgspec.convert(tomllib.loads(path.read_text("utf-8")), _File).hand_off
    except OSError as error:
        raise _error(path, [f"{path.name}: expected a readable file, came: {error.strerror}"]) from error
    except (ValueError, msgspec.ValidationError) as error:
        raise _error(path, [f"{path.name}: {error}"]) from error


def _with(brand: Brand, entry: _Entry, path: Path) -> Brand:
    hand_off = HandOff(bank=entry.bank, page=entry.page, steps=entry.steps, sources=(SOURCE,),
                       forgotten=entry.forgotten, lost=entry.lost, replacement=entry.replacement)
    sources = brand.sources | {SOURCE: f"the publisher of this repository ({path.name[:80]})"}
    return msgspec.structs.replace(brand, hand_off=hand_off, sources=sources)


def _error(path: Path, problems: list[str]) -> DataError:
    return DataError("hand-off-invalid", f"expected a sound hand-off file, {path} is none", tuple(problems),
                     hint="See the publishers' documentation for an example.")
