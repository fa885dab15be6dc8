"""What an archive may hold: names, kinds, numbers and sizes. Nothing is repaired; one fault refuses the whole (security H3)."""

import time
import unicodedata
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Literal

from msgspec import Struct

RESERVED = {"con", "prn", "aux", "nul", "conin$", "conout$", *(f"com{n}" for n in range(10)), *(f"lpt{n}" for n in range(10))}
"""Names that Windows keeps for devices (learn.microsoft.com, Naming Files, Paths, and Namespaces)."""
MAX_PART_BYTES = 255
"""NAME_MAX of Linux' file systems (linux/limits.h)."""


class Refused(Exception):
    """The archive is not taken. Says why; may hold names from the archive, escaped."""


class Limits(Struct, frozen=True, kw_only=True):
    """Our own choice: driver packages hold tens of files, hundreds of megabytes at most, and compress by less than 20.

    Attributes:
        files: files in it.
        entries: files, folders and headers that only belong to another entry.
        total_bytes: what it may unpack to.
        ratio: how many times its own size it may unpack to, from `free_bytes` on.
        depth: parts of a name.
        name_characters: length of a name.
        seconds: for reading it through once.
    """

    files: int = 512
    entries: int = 1_024
    total_bytes: int = 500_000_000
    ratio: int = 200
    free_bytes: int = 2_000_000
    depth: int = 16
    name_characters: int = 200
    seconds: float = 300.0


LIMITS = Limits()


class Entry(Struct, frozen=True, kw_only=True):
    """A file or folder as the archive declares it: `size` is what it says, and what comes is held against it."""

    name: str
    kind: Literal["file", "folder"]
    mode: int
    size: int


class Meter:
    """Counts what comes out, and the time.

    Args:
        packed_bytes: size of the archive itself.
    """

    def __init__(self, packed_bytes: int, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._allowed = min(limits.total_bytes, max(limits.free_bytes, packed_bytes * limits.ratio))
        self._clock = clock
        self._deadline = clock() + limits.seconds
        self._seconds = limits.seconds

    def count(self, amount: int) -> None:
        """Take note of bytes that came, or that the archive says will come.

        Raises:
            Refused: more than is allowed, or not in time.
        """
        self._allowed -= amount
        if self._allowed < 0:
            raise Refused("it would unpack to more than is allowed")
        if self._clock() > self._deadline:
            raise Refused(f"it was not read through within {self._seconds:.0f} seconds")


class Roll:
    """The entries so far, and what may not stand beside them."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._entries = 0
        self._files: dict[str, str] = {}
        self._folders: dict[str, str] = {}
        self._listed: set[str] = set()

    @property
    def files(self) -> frozenset[str]:
        """Names of the files so far."""
        return frozenset(self._files.values())

    def header(self) -> None:
        """One more header.

        Raises:
            Refused: there are too many.
        """
        self._entries += 1
        if self._entries > self._limits.entries:
            raise Refused("it has more entries than is allowed")

    def enter(self, entry: Entry) -> None:
        """Take an entry in.

        Raises:
            Refused: its name, mode or size is none to take, or it clashes with one that is there.
        """
        problem = name_problem(entry.name, self._limits)
        if not problem and entry.mode & 0o6000:
            problem = f"{entry.name!a} has set-id bits"
        if not problem and entry.kind == "folder" and entry.size:
            problem = f"{entry.name!a} is a folder with content"
        problem = problem or self._clash(entry.name.rstrip("/"), entry.kind)
        if problem:
            raise Refused(problem)
        if entry.kind == "file":
            if len(self._files) >= self._limits.files:
                raise Refused("it has more files than is allowed")
            self._files[entry.name.casefold()] = entry.name

    def _clash(self, name: str, kind: str) -> str:
        """Why a name cannot stand beside those before it; remembers the folders that it names."""
        folded = name.casefold()
        if folded in self._files or (kind == "file" and folded in self._folders) or name in self._listed:
            return f"{name!a} is there twice"
        path = PurePosixPath(name)
        if kind == "folder":
            self._listed.add(name)
        for folder in (str(p) for p in ((path,) if kind == "folder" else ()) + tuple(path.parents)[:-1]):
            if folder.casefold() in self._files or self._folders.setdefault(folder.casefold(), folder) != folder:
                return f"{folder!a} is there twice, in another spelling"
        return ""


def name_problem(name: str, limits: Limits = LIMITS) -> str:
    """Why a member's name is refused; empty if it is not. A folder's name may end with a slash."""
    parts = name.removesuffix("/").split("/")
    shown = ascii(name[:60])
    if not name or len(name) > limits.name_characters or not name.isprintable():
        return f"the name {shown} is empty, too long, or not printable"
    if unicodedata.normalize("NFC", name) != name:
        return f"the name {shown} is not in its composed form"
    if name.startswith("/") or "\\" in name or ":" in name:
        return f"{shown} is absolute or names a drive"
    if len(parts) > limits.depth or any(len(part.encode()) > MAX_PART_BYTES for part in parts):
        return f"{shown} is nested too deeply, or a part of it is too long"
    if any(part in ("", ".", "..") or part != part.strip() or part.endswith(".") for part in parts):
        return f"{shown} leaves the folder or has an odd part"
    if any(part.split(".")[0].strip().casefold() in RESERVED for part in parts):
        return f"{shown} is a reserved name"
    return ""
