"""What dpkg leaves lying when it is cut off while it unpacks a package.

It unpacks each file and folder under a name of its own (NAME.dpkg-new), keeps an old file beside (NAME.dpkg-tmp), renames, and
writes down only after the last of them which files are the package's (dpkg 1.21, src/main/unpack.c, archives.c). If it dies
before that, it removes the package later without any of them. So the names, with size and MD5, are taken from the package
beforehand; what was not there before and is now as in the package came with it.
"""

import hashlib
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from keyfit.errors import HostError
from keyfit.ports import Host

NEW, OLD = ".dpkg-new", ".dpkg-tmp"
LINK = -1
"""Stands for the size of a symbolic link."""
MAX_FILES = 20_000
"""Driver packages hold some hundred files."""
MAX_FILE_BYTES = 500_000_000
LISTED_BYTES = 5_000_000
"""Up to here a package is unpacked in thought to list it, at most some 0.3 s. Of a larger one its own list of MD5 sums has to do,
which does not name links."""


def expect(host: Host, deb: Path) -> dict[str, Any]:
    """The package's files, and those of its folders that are not there yet.

    Returns:
        "files": name -> [was there before, size or None or `LINK`, MD5 or ""]; "made": folders, outermost first. All names
        are absolute.
    """
    sums = _sums(host, deb)
    listed = not sums or deb.stat().st_size <= LISTED_BYTES
    entries = dict(_entries(host, deb)) if listed else dict.fromkeys(sums)
    folders = {str(parent) for name in entries for parent in PurePosixPath(name).parents}
    folders |= {name.rstrip("/") for name in entries if name.endswith("/")}
    there = {path for folder in folders for path in host.glob(folder, "*")}  # also links that lead nowhere
    return {
        "files": {name: [name in there, size, sums.get(name, "")] for name, size in entries.items()
                  if not name.endswith("/")},
        "made": sorted(folder for folder in folders if folder != "/" and not host.exists(folder)),
    }


def sweep(host: Host, contents: dict[str, Any], owned: Collection[str] = ()) -> None:
    """Delete what is left of the package, which dpkg no longer knows; an old file that was moved aside is put back.

    Args:
        owned: files of the version that is there again; they stay as dpkg has just put them.
    """
    files: dict[str, Any] = contents.get("files", {})
    made: list[str] = contents.get("made", [])
    by_folder: dict[str, list[str]] = {}
    for name in files:
        by_folder.setdefault(name.rsplit("/", 1)[0] or "/", []).append(name)
    for folder, names in by_folder.items():
        there = set(host.glob(folder, "*"))
        for name in names:
            _sweep_file(host, name, files[name], there, owned=name in owned)
    for folder in sorted(made, key=len, reverse=True):
        for path in (folder + NEW, folder):
            host.remove_empty_directories(path, [path])


def _sweep_file(host: Host, name: str, known: Any, there: set[str], *, owned: bool) -> None:
    was_there, size, md5 = known
    if name + NEW in there:
        _remove(host, name + NEW)
    if name + OLD in there:
        old, now = _read(host, name + OLD), _read(host, name)
        if was_there and not owned and old is not None and old != now:
            host.write_bytes(name, old, expected=now)
        _remove(host, name + OLD)
    if name in there and not was_there and not owned:
        if size == LINK:
            with suppress(HostError):  # it is a file, of somebody else's
                host.remove_file(name, expected=b"")
        elif _is_as_packed(_read(host, name), size, md5):
            _remove(host, name)


def _is_as_packed(data: bytes | None, size: int | None, md5: str) -> bool:
    if data is None or (size is None and not md5):
        return False
    return size in (None, len(data)) and md5 in ("", hashlib.md5(data, usedforsecurity=False).hexdigest())


def _remove(host: Host, name: str) -> None:
    host.remove_file(name, expected=_read(host, name) or b"")


def _read(host: Host, name: str) -> bytes | None:
    """None for a link that leads nowhere."""
    return host.read_bytes(name, MAX_FILE_BYTES)


def _entries(host: Host, deb: Path) -> Iterator[tuple[str, int | None]]:
    """Absolute names with sizes (of files); folders end with "/". Nothing if it is no package: then `apply` fails.

    A line holds mode, owner, size, day, time and "./NAME", "./NAME -> TARGET" or "./NAME link to NAME".
    """
    for line in host.run(["dpkg-deb", "--contents", str(deb)]).stdout.splitlines()[:MAX_FILES]:
        parts = line.split(None, 5)
        if len(parts) == 6 and parts[5].startswith("./") and "\\" not in parts[5] and parts[5] != "./":
            name = parts[5].removeprefix(".").split(" -> ")[0].split(" link to ")[0]
            yield name, LINK if line[0] == "l" else int(parts[2]) if line[0] == "-" and parts[2].isdigit() else None


def _sums(host: Host, deb: Path) -> dict[str, str]:
    """MD5 by name, of packages that bring such a list (deb-md5sums(5))."""
    done = host.run(["dpkg-deb", "--info", str(deb), "md5sums"])
    rows = [line.split(None, 1) for line in done.stdout.splitlines()] if done.returncode == 0 else []
    return {f"/{row[1]}": row[0] for row in rows if len(row) == 2}
