"""The text of a Windows INF file (learn.microsoft.com: "General Syntax Rules for INF Files").

Sections with the same name are one; names and keywords do not depend on case; `%token%` stands for a text of [Strings].
"""

import re
from collections.abc import Iterator, Mapping

from msgspec import Struct

from keyfit.publisher.inspection.limits import MAX_TEXT_BYTES
from keyfit.publisher.inspection.source import Malformed

MAX_LINES = 100_000
_TOKEN = re.compile(r"%([^%\s]{1,128})%")
_SECTION = re.compile(r"\[([^\]]{1,255})\]")
_PART = re.compile(r'(?:"(?:[^"]|"")*"|[^",;])*')


class Entry(Struct, frozen=True):
    """One line: what stands before the equals sign (empty without one) and the values behind it, tokens replaced."""

    key: str
    values: tuple[str, ...]

    def value(self, index: int) -> str:
        """A value, or nothing if there are fewer."""
        return self.values[index] if index < len(self.values) else ""


class InfText(Struct, frozen=True):
    """Section name in lower case -> entries."""

    sections: Mapping[str, tuple[Entry, ...]]

    def section(self, name: str) -> tuple[Entry, ...]:
        """The entries of a section; none if it is not there."""
        return self.sections.get(name.lower(), ())

    def values(self, section: str, key: str) -> tuple[str, ...]:
        """The values of the first entry with a key."""
        for entry in self.section(section):
            if entry.key.lower() == key.lower():
                return entry.values
        return ()

    def value(self, section: str, key: str) -> str:
        """The first value of the first entry with a key."""
        found = self.values(section, key)
        return found[0] if found else ""

    def directives(self, *keys: str) -> Iterator[tuple[str, Entry]]:
        """(section, entry) of every entry with one of the keys, given in lower case."""
        for name, entries in self.sections.items():
            for entry in entries:
                if entry.key.lower() in keys:
                    yield name, entry


def read_inf(data: bytes) -> InfText:
    """Read an INF.

    Raises:
        Malformed: too large, or a section's head is not in the form.
    """
    lines = list(_lines(decode(data)))
    raw: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
    section = ""
    for line in lines:
        head = _SECTION.match(line)
        if head:
            section = head.group(1).strip().lower()
            raw.setdefault(section, [])
        elif line.startswith("["):
            raise Malformed(f"expected a section's name, came {line[:60]!a}")
        elif section:
            raw[section].append(_split(line))
    texts = {key.lower(): _plain(values[0]) if values else "" for key, values in raw.get("strings", [])}
    return InfText({name: tuple(Entry(_replace(_plain(key), texts), tuple(_replace(_plain(v), texts) for v in values))
                                for key, values in entries) for name, entries in raw.items()})


def decode(data: bytes) -> str:
    """UTF-16 with its mark, UTF-8 with or without one, or the ANSI code page of the west.

    Raises:
        Malformed: it is too large, or has zeros where no text has them.
    """
    if len(data) > MAX_TEXT_BYTES:
        raise Malformed(f"expected an INF of at most {MAX_TEXT_BYTES} bytes, came {len(data)}")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    if b"\0" in data:
        raise Malformed("expected text in ANSI, UTF-8 or UTF-16 with a byte order mark, came zeros")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def _lines(text: str) -> Iterator[str]:
    """Lines without comments, those that end with a backslash joined with the next."""
    waiting = ""
    for count, line in enumerate(re.split(r"\r\n|\r|\n", text)):
        if count > MAX_LINES:
            raise Malformed(f"expected at most {MAX_LINES} lines, came more")
        plain = _without_comment(line).strip()
        if plain.endswith("\\") and not plain.startswith("["):
            waiting += plain[:-1]
            continue
        plain, waiting = (waiting + plain).strip(), ""
        if plain:
            yield plain
    if waiting.strip():
        yield waiting.strip()


def _without_comment(line: str) -> str:
    if ";" not in line:
        return line
    inside = False
    for position, char in enumerate(line):
        if char == '"':
            inside = not inside
        elif char == ";" and not inside:
            return line[:position]
    return line


def _split(line: str) -> tuple[str, tuple[str, ...]]:
    """(what is before the equals sign, values), still with quotes and tokens."""
    key, rest = "", line
    equals = _outside(line, "=")
    if equals >= 0:
        key, rest = line[:equals].strip(), line[equals + 1 :]
    values = []
    position = 0
    while position <= len(rest):
        found = _PART.match(rest, position)
        end = found.end() if found else position
        values.append(rest[position:end].strip())
        if end < len(rest) and rest[end] != ",":  # a quotation mark without its fellow
            values[-1] = rest[position:].strip()
            break
        position = end + 1
    return key, tuple(values)


def _outside(line: str, wanted: str) -> int:
    inside = False
    for position, char in enumerate(line):
        if char == '"':
            inside = not inside
        elif char == wanted and not inside:
            return position
    return -1


def _plain(text: str) -> str:
    """Without the quotes around it."""
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return text[1:-1].replace('""', '"')
    return text


def _replace(text: str, texts: Mapping[str, str]) -> str:
    """Tokens replaced once: what they stand for is not looked at again, so nothing grows."""
    if "%" not in text:
        return text
    return _TOKEN.sub(lambda found: texts.get(found.group(1).lower(), found.group()), text)[:8_192]
