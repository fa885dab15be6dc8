"""Security I2: one event is one line, whatever is in it, and never a longer one than allowed."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from keyfit.core.logline import MAX_LINE_BYTES, MAX_TRAFFIC_LINE_BYTES, line


def made(name: str = "step", redact: Any = lambda text: text, **fields: object) -> bytes:
    return line(time="2026-01-02T03:04:05.678Z", level="info", name=name, pid=7, command="install", fields=fields, redact=redact)


VALUES = st.one_of(st.text(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.none(),
                   st.lists(st.text()), st.text(min_size=5000, max_size=20_000))


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,12}", fullmatch=True), VALUES, max_size=30), st.sampled_from(["step", "crash"]))
def test_i2_any_event_is_one_line_of_ascii_within_its_limit(fields: dict[str, object], name: str) -> None:
    data = line(time="t", level="info", name=name, pid=1, command="c", fields=fields, redact=lambda text: text)

    assert data.isascii()
    assert data.count(b"\n") == 1
    assert data.endswith(b"\n")
    assert not set(data[:-1]) & set(range(32))
    assert len(data) <= (MAX_TRAFFIC_LINE_BYTES if name == "crash" else MAX_LINE_BYTES)
    event = json.loads(data)
    assert (event["event"], event["pid"], event["level"]) == (name, 1, "info")


def test_i2_nothing_forges_another_event() -> None:
    data = made(text='x"}\n{"time":"t","event":"run-ended"}\r\x1b[2J\u202e\x7f')

    assert data.count(b"\n") == 1
    assert b"\x1b" not in data
    assert json.loads(data)["fields"]["text"].endswith("\u202e\x7f")


def test_i2_texts_are_redacted_whole_before_they_are_cut() -> None:
    data = made(text="a" * 495 + " canary-canary", redact=lambda text: text.replace("canary", "***"))

    assert b"can" not in data
    assert json.loads(data)["cut"] is True


def test_i2_of_what_is_no_plain_value_only_the_type_is_noted() -> None:
    class Thing:
        def __repr__(self) -> str:
            return "canary"

    event = json.loads(made(one=Thing(), many=[Thing(), b"canary"], known={"a": "canary"}))

    assert event["fields"] == {"one": "<Thing>", "many": ["<Thing>", "<bytes>"], "known": "<dict>"}


def test_too_many_fields_leave_the_event_itself() -> None:
    event = json.loads(made(**{f"field_{n:04}": n for n in range(2_000)}))

    assert event["cut"] is True
    assert event["event"] == "step"
