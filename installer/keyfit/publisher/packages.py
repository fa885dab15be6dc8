"""Driver package files that the publisher adds: checked against the brand's data, stored by their hash."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from keyfit.errors import DataError, HostError, KeyfitError, StorageError, UserError
from keyfit.model.catalog import Brand, Package, Payload
from keyfit.publisher.contents import Checks, require_sound

NO_CHECKS = Checks()
INDEX = "packages.json"
_CHUNK_BYTES = 1_048_576
_ZIP = b"PK\x03\x04"
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_CAB = b"MSCF"
_ARCHIVES: dict[str, tuple[bytes, ...]] = {".tar.gz": (b"\x1f\x8b",), ".tgz": (b"\x1f\x8b",), ".tar.xz": (b"\xfd7zXZ\x00",),
              ".tar.zst": (b"\x28\xb5\x2f\xfd",), ".tar.bz2": (b"BZh",), ".zip": (_ZIP,)}
FILE_KINDS: dict[str, dict[str, tuple[bytes, ...]]] = {
    "deb": {".deb": (b"!<arch>\ndebian-binary",)},
    "rpm": {".rpm": (b"\xed\xab\xee\xdb",)},
    "msi": {".msi": (_OLE,)},
    "exe": {".exe": (b"MZ",)},
    "inf": {".cab": (_CAB,), ".zip": (_ZIP,)},
    "pkg": {".pkg": (b"xar!",)},
    "dmg": {".dmg": ()},
    "archive": _ARCHIVES,
}
"""Package kind -> file name endings and the first bytes that go with them. From file(1)'s magic database and: deb(5);
the RPM file format (rpm.org, "lead"); [MS-CFB] 2.2; [MS-CAB] 2.2; xar's header; RFC 1952, 8878; .ZIP APPNOTE 4.3.7.
A disk image has its mark at the end ("koly" in the last 512 bytes)."""
_KOLY_BYTES = 512


class AddedPackage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A line of the index."""

    brand: str
    package: str
    payload: Payload


class PackageIndex:
    """Which file belongs to which package: `packages.json` beside the repository. The files are in `payloads`."""

    def __init__(self, path: Path, payloads: Path) -> None:
        self._path = path
        self._payloads = payloads

    def read(self) -> dict[tuple[str, str], Payload]:
        """(brand, package id) -> payload.

        Raises:
            HostError: the index is damaged, or a file of it is not there any more.
        """
        added = {(entry.brand, entry.package): entry.payload for entry in self._entries()}
        for payload in added.values():
            path = self._payloads / payload.path
            if not path.is_file() or path.stat().st_size != payload.length_bytes:
                raise HostError("package-missing", f"Expected {payload.length_bytes} bytes in {path}, they are not"
                                " there.", hint="Add the package file again with keyfit-publish add.")
        return added

    def add(self, brand: Brand, package: Package, file: Path, checks: Checks = NO_CHECKS,
            notes: list[str] | None = None) -> Payload:
        """Copy a file, look at the copy and hold it against the brand data, then put it into the repository and note it.

        Args:
            brand: what declares the package.
            package: what the file is for.
            file: the package file.
            checks: block list and roots; Windows programs do not pass without a block list.
            notes: gets what is to be looked at besides.

        Raises:
            DataError: code "wrong-file" or "package-content": it is not the file that the brand data declares, or does
                what no package may. Nothing is left of it.
            StorageError: it cannot be written.
        """
        check_kind(package, file)

        def look(copy: Path) -> None:
            verdict = require_sound(brand, package, copy, checks, name=file.name)
            if notes is not None:
                notes.extend(verdict.notes)

        sha256, length = self._copy(file, package, look)
        mirrors = package.payload.mirrors if package.payload is not None else ()
        payload = Payload(file=file.name, sha256=sha256, length_bytes=length, mirrors=mirrors)
        kept = [e for e in self._entries() if (e.brand, e.package) != (brand.brand, package.id)]
        kept.append(AddedPackage(brand=brand.brand, package=package.id, payload=payload))
        fresh = self._path.with_name(self._path.name + ".new")
        try:
            fresh.write_bytes(msgspec.json.format(msgspec.json.encode(sorted(kept, key=lambda e: (e.brand, e.package)))))
            fresh.replace(self._path)
        except OSError as error:
            raise _cannot_write(self._path, error) from error
        return payload

    def add_program(self, file: Path) -> Payload:
        """Copy a setup of Keyfit itself into the repository; it is named in the manifests of the role `app`, not here.

        Raises:
            StorageError: it cannot be written.
        """
        sha256, length = self._copy(file, None, lambda _: None)
        return Payload(file=file.name, sha256=sha256, length_bytes=length)

    def _entries(self) -> list[AddedPackage]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=list[AddedPackage])
        except FileNotFoundError:
            return []
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise HostError("package-index", f"{self._path} cannot be read: {error}.") from error

    def _copy(self, file: Path, package: Package | None, look: Callable[[Path], None]) -> tuple[str, int]:
        """(SHA-256, length) of the copy, which lies under its final name. What is looked at is the copy (security D2)."""
        digest, length, made = hashlib.sha256(), 0, ""
        try:
            self._payloads.mkdir(parents=True, exist_ok=True)
            with file.open("rb") as source:
                handle, made = tempfile.mkstemp(dir=self._payloads, prefix=".adding-")
                with os.fdopen(handle, "wb") as copy:
                    while chunk := source.read(_CHUNK_BYTES):
                        digest.update(chunk)
                        length += len(chunk)
                        copy.write(chunk)
                    os.fsync(copy.fileno())
            payload = Payload(file=file.name, sha256=digest.hexdigest(), length_bytes=length)
            if package is not None:
                _check_declared(package, payload)
            look(Path(made))
            final = self._payloads / payload.path
            final.parent.mkdir(parents=True, exist_ok=True)
            Path(made).chmod(0o644)
            Path(made).replace(final)
        except (OSError, KeyfitError) as error:
            with suppress(OSError):
                Path(made).unlink()
            if isinstance(error, OSError):
                raise _cannot_write(self._payloads, error) from error
            raise
        return payload.sha256, length


