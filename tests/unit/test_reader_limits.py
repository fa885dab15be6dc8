"""The largest input that a reader takes, made of one piece over and over: a reader whose time grows with the square of that would
be at it for hours (security H2, H4)."""

import time

import pytest

from keyfit.core import ccidlist
from keyfit.core.text import clean
from keyfit.publisher.inspection.inftext import read_inf
from keyfit.publisher.inspection.limits import MAX_TEXT_BYTES
from keyfit.publisher.inspection.source import Malformed

CEILING_S = 20.0
"""Of processor time; they take a second or less, and machines differ."""


@pytest.mark.parametrize("piece", [b"<key>", b"<key>ifdVendorID</key>", b"<string>", b"<string>0x1</string>", b"</string>", b"#",
                                   b"\n", b"<key>ifdFriendlyName</key><string>&amp;</string>\n", b"<string>0x1</string>\n"])
def test_h4_the_largest_list_of_readers(piece: bytes) -> None:
    data = (piece * (ccidlist.MAX_BYTES // len(piece) + 1))[: ccidlist.MAX_BYTES]
    began = time.process_time()
    assert ccidlist.problems(data)
    assert time.process_time() - began < CEILING_S
    [said] = ccidlist.problems(data + b"x")
    assert f"at most {ccidlist.MAX_BYTES}" in said


@pytest.mark.parametrize("piece", ["[a]\n", '"', '""', "%a%", "=", "a=,", "a\\\n", ";", "[", "%", 'a="b,"c\n'])
def test_h4_the_largest_inf(piece: str) -> None:
    data = ("[strings]\na=b\n" + piece * (MAX_TEXT_BYTES // len(piece)))[:MAX_TEXT_BYTES].encode()
    began = time.process_time()
    try:
        read_inf(data)
    except Malformed:
        pass
    assert time.process_time() - began < CEILING_S
    with pytest.raises(Malformed, match="at most"):
        read_inf(data + b"\n" * 9)


@pytest.mark.parametrize("piece", ["\u0301", "\x00", " ", "\u202e", "a\u0323\u0307", "\U0001f511", "\ud800"])
def test_h1_ten_million_characters_of_a_device_are_not_looked_at(piece: str) -> None:
    raw = piece * (10_000_000 // len(piece))
    began = time.process_time()
    assert len(clean(raw)) <= 126
    assert time.process_time() - began < 1.0
