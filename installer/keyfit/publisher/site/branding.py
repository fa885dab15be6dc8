"""How a publisher's site looks and what it calls itself: the optional branding file."""

import re
import tomllib
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from keyfit.core.text import clean
from keyfit.errors import DataError, UserError
from keyfit.model.catalog import FileName, HttpsUrl, ShortText, Texts
from keyfit.publisher.site.colours import AA_TEXT, DARK, LIGHT, contrast

Colour = Annotated[str, Meta(pattern=r"^#[0-9a-fA-F]{6}\Z")]
Form = Literal["stick", "stick-display", "reader", "card", "nano"]
"""Shapes that there are drawings of."""
MAX_BYTES = 64 * 1024
_ADDRESS = re.compile(r"https://[a-z0-9.-]+(/[A-Za-z0-9._~-]+)*/?")
_MODEL_NAME = re.compile(r"[a-z0-9][a-z0-9-]*(/[a-z0-9][a-z0-9-]*)?")


class Branding(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The branding file's content.

    Attributes:
        name: what the site calls itself, by language; English is required.
        colour: of links and buttons on light ground; `colour_dark` on dark ground.
        logo: SVG or PNG file beside the branding file.
        contact: page for people who need help.
        repository: address under which `DIR/repository` is served; makes driver files links.
        forms: shape of a brand ("brand") or of one of its models ("brand/model"), for the pictures.
    """

    name: Annotated[dict[str, ShortText], Meta(min_length=1)] = msgspec.field(
        default_factory=lambda: {"en": "Keyfit"})
    colour: Colour = LIGHT.accent
    colour_dark: Colour = DARK.accent
    logo: FileName = ""
    contact: HttpsUrl | None = None
    repository: HttpsUrl | None = None
    forms: dict[str, Form] = {}


def load_branding(path: Path) -> Branding:
    """Read and check a branding file.

    Raises:
        DataError: code "branding-invalid"; `problems` lists every fault.
    """
    try:
        raw = path.read_bytes()[: MAX_BYTES + 1]
        if len(raw) > MAX_BYTES:
            raise _error(path, [f"expected at most {MAX_BYTES} bytes, came more"])
        branding = msgspec.convert(tomllib.loads(raw.decode("utf-8")), Branding)
    except OSError as error:
        raise _error(path, [f"expected a readable file, came: {error.strerror}"]) from error
    except (ValueError, RecursionError) as error:  # UTF-8, TOML, or a value of the wrong shape
        raise _error(path, [str(error)]) from error
    problems = [*_name_faults(branding.name), *_colour_faults(branding),
                *(f"forms: expected brand or brand/model, came {name!a}" for name in branding.forms
                  if not _MODEL_NAME.fullmatch(name))]
    if problems:
        raise _error(path, problems)
    return branding


def titled(branding: Branding, title: str | None) -> Branding:
    """The branding under another name.

    Raises:
        DataError: nothing is left of the title without its control characters.
    """
    if title is None:
        return branding
    problems = list(_name_faults({"en": title}))
    if problems:
        raise DataError("branding-invalid", "expected a title that can be shown", tuple(problems))
    return msgspec.structs.replace(branding, name={"en": title})


def site_address(address: str) -> str:
    """The address of the site with a slash at its end; "" stays.

    Raises:
        UserError: code "bad-address".
    """
    if address and not _ADDRESS.fullmatch(address):
        raise UserError("bad-address", f"Expected https://host or https://host/folder for --base-url, came {address!a}.")
    return address.rstrip("/") + "/" if address else ""


def _name_faults(names: Texts) -> list[str]:
    problems = [] if "en" in names else ["name: expected one in English (en), came none"]
    for language, name in names.items():
        if not name or clean(name, 80) != name:
            problems.append(f"name.{language}: expected one line of at most 80 visible characters, came {name!a}")
    return problems


def _colour_faults(branding: Branding) -> list[str]:
    """WCAG 2.2, 1.4.3: text needs 4.5:1 against what it stands on."""
    problems = []
    for field, colour, scheme in (("colour", branding.colour, LIGHT), ("colour_dark", branding.colour_dark, DARK)):
        worst = min(contrast(colour, ground) for ground in (scheme.ground, scheme.surface, scheme.on_accent))
        if worst < AA_TEXT:
            problems.append(f"{field}: expected a contrast of at least {AA_TEXT}:1 with {scheme.ground} and"
                            f" {scheme.surface}, {colour} has {worst:.2f}:1")
    return problems


def _error(path: Path, problems: list[str]) -> DataError:
    return DataError("branding-invalid", f"expected a sound branding file, {path} is none",
                     tuple(f"{path.name}: {problem}" for problem in problems),
                     hint="See the publishers' documentation of the site for every field.")
