"""Downloads a payload: hashed while it comes, taken up again where it was cut, one copy on disk, never more than signed.

In the cache directory lie `<sha256>` (complete and verified), `<sha256>.part` (what has come so far) and
`<sha256>.from` (where it came from, so that it is only continued from the same file).
"""

import hashlib
import os
import re
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from keyfit.errors import KeyfitError, NetworkError, StorageError, TrustError
from keyfit.model.catalog import Payload
from keyfit.ports import Progress
from keyfit.privatefiles import (
    FileLock,
    open_private,
    private_directory,
    read_private,
    storage_error,
    sync_directory,
    unsafe,
    write_private,
)
from keyfit.trust.addresses import host_of, origin
from keyfit.trust.limits import CHUNK_BYTES, Limits
from keyfit.trust.transport import Answer, Transport

_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_CONTENT_RANGE = re.compile(r"bytes (\d{1,12})-(\d{1,12})/(\d{1,12})\Z")
_ASK_PUBLISHER = "Nothing was installed. Tell the publisher of this repository."


class _From(Struct, frozen=True, kw_only=True):
    """Where a partial file came from. `etag` is a strong validator (RFC 9110, section 8.8.1)."""

    url: str
    etag: str


class _Part:
    """The partial file, opened once and hashed as it grows."""

    def __init__(self, path: Path, handle: int) -> None:
        self.path = path
        self.size = 0
        self._handle = handle
        self._sha256 = hashlib.sha256()

    @classmethod
    def new(cls, path: Path) -> "_Part":
        """A file that was not there before: what lay under the name is removed, not overwritten (security D2)."""
        try:
            path.unlink(missing_ok=True)
            return cls(path, open_private(path, os.O_RDWR | os.O_CREAT | os.O_EXCL))
        except OSError as error:
            raise storage_error(error, path, "make") from error

    @classmethod
    def kept(cls, path: Path, most: int) -> "_Part | None":
        """The file of an earlier attempt, read and hashed again; None if there is none that can be used."""
        try:
            part = cls(path, open_private(path, os.O_RDWR))
        except FileNotFoundError:
            return None
        except (OSError, StorageError):
            return None  # planted or damaged: `new` removes it
        if os.fstat(part._handle).st_size > most:
            part.close()
            return None
        try:
            while chunk := os.read(part._handle, CHUNK_BYTES):
                part._sha256.update(chunk)
                part.size += len(chunk)
        except OSError as error:
            part.close()
            raise storage_error(error, path, "read") from error
        return part

    def write(self, chunk: bytes) -> None:
        """Append."""
        self._sha256.update(chunk)
        self.size += len(chunk)
        rest = memoryview(chunk)
        try:
            while rest:
                rest = rest[os.write(self._handle, rest):]
        except OSError as error:
            raise storage_error(error, self.path, "write") from error

    def has_hash(self, sha256: str) -> bool:
        """True if all that was written has this hash."""
        return self._sha256.hexdigest() == sha256

    def become(self, final: Path) -> None:
        """Give the verified file its name, if it is still the one under its old name and has no other."""
        try:
            os.fsync(self._handle)
            held, named = os.fstat(self._handle), self.path.lstat()
            if held.st_nlink != 1 or (held.st_dev, held.st_ino) != (named.st_dev, named.st_ino):
                raise unsafe(self.path, "it was replaced or linked while it was written")
            self.close()
            self.path.replace(final)
            sync_directory(final.parent)
        except OSError as error:
            raise storage_error(error, final, "write") from error

    def close(self) -> None:
        """Keep what has come."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


class PayloadStore:
    """The cache directory of payloads."""

    def __init__(self, folder: Path, transport: Transport) -> None:
        self._folder = folder
        self._transport = transport
        self._limits: Limits = transport.limits

    def fetch(self, payload: Payload, urls: Sequence[str], progress: Progress | None = None) -> Path:
        """The verified file, from the cache or from the first of `urls` that has it.

        Raises:
            NetworkError, TrustError, StorageError, BusyError: as in the package's README.
        """
        if not _SHA256.fullmatch(payload.sha256) or payload.length_bytes < 1:
            raise TrustError("payload-hash", f"Expected a SHA-256 and a length for {payload.file}, there are none.",
                             hint=_ASK_PUBLISHER)
        private_directory(self._folder)
        with FileLock(self._folder / "lock", self._limits.lock_wait_s):
            final = self._folder / payload.sha256
            if not self._is_cached(final, payload):
                _Download(self._folder, self._transport, payload, progress).run(urls)
            if progress is not None:
                progress(payload.length_bytes, payload.length_bytes)
            return final

    def _is_cached(self, final: Path, payload: Payload) -> bool:
        """True for a file that still has the signed hash; any other under its name is removed."""
        kept = _Part.kept(final, payload.length_bytes)
        if kept is not None:
            kept.close()
            if kept.size == payload.length_bytes and kept.has_hash(payload.sha256):
                return True
        try:
            final.unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(error, final, "remove") from error
        return False


class _Download:
    """One payload on its way."""

    def __init__(self, folder: Path, transport: Transport, payload: Payload, progress: Progress | None) -> None:
        self._folder = folder
        self._payload = payload
        self._transport = transport
        self._limits = transport.limits
        self._progress = progress
        self._part_path = folder / f"{payload.sha256}.part"
        self._from_path = folder / f"{payload.sha256}.from"
        self._deadline = time.monotonic() + self._limits.payload_s + payload.length_bytes / self._limits.payload_rate

    def run(self, urls: Sequence[str]) -> None:
        """Try each address in turn.

        Raises:
            TrustError: if any address gave wrong bytes; else the first NetworkError.
        """
        failures: list[KeyfitError] = []
        hosts = frozenset(host_of(url) for url in urls)
        for url in urls:
            try:
                self._from_one(url, hosts)
            except (NetworkError, TrustError) as error:
                failures.append(error)
            else:
                return
        raise most_telling(failures)

    def _from_one(self, url: str, hosts: frozenset[str]) -> None:
        """One address, again as long as each attempt brought something and ended in a way worth another."""
        for attempt in range(self._limits.resumes + 1):
            part = self._kept_from(url)
            before = part.size if part is not None else 0
            try:
                self._attempt(url, hosts, part)
            except NetworkError:
                now = self._size_now()
                dropped = before > 0 and now == 0  # what was kept could not be continued: once more from the start
                if attempt == self._limits.resumes or (now <= before and not dropped):
                    raise
            except TrustError:
                self._drop()
                if before == 0 or attempt == self._limits.resumes:  # else the kept bytes may have been the wrong ones
                    raise
            else:
                return
        raise NetworkError("payload-truncated", f"{self._payload.file} could not be completed from {origin(url)}.",
                           hint="Try again; what was downloaded is kept.")

    def _attempt(self, url: str, hosts: frozenset[str], part: _Part | None) -> None:
        source = self._source(url) if part is not None else None
        headers = {"Range": f"bytes={part.size}-", "If-Range": source.etag} if part is not None and source else {}
        try:
            if part is not None and part.size == self._payload.length_bytes:
                self._finish(part, url)
                return
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise NetworkError("download-too-slow", f"{self._payload.file} took too long.",
                                   hint="Try again on a better connection; what was downloaded is kept.")
            with self._transport.get(url, seconds=left, allowed_hosts=hosts, headers=headers) as answer:
                if answer.status == 416:
                    self._drop()
                answer.require_data()
                if part is None or not self._continues(answer, part):
                    if part is not None:
                        part.close()
                    part = self._start(answer, url)
                self._receive(answer, part)
            self._finish(part, url)
        finally:
            if part is not None:
                part.close()

    def _continues(self, answer: Answer, part: _Part) -> bool:
        """True if the answer is the rest of what is there; False if it is the whole file."""
        if answer.status != 206:
            return False
        found = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        total = self._payload.length_bytes
        if found is None or tuple(map(int, found.groups())) != (part.size, total - 1, total):
            self._drop()
            raise NetworkError("bad-answer", f"Expected {self._payload.file} from byte {part.size} on,"
                               f" {origin(answer.url)} sent another part.", hint="Try again.")
        return True

    def _start(self, answer: Answer, url: str) -> _Part:
        if answer.status != 200:
            raise NetworkError("bad-answer", f"Expected the whole of {self._payload.file}, {origin(url)} sent a part.",
                               hint="Try again.")
        self._drop()
        part = _Part.new(self._part_path)
        etag = answer.headers.get("ETag", "")
        if re.fullmatch(r'"[!#-~]{1,200}"', etag):  # W/"..." may not be used with If-Range (RFC 9110, 13.1.5)
            write_private(self._from_path, msgspec.json.encode(_From(url=url, etag=etag)))
        return part

    def _receive(self, answer: Answer, part: _Part) -> None:
        total = self._payload.length_bytes
        self._check_room(total - part.size)
        declared = answer.headers.get("Content-Length", "")
        if declared.isascii() and declared.isdigit() and int(declared[:20]) > total - part.size:
            raise self._too_long(answer.url, int(declared[:20]) + part.size)
        for chunk in answer.chunks():
            if part.size + len(chunk) > total:
                raise self._too_long(answer.url, part.size + len(chunk))
            part.write(chunk)
            if self._progress is not None:
                self._progress(part.size, total)

    def _finish(self, part: _Part, url: str) -> None:
        total = self._payload.length_bytes
        if part.size < total:
            raise NetworkError("payload-truncated", f"Expected {total} bytes of {self._payload.file}, {origin(url)} sent"
                               f" {part.size}.", hint="Try again; what was downloaded is kept.")
        if not part.has_hash(self._payload.sha256):
            raise TrustError("payload-hash", f"Expected {self._payload.file} with the signed hash"
                             f" {self._payload.sha256[:16]}…, {origin(url)} sent other bytes.", hint=_ASK_PUBLISHER)
        part.become(self._folder / self._payload.sha256)
        with suppress(OSError):
            self._from_path.unlink(missing_ok=True)

    def _too_long(self, url: str, came: int) -> TrustError:
        return TrustError("payload-too-long", f"Expected {self._payload.length_bytes} bytes of {self._payload.file},"
                          f" {origin(url)} sends at least {came}.", hint=_ASK_PUBLISHER)

    def _check_room(self, needed: int) -> None:
        free = shutil.disk_usage(self._folder).free
        if free < needed + self._limits.disk_reserve:
            raise StorageError("disk-full", f"{needed + self._limits.disk_reserve} bytes of free disk space are needed"
                               f" for {self._payload.file}, {self._folder} has {free}.",
                               hint="Make room on that disk and try again.")

    def _kept_from(self, url: str) -> _Part | None:
        """The partial file, if it is complete or can be continued from `url`."""
        part = _Part.kept(self._part_path, self._payload.length_bytes)
        if part is None or part.size == self._payload.length_bytes or (part.size and self._source(url)):
            return part
        part.close()
        return None

    def _source(self, url: str) -> _From | None:
        try:
            data = read_private(self._from_path, 2_000)
            source = msgspec.json.decode(data, type=_From) if data else None
        except (StorageError, msgspec.DecodeError):
            return None
        return source if source is not None and source.url == url else None

    def _size_now(self) -> int:
        try:
            return self._part_path.lstat().st_size
        except OSError:
            return 0

    def _drop(self) -> None:
        for path in (self._part_path, self._from_path):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise storage_error(error, path, "remove") from error


def most_telling(failures: Sequence[KeyfitError]) -> KeyfitError:
    """Of the failures of several addresses: a failed check before an unreachable server, the first of its kind."""
    return next((f for f in failures if isinstance(f, TrustError)), failures[0])
