"""Signed bytes to `Manifest`, strictly: size, nesting and names are checked before anything is built (security H4)."""

import re
from typing import Any

import msgspec

from keyfit.errors import TrustError
from keyfit.model.catalog import Manifest
from keyfit.trust.limits import MANIFEST_BYTES, MANIFEST_DEPTH

TARGET_NAME = re.compile(r"(?!.*\.\.)[a-z0-9][a-z0-9._/-]{0,120}\Z")
"""Security A8."""
_STRING_OR_BRACKET = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


def decode_manifest(data: bytes, target: str) -> Manifest:
    """Decode the manifest that was signed as `target`.

    Raises:
        TrustError: code "manifest-invalid": too large or deep, a key twice, an unknown field, a value out of range, or
            a manifest for another target.
    """
    if len(data) > MANIFEST_BYTES:
        raise _invalid(target, f"at most {MANIFEST_BYTES} bytes, came {len(data)}")
    if _depth(data) > MANIFEST_DEPTH:
        raise _invalid(target, f"at most {MANIFEST_DEPTH} levels of nesting, came more")
    try:
        _refuse_repeated_keys(data)
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, ValueError) as error:
        raise _invalid(target, f"a manifest as this version knows it, came: {error}") from error
    if manifest.path != target:
        raise _invalid(target, f"this path in it, came {ascii(manifest.path)[:130]}")
    return manifest


def _depth(data: bytes) -> int:
    """Deepest nesting, in one pass and without recursion; brackets inside strings do not count."""
    depth = deepest = 0
    for found in _STRING_OR_BRACKET.finditer(data):
        first = found.group()[:1]
        if first in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif first in b"]}":
            depth -= 1
    return deepest


def _refuse_repeated_keys(data: bytes) -> None:
    """msgspec takes the last of two equal keys; another reader may take the first."""
    import json

    def check(pairs: list[tuple[str, Any]]) -> None:
        if len({name for name, _ in pairs}) != len(pairs):
            raise ValueError("a key that stands twice in one object")

    json.loads(data, object_pairs_hook=check)


def _invalid(target: str, text: str) -> TrustError:
    return TrustError("manifest-invalid", f"The signed manifest {target} is not usable: expected {text}.",
                      hint="Update Keyfit; if it is the newest version, tell the publisher.")
