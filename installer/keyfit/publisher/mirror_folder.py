"""The folder of a mirror. What a web server serves from it is complete at every moment: files get their names when they are
verified, and the timestamp, which is what readers begin with, comes last."""

import gzip
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import msgspec

from keyfit.errors import HostError, TrustError, UserError
from keyfit.privatefiles import FileLock, private_directory, storage_error

STATE = ".keyfit-mirror"
"""Folder of notes in the mirror, for the mirror's owner alone: web servers need not and cannot read it."""
_PARTS = ("metadata", "targets", "payloads")
_ROOT = re.compile(r"[0-9]+\.root\.json(\.gz)?")
_FILE_MODE, _FOLDER_MODE = 0o644, 0o755
_CHUNK_BYTES = 1_048_576


class MirrorFolder:
    """One mirror.

    Raises:
        UserError: code "not-a-mirror": the folder holds something else.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / STATE
        self._made: set[Path] = set()
        try:
            if folder.exists() and not self.state.is_dir() and any(folder.iterdir()):
                raise UserError("not-a-mirror", f"Expected an empty folder or an earlier mirror, {folder} holds other files.",
                                hint="Choose another folder.")
        except OSError as error:
            raise storage_error(error, folder, "read") from error

    def locked(self) -> FileLock:
        """One mirror run at a time."""
        self._folder(self.folder)
        return FileLock(self.state / "lock", 0.0, "mirror-busy")

    def clean(self) -> None:
        """Remove what an earlier run was writing when it was killed."""
        incoming = self.state / "incoming"
        try:
            shutil.rmtree(incoming, ignore_errors=True)
            private_directory(incoming)
        except OSError as error:
            raise storage_error(error, incoming, "make") from error

    def check_roots(self, roots: dict[str, bytes]) -> None:
        """See that what is mirrored here is this repository, and no later one.

        Raises:
            HostError: code "other-repository".
            TrustError: code "metadata-rollback".
        """
        here = {path.name: path for path in (self.folder / "metadata").glob("*.root.json")}
        for name, path in here.items():
            if name in roots and self.read(f"metadata/{name}", len(roots[name])) != roots[name]:
                raise HostError("other-repository", f"{self.folder} holds the mirror of another repository: its {path.name} is"
                                " another one.", hint="Choose another folder, or check the address and --trust-root.")
        newest = max((int(name.partition(".")[0]) for name in roots), default=0)
        later = sorted(name for name in here if name.partition(".")[0].isdigit() and int(name.partition(".")[0]) > newest)
        if later:
            raise TrustError("metadata-rollback", f"Expected a root no older than {later[-1]}, which is mirrored here, the"
                             f" newest that came is {newest}.root.json.",
                             hint="The repository or its mirror was set back. Nothing was changed here.")

    def read(self, relative: str, max_bytes: int) -> bytes | None:
        """A file, or None if there is none or it is larger."""
        try:
            with (self.folder / relative).open("rb") as file:
                data = file.read(max_bytes + 1)
        except OSError:
            return None
        return data if len(data) <= max_bytes else None

    def has(self, relative: str, length_bytes: int, sha256: str) -> bool:
        """True if a file is there and is the right one, by hash."""
        path = self.folder / relative
        found = hashlib.sha256()
        try:
            if path.stat().st_size != length_bytes:
                return False
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    found.update(chunk)
        except OSError:
            return False
        return found.hexdigest() == sha256

    def place(self, relative: str, data: bytes) -> None:
        """Give verified bytes their name.

        Raises:
            StorageError: disk full, or not writable.
        """
        path, name = self.folder / relative, None
        try:
            handle, made = tempfile.mkstemp(dir=self.state / "incoming")
            name = Path(made)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            self._adopt(path, name)
        except OSError as error:
            if name is not None:
                with suppress(OSError):
                    name.unlink()
            raise storage_error(error, path, "write") from error

    def adopt(self, relative: str, file: Path) -> None:
        """Give a verified file, which lies in the notes, its name."""
        try:
            self._adopt(self.folder / relative, file)
        except OSError as error:
            raise storage_error(error, self.folder / relative, "write") from error

    def zip(self, relative: str, data: bytes) -> None:
        """Keep a compressed copy beside a file, for nginx's `gzip_static` and its like."""
        there = self.read(relative + ".gz", len(data) + 1024)
        with suppress(OSError, EOFError, ValueError):
            if there is not None and gzip.decompress(there) == data:
                return
        self.place(relative + ".gz", gzip.compress(data, 9, mtime=0))

    def unzip_all(self) -> None:
        """Remove all compressed copies. A server would go on sending one that nobody renews."""
        for path in (self.folder / "metadata").glob("*.gz"):
            self._remove(path)

    def remember(self, files: Iterable[str]) -> None:
        """Note which files the mirror now consists of."""
        (self.state / "files.new").write_bytes(msgspec.json.encode(sorted(files)))
        (self.state / "files.new").replace(self.state / "files.json")

    def remembered(self) -> frozenset[str]:
        """The files of the last complete run; none if that is not known."""
        try:
            return frozenset(msgspec.json.decode((self.state / "files.json").read_bytes(), type=list[str]))
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return frozenset()

    def prune(self, keep: frozenset[str]) -> tuple[int, int]:
        """Remove every other file of the repository; (files, bytes). Roots stay, and what else lies in the folder."""
        files = size = 0
        for part in _PARTS:
            for folder, _, names in os.walk(self.folder / part, topdown=False):
                for name in names:
                    path = Path(folder, name)
                    if not _ROOT.fullmatch(name) and path.relative_to(self.folder).as_posix() not in keep:
                        files, size = files + 1, size + path.lstat().st_size
                        self._remove(path)
                with suppress(OSError):  # not empty
                    Path(folder).rmdir()
        return files, size

    def room(self) -> int:
        """Free bytes."""
        return shutil.disk_usage(self.folder).free

    def sync(self) -> None:
        """Make all that was written last through a power cut. Windows has no call for that."""
        if hasattr(os, "sync"):
            os.sync()

    def _adopt(self, path: Path, file: Path) -> None:
        self._folder(path.parent)
        file.chmod(_FILE_MODE)
        file.replace(path)

    def _folder(self, path: Path) -> None:
        """Make a folder that web servers can read, whatever the umask."""
        if path in self._made:
            return
        if not path.is_dir():
            if path.parent != path:
                self._folder(path.parent)
            with suppress(FileExistsError):
                path.mkdir()
                path.chmod(_FOLDER_MODE)
        self._made.add(path)

    def _remove(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(error, path, "remove") from error
