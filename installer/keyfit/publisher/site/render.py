"""Turns a page's template and values into HTML. Everything from outside is escaped here, and cleaned of what misleads."""

import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from msgspec import Struct

from keyfit.core.text import clean
from keyfit.errors import BugError
from keyfit.model.catalog import Texts
from keyfit.publisher.site.model import TONGUES, Site, Tongue, said
from keyfit.publisher.site.texts import Catalogue, catalogue

if TYPE_CHECKING:
    from keyfit.publisher.site.build import DriverFile

CSP = ("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none';"
       " form-action 'none'")
"""Content-Security-Policy of every page: nothing from elsewhere, nothing inline."""
_TEXT_LIMIT = 400
EXAMPLES: Mapping[str, str] = {"windows": "USB\\VID_096E&PID_0807", "macos": "0x096e 0x0807", "linux": "lsusb",
                               "number": "096E:0807"}
"""What each system shows for one and the same number (a Feitian ePass2003)."""
_TAGS = {tongue.key: tongue.tag for tongue in TONGUES}


class Row(Struct, frozen=True, kw_only=True):
    """A file in a table of checksums. `address` is "" if it is not to be had by a link."""

    file: str
    address: str
    sha256: str
    length_bytes: int
    purpose: Markup


class Page(Struct, frozen=True, kw_only=True):
    """One page in one language.

    Attributes:
        path: below the site's root, for example "en/brand/acme.html".
        template: file below `templates`.
        values: what the template needs besides the common names.
        twins: folder of a language -> path of the same page in it; empty for pages in no language.
    """

    path: str
    template: str
    tongue: Tongue
    values: Mapping[str, Any]
    twins: Mapping[str, str] = {}


def environment() -> Environment:
    """The template engine: escaping everything, and failing at a name that is not there."""
    return Environment(loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True,
                       undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)


def render(engine: Environment, site: Site, page: Page) -> bytes:
    """A page as UTF-8."""
    words = catalogue(page.tongue.key)
    helpers = _Helpers(site, page, words)
    values = {"t": words.text, "has_text": words.has, "local": helpers.local, "text": helpers.shown, "link": helpers.link,
              "outside": outside, "host": host, "size": helpers.size, "code": code, "join": helpers.join,
              "listed": helpers.listed, "bdi": helpers.bdi, "bdis": helpers.bdis, "english": helpers.english,
              "file_rows": helpers.file_rows, "program_rows": helpers.program_rows, "said_in": said, "words": _words,
              "examples": EXAMPLES, "tongue": page.tongue, "tongues": TONGUES, "twins": page.twins, "csp": CSP,
              "site": site, "site_name": helpers.local(site.branding.name), "path": page.path,
              "title_name": said(site.branding.name, page.tongue.key)[0], "absolute": helpers.absolute}
    html = engine.get_template(page.template).render(values | dict(page.values))
    return html.encode("utf-8", "strict")


class _Helpers:
    """What the templates of one page call."""

    def __init__(self, site: Site, page: Page, words: Catalogue) -> None:
        self._site = site
        self._page = page
        self._words = words

    def shown(self, text: str) -> str:
        """Text from data on one line, without control and direction characters."""
        return clean(text, _TEXT_LIMIT)

    def local(self, texts: Texts) -> Markup:
        """A text from data in the page's language; if it is in another one, marked as that."""
        text, language = said(texts, self._page.tongue.key)
        return self._in(text, language)

    def english(self, text: str) -> Markup:
        """A text that the data has in English only."""
        return self._in(text, "en")

    def _in(self, text: str, language: str) -> Markup:
        text = self.shown(text)
        if language == self._page.tongue.key:
            return Markup("<bdi>{}</bdi>").format(text)
        return Markup('<bdi lang="{}">{}</bdi>').format(_TAGS.get(language, language.replace("_", "-")), text)

    def link(self, target: str) -> str:
        """Relative address of a file of the site, given from the site's root; whole https addresses stay."""
        if "://" in target:
            return outside(target)
        path, mark, anchor = target.partition("#")
        start = posixpath.dirname(self._page.path)
        return (posixpath.relpath(path, start or ".") if path else "") + "/" * path.endswith("/") + mark + anchor

    def absolute(self, path: str) -> str:
        """Whole address of a page, if the site's own is known."""
        return self._site.base_url + path if self._site.base_url else ""

    def size(self, length_bytes: int) -> Markup:
        """A file's size for people (decimal units)."""
        for unit, factor in (("mb", 1_000_000), ("kb", 1_000)):
            if length_bytes >= factor:
                return self._words.text(f"size.{unit}", number=f"{length_bytes / factor:.1f}")
        return self._words.text("size.bytes", number=length_bytes)

    def listed(self, prefix: str, names: Iterable[str]) -> Markup:
        """Names of the catalogue as a list within a sentence."""
        return self.join([self._words.text(prefix + name) for name in names])

    def bdi(self, name: str) -> Markup:
        """A name from data; its direction does not spill over."""
        return Markup("<bdi>{}</bdi>").format(self.shown(name))

    def bdis(self, names: Iterable[str]) -> Markup:
        """Names from data as a list within a sentence."""
        return self.join([self.bdi(name) for name in names])

    def file_rows(self, files: Sequence["DriverFile"]) -> Iterator[Row]:
        """Driver files as rows of a table of checksums."""
        for file in files:
            if file.payload is not None:
                on = file.package.on
                places = [self.local(file.brand.names), self._words.text(f"system.{on.system}"),
                          *(self._words.text(f"architecture.{name}") for name in on.architecture)]
                yield Row(file=file.payload.file, address=file.address, sha256=file.payload.sha256,
                          length_bytes=file.payload.length_bytes, purpose=self.join(places))

    def program_rows(self) -> Iterator[Row]:
        """Programs as rows of a table of checksums."""
        for program in self._site.programs:
            purpose = self._words.text(f"system.{program.system}") if program.system else Markup("")
            yield Row(file=program.file, address=program.address, sha256=program.sha256,
                      length_bytes=program.length_bytes, purpose=purpose)

    def join(self, parts: Sequence[Markup]) -> Markup:
        """A list within a sentence."""
        return self._words.text("list.comma").join(parts)


def _words(tongue: Tongue, key: str) -> Markup:
    """A text in another language than the page's."""
    return catalogue(tongue.key).text(key)


def code(text: str) -> Markup:
    """Something to be typed or compared letter by letter."""
    return Markup("<code>{}</code>").format(clean(text, _TEXT_LIMIT))


def outside(address: str) -> str:
    """An address that leads away from the site, if it may.

    Raises:
        BugError: it is not https; every way into the site checks that before.
    """
    if not address.startswith("https://"):
        raise BugError("site-address", f"Expected an https address, came {address!a}.")
    return address


def host(address: str) -> str:
    """The host that an address leads to."""
    return urlsplit(outside(address)).hostname or ""
