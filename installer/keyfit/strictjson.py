"""One strict way to read a JSON document that somebody else wrote (security H4).

Size, encoding and nesting are looked at before anything is built from the bytes. RFC 8259 leaves it to the reader what to do
with a name that stands twice, and Python's own parser takes more than the standard allows; here whatever two readers could
understand differently is refused: repeated names, unknown fields, NaN and the infinities, halves of surrogate pairs, numbers
that no field of ours can hold.
"""

import math
import re
from itertools import islice
from typing import Any, TypeVar

import msgspec

from keyfit.core.text import clean

MAX_DEPTH = 16
"""Nesting that is allowed if the caller says nothing; the deepest document of ours, a manifest, needs 8."""
MAX_DIGITS = 20
"""Characters of an integer: 2**64 - 1 has 20 digits, -2**63 has 19 and a sign."""
_MESSAGE = 300
_STRING_OR_BRACKET = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)
"""A string, or a bracket outside of one. It gives nothing back, so that a string without an end takes one pass and no more."""

T = TypeVar("T")


def decode(data: bytes, kind: type[T], *, max_bytes: int, max_depth: int = MAX_DEPTH) -> T:
    """Decode one document into `kind`, a type that msgspec knows.

    Every object that becomes a Struct may have the Struct's own fields only, whether it forbids others or not.

    Args:
        data: the document, UTF-8 without a byte order mark.
        kind: what it has to be.
        max_bytes: longest document.
        max_depth: deepest nesting of arrays and objects.

    Raises:
        ValueError: it is anything else. The message is for people, one line, and safe to show.
    """
    if len(data) > max_bytes:
        raise ValueError(f"expected at most {max_bytes} bytes, came {len(data)}")
    if depth(data) > max_depth:
        raise ValueError(f"expected at most {max_depth} levels of nesting, came more")
    try:
        plain = _plain(data)
        value = msgspec.json.decode(data, type=kind)
    except UnicodeDecodeError as error:
        raise ValueError(f"expected UTF-8, came byte 0x{data[error.start]:02X} at {error.start}") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except (msgspec.DecodeError, ValueError) as error:
        raise ValueError(clean(str(error), _MESSAGE)) from error
    unknown = _unknown(plain, value, "")
    if unknown:
        raise ValueError(f"there is no such field as {clean(unknown, 100)}")
    return value


def depth(data: bytes) -> int:
    """Deepest nesting, in one pass and without recursion; brackets inside strings do not count."""
    now = deepest = 0
    for found in _STRING_OR_BRACKET.finditer(data):
        first = found.group()[:1]
        if first in b"[{":
            now += 1
            deepest = max(deepest, now)
        elif first in b"]}":
            now -= 1
    return deepest


def _plain(data: bytes) -> Any:
    """The document as the standard library reads it, held to what msgspec does not look at."""
    import json

    return json.loads(data.decode("utf-8"), object_pairs_hook=_no_doubles, parse_constant=_no_constant, parse_int=_integer,
                      parse_float=_finite)


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field appears twice in one object")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS or not -(2**63) <= int(text) < 2**64:
        raise ValueError(f"expected a number of at most 64 bits, came one of {len(text)} digits")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is too large a number")
    return value


def _unknown(plain: Any, value: Any, where: str) -> str:
    """Path of the first field in `plain` that the Struct made from it does not have; "" if all are known."""
    if isinstance(plain, dict):
        return _unknown_field(plain, value, where)
    if isinstance(plain, list) and isinstance(value, list | tuple):
        for index, (inner, made) in enumerate(zip(plain, value, strict=False)):
            found = _unknown(inner, made, f"{where}[{index}]")
            if found:
                return found
    return ""


def _unknown_field(plain: dict[str, Any], value: Any, where: str) -> str:
    if isinstance(value, msgspec.Struct):
        fields = dict(zip(value.__struct_encode_fields__, value.__struct_fields__, strict=True))
        tag = value.__struct_config__.tag_field
        for key in plain:
            if key not in fields and key != tag:
                return f"{where}.{key}".lstrip(".")
        pairs = ((key, plain[key], getattr(value, field)) for key, field in fields.items() if key in plain)
    elif isinstance(value, dict):
        # the keys may have become something else than text; their order is that of the document
        pairs = ((key, plain[key], made) for key, made in zip(plain, islice(value.values(), len(plain)), strict=False))
    else:
        return ""
    for key, inner, made in pairs:
        found = _unknown(inner, made, f"{where}.{key}")
        if found:
            return found
    return ""
