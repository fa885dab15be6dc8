"""The setup programs that a site offers: hashed once, while they are copied."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from keyfit.errors import StorageError, UserError
from keyfit.publisher.site.model import Program

FOLDER = "download"
_CHUNK_BYTES = 1_048_576
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,119}")
_ADDRESS = re.compile(r"https://[a-z0-9.-]+(/[A-Za-z0-9._~/%?=&#+,;:@!$'()*-]*)")
_SYSTEMS = {".exe": "windows", ".msi": "windows", ".pkg": "macos", ".dmg": "macos", ".deb": "linux", ".rpm": "linux",
            ".run": "linux", ".appimage": "linux"}
"""File name ending -> system that such a file is for."""


class Wanted(Struct, frozen=True, kw_only=True):
    """What `--program` asks for: a file, and where it is served if not from the site itself."""

    path: Path
    address: str = ""


def parse_programs(arguments: Sequence[str]) -> tuple[Wanted, ...]:
    """Read `FILE` or `FILE=ADDRESS`, several times.

    Raises:
        UserError: code "bad-program".
    """
    wanted: list[Wanted] = []
    for argument in arguments:
        path, mark, address = argument.partition("=https://")
        if not mark and "=http://" in argument:
            raise _bad(argument, "an https address")
        if mark and not _ADDRESS.fullmatch(f"https://{address}"):
            raise _bad(argument, "FILE=https://host/path")
        found = Wanted(path=Path(path), address=f"https://{address}" if mark else "")
        if not _FILE_NAME.fullmatch(found.path.name):
            raise _bad(argument, "a file name of letters, digits and . _ + ~ -")
        if found.path.name in {w.path.name for w in wanted}:
            raise _bad(argument, "a name of its own for each program")
        wanted.append(found)
    return tuple(wanted)


def take_program(wanted: Wanted, out: Path) -> Program:
    """Hash a program, and copy it below `out` unless it is served elsewhere.

    Raises:
        UserError: it cannot be read.
        StorageError: the copy cannot be written.
    """
    digest, length = hashlib.sha256(), 0
    copy = None
    target = out / FOLDER / wanted.path.name
    try:
        source = wanted.path.open("rb")
    except OSError as error:
        raise UserError("no-such-file", f"{wanted.path} cannot be read: {error.strerror}.") from error
    with source:
        try:
            if not wanted.address:
                target.parent.mkdir(exist_ok=True)
                copy = target.open("wb")
            while chunk := source.read(_CHUNK_BYTES):
                digest.update(chunk)
                length += len(chunk)
                if copy is not None:
                    copy.write(chunk)
            if copy is not None:
                copy.flush()
        except OSError as error:
            raise StorageError("cannot-write", f"{wanted.path.name} cannot be copied: {error.strerror}.",
                               hint="Check the disk's room and who may write there.") from error
        finally:
            if copy is not None:
                copy.close()
    if not length:
        raise _bad(str(wanted.path), "a file with something in it")
    return Program(file=wanted.path.name, system=_SYSTEMS.get(wanted.path.suffix.lower(), ""), sha256=digest.hexdigest(),
                   address=wanted.address or f"{FOLDER}/{wanted.path.name}", length_bytes=length)


def sums(programs: Sequence[Program]) -> bytes:
    """`SHA256SUMS` of the programs, as sha256sum writes and checks it."""
    return "".join(f"{p.sha256}  {p.file}\n" for p in sorted(programs, key=lambda p: p.file)).encode()


def _bad(argument: str, expected: str) -> UserError:
    return UserError("bad-program", f"Expected {expected} for --program, came {argument!a}.",
                     hint="Give a file, or FILE=https://... if it is served elsewhere.")
