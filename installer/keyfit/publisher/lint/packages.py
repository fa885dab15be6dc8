"""What a brand file's packages have to be: their kind, their file, who signed it (security B1, B2, B4)."""

import re
from collections.abc import Iterator
from hashlib import sha256
from typing import Literal

from keyfit.model.catalog import AppleDeveloper, Authenticode, Package, Payload
from keyfit.publisher.contents import needs_signature
from keyfit.publisher.names import name_fault

KIND_SYSTEMS: dict[str, tuple[str, ...]] = {
    "distribution": ("linux",), "deb": ("linux",), "rpm": ("linux",), "archive": ("linux", "macos", "windows"),
    "msi": ("windows",), "exe": ("windows",), "inf": ("windows",), "pkg": ("macos",), "dmg": ("macos",),
}
"""Package kind -> the systems that can install it."""
SMALLEST_BYTES = 60
"""Shorter than the header of any package format: ar's member header alone has 60 bytes (deb(5))."""
_NOTHING = sha256(b"").hexdigest()
_NAME = re.compile(r"(?!.*(^|/)\.{1,2}(/|\Z))[A-Za-z0-9._+-]+(/[A-Za-z0-9._+-]+)*")

Fault = tuple[Literal["error", "warning"], str]


def package_faults(package: Package) -> Iterator[Fault]:
    """Everything wrong with one package, as ("error" or "warning", text)."""
    yield from (("error", text) for text in _kind_faults(package))
    if package.payload is not None:
        yield from (("error", text) for text in _payload_faults(package, package.payload))
    yield from _signature_faults(package)


def _kind_faults(package: Package) -> Iterator[str]:
    if package.on.system not in KIND_SYSTEMS[package.kind]:
        yield f"expected one of {', '.join(KIND_SYSTEMS[package.kind])} for the kind {package.kind}," \
              f" came {package.on.system}"
    if package.kind == "distribution" and (package.file or package.payload):
        yield "expected no file: the system's own archives have it"
    if package.kind != "distribution" and not package.file:
        yield f"expected the name of the file for the kind {package.kind}, came none"
    if (package.kind == "archive") != bool(package.files):
        yield "expected files for an archive, and for nothing else"
    for name in package.files:
        if not _NAME.fullmatch(name):
            yield f"expected a path inside the archive, came {name!r}"


def _payload_faults(package: Package, payload: Payload) -> Iterator[str]:
    if package.file is not None and payload.file != package.file:
        yield f"expected the payload's file {package.file}, came {payload.file}"
    if payload.sha256 == _NOTHING or len(set(payload.sha256)) == 1:
        yield f"expected the hash of a file, came {payload.sha256[:16]}…, which is that of none"
    if payload.length_bytes < SMALLEST_BYTES:
        yield f"expected a package of at least {SMALLEST_BYTES} bytes, came {payload.length_bytes}"


def _signature_faults(package: Package) -> Iterator[Fault]:
    signature = package.signature
    if signature is None:
        if needs_signature(package):
            level: Literal["error", "warning"] = "error" if package.payload is not None else "warning"
            yield level, (f"expected a signature that names who signs the file for {package.on.system}, found none"
                          + ("" if package.payload is not None else "; without it the file cannot be added"))
    elif not needs_signature(package):
        yield "error", "expected no signature: only files for Windows and macOS are signed by their vendors"
    elif isinstance(signature, AppleDeveloper):
        if package.on.system != "macos":
            yield "error", f"expected a signature of the kind authenticode for {package.on.system}, came apple-developer"
    else:
        yield from (("error", text) for text in _authenticode_faults(package, signature))
    if package.kind == "dmg":
        yield "warning", "a disk image cannot be looked into and cannot be added; name the installer package in it"


def _authenticode_faults(package: Package, signature: Authenticode) -> Iterator[str]:
    if package.on.system != "windows":
        yield f"expected a signature of the kind apple-developer for {package.on.system}, came authenticode"
    if signature.kernel and package.kind != "inf":
        yield f"expected kernel = true for a driver package (inf) only, came {package.kind}"
    for what, name in (("subject", signature.subject), ("issuer", signature.issuer)):
        fault = name_fault(name)
        if fault:
            yield f"signature.{what}: {fault}"
