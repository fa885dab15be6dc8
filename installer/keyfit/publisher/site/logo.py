"""Looks at a publisher's logo before it is published: a picture, and nothing that runs or fetches."""

from pathlib import Path
from xml.parsers import expat

from keyfit.errors import DataError, UserError

MAX_BYTES = 512 * 1024
_PNG = b"\x89PNG\r\n\x1a\n"
_ELEMENTS = ("script", "foreignobject", "iframe", "object", "embed", "audio", "video", "a", "style", "handler", "listener")
"""SVG elements that run, fetch or lead elsewhere (SVG 2, "scripting" and "linking"). A style element may import."""


def read_logo(path: Path) -> tuple[str, bytes]:
    """(name under which it is published, bytes) of an SVG or PNG file.

    Raises:
        UserError: the file cannot be read.
        DataError: code "logo-refused".
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError("no-such-file", f"{path} cannot be read: {error.strerror}.") from error
    if len(data) > MAX_BYTES:
        raise _refused(path, f"expected at most {MAX_BYTES} bytes, came more")
    ending = path.suffix.lower()
    if ending == ".png" and data.startswith(_PNG):
        return "logo.png", data
    if ending == ".svg":
        fault = _svg_fault(data)
        if fault:
            raise _refused(path, fault)
        return "logo.svg", data
    raise _refused(path, "expected an SVG or PNG picture, came something else")


def _svg_fault(data: bytes) -> str:
    """What an SVG file holds that it may not; "" if it is sound."""
    faults: list[str] = []
    depth = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        if depth == 0 and name.rpartition(":")[2] != "svg":
            faults.append(f"expected an svg element, came {name!a}")
        depth += 1
        if name.rpartition(":")[2].lower() in _ELEMENTS:
            faults.append(f"expected a drawing, came the element {name!a}")
        faults.extend(f"expected a drawing, came {key!a} in {name!a}" for key, value in attributes.items()
                      if not _harmless(key.rpartition(":")[2].lower(), value))

    def doctype(*_parts: object) -> None:
        faults.append("expected no DOCTYPE, came one")

    def instruction(target: str, _data: str) -> None:
        faults.append(f"expected no processing instruction, came {target!a}")

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.StartDoctypeDeclHandler = doctype
    parser.ProcessingInstructionHandler = instruction
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        faults.append(f"expected XML, came: {error}")
    return faults[0] if faults else ""


def _harmless(key: str, value: str) -> bool:
    """No handler, and no reference but to the drawing's own parts."""
    if key.startswith("on"):
        return False
    text = "".join(value.split()).lower()
    if key in ("href", "src"):
        return text.startswith("#")
    return all(part.startswith(("#", "'#", '"#')) for part in text.split("url(")[1:]) and "@import" not in text


def _refused(path: Path, fault: str) -> DataError:
    return DataError("logo-refused", "expected a logo that is only a picture", (f"{path.name}: {fault}",),
                     hint="Export it as plain SVG or as PNG.")
