"""The signed repository: python-tuf's client on the embedded root, manifests, payloads.

Layout below each address: `metadata/` (TUF), `targets/` (manifests, names prefixed with their hash) and `payloads/`.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from keyfit.errors import KeyfitError, NetworkError, StorageError, TrustError
from keyfit.filelock import file_lock
from keyfit.model.catalog import Manifest, Payload
from keyfit.ports import Progress
from keyfit.trust import decode
from keyfit.trust.http import Fetcher, HttpStatusError, Limits, check_url
from keyfit.trust.payload import fetch as fetch_payload

if TYPE_CHECKING:
    from tuf.ngclient.fetcher import FetcherInterface
    from tuf.ngclient.updater import Updater

LOCK_WAIT_S = 30.0
MAX_SEQUENCES_BYTES = 10_000_000


class TufRepository:
    """See `ports.Repository`.

    Args:
        urls: addresses of the same repository, tried in turn; each ends where `metadata/` begins.
        trusted_root: root metadata that the program carries. It alone is believed at the start (security A1); a root found in
            the cache is not.
        metadata_dir: where verified metadata is kept; only its owner may write there.
        cache_dir: where payloads are kept.

    Raises:
        UserError: an address is not allowed.
    """

    def __init__(self, *, urls: Sequence[str], trusted_root: bytes, metadata_dir: Path, cache_dir: Path,
                 limits: Limits | None = None) -> None:
        for url in urls:
            check_url(url)
        self._urls = tuple(url.rstrip("/") for url in urls)
        self._root = trusted_root
        self._dir = metadata_dir
        self._cache = cache_dir
        self._limits = limits or Limits()
        self._fetcher = Fetcher(self._limits)
        self._updater: Updater | None = None
        self._url = ""

    def refresh(self) -> None:
        """See `ports.Repository`. Each address gets its own strict run; the first that passes is used."""
        failures: list[KeyfitError] = []
        with self._locked():
            for url in self._urls:
                try:
                    self._updater = self._refreshed(url)
                except (NetworkError, TrustError) as error:
                    failures.append(error)
                    continue
                self._url = url
                return
        raise next((f for f in failures if isinstance(f, TrustError)), failures[0])

    def manifest(self, target: str) -> Manifest | None:
        """See `ports.Repository`. A brand's number never goes back (security A5)."""
        with self._locked():
            data = self._target(target)
            if data is None:
                return None
            found = decode.manifest(data, target)
            self._check_sequences(found)
        return found

    def payload(self, payload: Payload, progress: Progress | None = None) -> Path:
        """See `ports.Repository`."""
        ordered = sorted(self._urls, key=lambda url: url != self._url)
        urls = (*(f"{url}/payloads/{payload.path}" for url in ordered), *payload.mirrors)
        return fetch_payload(payload, urls, self._cache, fetcher=self._fetcher, limits=self._limits, progress=progress)

    def _refreshed(self, url: str) -> "Updater":
        from tuf.api import exceptions
        from tuf.ngclient.updater import Updater

        try:
            updater = Updater(
                metadata_dir=str(self._dir), metadata_base_url=f"{url}/metadata/", target_dir=None,
                target_base_url=f"{url}/targets/", fetcher=_tuf_fetcher(self._fetcher), bootstrap=self._root)
            updater.refresh()
        except (exceptions.RepositoryError, exceptions.DownloadError, ValueError) as error:
            raise explain(error, url) from error
        except OSError as error:
            raise StorageError("cannot-write", f"{self._dir} cannot be written: {error.strerror}.",
                               hint="Check the disk and the rights.") from error
        return updater

    def _target(self, target: str) -> bytes | None:
        from tuf.api import exceptions

        if self._updater is None:
            raise RuntimeError("refresh comes first")
        try:
            info = self._updater.get_targetinfo(target)
            if info is None:
                return None
            if info.length > decode.MAX_MANIFEST_BYTES:
                raise TrustError("manifest-malformed", f"The manifest {target} is too large.")
            directory, _, name = target.rpartition("/")
            sha256 = info.hashes["sha256"]
            data = b"".join(_capped(self._fetcher.stream(f"{self._url}/targets/{directory}/{sha256}.{name}"), info.length))
            info.verify_length_and_hashes(data)
        except (exceptions.RepositoryError, exceptions.DownloadError, KeyError) as error:
            raise explain(error, self._url) from error
        except HttpStatusError as error:
            raise NetworkError("repository-incomplete", f"The repository lists {target} but does not serve it: {error.message}",
                               hint="Try again in a few minutes: it may be in the middle of a release.") from error
        return data

    def _check_sequences(self, found: Manifest) -> None:
        path = self._dir / "sequences.json"
        known = _sequences(path)
        for brand in found.brands:
            if brand.sequence < known.get(brand.brand, 0):
                raise TrustError(
                    "manifest-rollback", f"The repository offers release {brand.sequence} of {brand.brand}, but release"
                    f" {known[brand.brand]} was seen already.", hint="It may be out of date or tampered with; use another one.")
        newer = {b.brand: b.sequence for b in found.brands if b.sequence > known.get(b.brand, 0)}
        if newer:
            beside = path.with_suffix(".new")
            try:
                beside.write_text(json.dumps({**known, **newer}))
                beside.replace(path)
            except OSError as error:
                raise StorageError("cannot-write", f"{path} cannot be written: {error.strerror}.",
                                   hint="Check the disk and the rights.") from error

    def _locked(self) -> "_Lock":
        return _Lock(self._dir)


