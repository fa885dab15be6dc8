"""An archive of ours, unpacked below /opt/keyfit: exactly the listed files, or nothing.

Our own policy, because the standard library's extractors repair hostile names instead of refusing them (security H3): absolute
names, "..", backslashes, colons, control characters, links, devices, set-id bits, duplicates, names that differ in case only,
names that are not on the signed list, and listed ones that are missing - each refuses the whole archive.
"""

import hashlib
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from keyfit.engine.steps.base import Detected, Fetch, State
from keyfit.errors import HostError, TrustError
from keyfit.model.plan import Archive
from keyfit.ports import Host

MAX_FILES = 512
MAX_TOTAL_BYTES = 500_000_000
MAX_RATIO = 200
"""Limits on what an archive may unpack to: driver packages hold tens of files, hundreds of megabytes at most, and compress by
less than 20."""
COMPONENT_PREFIX = "/opt/keyfit/brands/"


class Kind:
    """See `base.StepKind`."""

    def detect(self, change: Archive, host: Host) -> Detected:
        """Satisfied if every listed file is there. Whose they are is in the journal."""
        there = [name for name in change.files if host.exists(f"{change.prefix}/{name}")]
        return Detected(satisfied=len(there) == len(change.files) > 0,
                        before={"existed": host.exists(change.prefix), "made": list(host.missing_directories(change.prefix))})

    def expect(self, change: Archive, host: Host, before: State, fetch: Fetch) -> State:
        """Nothing is known yet."""
        return {}

    def apply(self, change: Archive, host: Host, before: State, fetch: Fetch) -> State:
        """Unpack beside the place, then rename: the folder is there whole or not at all."""
        if before["existed"]:
            raise HostError("folder-exists", f"{change.prefix} is there already, but not as the signed data has it.",
                            hint="Move it away and run this again.")
        place = host.real_path(change.prefix)
        if not change.prefix.startswith(COMPONENT_PREFIX):
            raise HostError("prefix-refused", f"Archives are unpacked below {COMPONENT_PREFIX} only, not {change.prefix}.")
        beside = place.with_name(f".{place.name}.keyfit")
        _remove_tree(beside)
        beside.mkdir(mode=0o755, parents=True)
        try:
            hashes = _unpack(fetch(change.payload), beside, change)
            beside.rename(place)
        except OSError as error:
            raise HostError("cannot-write", f"{change.prefix} cannot be written: {error.strerror}.") from error
        finally:
            _remove_tree(beside)
        return {"hashes": hashes}

    def undo(self, change: Archive, host: Host, before: State, after: State) -> str:
        """Delete the files that are still ours; others, and changed ones, stay."""
        if before["existed"]:
            return ""
        place = host.real_path(change.prefix)
        _remove_tree(place.with_name(f".{place.name}.keyfit"))
        hashes = after.get("hashes")
        kept = []
        for path in sorted(place.rglob("*"), reverse=True) if place.is_dir() else ():
            name = path.relative_to(place).as_posix()
            if path.is_dir() and not path.is_symlink():
                _remove_directory(path)
            elif hashes is None or (name in hashes and not path.is_symlink() and _hash(path) == hashes[name]):
                path.unlink()
            else:
                kept.append(name)
        _remove_directory(place)
        host.remove_empty_directories(change.prefix, before["made"])
        return f"{', '.join(kept)} in {change.prefix} stayed, because somebody else put or changed it" if kept else ""


