"""Reads archives by a policy of our own, which refuses and never repairs (security H3).

The standard library's extractors repair hostile names, believe one of two lists that disagree, and hold whole files in memory.
Here an archive that two readers could understand differently is refused, whatever is in it. Nothing is written by this package.
"""

import hashlib
import os
from collections.abc import Callable, Collection, Iterator
from typing import BinaryIO

from keyfit.engine.archives import tararchive, ziparchive
from keyfit.engine.archives.policy import LIMITS, Entry, Limits, Meter, Refused, name_problem
from keyfit.engine.archives.streams import Stream

__all__ = ["LIMITS", "Entry", "Limits", "Refused", "Write", "check", "name_problem", "read"]

Write = Callable[[str, Iterator[bytes]], None]
"""Takes the name of a file and its content, in pieces."""
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")


def read(file: BinaryIO, limits: Limits = LIMITS) -> Iterator[tuple[Entry, Iterator[bytes]]]:
    """Each file and folder of a zip, or of a tar that may be compressed with gzip, xz or bzip2, with its content in pieces.

    The content belongs to its step of the iteration; what is not taken of it is read over, and checked all the same. Only when
    the iteration has ended is the archive known to be whole.

    Args:
        file: the archive, which can be sought in; read from its beginning.

    Raises:
        Refused: it is anything but an archive as the policy has it.
        OSError: the file cannot be read.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    first = file.read(4)
    file.seek(0)
    meter = Meter(size, limits)
    if first in _ZIP:
        yield from ziparchive.members(file, size, limits, meter)
    else:
        yield from tararchive.members(Stream(file, meter), limits, meter)


def check(file: BinaryIO, files: Collection[str], write: Write | None = None, limits: Limits = LIMITS) -> dict[str, str]:
    """Read an archive through that has to hold exactly `files`.

    Args:
        files: the signed list.
        write: is given every file, if it is on the list; it has to read the content to its end.

    Returns:
        SHA-256 of each file, in hex.

    Raises:
        Refused: the policy, or the list, is against it. `write` may have been called before.
        OSError: the file cannot be read.
    """
    hashes: dict[str, str] = {}
    for entry, content in read(file, limits):
        if entry.kind == "folder":
            continue
        if entry.name not in files:
            raise Refused(f"{entry.name!a} is not on the signed list")
        digest = hashlib.sha256()
        hashed = _hashed(content, digest.update)
        if write is not None:
            write(entry.name, hashed)
        for _ in hashed:
            pass
        hashes[entry.name] = digest.hexdigest()
    missing = sorted(set(files) - hashes.keys())
    if missing:
        raise Refused(f"{missing[0]!a} is on the signed list and not in it")
    return hashes


def _hashed(content: Iterator[bytes], update: Callable[[bytes], None]) -> Iterator[bytes]:
    for piece in content:
        update(piece)
        yield piece