def find_package(brands: Sequence[Brand], brand_name: str, file_name: str, package_id: str | None) -> tuple[Brand, Package]:
    """The package that a file is for.

    Raises:
        UserError: no such brand or package, or the file name fits several packages.
    """
    brand = next((b for b in brands if b.brand == brand_name), None)
    if brand is None:
        raise UserError("no-such-brand", f"Expected a brand of this folder, came {brand_name!a}.",
                        hint=f"Brands: {', '.join(b.brand for b in brands)}.")
    fileful = [p for p in brand.package if p.file]
    declared = "; ".join(f"{p.id}: {p.file}" for p in fileful) or "none"
    fitting = [p for p in fileful if (p.id == package_id if package_id else p.file == file_name)]
    if not fitting:
        raise UserError("no-such-package", f"The brand {brand_name} declares no package"
                        f" {package_id or 'with the file ' + repr(file_name)}.", hint=f"It declares {declared}.")
    if len(fitting) > 1:
        raise UserError("which-package", f"Several packages of {brand_name} have the file {file_name}.",
                        hint="Name one with --package: " + ", ".join(p.id for p in fitting) + ".")
    if fitting[0].file != file_name:
        raise DataError("wrong-file", f"Expected the file {fitting[0].file} for {brand_name}/{fitting[0].id}, came"
                        f" {file_name!a}.", hint="The name is part of what the brand data declares.")
    return brand, fitting[0]


def check_kind(package: Package, file: Path) -> None:
    """See that a file is of the package's kind, by its name and by its first (or last) bytes.

    Raises:
        DataError: code "wrong-file".
    """
    endings = FILE_KINDS[package.kind]
    ending = next((e for e in endings if file.name.lower().endswith(e)), None)
    if ending is None:
        raise DataError("wrong-file", f"Expected a file with the ending {' or '.join(endings)} for the kind"
                        f" {package.kind}, came {file.name!a}.", hint="Add the file that the brand data declares.")
    try:
        with file.open("rb") as opened:
            first = opened.read(32)
            opened.seek(max(os.fstat(opened.fileno()).st_size - _KOLY_BYTES, 0))
            last = opened.read(_KOLY_BYTES)
    except OSError as error:
        raise UserError("no-such-file", f"{file} cannot be read: {error.strerror}.") from error
    fits = last.startswith(b"koly") if package.kind == "dmg" else first.startswith(endings[ending])
    if not fits:
        raise DataError("wrong-file", f"Expected a {package.kind} file, {file.name} begins with {first[:8].hex(' ')}.",
                        hint="The file is damaged, or is something else under that name.")


def _check_declared(package: Package, payload: Payload) -> None:
    declared = package.payload
    if declared is not None and (declared.sha256, declared.length_bytes) != (payload.sha256, payload.length_bytes):
        raise DataError("wrong-file", f"Expected {declared.length_bytes} bytes with the hash {declared.sha256[:16]}… as the"
                        f" brand data says, came {payload.length_bytes} with {payload.sha256[:16]}….",
                        hint="The vendor may have replaced the file; look into it before changing the brand data.")


def _cannot_write(path: Path, error: OSError) -> StorageError:
    return StorageError("cannot-write", f"{path} cannot be written: {error.strerror or error}.",
                        hint="Check the disk's room and who may write there.")
