"""Signed bytes are decoded strictly or not at all."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyfit.errors import TrustError
from keyfit.model.catalog import Manifest
from keyfit.trust.limits import MANIFEST_DEPTH
from keyfit.trust.manifests import decode_manifest
from tests.sim.brands import a_brand, a_match

TARGET = "usb/1234/0001-linux-amd64.json"
GOOD = msgspec.json.encode(Manifest(keyfit=1, path=TARGET, system="linux", architecture="amd64",
                                    brands=(a_brand("acme", a_match(id_vendor=0x1234, id_product=1)),)))


def refused(data: bytes) -> str:
    with pytest.raises(TrustError) as caught:
        decode_manifest(data, TARGET)
    assert caught.value.code == "manifest-invalid"
    return caught.value.message


def test_a_good_manifest_is_decoded() -> None:
    assert decode_manifest(GOOD, TARGET).brands[0].brand == "acme"


@given(st.binary(max_size=300))
def test_h4_arbitrary_bytes_are_refused_and_nothing_else_happens(data: bytes) -> None:
    """H4."""
    refused(data)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_h4_arbitrary_json_is_refused(value: Any) -> None:
    """H4."""
    refused(json.dumps(value).encode())


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255))
def test_h4_one_changed_byte_is_refused_or_still_strictly_typed(at: int, byte: int) -> None:
    """H4: what comes out is always a manifest for this very target."""
    data = GOOD[:at] + bytes([byte]) + GOOD[at + 1:]
    try:
        manifest = decode_manifest(data, TARGET)
    except TrustError:
        return
    assert manifest.path == TARGET


@pytest.mark.parametrize("extra", ['"command":"sh"', '"signVerify":false', '"url":"https://example.com"'])
def test_a9_unknown_fields_refuse_the_whole_file(extra: str) -> None:
    """A9: at every level."""
    for place in (b'{"keyfit":1', b'{"schema":1', b'{"id":"one"', b'{"sources":["made-up"],"id_vendor"'):
        assert GOOD.count(place) == 1
        assert "unknown field" in refused(GOOD.replace(place, b"{" + extra.encode() + b"," + place[1:]))


def test_h4_a_key_that_stands_twice_is_refused_at_every_level() -> None:
    """H4: msgspec alone would take the last one."""
    assert "twice" in refused(GOOD.replace(b'{"keyfit":1', b'{"keyfit":1,"keyfit":1', 1))
    assert "twice" in refused(GOOD.replace(b'"brand":"acme"', b'"brand":"acme","brand":"evil"', 1))


def test_h4_nesting_is_measured_before_anything_recurses() -> None:
    """H4: a hundred thousand brackets are counted, not followed; brackets in strings do not count."""
    assert "nesting" in refused(b"[" * 100_000)
    assert "nesting" in refused(b'{"a":' * (MANIFEST_DEPTH + 1) + b"1" + b"}" * (MANIFEST_DEPTH + 1))
    assert "nesting" not in refused(b'{"a":"' + b"[{" * 100 + b'\\"' + b"[" * 100 + b'"}')


def test_h4_numbers_of_any_length_are_refused() -> None:
    """H4, CVE-2020-10735."""
    refused(GOOD.replace(b'"sequence":1', b'"sequence":' + b"9" * 100_000))
    refused(GOOD.replace(b'"sequence":1', b'"sequence":0'))
    refused(GOOD.replace(b'"sequence":1', b'"sequence":1e400'))


def test_a_manifest_for_another_target_is_refused() -> None:
    with pytest.raises(TrustError):
        decode_manifest(GOOD, "usb/1234/0002-linux-amd64.json")
