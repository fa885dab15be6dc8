"""Puts a folder in place at once: readers see the old one or the new one, whole."""

import ctypes
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from keyfit.errors import HostError, StorageError

MARKER = ".keyfit-site"
"""Lies in every folder made here and lists its files, so that nothing else is ever replaced."""
_RENAME_EXCHANGE = 2
"""Flag of renameat2(2), linux/fs.h."""
_AT_FDCWD = -100
"""fcntl.h."""


@contextmanager
def fresh_folder(out: Path) -> Iterator[Path]:
    """A new folder beside `out`, which takes its place when the block ends well and is deleted when it does not.

    Raises:
        HostError: code "out-not-ours": `out` is there and was not made here, or holds files that were not.
        StorageError: it cannot be written; `out` is as it was.
    """
    out = out.absolute()
    check_ours(out)
    try:
        new = Path(tempfile.mkdtemp(prefix=f".{out.name}.new-", dir=out.parent))
    except OSError as error:
        raise _cannot_write(out.parent, error) from error
    try:
        yield new
        _mark(new)
        _open_up(new)
        _swap(new, out)
    except OSError as error:
        raise _cannot_write(out, error) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)  # the half-made one, or the old one after the swap


def check_ours(out: Path) -> None:
    """See that `out` is not there, or is a folder that this module made and nobody added to.

    Raises:
        HostError: code "out-not-ours".
    """
    if not os.path.lexists(out):
        return
    try:
        listed = set(json.loads((out / MARKER).read_bytes())["files"]) if out.is_dir() and not out.is_symlink() else None
    except (OSError, ValueError, KeyError, TypeError):
        listed = None
    if listed is None:
        raise HostError("out-not-ours", f"Expected a folder that is not there yet or was made by this command, {out} is"
                        " neither.", hint="Name another one with --out, or take this one away.")
    foreign = sorted(set(_files(out)) - listed - {MARKER})
    if foreign:
        raise HostError("out-not-ours", f"{out} holds files that this command did not put there:"
                        f" {', '.join(foreign[:3])}{' ...' if len(foreign) > 3 else ''}.",
                        hint="They would be lost. Take them out, or name another folder with --out.")


def write(folder: Path, name: str, data: bytes) -> None:
    """Write a file below `folder`.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise _cannot_write(folder / name, error) from error


def _mark(folder: Path) -> None:
    names = sorted(_files(folder))
    (folder / MARKER).write_text(json.dumps({"keyfit-site": 1, "files": names}, indent=0) + "\n", "utf-8")


def _files(folder: Path) -> Iterator[str]:
    return (path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())


def _open_up(folder: Path) -> None:
    """A web server has to read it, whatever the umask."""
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    if hasattr(os, "sync"):
        os.sync()  # once for all the files, before they are what readers see


def _swap(new: Path, out: Path) -> None:
    """Rename `new` to `out`. An old `out` ends up as `new`, to be deleted by the caller."""
    if not out.exists():
        new.rename(out)
        return
    exchange = _exchange()
    if exchange is not None and exchange(new, out):
        return
    old = new.with_name(new.name.replace(".new-", ".old-", 1))
    out.rename(old)
    try:
        new.rename(out)
    except OSError:
        old.rename(out)
        raise
    old.rename(new)


def _exchange() -> Callable[[Path, Path], bool] | None:
    """Linux can exchange two names in one step; False where the file system cannot."""
    if sys.platform != "linux":
        return None
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)  # glibc 2.28, musl 1.2.5
    if rename is None:
        return None
    return lambda one, other: rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0


def _cannot_write(path: Path, error: OSError) -> StorageError:
    return StorageError("cannot-write", f"{path} cannot be written: {error.strerror or error}.",
                        hint="Nothing was changed. Check the disk's room and who may write there.")