def members(path: Path) -> Iterator[tuple[str, int, int, str]]:
    """(name, size in bytes, mode, kind) of each member as it stands; kind is "file", "directory" or "other".

    Raises:
        TrustError: it is no archive of a known form.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for info in archive.infolist():
                    mode = info.external_attr >> 16
                    special = mode & 0o170000 not in (0, 0o100000, 0o040000)
                    kind = "other" if special else "directory" if info.is_dir() else "file"
                    yield info.orig_filename, info.file_size, mode & 0o7777, kind
        else:
            with tarfile.open(path, "r:*") as archive:
                for member in archive:
                    kind = "file" if member.isreg() else "directory" if member.isdir() else "other"
                    yield member.name, member.size, member.mode, kind
    except (tarfile.TarError, zipfile.BadZipFile, OSError, EOFError, ValueError) as error:
        raise _refused(path.name, f"it cannot be read: {error}") from error


def check(path: Path, files: tuple[str, ...]) -> None:
    """Hold the archive against the policy and the signed list.

    Raises:
        TrustError: code "archive-refused".
    """
    seen: dict[str, str] = {}
    folders: dict[str, str] = {}
    total = 0
    for count, (name, size, mode, kind) in enumerate(members(path)):
        problem = name_problem(name) or (f"{name!r} is neither a file nor a folder" if kind == "other" else "")
        if not problem and mode & 0o6000:
            problem = f"{name!r} has set-id bits"
        if not problem:
            problem = _clash(name.rstrip("/"), kind, seen, folders)
        total += size
        if not problem and (count >= MAX_FILES * 2 or total > MAX_TOTAL_BYTES
                            or total > max(path.stat().st_size, 10_000) * MAX_RATIO):
            problem = "it would unpack to more than is allowed"
        if problem:
            raise _refused(path.name, problem)
        if kind == "file":
            seen[name.lower()] = name
    if set(seen.values()) != set(files):
        odd = sorted(set(seen.values()) ^ set(files))[:5]
        raise _refused(path.name, f"its files are not those on the signed list: {', '.join(odd)}")


def _clash(name: str, kind: str, files: dict[str, str], folders: dict[str, str]) -> str:
    """Why a name cannot stand beside those before it; remembers the folders that it names."""
    if name.lower() in files or (kind == "file" and name.lower() in folders):
        return f"{name!r} is there twice"
    path = PurePosixPath(name)
    for folder in (str(p) for p in ((path,) if kind == "directory" else ()) + tuple(path.parents)[:-1]):
        if folders.setdefault(folder.lower(), folder) != folder or folder.lower() in files:
            return f"{folder!r} is there twice, in another spelling"
    return ""


RESERVED = {"con", "prn", "aux", "nul", *(f"com{n}" for n in range(1, 10)), *(f"lpt{n}" for n in range(1, 10))}
"""Names that Windows keeps for devices (learn.microsoft.com, Naming Files, Paths, and Namespaces)."""


def name_problem(name: str) -> str:
    """Why a member's name is refused; empty if it is not."""
    parts = name.rstrip("/").split("/")
    if not name or len(name) > 200 or not name.isprintable():
        return f"the name {name[:60]!r} is empty, too long, or not printable"
    if name.startswith("/") or "\\" in name or ":" in name:
        return f"{name!r} is absolute or names a drive"
    if any(part in ("", ".", "..") or part != part.strip() or part.endswith(".") for part in parts):
        return f"{name!r} leaves the folder or has an odd part"
    if any(part.split(".")[0].lower() in RESERVED for part in parts):
        return f"{name!r} is a reserved name"
    return ""


def _unpack(path: Path, target: Path, change: Archive) -> dict[str, str]:
    check(path, change.files)
    hashes = {}
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for name in change.files:
                with archive.open(name) as source:
                    hashes[name] = _store(target, name, source.read(MAX_TOTAL_BYTES + 1))
    else:
        with tarfile.open(path, "r:*") as archive:
            for name in change.files:
                content = archive.extractfile(name)
                if content is None:
                    raise _refused(path.name, f"{name!r} is not a file")
                with content:
                    hashes[name] = _store(target, name, content.read(MAX_TOTAL_BYTES + 1))
    return hashes


def _store(target: Path, name: str, data: bytes) -> str:
    path = target / PurePosixPath(name)
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with path.open("xb") as file:
        file.write(data)
    path.chmod(0o755 if ".so" in path.suffixes or path.parent.name in ("bin", "lib") else 0o644)
    return hashlib.sha256(data).hexdigest()


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remove_tree(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)


def _remove_directory(path: Path) -> None:
    try:
        path.rmdir()
    except OSError:
        pass  # something of somebody else's is in it


def _refused(name: str, problem: str) -> TrustError:
    return TrustError("archive-refused", f"{name} is refused: {problem}.", hint="Tell the publisher of the repository.")
