"""The signed repository as the rest of Keyfit sees it: `keyfit.ports.Repository` over one or several addresses."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

from keyfit.errors import KeyfitError, NetworkError, TrustError, UserError
from keyfit.model.catalog import Manifest, Payload
from keyfit.ports import Clock, Progress
from keyfit.privatefiles import FileLock, private_directory
from keyfit.trust.addresses import check_repository, host_of
from keyfit.trust.floors import Floors
from keyfit.trust.limits import MANIFEST_BYTES, Limits
from keyfit.trust.manifests import TARGET_NAME, decode_manifest
from keyfit.trust.transport import Transport

if TYPE_CHECKING:
    from keyfit.trust.metadata import CheckedAddress

T = TypeVar("T")


class TufRepository:
    """Signed data from the first of several addresses that has it and passes every check.

    All addresses carry the same repository; they are told apart only by whether they answer. The metadata directory
    holds `lock`, `floors.json` and, under `tuf/`, what python-tuf keeps; it has to be as private as what is installed
    from it (security D6).

    Args:
        urls: of folders with `metadata/`, `targets/` and `payloads/` in them; in the order in which they are tried.
        trusted_root: the root metadata that this build carries.
        metadata_dir, cache_dir: made when first needed, for this user alone.
        clock: compared with signed dates; expiry itself is checked against the system's clock by python-tuf.

    Raises:
        UserError: an address is neither https, a folder, nor http on this machine.
    """

    def __init__(self, *, urls: Sequence[str], trusted_root: bytes, metadata_dir: Path, cache_dir: Path,
                 clock: Clock | None = None, limits: Limits | None = None) -> None:
        if not urls:
            raise UserError("no-repository", "Expected the address of a repository, came none.",
                            hint="Use --repository URL.")
        self._urls = tuple(dict.fromkeys(check_repository(url) for url in urls))
        self._trusted_root = trusted_root
        self._metadata_dir = metadata_dir
        self._cache_dir = cache_dir
        self._now = clock.now if clock is not None else time.time
        self._limits = limits or Limits()
        self._transport = Transport(self._limits)
        self._floors = Floors(metadata_dir)
        self._current: tuple[str, CheckedAddress] | None = None

    def refresh(self) -> None:
        """Bring the metadata up to date: the whole TUF client workflow, at the first address that passes it.

        Raises:
            NetworkError: no address could be reached.
            TrustError: signature, expiry, rollback or clock check failed.
            StorageError, BusyError: the metadata directory cannot be used.
        """
        self._current = None
        with self._lock():
            self._at_any_address(lambda _: None)

    def manifest(self, target: str) -> Manifest | None:
        """The verified manifest at a target path, or None if the repository has no such target.

        Raises:
            NetworkError, TrustError, StorageError, BusyError: as for `refresh`; a manifest that is malformed or below
                a floor is a TrustError.
        """
        if not TARGET_NAME.fullmatch(target):
            return None
        with self._lock():
            return self._at_any_address(lambda address: self._manifest_from(address, target))

    def payload(self, payload: Payload, progress: Progress | None = None) -> Path:
        """Fetch and verify a payload; the returned file has exactly the signed hash and length.

        Raises:
            NetworkError, TrustError, StorageError, BusyError.
        """
        from keyfit.trust.payloads import PayloadStore

        path = quote(payload.path, safe="/~+")
        urls = [f"{url}payloads/{path}" for url in self._order()] + list(payload.mirrors)
        return PayloadStore(self._cache_dir, self._transport).fetch(payload, urls, progress)

    def _manifest_from(self, address: "CheckedAddress", target: str) -> Manifest | None:
        data = address.target(target, MANIFEST_BYTES)
        if data is None:
            return None
        manifest = decode_manifest(data, target)
        self._floors.check_and_raise(manifest)
        return manifest

    def _at_any_address(self, work: Callable[["CheckedAddress"], T]) -> T:
        """Do `work` at the first address where it succeeds. A mirror may answer well-formed and stale, so failing over
        is a matter of whole workflows, not of single requests."""
        from keyfit.trust.payloads import most_telling

        failures: list[KeyfitError] = []
        for url in self._order():
            try:
                return work(self._checked(url))
            except (NetworkError, TrustError) as error:
                if error.code == "clock-behind":
                    raise
                self._current = None
                failures.append(error)
        raise most_telling(failures)

    def _checked(self, url: str) -> "CheckedAddress":
        if self._current is not None and self._current[0] == url:
            return self._current[1]
        from keyfit.trust.metadata import CheckedAddress, Fetcher, check_root

        check_root(self._trusted_root)
        self._floors.check_clock(self._now(), self._limits.clock_slack_s)
        folder = self._metadata_dir / "tuf"
        private_directory(folder)
        hosts = frozenset(host_of(each) for each in self._urls)
        address = CheckedAddress(metadata_url=url + "metadata/", targets_url=url + "targets/", folder=folder,
                                 trusted_root=self._trusted_root, fetcher=Fetcher(self._transport, hosts))
        self._floors.raise_signed_at(address.signed_at())
        self._floors.check_clock(self._now(), self._limits.clock_slack_s)
        self._current = (url, address)
        return address

    def _order(self) -> Iterator[str]:
        """The addresses, the one in use first."""
        used = self._current[0] if self._current is not None else None
        if used is not None:
            yield used
        yield from (url for url in self._urls if url != used)

    def _lock(self) -> FileLock:
        private_directory(self._metadata_dir)
        return FileLock(self._metadata_dir / "lock", self._limits.lock_wait_s)
