"""Reads a page as strictly as the tests need: well nested, and what is in it."""

from html.parser import HTMLParser

from msgspec import Struct

VOID = frozenset(("meta", "link", "img", "br", "input", "hr"))


class Element(Struct):
    """A start tag with the text inside it."""

    tag: str
    attributes: dict[str, str]
    text: str = ""


class Html(HTMLParser):
    """A parsed page.

    Raises:
        AssertionError: tags that do not match, or an attribute twice.
    """

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[Element] = []
        self._open: list[Element] = []
        self.feed(text)
        self.close()
        assert not self._open, f"never closed: {self._open[-1].tag}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"attribute twice in {tag}: {attrs}"
        element = Element(tag=tag, attributes={key: value or "" for key, value in attrs})
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> with nothing open"
        assert self._open[-1].tag == tag, f"</{tag}> closes <{self._open[-1].tag}>"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data

    def all(self, tag: str) -> list[Element]:
        """Every element of a kind."""
        return [element for element in self.elements if element.tag == tag]

    def one(self, tag: str) -> Element:
        """The only element of a kind."""
        (element,) = self.all(tag)
        return element

    def values(self, attribute: str) -> list[str]:
        """Every value of an attribute."""
        return [element.attributes[attribute] for element in self.elements if attribute in element.attributes]

    @property
    def text(self) -> str:
        """All that is said between the body's tags, on one line."""
        return " ".join(self.one("body").text.split())
