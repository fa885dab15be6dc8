"""What a frozen folder may be made of: python packaging/bundle.py FOLDER names what is wrong with it, and fails.

Security E1: no executable that unpacks itself ("onefile") is shipped, because one that runs with rights runs what it has
unpacked. Nothing is setuid, setgid or writable for others, no link and no library search path leads out of the folder.
"""

import stat
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import searchpaths

PROGRAMS = ("keyfit", "keyfit-helper")
CARRIED = "zmMso"
"""Type codes of what a one-folder executable may carry: compiled modules, scripts, options (PyInstaller,
`PyInstaller/loader/pyimod01_archive.py`). All others - libraries, data, links, splash screens, what is in another executable -
are unpacked into a temporary folder at the start; in a one-folder program they lie in the folder."""


def problems(folder: Path) -> Iterator[str]:
    """What is wrong, a line each."""
    for name in PROGRAMS:
        if not is_program(folder / name):
            yield f"{name}: not there, or no executable"
    for path in sorted(folder.rglob("*")):
        name, mode = path.relative_to(folder), path.lstat().st_mode
        if stat.S_ISLNK(mode):
            if not path.exists() or not path.resolve().is_relative_to(folder.resolve()):
                yield f"{name}: a link that leads out of the folder"
        elif not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            yield f"{name}: neither file, folder nor link"
        elif mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IWOTH):
            yield f"{name}: mode {stat.S_IMODE(mode):o}"
        elif stat.S_ISREG(mode) and unpacks_itself(path):
            yield f"{name}: a onefile executable"
        elif stat.S_ISREG(mode) and searchpaths.foreign(path):
            yield f"{name}: searches for libraries in {', '.join(searchpaths.foreign(path).values())}"


def is_program(path: Path) -> bool:
    """A regular file that can be run."""
    return path.is_file() and not path.is_symlink() and bool(path.stat().st_mode & stat.S_IXUSR)


def unpacks_itself(path: Path) -> bool:
    """True for a PyInstaller executable that carries what has to be unpacked before it can run."""
    from PyInstaller.archive.readers import ArchiveReadError, CArchiveReader, NotAnArchiveError

    with path.open("rb") as file:
        if file.read(4) not in (searchpaths.MAGIC, b"MZ\x90\x00"):
            return False
    try:
        entries = CArchiveReader(str(path)).toc.values()
    except (ArchiveReadError, NotAnArchiveError):
        return False  # a library, or a program of another make
    return any(entry[-1] not in CARRIED for entry in entries)


def main(arguments: list[str]) -> int:
    """Print what is wrong; returns the exit code."""
    (folder,) = arguments
    found = list(problems(Path(folder)))
    sys.stderr.write("".join(f"{folder}/{problem}\n" for problem in found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
