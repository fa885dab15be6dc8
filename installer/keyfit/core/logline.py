"""One event as one line of JSON, of bounded length (security I2).

The line is ASCII: whatever a text holds (line breaks, terminal sequences, characters that turn the writing direction) is
escaped, so that no text can look like another event or like anything else than a text.
"""

import json
from collections.abc import Callable, Mapping

MAX_LINE_BYTES = 4_096
MAX_TRAFFIC_LINE_BYTES = 32_768
"""A line with what a program said, or with a crash report."""
MAX_TEXT = 500
MAX_TRAFFIC_TEXT = 8_000
MAX_ITEMS = 64
LONG = ("program-output", "crash")
"""Events that may have the longer line."""


def line(*, time: str, level: str, name: str, pid: int, command: str, fields: Mapping[str, object],
         redact: Callable[[str], str]) -> bytes:
    """The line, with its line break.

    Args:
        time: UTC, ISO 8601.
        redact: is given every text whole, before it is cut, so that no half of a private value is left.
    """
    is_long = name in LONG
    most, limit = (MAX_TRAFFIC_LINE_BYTES, MAX_TRAFFIC_TEXT) if is_long else (MAX_LINE_BYTES, MAX_TEXT)
    event: dict[str, object] = {"time": time, "level": level, "event": name, "pid": pid, "command": command}
    ready = {key: _redacted(value, redact) for key, value in fields.items()}
    while True:
        values = {key: _cut(value, limit) for key, value in ready.items()}
        mark = {} if values == ready else {"cut": True}
        data = json.dumps({**event, **mark, "fields": values}, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"
        if len(data) <= most:
            return data
        if limit == 0:  # too many fields, not too long ones
            return json.dumps({**event, "cut": True, "fields": {}}, separators=(",", ":")).encode()[: most - 1] + b"\n"
        limit //= 2


def _redacted(value: object, redact: Callable[[str], str]) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, tuple | list):
        return [redact(str(item)) if isinstance(item, str | int | float) else _type(item) for item in value]
    return _type(value)


def _type(value: object) -> str:
    """Of what is no plain value only its type is noted: its text could be anything."""
    return f"<{type(value).__name__}>"


def _cut(value: object, limit: int) -> object:
    if isinstance(value, str):
        return value[:limit]
    if isinstance(value, list):
        return [str(item)[:limit] for item in value[: min(MAX_ITEMS, limit)]]
    return value
