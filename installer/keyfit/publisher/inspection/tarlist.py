"""The members of a tar, one after the other, without unpacking any to disk."""

import tarfile
from collections.abc import Iterator
from typing import IO, cast

from msgspec import Struct

from keyfit.publisher.inspection.limits import MAX_MEMBERS
from keyfit.publisher.inspection.source import Malformed, Readable


class Member(Struct, frozen=True, kw_only=True):
    """One entry. `kind` is "file", "folder", "link", "hard link", or what else it is. `data` is read on demand."""

    name: str
    kind: str
    mode: int
    size: int
    link: str = ""
    data: bytes = b""


def members(stream: Readable, keep: int = 0) -> Iterator[Member]:
    """Read a tar from its beginning to its end.

    Args:
        stream: the tar, uncompressed.
        keep: files up to this size come with their bytes.

    Raises:
        Malformed: it is no tar, or has too many entries.
    """
    try:
        with tarfile.open(fileobj=cast(IO[bytes], stream), mode="r|") as archive:
            for count, info in enumerate(archive):
                if count >= MAX_MEMBERS:
                    raise Malformed(f"expected at most {MAX_MEMBERS} entries, came more")
                content = archive.extractfile(info) if info.isreg() and info.size <= keep else None
                yield Member(name=info.name, kind=_kind(info), mode=info.mode & 0o7777, size=info.size,
                             link=info.linkname, data=content.read() if content else b"")
                vars(archive)["members"].clear()  # tarfile keeps all of them otherwise
    except (tarfile.TarError, ValueError, EOFError, OverflowError, RecursionError) as error:
        raise Malformed(f"expected a tar, it is damaged: {error}") from error


def _kind(info: tarfile.TarInfo) -> str:
    if info.isreg():
        return "file"
    if info.isdir():
        return "folder"
    if info.issym():
        return "link"
    if info.islnk():
        return "hard link"
    return "a device" if info.isdev() else f"an entry of type {info.type!r}"
