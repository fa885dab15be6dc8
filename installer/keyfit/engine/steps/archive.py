"""An archive of ours, unpacked below /opt/keyfit/brands: exactly the listed files, or nothing.

What an archive may hold is the matter of `engine.archives`; here is where its files go. They are written into a new folder
beside the place, through directory handles, and renamed; taken away are only files whose content is the one that was written.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from keyfit.engine import archives, trees
from keyfit.engine.steps.base import Detected, Fetch, State
from keyfit.errors import HostError, TrustError
from keyfit.model.plan import Archive
from keyfit.ports import Host
from keyfit.privatefiles import storage_error

COMPONENT_PREFIX = "/opt/keyfit/brands/"


class Kind:
    """See `base.StepKind`."""

    def detect(self, change: Archive, host: Host) -> Detected:
        """Satisfied if every listed file is there. Whose they are is in the journal."""
        there = [name for name in change.files if host.exists(f"{change.prefix}/{name}")]
        return Detected(satisfied=len(there) == len(change.files) > 0,
                        before={"existed": host.exists(change.prefix), "present": there,
                                "made": list(host.missing_directories(change.prefix))})

    def expect(self, change: Archive, host: Host, before: State, fetch: Fetch) -> State:
        """The hashes of the files, from reading the whole archive through once."""
        _check_prefix(change)
        with _opened(change, fetch) as file:
            return {"hashes": archives.check(file, change.files)}

    def apply(self, change: Archive, host: Host, before: State, fetch: Fetch) -> State:
        """Unpack beside the place, then rename: the folder is there whole or not at all. In a folder of ours from which files
        are missing, they are put back one by one."""
        _check_prefix(change)
        if before["existed"] and not before["present"]:
            raise _exists(change.prefix)
        place = _place(change, host)
        try:
            with trees.opened(place.parent, make=True) as parent, _opened(change, fetch) as file:
                if parent is None:
                    raise HostError("cannot-write", f"{place.parent} is gone while it is written to.", hint="Run this again.")
                return {"hashes": _put(change, parent, file, complete=before["existed"])}
        except OSError as error:
            raise storage_error(error, Path(change.prefix), "write") from error

    def undo(self, change: Archive, host: Host, before: State, after: State) -> str:
        """Delete the files that are still ours; others, and changed ones, stay."""
        present = before.get("present", change.files) if before["existed"] else ()
        mine = {name: digest for name, digest in after.get("hashes", {}).items() if name not in present}
        place = _place(change, host)
        try:
            with trees.opened(place.parent) as parent:
                kept = _take_away(change, parent, mine, existed=before["existed"]) if parent is not None else []
        except OSError as error:
            raise storage_error(error, Path(change.prefix), "remove") from error
        if not before["existed"]:
            host.remove_empty_directories(change.prefix, before["made"])
        return f"{', '.join(kept)} in {change.prefix} stayed, because somebody else put or changed it" if kept else ""


def _check_prefix(change: Archive) -> None:
    inner = change.prefix.removeprefix(COMPONENT_PREFIX)
    if inner == change.prefix or archives.name_problem(inner) or any(archives.name_problem(name) for name in change.files):
        raise HostError("prefix-refused", f"Archives are unpacked below {COMPONENT_PREFIX} only, not {change.prefix}.")


def _place(change: Archive, host: Host) -> Path:
    """Where the folder lies; a link in its last part is not followed."""
    pure = PurePosixPath(change.prefix)
    return host.real_path(str(pure.parent)) / pure.name


@contextmanager
def _opened(change: Archive, fetch: Fetch) -> Iterator[BinaryIO]:
    """The archive; a refusal of it becomes an error for people."""
    with fetch(change.payload).open("rb") as file:
        try:
            yield file
        except archives.Refused as error:
            raise TrustError("archive-refused", f"{change.payload.file} is refused: {error}.",
                             hint="Nothing of it was installed. Tell the publisher of the repository.") from error


def _put(change: Archive, parent: int, file: BinaryIO, *, complete: bool) -> dict[str, str]:
    """Unpack into a new folder in `parent` and move that, or what is missing from the old one, into its place."""
    name = PurePosixPath(change.prefix).name
    beside = _beside(name)
    _clear(change, parent, beside)
    try:
        trees.make_folder(parent, beside)
    except FileExistsError as error:
        raise _exists(f"{PurePosixPath(change.prefix).parent}/{beside}") from error
    try:
        with _inside(parent, beside) as folder:
            hashes = archives.check(file, change.files, lambda one, pieces: trees.write_file(folder, one, pieces, _mode(one)))
            trees.sync(folder, change.files)
            if complete:
                _complete(change, parent, folder, hashes)
        if not complete:
            _rename_new(change, parent, beside, name)
        os.fsync(parent)
    finally:
        _clear(change, parent, beside)
    return hashes


def _complete(change: Archive, parent: int, source: int, hashes: dict[str, str]) -> None:
    with _inside(parent, PurePosixPath(change.prefix).name) as target:
        found = {name: trees.look(target, name) for name in change.files}
        for name, there in found.items():
            if there is not None and there != hashes[name]:
                raise HostError("file-changed", f"{change.prefix}/{name} is not as the signed data has it.",
                                hint="Move it away and run this again.")
        for name, there in found.items():
            if there is None:
                trees.move_new(source, target, name)


def _rename_new(change: Archive, parent: int, beside: str, name: str) -> None:
    """A folder that appeared meanwhile is not replaced: an empty one would be, by rename(2), and is looked for before."""
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        os.rename(beside, name, src_dir_fd=parent, dst_dir_fd=parent)
        return
    raise _exists(change.prefix)


def _take_away(change: Archive, parent: int, mine: dict[str, str], *, existed: bool) -> list[str]:
    """Remove the files of ours with the folders that are empty then; names of what stayed."""
    name = PurePosixPath(change.prefix).name
    _clear(change, parent, _beside(name))
    kept: list[str] = []
    try:
        with _inside(parent, name) as folder:
            kept += [one for one, digest in sorted(mine.items()) if not trees.remove_file(folder, one, digest)]
            trees.remove_folders(folder, mine)
            os.fsync(folder)
            if not existed:
                kept = trees.listing(folder)
        if not existed and not kept:
            os.rmdir(name, dir_fd=parent)
        os.fsync(parent)
    except FileNotFoundError:
        return kept
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP, errno.ENOTEMPTY):
            raise
        return kept or [name]  # a link or a file stands there now, or somebody put something in at this moment
    return kept


def _clear(change: Archive, parent: int, beside: str) -> None:
    """Remove what an interrupted run left of the folder beside: the listed names, whatever is in them, and nothing else."""
    try:
        with _inside(parent, beside) as folder:
            for name in change.files:
                trees.remove_file(folder, name, None)
            trees.remove_folders(folder, change.files)
        os.rmdir(beside, dir_fd=parent)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENOTEMPTY):
            raise


@contextmanager
def _inside(parent: int, name: str) -> Iterator[int]:
    handle = trees.open_folder(parent, name)
    try:
        yield handle
    finally:
        os.close(handle)


def _beside(name: str) -> str:
    return f".{name}.keyfit"


def _mode(name: str) -> int:
    path = PurePosixPath(name)
    return 0o755 if ".so" in path.suffixes or path.parent.name in ("bin", "lib") else 0o644


def _exists(path: str) -> HostError:
    return HostError("folder-exists", f"{path} is there already, but not as the signed data has it.",
                     hint="Move it away and run this again.")
