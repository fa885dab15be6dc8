"""Recordings are read strictly, and what comes out is safe to show."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyfit.errors import DataError
from keyfit.token.recording import MAX_BYTES, load_recording, parse_recording

RECORDINGS = Path(__file__).resolve().parents[2] / "data" / "recordings"
DEVICE = {"id_vendor": 1, "id_product": 2, "bcd_device": 3, "bus_path": "1-1"}


def a_recording(**fields: Any) -> bytes:
    return json.dumps({"keyfit": 1, "devices": [{"device": DEVICE, **fields}]}).encode()


@pytest.mark.parametrize(("file", "ids", "certificates"), [("acs-cryptomate-t1.json", "072F:B200", 0),
                                                           ("yubikey-5.json", "1050:0407", 1)])
def test_the_shipped_recordings_are_sound_and_say_that_they_are_constructed(file: str, ids: str,
                                                                            certificates: int) -> None:
    recording = load_recording(RECORDINGS / file)
    [recorded] = recording.devices
    assert recorded.device.ids == ids
    assert "Constructed" in recording.note
    assert sum(len(s.certificates) for m in recorded.modules.values() for s in m.slots) == certificates


def test_h1_texts_of_a_recording_are_made_safe() -> None:
    hostile = "\x1b[31mred\u202egnp"
    recording = parse_recording(a_recording(reader=hostile, device={**DEVICE, "product": hostile}), "file")
    assert recording.devices[0].reader == "[31mredgnp"
    assert recording.devices[0].device.product == "[31mredgnp"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "Expecting value"),
        (b"{}", "keyfit"),
        (b'{"keyfit": 2}', "keyfit"),
        (b'{"keyfit": 1, "keyfit": 1}', "twice"),
        (b'{"keyfit": 1, "unknown": 1}', "unknown"),
        (b'{"keyfit": NaN}', "NaN"),
        (b'{"keyfit": 1, "note": "\xff"}', "UTF-8"),
        (b"[" * 100_000, "levels of nesting"),
        (a_recording(device={**DEVICE, "serial": "1"}), "devices[0].device.serial"),
        (a_recording(device={**DEVICE, "id_vendor": 65536}), "id_vendor is not within 16 bits"),
        (a_recording(device={**DEVICE, "bus_path": ""}), "bus_path is empty"),
        (a_recording(atr="3b00"), "atr is no upper-case hex"),
        (a_recording(atr="3B0"), "atr is no upper-case hex"),
        (a_recording(atr="3B" * 34), "atr is no upper-case hex"),
        (a_recording(modules={"/a.so": {"path": "/b.so", "loaded": True}}), "has to be absolute and the report's own"),
        (a_recording(modules={"a.so": {"path": "a.so", "loaded": True}}), "has to be absolute"),
        (json.dumps({"keyfit": 1, "devices": [{"device": DEVICE}] * 65}).encode(), "65 devices"),
        (b" " * (MAX_BYTES + 1), "at most"),
    ],
)
def test_h4_what_is_no_recording_is_refused_with_its_problem(data: bytes, problem: str) -> None:
    with pytest.raises(DataError) as caught:
        parse_recording(data, "file")
    assert caught.value.code == "recording-malformed"
    assert any(problem in found for found in caught.value.problems), caught.value.problems


def test_every_problem_is_listed_at_once() -> None:
    with pytest.raises(DataError) as caught:
        parse_recording(a_recording(device={**DEVICE, "id_vendor": -1, "bus_path": ""}, atr="x"), "file")
    assert len(caught.value.problems) == 3


def test_a_file_that_is_not_there_is_an_error_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_recording(tmp_path / "none.json")
    assert caught.value.code == "recording-unreadable"
    assert caught.value.hint


@given(st.binary(max_size=300) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["keyfit", "devices", "device", "modules", "atr", "reader", "id_vendor"]), inner, max_size=4),
    max_leaves=20).map(lambda value: json.dumps(value).encode()))
def test_h4_any_bytes_are_a_recording_or_refused(data: bytes) -> None:
    try:
        parse_recording(data, "file")
    except DataError as error:
        refused = error
    else:
        return
    assert refused.problems
    assert refused.code == "recording-malformed"
