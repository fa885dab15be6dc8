"""Presses an offline kit: a part of the signed repository of kits, with its driver files, a start menu and a README.

The kit appears whole or not at all: it is put together beside its final place and moved there last.
"""

import hashlib
import os
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct
from tuf.api.metadata import Metadata, Timestamp

from keyfit.errors import UserError
from keyfit.privatefiles import storage_error
from keyfit.publisher.bundle_images import write_iso, write_zip
from keyfit.publisher.bundle_program import copy_programs
from keyfit.publisher.bundle_readme import LANGUAGES, Driver, KitFacts, drivers_of, readme
from keyfit.publisher.mirror_choice import Choice
from keyfit.publisher.mirror_folder import STATE
from keyfit.publisher.mirroring import Request, mirror
from keyfit.trust.metadata import SIGNED_AT

Format = Literal["folder", "zip", "iso"]
TEMPLATES = Path(__file__).parent / "kit"
_CRLF = (".cmd", ".inf")
_CHUNK_BYTES = 1_048_576


class Kit(Struct, frozen=True, kw_only=True):
    """What to press.

    Attributes:
        media: the repository of kits.
        payloads: folder of driver files.
        without: SHA-256 of driver files that were withdrawn.
        programs: folders of the frozen client.
        moment: all files of the kit get this date; None for when it was signed.
    """

    media: Path
    payloads: Path
    out: Path
    format: Format
    choice: Choice = Choice()
    without: frozenset[str] = frozenset()
    programs: tuple[Path, ...] = ()
    force: bool = False
    moment: datetime | None = None


class Pressed(Struct, frozen=True, kw_only=True):
    """A finished kit. `bytes` is the size of the image, or of all files together; `expires` is when the first role in it
    does, ISO 8601."""

    label: str
    expires: str
    manifests: int
    drivers: tuple[Driver, ...]
    programs: tuple[str, ...]
    files: int
    bytes: int


def check_place(out: Path, *, force: bool) -> None:
    """See that the kit may be put there, before anything is signed for it.

    Raises:
        UserError: code "kit-exists" or "no-such-folder".
    """
    if out.exists() and not force:
        raise UserError("kit-exists", f"Expected no {out} yet, it is there already.",
                        hint="Choose another name, or replace it with --force.")
    if not out.absolute().parent.is_dir():
        raise UserError("no-such-folder", f"Expected a folder {out.absolute().parent}, there is none.", hint="Make it first.")


def press(kit: Kit, tell: Callable[[str], None]) -> Pressed:
    """Make the kit.

    Raises:
        UserError: its place is taken, or a brand is not in the repository.
        TrustError: a driver file is not the one that was signed.
        StorageError: disk full, or not writable. There is no kit then, or the one before.
    """
    check_place(kit.out, force=kit.force)
    out = kit.out.absolute()
    work = out.with_name(f".{out.name}.pressing")
    try:
        if (work / "before").exists() and not out.exists():  # a run was killed while it replaced this kit
            (work / "before").replace(out)
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        return _Press(kit, work, tell)()
    except OSError as error:
        raise storage_error(error, out, "write") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


