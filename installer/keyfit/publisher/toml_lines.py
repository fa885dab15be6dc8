"""Where in a TOML text each value stands: tomllib tells the values, not their lines.

The scanner walks text that tomllib has accepted. It knows as much of TOML 1.0 as it takes to find keys: comments, the
four kinds of strings, table headers, arrays of tables, dotted keys, inline tables and arrays over several lines.
"""

import re
from collections.abc import Mapping

KeyPath = tuple[str | int, ...]
"""Path to a value: table keys and array indices, for example ("model", 0, "match", 2, "id_product")."""

_STRING = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*"{3,5}|\'\'\'(?:[^\']|\'(?!\'\'))*\'{3,5}|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'', re.DOTALL)
_COMMENT = re.compile(r"#[^\n]*")
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR = re.compile(r"[^,\]}\n#]*")
_PLAIN = re.compile(r"""[^"'\[\]{}#.=,\n]+""")

_NESTING = {"[": 1, "{": 1, "]": -1, "}": -1}


def line_too_deep(text: str, limit: int) -> int:
    """Line where brackets outside strings and comments first nest deeper than `limit`, or a key has more dots than
    that; 0 if there is none.

    Works on any text. It has to come before tomllib, which recurses into brackets and takes time that grows with the
    square of the dots in a key.
    """
    depth = dots = position = 0
    while position < len(text):
        char = text[position]
        if char in "\"'":
            found = _STRING.match(text, position)
            if found is None or (text.startswith(char * 3, position) and len(found.group()) < 6):
                return 0  # a string without an end: tomllib reads no further, and to look on from every quote takes hours
            position = found.end()
        elif char == "#":
            position = _end(_COMMENT, text, position)
        elif char in "[]{}.=,\n":
            depth = max(0, depth + _NESTING.get(char, 0))
            dots = dots + 1 if char == "." else 0
            if depth > limit or dots > limit:
                return text.count("\n", 0, position) + 1
            position += 1
        else:
            position = _end(_PLAIN, text, position)
    return 0


def line_map(text: str) -> dict[KeyPath, int]:
    """Map the path of every table, array item and value to the line (from 1) where it begins.

    Args:
        text: TOML that tomllib accepts, with brackets not nested deeper than Python recurses.
    """
    return _Scanner(text).scan()


def line_of(lines: Mapping[KeyPath, int], path: KeyPath) -> int:
    """Line of `path`, or of the nearest thing around it that has one; 1 if there is none."""
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return 1


def _end(pattern: re.Pattern[str], text: str, position: int) -> int:
    found = pattern.match(text, position)
    return max(position + 1, found.end()) if found else position + 1


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0
        self._counted = 0
        self._line = 1
        self._lines: dict[KeyPath, int] = {}
        self._last_item: dict[KeyPath, int] = {}

    def scan(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        self._skip(_BLANK)
        while self._position < len(self._text):
            if self._char() == "[":
                table = self._header()
            else:
                self._pair(table)
            self._skip(_BLANK)
        return self._lines

    def _char(self) -> str:
        return self._text[self._position : self._position + 1]

    def _skip(self, pattern: re.Pattern[str]) -> None:
        found = pattern.match(self._text, self._position)
        if found:
            self._position = found.end()

    def _here(self) -> int:
        self._line += self._text.count("\n", self._counted, self._position)
        self._counted = self._position
        return self._line

    def _header(self) -> KeyPath:
        line, array = self._here(), self._text.startswith("[[", self._position)
        self._position += 2 if array else 1
        *parents, last = self._key()
        self._position += 2 if array else 1
        path: KeyPath = ()
        for part in parents:
            path = self._step(path, part, line)
        path = (*path, last)
        self._lines.setdefault(path, line)
        if array:
            self._last_item[path] = self._last_item.get(path, -1) + 1
            path = (*path, self._last_item[path])
            self._lines[path] = line
        return path

    def _step(self, path: KeyPath, part: str, line: int) -> KeyPath:
        path = (*path, part)
        self._lines.setdefault(path, line)
        return (*path, self._last_item[path]) if path in self._last_item else path

    def _pair(self, table: KeyPath) -> None:
        line = self._here()
        path = table
        for part in self._key():
            path = (*path, part)
            self._lines.setdefault(path, line)
        self._position += 1  # the equals sign
        self._value(path)

    def _key(self) -> list[str]:
        parts = []
        while True:
            self._skip(_BLANK)
            start = self._position
            if self._char() in ("'", '"'):
                self._skip(_STRING)
                parts.append(_unquoted(self._text[start : self._position]))
            else:
                self._skip(_BARE_KEY)
                parts.append(self._text[start : self._position])
            self._skip(_BLANK)
            if self._char() != ".":
                return parts
            self._position += 1

    def _value(self, path: KeyPath) -> None:
        self._skip(_BLANK)
        self._lines.setdefault(path, self._here())
        char = self._char()
        if char == "[":
            self._array(path)
        elif char == "{":
            self._inline_table(path)
        elif char and char in "\"'":
            self._skip(_STRING)
        else:
            self._skip(_SCALAR)

    def _array(self, path: KeyPath) -> None:
        self._position += 1
        index = 0
        while self._more("]"):
            self._value((*path, index))
            index += 1
            self._comma()

    def _inline_table(self, path: KeyPath) -> None:
        self._position += 1
        while self._more("}"):
            self._pair(path)
            self._comma()

    def _more(self, closing: str) -> bool:
        self._skip(_BLANK)
        if self._char() in (closing, ""):
            self._position += 1
            return False
        return True

    def _comma(self) -> None:
        self._skip(_BLANK)
        if self._char() == ",":
            self._position += 1


def _unquoted(key: str) -> str:
    """The text of a quoted key. Escapes are read by tomllib itself, so that both agree on the name."""
    if key.startswith("'"):
        return key[1:-1]
    import tomllib

    return next(iter(tomllib.loads(f"{key} = 0")))
