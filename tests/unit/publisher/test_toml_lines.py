"""Where values stand in a TOML text."""

import time
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyfit.publisher.brandfile import MAX_BYTES, parse_brand
from keyfit.publisher.toml_lines import line_map, line_of, line_too_deep

TRICKY = '''# [not.a.table] = "no"
title = "a # b" # comment with "quotes
"quoted \\u0041" = 1
[a.b]
text = """one
[[not]] "two" """
raw = \'\'\'
x = 1
\'\'\'
list = [
  1, # ]
  "]",
  { in = 1, line = [2,
    3] },
]
[[item]]
name = 'first'
[[item.part]]
[[item.part]]
deep.key = 5
[item.extra]
k = 1
[[item]]
name = "second"
'''


def test_lines_are_found_behind_strings_comments_and_brackets() -> None:
    lines = line_map(TRICKY)

    assert lines[("title",)] == 2
    assert lines[("quoted A",)] == 3
    assert lines[("a", "b")] == 4
    assert lines[("a", "b", "text")] == 5
    assert lines[("a", "b", "raw")] == 7
    assert lines[("a", "b", "list", 1)] == 12
    assert lines[("a", "b", "list", 2, "line", 1)] == 14
    assert lines[("item", 0, "name")] == 17
    assert lines[("item", 0, "part", 1, "deep", "key")] == 20
    assert lines[("item", 0, "extra", "k")] == 22
    assert lines[("item", 1, "name")] == 24


def test_every_value_that_tomllib_reads_has_a_line() -> None:
    lines = line_map(TRICKY)
    waiting: list[tuple[tuple[str | int, ...], object]] = [((), tomllib.loads(TRICKY))]
    while waiting:
        path, value = waiting.pop()
        assert not path or path in lines
        if isinstance(value, dict):
            waiting += [((*path, key), item) for key, item in value.items()]
        elif isinstance(value, list):
            waiting += [((*path, index), item) for index, item in enumerate(value)]


def test_an_unknown_path_gets_the_line_of_what_is_around_it() -> None:
    lines = line_map("[a]\nb = 1\n")

    assert line_of(lines, ("a", "b", "c")) == 2
    assert line_of(lines, ("z",)) == 1


def test_brackets_in_strings_and_comments_do_not_count_as_nesting() -> None:
    text = 'a = "[[[[" # [[[[[\nb = [[1]]'

    assert line_too_deep(text, 2) == 0
    assert line_too_deep(text, 1) == 2


@given(st.text(alphabet="[]{}\"'#\\\n a=", max_size=200))
def test_measuring_nesting_ends_on_any_text(text: str) -> None:
    assert 0 <= line_too_deep(text, 3) <= text.count("\n") + 1


@given(st.dictionaries(st.text(alphabet="abc", min_size=1, max_size=3), st.text(max_size=20), max_size=6))
def test_strings_of_any_content_do_not_lose_the_count(values: dict[str, str]) -> None:
    text = "".join(f"{key} = {_basic(value)}\n" for key, value in values.items())
    assert tomllib.loads(text) == values

    assert line_map(text) == {(key,): number for number, key in enumerate(values, start=1)}


def _basic(value: str) -> str:
    """A TOML basic string, every character but plain ones escaped; surrogates do not exist in TOML."""
    plain = (c if (c.isalnum() and c.isascii()) or c in "[]{}#'=," else f"\\U{ord(c):08x}" for c in value)
    return '"' + "".join(plain) + '"'


@pytest.mark.parametrize("unit", ['"\\', '\\"""', '"""\\', "'''\\", '"""', "'", '"a\\"', '"""a"', "a.", "[[a]]\n", "a={"])
def test_h4_the_largest_file_of_any_repeated_piece_takes_seconds_at_most(unit: str) -> None:
    """Strings without an end above all: they were looked for again from every quotation mark."""
    raw = (unit * (MAX_BYTES // len(unit))).encode()
    began = time.process_time()
    assert parse_brand(raw, "driver.toml")[1]
    assert time.process_time() - began < 10