class _Press:
    """One kit on its way. `work` is on the disk of its final place."""

    def __init__(self, kit: Kit, work: Path, tell: Callable[[str], None]) -> None:
        self._kit = kit
        self._work = work
        self._folder = work / "kit"
        self._tell = tell

    def __call__(self) -> Pressed:
        self._folder.mkdir()
        manifests = self._signed_part()
        signed_at, self._expires = _dates(self._folder / "keyfit" / "metadata")
        self._moment = self._kit.moment or signed_at
        self._label = f"KEYFIT_{signed_at:%Y%m%d}"
        self._signed_on = signed_at.date().isoformat()
        programs = tuple(copy_programs(self._kit.programs, self._folder / "program"))
        drivers = self._words(programs)
        self._check_sums()
        self._date()
        files = [path for path in self._folder.rglob("*") if path.is_file()]
        size = self._finish(sum(path.stat().st_size for path in files))
        return Pressed(label=self._label, expires=self._expires, manifests=manifests, drivers=drivers, programs=programs,
                       files=len(files), bytes=size)

    def _signed_part(self) -> int:
        """The chosen part of the repository: every file of it is verified on the way, as a client would."""
        root = (self._kit.media / "metadata" / "1.root.json").read_bytes()
        made = mirror(Request(url=self._kit.media.as_uri(), folder=self._folder / "keyfit", trusted_root=root, zipped=False,
                              choice=self._kit.choice, payloads_url=self._kit.payloads.as_uri() + "/",
                              without=self._kit.without), self._tell)
        shutil.rmtree(self._folder / "keyfit" / STATE)
        return made.targets.files

    def _words(self, programs: tuple[str, ...]) -> tuple[Driver, ...]:
        """README, start menu, and the root to compare with."""
        roots = sorted((self._folder / "keyfit" / "metadata").glob("*.root.json"), key=lambda p: int(p.name.partition(".")[0]))
        root = roots[-1].read_bytes()
        names, drivers, outside = drivers_of(self._folder / "keyfit")
        facts = KitFacts(label=self._label, signed_on=self._signed_on, expires_on=self._expires[:10], names=names,
                         drivers=drivers, outside=outside, programs=programs, root_sha256=hashlib.sha256(root).hexdigest())
        self._write("media-root.json", root)
        for language in LANGUAGES:
            name = "README.txt" if language == "en" else f"README.{language}.txt"
            self._write(name, readme(facts, language).encode())
        for path in sorted(TEMPLATES.glob("[!_]*.*")):
            text = path.read_text("utf-8").replace("@LABEL@", self._label).replace("@EXPIRES@", facts.expires_on)
            self._write(path.name, text.replace("\n", "\r\n").encode() if path.suffix in _CRLF else text.encode(),
                        0o755 if path.suffix == ".sh" else 0o644)
        return drivers

    def _write(self, name: str, data: bytes, mode: int = 0o644) -> None:
        path = self._folder / name
        path.write_bytes(data)
        path.chmod(mode)

    def _check_sums(self) -> None:
        lines = [f"{_sha256(path)}  {path.relative_to(self._folder).as_posix()}"
                 for path in sorted(self._folder.rglob("*")) if path.is_file()]
        self._write("CHECKSUMS.sha256", ("\n".join(lines) + "\n").encode())

    def _date(self) -> None:
        """One date and plain permissions for everything, so that the same kit is the same bytes."""
        seconds = self._moment.timestamp()
        for path in [*self._folder.rglob("*"), self._folder]:
            executable = path.is_dir() or path.stat().st_mode & 0o100
            path.chmod(0o755 if executable else 0o644)
            os.utime(path, (seconds, seconds))

    def _finish(self, size: int) -> int:
        """Move the kit to its place; returns its size."""
        made = self._folder
        if self._kit.format != "folder":
            made = self._work / "image"
            self._tell(f"writing the {self._kit.format} of {size} bytes")
            if self._kit.format == "zip":
                write_zip(self._folder, made, self._moment)
            else:
                write_iso(self._folder, made, self._moment, self._label)
            size = made.stat().st_size
            with made.open("rb") as file:
                os.fsync(file.fileno())
        elif hasattr(os, "sync"):
            os.sync()
        out = self._kit.out.absolute()
        if out.is_dir() or (out.exists() and made.is_dir()):  # what a rename does not replace
            out.replace(self._work / "before")
        made.replace(out)
        return size


def _dates(metadata: Path) -> tuple[datetime, str]:
    """When a kit was signed, and when the first of its roles but the root expires."""
    timestamp = Metadata[Timestamp].from_bytes((metadata / "timestamp.json").read_bytes()).signed
    roles: list[Metadata[Any]] = [Metadata.from_bytes(path.read_bytes()) for path in metadata.glob("*.json")
                                  if not path.name.endswith(".root.json")]
    return (datetime.fromisoformat(str(timestamp.unrecognized_fields[SIGNED_AT])),
            min(role.signed.expires for role in roles).isoformat())


def _sha256(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            found.update(chunk)
    return found.hexdigest()
