"""Makes text from devices and files safe to show (security H1), and compares it with patterns from brand data."""

import unicodedata

MAX_DEVICE_TEXT = 126
"""Longest USB string in UTF-16 code units: bLength is one byte, (255 - 2) / 2 (USB 2.0, section 9.6.7)."""


MAX_MARKS = 4
"""Combining marks on one character: Hebrew and Tibetan use up to four; more of them only paint over the lines around."""
MAX_ROUNDS = 6
"""Every round but the first has less to do, and nearly every text is done after it."""
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0") | frozenset(
    map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))
"""Characters that count as letters, marks or symbols and show nothing: Unicode's Default_Ignorable_Code_Point
(DerivedCoreProperties.txt) outside category C, and the braille pattern blank."""


def clean(raw: str, limit: int = MAX_DEVICE_TEXT) -> str:
    """Return `raw` as one line of NFC text without control, format (bidi, zero-width), surrogate, private or invisible
    characters, and with a few combining marks on one character at most.

    Every such character becomes nothing, runs of white space become one space, and the result is cut to `limit`.
    """
    if raw.isascii() and raw.isprintable() and "  " not in raw:
        return raw.strip()[:limit].rstrip()
    text = raw[: limit * 4]
    for _ in range(MAX_ROUNDS):
        cleaned = _once(text, limit)
        if cleaned == text:
            break
        text = cleaned
    return text


def _once(text: str, limit: int) -> str:
    """Characters that were apart may meet when what stood between them is gone, and make others; so once is not enough."""
    kept: list[str] = []
    marks = 0
    for char in unicodedata.normalize("NFC", text):
        category = unicodedata.category(char)
        if char.isspace() or category == "Zs":
            kept.append(" ")
        elif category[0] != "C" and char not in _INVISIBLE:
            marks = marks + 1 if category in ("Mn", "Me") else 0
            if marks <= MAX_MARKS:
                kept.append(char)
    return unicodedata.normalize("NFC", " ".join("".join(kept).split()))[:limit].rstrip()


def glob_match(pattern: str, text: str) -> bool:
    """Compare `text` with a pattern in which `*` stands for any run of characters. Linear in practice: no backtracking
    over more than one star at a time, no regular expressions (security H1)."""
    parts = pattern.split("*")
    if len(parts) == 1:
        return pattern == text
    if not text.startswith(parts[0]) or not text.endswith(parts[-1]):
        return False
    position, end = len(parts[0]), len(text) - len(parts[-1])
    for part in parts[1:-1]:
        found = text.find(part, position, end)
        if found < 0:
            return False
        position = found + len(part)
    return position <= end


def atr_match(pattern: str, atr: str) -> bool:
    """Compare an answer-to-reset (upper-case hex) with a pattern in which `??` stands for any byte."""
    if len(pattern) != len(atr):
        return False
    return all(p in ("??", a) for p, a in zip(_pairs(pattern), _pairs(atr), strict=True))


def _pairs(text: str) -> list[str]:
    return [text[i : i + 2] for i in range(0, len(text), 2)]