class _Lock:
    """The lock of a metadata folder, which is made first: two runs at once would trip over each other's files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> None:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError("cannot-write", f"{self._folder} cannot be made: {error.strerror}.",
                               hint="Check the disk and the rights, or give another --state-dir.") from error
        self._held = file_lock(self._folder / "lock", wait_s=LOCK_WAIT_S)
        self._held.__enter__()

    def __exit__(self, *about: object) -> None:
        self._held.__exit__(None, None, None)


def explain(error: Exception, url: str) -> KeyfitError:
    """The error for what python-tuf raised."""
    from tuf.api import exceptions

    if isinstance(error.__cause__, KeyfitError):
        return error.__cause__
    text = str(error).rstrip(".")
    publisher = "Nothing was installed. Try again later; if it stays so, tell the publisher of the repository."
    if isinstance(error, exceptions.ExpiredMetadataError):
        return TrustError("metadata-expired", f"The signed data of {url} has expired: {text}.",
                          hint="Check this computer's date. If it is right, the publisher has to renew the data.")
    if isinstance(error, exceptions.BadVersionNumberError):
        return TrustError("metadata-rollback", f"{url} offers older data than was seen before: {text}.", hint=publisher)
    if isinstance(error, exceptions.UnsignedMetadataError):
        return TrustError("metadata-signature", f"The data of {url} is not signed by the keys that are trusted: {text}.",
                          hint=publisher)
    if isinstance(error, exceptions.LengthOrHashMismatchError):
        return TrustError("metadata-hash", f"The data of {url} is not what was signed: {text}.", hint=publisher)
    if isinstance(error, exceptions.DownloadLengthMismatchError):
        return TrustError("metadata-too-long", f"{url} sends more than is allowed: {text}.", hint=publisher)
    if isinstance(error, exceptions.DownloadError):
        return NetworkError("repository-unreachable", f"{url} cannot be used: {text}.",
                            hint="Check the network connection and the address, then run this again.")
    return TrustError("metadata-malformed", f"The data of {url} is malformed: {text}.", hint=publisher)


def _tuf_fetcher(fetcher: Fetcher) -> "FetcherInterface":
    from tuf.api.exceptions import DownloadHTTPError
    from tuf.ngclient.fetcher import FetcherInterface

    class TufFetcher(FetcherInterface):
        """Ours, in the shape that python-tuf wants."""

        def _fetch(self, url: str) -> Iterator[bytes]:
            try:
                yield from fetcher.stream(url)
            except HttpStatusError as error:
                raise DownloadHTTPError(error.message, error.status) from error

    return TufFetcher()


def _capped(chunks: Iterator[bytes], limit: int) -> Iterator[bytes]:
    total = 0
    for chunk in chunks:
        total += len(chunk)
        if total > limit:
            raise TrustError("target-too-long", f"A manifest is longer than the {limit} bytes that were signed.",
                             hint="Tell the publisher of the repository.")
        yield chunk


def _sequences(path: Path) -> dict[str, int]:
    """What was seen before. A damaged file counts as nothing seen: TUF's own rollback protection still holds."""
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(MAX_SEQUENCES_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {str(k): v for k, v in found.items() if isinstance(v, int)}

