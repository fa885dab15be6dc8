"""Signed bytes to `Manifest` and `Grant`, strictly: size, nesting and names are checked before anything is built
(security H4)."""

import re
from collections.abc import Iterable
from typing import TypeVar

from keyfit import strictjson
from keyfit.errors import TrustError
from keyfit.model.catalog import Grant, Manifest, Revocation
from keyfit.trust.limits import MANIFEST_BYTES, MANIFEST_DEPTH

TARGET_NAME = re.compile(r"(?!.*\.\.)(?!(?:.*/)?(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:[./]|\Z))[a-z0-9][a-z0-9._/-]{0,120}\Z")
"""No way up, and no name that is a device on Windows (security A8)."""
_BRAND_TARGET = re.compile(r"brand/([a-z0-9-]+)/[a-z0-9.-]+\Z")
_DEVICE_TARGET = re.compile(r"usb/([0-9a-f]{4})/([0-9a-f]{4})-[a-z0-9.-]+\Z")
_Signed = TypeVar("_Signed", Manifest, Grant)


def decode_manifest(data: bytes, target: str) -> Manifest:
    """Decode the manifest that was signed as `target`.

    Raises:
        TrustError: code "manifest-invalid": too large or deep, a key twice, an unknown field, a value out of range, a
            brand twice, or a manifest for another target.
    """
    manifest = _decode(data, target, Manifest)
    names = [b.brand for b in manifest.brands]
    if len(set(names)) != len(names):
        raise _invalid(target, "each brand once, came one twice")
    return manifest


def decode_grant(data: bytes, target: str) -> Grant:
    """Decode the grant that was signed as `target`.

    Raises:
        TrustError: code "manifest-invalid", as for a manifest.
    """
    return _decode(data, target, Grant)


def brand_of(target: str) -> str:
    """The brand that a target path is of, or "" if it is of none."""
    found = _BRAND_TARGET.fullmatch(target)
    return found.group(1) if found else ""


def device_of(target: str) -> tuple[int, int] | None:
    """Vendor and product id that a target path is of, or None."""
    found = _DEVICE_TARGET.fullmatch(target)
    return (int(found.group(1), 16), int(found.group(2), 16)) if found else None


def _decode(data: bytes, target: str, kind: type[_Signed]) -> _Signed:
    try:
        decoded = strictjson.decode(data, kind, max_bytes=MANIFEST_BYTES, max_depth=MANIFEST_DEPTH)
    except ValueError as error:
        raise _invalid(target, f"a {kind.__name__.lower()} as this version knows it, came: {error}") from error
    if decoded.path != target:
        raise _invalid(target, f"this path in it, came {ascii(decoded.path)[:130]}")
    _check_revocations(decoded.revoked, target)
    return decoded


def _check_revocations(revoked: Iterable[Revocation], target: str) -> None:
    """One that names neither a sequence nor a file withdraws nothing, and cannot have been meant so."""
    for each in revoked:
        if each.sequence is None and each.sha256 is None:
            raise _invalid(target, f"a sequence or a file's hash in each revocation, came one of {each.brand} without")


def _invalid(target: str, text: str) -> TrustError:
    return TrustError("manifest-invalid", f"The signed manifest {target} is not usable: expected {text}.",
                      hint="Update Keyfit; if it is the newest version, tell the publisher.")
