"""XML from outside (security H4): no document type, so no entities to expand and nothing to fetch; limits on size, depth
and count. Only what macOS packages and Microsoft's block rules need: elements, attributes, text."""

from collections.abc import Iterator
from xml.parsers import expat

from msgspec import Struct

from keyfit.publisher.inspection.source import Malformed

MAX_DEPTH = 64
MAX_ELEMENTS = 400_000


class Element(Struct):
    """A node; names are without their namespace's prefix. `text` is what stands before the first child, stripped."""

    name: str
    attributes: dict[str, str]
    text: str = ""
    children: list["Element"] = []

    def find(self, name: str) -> "Element | None":
        """The first child of that name."""
        return next((child for child in self.children if child.name == name), None)

    def value(self, name: str) -> str:
        """Text of the first child of that name; empty without one."""
        found = self.find(name)
        return found.text if found else ""

    def each(self, *names: str) -> Iterator["Element"]:
        """All elements below this one with one of the names, in the document's order."""
        waiting = list(reversed(self.children))
        while waiting:
            element = waiting.pop()
            if element.name in names:
                yield element
            waiting += reversed(element.children)


def parse_xml(data: bytes, limit: int) -> Element:
    """Read a document.

    Raises:
        Malformed: it is not well-formed, has a document type, or goes beyond a limit.
    """
    if len(data) > limit:
        raise Malformed(f"expected at most {limit} bytes of XML, came {len(data)}")
    builder = _Builder()
    parser = expat.ParserCreate()
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.text
    parser.StartDoctypeDeclHandler = builder.doctype
    parser.buffer_text = True
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise Malformed(f"expected XML, came: {error}") from error
    if builder.root is None:
        raise Malformed("expected XML with an element")
    return builder.root


class _Builder:
    def __init__(self) -> None:
        self.root: Element | None = None
        self._open: list[Element] = []
        self._count = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._count += 1
        if self._count > MAX_ELEMENTS or len(self._open) >= MAX_DEPTH:
            raise Malformed(f"expected at most {MAX_ELEMENTS} elements in {MAX_DEPTH} levels, came more")
        element = Element(name=name.rpartition(":")[2], attributes=attributes)
        if self._open:
            self._open[-1].children.append(element)
        else:
            self.root = element
        self._open.append(element)

    def end(self, _name: str) -> None:
        element = self._open.pop()
        element.text = element.text.strip()

    def text(self, data: str) -> None:
        if self._open:
            self._open[-1].text += data

    def doctype(self, *_: object) -> None:
        raise Malformed("expected XML without a document type, came one: entities could be anything")
