"""What two readers of JSON could understand differently is refused, before anything is built from it (security H4)."""

import json
import time
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, Struct

from keyfit import strictjson


class Inner(Struct, frozen=True, tag_field="kind", tag="inner"):
    number: Annotated[int, Meta(ge=0, le=255)] = 0


class Outer(Struct, frozen=True, omit_defaults=True, rename={"written": "as-written"}):
    """Lax on purpose: unknown fields are the decoder's business, not the type's."""

    name: str = ""
    written: float = 0.0
    inner: Inner | None = None
    many: tuple[Inner, ...] = ()
    by_id: dict[int, Inner] = {}


def decode(text: str | bytes, max_bytes: int = 4_096, max_depth: int = 4) -> Outer:
    data = text.encode() if isinstance(text, str) else text
    return strictjson.decode(data, Outer, max_bytes=max_bytes, max_depth=max_depth)


def test_h4_a_good_document_is_decoded_fields_with_their_default_too() -> None:
    found = decode('{"name": "", "as-written": 1, "inner": {"kind": "inner", "number": 255}, "many": [{"kind": "inner"}],'
                   ' "by_id": {"7": {"kind": "inner", "number": 1}}}')
    assert found == Outer(written=1.0, inner=Inner(255), many=(Inner(),), by_id={7: Inner(1)})


REFUSED = {
    "nothing": ("", "Expecting value"),
    "another kind of value": ("[]", "array"),
    "two documents": ("{}{}", "Extra data"),
    "a comma too many": ('{"name": "a",}', "double quotes"),
    "a byte order mark": (b"\xef\xbb\xbf{}", "BOM"),
    "UTF-16": ('{"name": "a"}'.encode("utf-16"), "UTF-8"),
    "not UTF-8": (b'{"name": "\xff"}', "byte 0xFF at 10"),
    "an overlong form": (b'{"name": "\xc0\xaf"}', "UTF-8"),
    "half a surrogate pair": (r'{"name": "\ud800"}', ""),
    "a control character": ('{"name": "a\nb"}', "control character"),
    "a comment": ("{} // end", "Extra data"),
    "a name twice": ('{"name": "a", "name": "b"}', "twice"),
    "a name twice, escaped": (r'{"name": "a", "n\u0061me": "b"}', "twice"),
    "a name twice, deep": ('{"inner": {"kind": "inner", "number": 1, "number": 2}}', "twice"),
    "an unknown field": ('{"command": "sh"}', "command"),
    "an unknown field in a field": ('{"inner": {"kind": "inner", "sh": 1}}', "inner.sh"),
    "an unknown field in a list": ('{"many": [{"kind": "inner"}, {"kind": "inner", "sh": 1}]}', "many[1].sh"),
    "an unknown field in a table": ('{"by_id": {"7": {"kind": "inner", "sh": 1}}}', "by_id.7.sh"),
    "a field by its name in Python": ('{"written": 1}', "written"),
    "another tag": ('{"inner": {"kind": "other"}}', "other"),
    "NaN": ('{"as-written": NaN}', "NaN"),
    "an infinity": ('{"as-written": -Infinity}', "Infinity"),
    "an infinity by its exponent": ('{"as-written": 1e999}', "too large"),
    "a number beyond 64 bits": ('{"as-written": 18446744073709551616}', "64 bits"),
    "a number of 100 000 digits": ('{"as-written": ' + "9" * 100_000 + "}", "at most"),
    "a number out of the field's range": ('{"inner": {"kind": "inner", "number": 256}}', "<= 255"),
    "a number as text": ('{"as-written": "1"}', "float"),
    "true for a number": ('{"inner": {"kind": "inner", "number": true}}', "int"),
    "null for a text": ('{"name": null}', "str"),
    "too long": ('{"name": "' + "a" * 4_096 + '"}', "at most 4096 bytes"),
    "too deep": ('{"name": [[[[]]]]}', "4 levels"),
    "far too deep": ("[" * 4_096, "4 levels"),
    "too deep behind a string without end": ('{"a": "\\"[", "b": [[[[', "4 levels"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_h4_refused(case: str) -> None:
    data, said = REFUSED[case]
    with pytest.raises(ValueError) as caught:
        decode(data)
    assert said in str(caught.value)
    assert str(caught.value).isprintable()


def test_h1_what_is_said_about_a_hostile_name_is_safe_to_show() -> None:
    with pytest.raises(ValueError) as caught:
        decode(json.dumps({"\x1b]0;own\x07\u202e" + "x" * 2_000: 1}))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


def test_h4_brackets_in_strings_are_not_nesting() -> None:
    assert decode('{"name": "' + "[{" * 50 + r"\"" + "[" * 50 + '"}').name.count("[") == 100


@pytest.mark.parametrize("tail", ["", "\\"])
def test_h4_a_string_without_end_takes_one_pass_whatever_is_in_it(tail: str) -> None:
    """A pattern that looks again from every quote would take hours over this."""
    data = ('"' + '\\"' * 500_000 + tail).encode()
    began = time.process_time()
    assert strictjson.depth(data) == 0
    assert time.process_time() - began < 2


@given(st.binary(max_size=200))
def test_h4_arbitrary_bytes_are_refused_or_of_the_type(data: bytes) -> None:
    try:
        found: object = decode(data)
    except ValueError as error:
        found = str(error)
    assert isinstance(found, Outer) or (isinstance(found, str) and found.isprintable())


_JSON = st.recursive(st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False,
                     allow_infinity=False) | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
                     max_leaves=20)


@given(_JSON)
def test_h4_what_any_type_takes_is_what_the_standard_library_reads(value: Any) -> None:
    """Nothing is repaired or lost on the way."""
    text = json.dumps(value)
    kind: Any = Any
    assert strictjson.decode(text.encode(), kind, max_bytes=100_000, max_depth=64) == json.loads(text)


@given(st.recursive(st.just([]), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)))
def test_h4_nesting_is_measured_as_it_is(value: Any) -> None:
    def levels(item: Any) -> int:
        inner = item.values() if isinstance(item, dict) else item
        return 1 + max(map(levels, inner), default=0)

    assert strictjson.depth(msgspec.json.encode(value)) == levels(value)
