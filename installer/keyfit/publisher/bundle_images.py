"""A kit's folder as one file: zip, or an ISO 9660 image for a disc. The same files and date give the same bytes."""

import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pycdlib import PyCdlib
from pycdlib.pycdlibexception import PyCdlibException

from keyfit.errors import HostError, UserError
from keyfit.publisher.bundle_isodates import set_dates

JOLIET_CHARACTERS = 103
"""Joliet's own limit is 64, but a signed manifest's name begins with its hash, which has as many. Windows reads up to 110
(as mkisofs' documentation and Microsoft say of this limit); 103 is what mkisofs calls `-joliet-long`."""
_LEVEL = 3
_STORED = (".deb", ".rpm", ".zip", ".gz", ".msi", ".cab", ".exe", ".dmg", ".pkg")
"""Packed already."""
_FIRST_ZIP_YEAR = 1980


def write_zip(kit: Path, out: Path, moment: datetime) -> None:
    """Write every file of the kit with its permissions; all of them dated `moment`.

    Raises:
        OSError: it cannot be written.
    """
    at = max(moment.astimezone(UTC), datetime(_FIRST_ZIP_YEAR, 1, 1, tzinfo=UTC)).timetuple()[:6]
    with zipfile.ZipFile(out, "w") as archive:
        for path in sorted(kit.rglob("*")):
            if path.is_dir():
                continue
            name = path.relative_to(kit).as_posix()
            info = zipfile.ZipInfo(name, at)
            info.create_system = 3  # Unix: the mode below counts
            info.external_attr = (0o100000 | _mode(path)) << 16
            info.compress_type = zipfile.ZIP_STORED if name.lower().endswith(_STORED) else zipfile.ZIP_DEFLATED
            info.file_size = path.stat().st_size
            with path.open("rb") as source, archive.open(info, "w") as target:
                while chunk := source.read(1_048_576):
                    target.write(chunk)


def write_iso(kit: Path, out: Path, moment: datetime, label: str) -> None:
    """Write an image with Rock Ridge names (Linux, macOS) and Joliet names (Windows); all files dated `moment`.

    Raises:
        UserError: code "name-too-long": with every name that has no room in Joliet.
        OSError: it cannot be written.
    """
    _check_names(kit)
    iso = _LongJoliet()
    iso.new(interchange_level=_LEVEL, joliet=3, rock_ridge="1.09", vol_ident=label, sys_ident="LINUX",
            app_ident_str="KEYFIT OFFLINE KIT")
    short: dict[Path, str] = {kit: ""}
    taken: dict[Path, set[str]] = {}
    try:
        for path in _walk(kit):
            long = "/" + path.relative_to(kit).as_posix()
            short[path] = f"{short[path.parent]}/{_short_name(path, taken.setdefault(path.parent, set()))}"
            if path.is_dir():
                iso.add_directory(short[path], rr_name=path.name, joliet_path=long, file_mode=0o040755)
            else:
                iso.add_file(str(path), f"{short[path]};1", rr_name=path.name, joliet_path=long,
                             file_mode=0o100000 | _mode(path))
        iso.write(str(out))
    except PyCdlibException as error:
        raise HostError("iso-failed", f"The image cannot be made: {error}.",
                        hint="Use --format folder or zip, and tell us which names the kit has.") from error
    finally:
        iso.close()
    set_dates(out, moment)


class _LongJoliet(PyCdlib):
    """pycdlib with longer Joliet names than the 64 characters that it allows."""

    def _joliet_name_and_parent_from_path(self, joliet_path: bytes) -> tuple[bytes, Any]:
        parent, _, name = joliet_path.rpartition(b"/")
        return name.decode().encode("utf-16_be"), self._find_joliet_record(parent or b"/")


def _check_names(kit: Path) -> None:
    long = [path.relative_to(kit).as_posix() for path in _walk(kit) if len(path.name) > JOLIET_CHARACTERS]
    if long:
        raise UserError("name-too-long", f"Expected names of at most {JOLIET_CHARACTERS} characters for a disc, came"
                        f" {', '.join(long[:20])}.", hint="Use --format folder or zip, or give the driver file a shorter name.")


def _walk(kit: Path) -> Iterator[Path]:
    """Everything below, parents first, in an order that depends on the names alone."""
    return iter(sorted(kit.rglob("*"), key=lambda path: path.relative_to(kit).parts))


def _short_name(path: Path, taken: set[str]) -> str:
    """A name of capitals, digits and underscores, as ISO 9660 itself asks for; it is added to the folder's `taken` ones."""
    stem, dot, extension = path.name.rpartition(".")
    if path.is_dir() or not stem or not dot:
        stem, extension = path.name, ""
    stem, extension = _letters(stem)[:20], "" if path.is_dir() else "." + _letters(extension)[:3]
    number, name = 0, stem + extension
    while name in taken:
        number += 1
        name = f"{stem}_{number}{extension}"
    taken.add(name)
    return name


def _letters(text: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in text).upper()


def _mode(path: Path) -> int:
    return 0o755 if path.stat().st_mode & 0o100 else 0o644
