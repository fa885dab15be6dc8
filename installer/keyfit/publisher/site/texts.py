"""The words of the site: one catalogue file per language, looked up by dotted key."""

import string
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from keyfit.errors import BugError

FOLDER = Path(__file__).parent / "texts"


class Catalogue:
    """The texts of one language.

    Args:
        language: name of the file below `texts`, without its ending.
    """

    def __init__(self, language: str) -> None:
        self.language = language
        self._texts = dict(_flat(tomllib.loads((FOLDER / f"{language}.toml").read_text("utf-8"))))
        self._escaped = {key: escape(text) for key, text in self._texts.items()}
        self.used: set[str] = set()

    def known(self) -> set[str]:
        """Every key."""
        return set(self._texts)

    def has(self, key: str) -> bool:
        """True if there is such a text."""
        return key in self._texts

    def placeholders(self, key: str) -> set[str]:
        """Names in braces that a text is filled with."""
        return {name for _, name, _, _ in string.Formatter().parse(self._texts[key]) if name}

    def text(self, key: str, /, **values: object) -> Markup:
        """A text as HTML; values are escaped unless they are markup already.

        Raises:
            BugError: no such text, or a value of it is missing.
        """
        try:
            self.used.add(key)
            return self._escaped[key].format(**values)
        except KeyError as error:
            raise BugError("site-text-missing", f"Expected the text {key} with all its values in {self.language}.toml,"
                           f" {error} is missing.") from error


@cache
def catalogue(language: str) -> Catalogue:
    """The catalogue of a language, read once."""
    return Catalogue(language)


def _flat(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, str(value)
