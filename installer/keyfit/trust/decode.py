"""From bytes that the signatures vouch for to a manifest: strict all the same (security H4)."""

import json
from typing import Any

import msgspec

from keyfit.errors import TrustError
from keyfit.model.catalog import Manifest

MAX_MANIFEST_BYTES = 1_000_000
"""The largest brand has some 30 kB."""
MAX_DEPTH = 16
"""A manifest is eight levels deep."""


def manifest(data: bytes, target: str) -> Manifest:
    """Decode the manifest that was served as `target`.

    Raises:
        TrustError: "manifest-malformed": too large or deep, a key twice, an unknown field, a wrong type, or another path inside.
    """
    try:
        if len(data) > MAX_MANIFEST_BYTES:
            raise ValueError(f"it has {len(data)} bytes, at most {MAX_MANIFEST_BYTES} are allowed")
        check_depth(data)
        json.loads(data, object_pairs_hook=_no_duplicates)
        decoded = msgspec.json.decode(data, type=Manifest)
    except (ValueError, msgspec.DecodeError, RecursionError) as error:
        raise TrustError("manifest-malformed", f"The signed manifest {target} is malformed: {error}.",
                         hint="Tell the publisher of the repository; or install a newer Keyfit.") from error
    if decoded.path != target:
        raise TrustError("manifest-malformed", f"The manifest served as {target} says that it is {decoded.path}.",
                         hint="Tell the publisher of the repository.")
    return decoded


def check_depth(data: bytes) -> None:
    """Raise ValueError if JSON is nested deeper than `MAX_DEPTH`; brackets within strings do not count."""
    depth, in_string, escaped = 0, False, False
    for byte in data:
        if in_string:
            if escaped:
                escaped = False
            elif byte == 0x5C:
                escaped = True
            elif byte == 0x22:
                in_string = False
        elif byte == 0x22:
            in_string = True
        elif byte in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
        elif byte in b"]}":
            depth -= 1


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} is there twice")
        found[key] = value
    return found
