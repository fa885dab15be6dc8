"""Text from devices is made safe to show, and compared without regular expressions."""

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyfit.core.text import MAX_DEVICE_TEXT, atr_match, clean, glob_match


@pytest.mark.parametrize(("raw", "shown"), [
    ("\x1b]0;owned\x07\x1b[2J\x1b[31mePass2003\x1b[0m", "]0;owned[2J[31mePass2003[0m"),
    ("ePass\x9b31mred", "ePass31mred"),
    ("Pass\x00hidden", "Passhidden"),
    ("bell\x07 back\x08space\x7f", "bell backspace"),
])
def test_h1_escape_and_control_characters_are_stripped(raw: str, shown: str) -> None:
    assert clean(raw) == shown


@pytest.mark.parametrize("mark", "\u202a\u202b\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c")
def test_h1_marks_that_turn_the_reading_direction_are_stripped(mark: str) -> None:
    assert clean(f"ePass{mark}gnp.exe") == "ePassgnp.exe"


@pytest.mark.parametrize("hidden", "\u200b\u200c\u200d\u2060\ufeff\u00ad\U000e0041")
def test_h1_invisible_characters_are_stripped(hidden: str) -> None:
    assert clean(f"e{hidden}Pass") == "ePass"


@pytest.mark.parametrize("gap", ["\n", "\r", "\r\n", "\t", "\u2028", "\u2029", "\u00a0", "\u3000", "\x0b", "  ", " \n "])
def test_h1_a_newline_or_any_other_white_space_becomes_one_space(gap: str) -> None:
    assert clean(f"{gap}OK{gap}WARNING{gap}") == "OK WARNING"


def test_h1_a_text_that_is_cut_at_a_blank_ends_before_it() -> None:
    """However it is written: cleaning it again changes nothing."""
    for text in ("a" * 125 + " b" * 3, "a" * 125 + "\u3000b" * 3):
        assert clean(text) == "a" * 125
        assert clean(clean(text)) == clean(text)


def test_h1_255_wide_characters_are_cut_to_what_usb_allows() -> None:
    assert clean("\u9374" * 255) == "\u9374" * MAX_DEVICE_TEXT


def test_h1_255_combining_marks_are_cut() -> None:
    assert len(clean("e" + "\u0301" * 255)) <= MAX_DEVICE_TEXT


def test_h1_lone_surrogates_and_private_characters_are_stripped() -> None:
    assert clean("a\ud800b\ue000c\udcffd") == "abcd"


@pytest.mark.parametrize("text", ["$(touch /tmp/owned)`id`;|&", "../../../../etc/passwd", "%n%s%x{0.__class__}{}",
                                  "[bold red]x[/] <b>y</b> &amp;", "(a+)+$*?["])
def test_h1_what_is_only_dangerous_in_another_language_is_shown_as_it_is(text: str) -> None:
    assert clean(text) == text


def test_decomposed_text_is_composed() -> None:
    assert clean("Schlu\u0308ssel") == "Schl\u00fcssel"


@given(st.text(max_size=600))
def test_h1_nothing_but_one_line_of_visible_text_comes_out(raw: str) -> None:
    shown = clean(raw)

    assert len(shown) <= MAX_DEVICE_TEXT
    assert shown == shown.strip()
    assert "  " not in shown
    assert all(char == " " or unicodedata.category(char)[0] not in "CZ" for char in shown)


@pytest.mark.parametrize(("pattern", "text", "fits"), [
    ("ePass2003", "ePass2003", True), ("ePass2003", "ePass2003 ", False), ("ePass*", "ePass2003", True),
    ("*2003", "ePass2003", True), ("*", "", True), ("a*a", "a", False), ("a*b*c", "aXbYc", True),
    ("a*b*c", "aXcYb", False), ("Token*", "token", False), ("[ab]", "a", False), ("a?c", "abc", False),
])
def test_a_star_stands_for_any_run_and_nothing_else_is_special(pattern: str, text: str, fits: bool) -> None:
    assert glob_match(pattern, text) is fits


def test_h1_a_pattern_full_of_stars_takes_no_time() -> None:
    start = time.perf_counter()

    assert not glob_match("*a" * 40 + "b", "a" * 126)
    assert time.perf_counter() - start < 0.1


@pytest.mark.parametrize(("pattern", "atr", "fits"), [
    ("3B8C80", "3B8C80", True), ("3B??80", "3B8C80", True), ("3B??80", "3B8C81", False), ("3B8C", "3B8C80", False),
])
def test_an_answer_to_reset_is_compared_byte_by_byte(pattern: str, atr: str, fits: bool) -> None:
    assert atr_match(pattern, atr) is fits
