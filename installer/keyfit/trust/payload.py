"""Downloads a payload: hashed while it streams, resumed where it was cut off, one copy on disk, in place only when verified."""

import hashlib
import os
import shutil
import stat
from pathlib import Path

import msgspec

from keyfit.errors import NetworkError, StorageError, TrustError
from keyfit.model.catalog import Payload
from keyfit.ports import Progress
from keyfit.trust.http import Fetcher, Limits

SPARE_BYTES = 20_000_000
"""Left free on the disk beside the payload, so that the machine goes on working."""


def fetch(payload: Payload, urls: tuple[str, ...], folder: Path, *, fetcher: Fetcher, limits: Limits,
          progress: Progress | None = None) -> Path:
    """The verified file, from `folder` or from the first of `urls` that gives it.

    Raises:
        NetworkError: no address gave it.
        TrustError: what came is not what was signed.
        StorageError: it cannot be stored.
    """
    target = folder / payload.sha256 / payload.file
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _is_whole(target, payload):
            return target
        if shutil.disk_usage(folder).free < payload.length_bytes + SPARE_BYTES:
            raise StorageError("disk-full", f"{payload.file} needs {payload.length_bytes // 1_000_000 + 1} MB, and {folder}"
                               " has too little room.", hint="Free some disk space and run this again.")
        return _from_any(payload, urls, target, fetcher=fetcher, limits=_scaled(limits, payload), progress=progress)
    except OSError as error:
        raise StorageError("cannot-write", f"{target} cannot be written: {error.strerror}.",
                           hint="Check the disk and the rights, or give another --cache-dir.") from error


def _from_any(payload: Payload, urls: tuple[str, ...], target: Path, *, fetcher: Fetcher, limits: Limits,
              progress: Progress | None) -> Path:
    part = target.with_name(target.name + ".part")
    last: NetworkError | TrustError | None = None
    for url in urls:
        for attempt in range(2):
            resumed = attempt == 0 and _is_ours(part)
            if not resumed:
                part.unlink(missing_ok=True)
            try:
                _download(payload, url, part, fetcher=fetcher, limits=limits, progress=progress)
            except NetworkError as error:
                last = error
                break
            except TrustError as error:
                last = error
                part.unlink(missing_ok=True)
                if resumed:
                    continue  # what was kept may have been wrong: once more, from the first byte
                break
            part.replace(target)
            return target
    raise last or NetworkError("repository-unreachable", f"No address is known for {payload.file}.")


def _download(payload: Payload, url: str, part: Path, *, fetcher: Fetcher, limits: Limits,
              progress: Progress | None) -> None:
    handle = os.open(part, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0), 0o600)
    with os.fdopen(handle, "r+b") as file:
        digest = hashlib.sha256()
        done = 0
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            done += len(chunk)
        if done >= payload.length_bytes:
            file.truncate(0)
            file.seek(0)
            digest, done = hashlib.sha256(), 0
        for chunk in fetcher.stream(url, start=done, limits=limits):
            done += len(chunk)
            if done > payload.length_bytes:
                raise TrustError("payload-too-long", f"{payload.file} is longer than the {payload.length_bytes} bytes that were"
                                 " signed.", hint="Try another repository; tell the publisher of this one.")
            digest.update(chunk)
            file.write(chunk)
            if progress is not None:
                progress(done, payload.length_bytes)
        if done < payload.length_bytes:
            raise NetworkError("download-cut", f"{payload.file} broke off after {done} of {payload.length_bytes} bytes.",
                               hint="Run this again: it goes on where it broke off.")
        if digest.hexdigest() != payload.sha256:
            raise TrustError("payload-hash", f"{payload.file} is not what was signed: its SHA-256 is {digest.hexdigest()}, signed"
                             f" is {payload.sha256}.", hint="Nothing was installed. Tell the publisher of the repository.")
        file.flush()
        os.fsync(file.fileno())


def _is_ours(part: Path) -> bool:
    """A kept part is only gone on with if it is a plain file with no second name (security D2)."""
    try:
        found = part.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1


def _is_whole(target: Path, payload: Payload) -> bool:
    """A file that is there already is hashed again before it is believed."""
    if not _is_ours(target):
        return False
    with target.open("rb") as file:
        if os.fstat(file.fileno()).st_size != payload.length_bytes:
            return False
        return hashlib.file_digest(file, "sha256").hexdigest() == payload.sha256


def _scaled(limits: Limits, payload: Payload) -> Limits:
    """The total time grows with the size: at the slowest speed allowed, plus what small files get."""
    return msgspec.structs.replace(limits, total_s=limits.total_s + payload.length_bytes / limits.min_bytes_per_s)


