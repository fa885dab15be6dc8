"""Where a mirror copies from: several requests at a time, each worker on one connection that it keeps."""

import hashlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

from tuf.api.exceptions import DownloadLengthMismatchError

from keyfit.errors import TrustError
from keyfit.trust.addresses import check_repository, host_of, origin
from keyfit.trust.limits import Limits
from keyfit.trust.metadata import Fetcher
from keyfit.trust.transport import Transport

A = TypeVar("A")
B = TypeVar("B")
_AT_A_TIME = 512
"""Jobs that are handed out together: bounds memory, whatever the repository's size."""


class Rate:
    """Bytes per second, over all workers. 0 means as fast as it goes."""

    def __init__(self, bytes_per_s: int) -> None:
        self._bytes_per_s = bytes_per_s
        self._lock = threading.Lock()
        self._free_at = 0.0

    def pay(self, size_bytes: int) -> None:
        """Wait until what has come is no more than allowed."""
        if not self._bytes_per_s:
            return
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now) + size_bytes / self._bytes_per_s
            wait_s = self._free_at - now
        time.sleep(wait_s)


class Origin:
    """The repository to copy.

    Args:
        url: as a client would have it.
        jobs: requests at a time.

    Raises:
        UserError: the address cannot be a repository's.
    """

    def __init__(self, url: str, jobs: int, rate: Rate, limits: Limits | None = None) -> None:
        self.url = check_repository(url)
        self.rate = rate
        self.limits = limits or Limits()
        self._jobs = jobs
        self._idle: queue.SimpleQueue[Transport] = queue.SimpleQueue()
        for _ in range(jobs):
            self._idle.put(Transport(self.limits))

    @contextmanager
    def line(self) -> Iterator[Transport]:
        """One of the `jobs` connections, for this thread alone."""
        transport = self._idle.get()
        try:
            yield transport
        finally:
            self._idle.put(transport)

    def fetcher(self, transport: Transport) -> Fetcher:
        """What python-tuf's client asks."""
        return Fetcher(transport, frozenset([host_of(self.url)]))

    def data(self, path: str, max_bytes: int) -> bytes:
        """A small file, not verified.

        Raises:
            KeyfitError, tuf.api.exceptions.DownloadError: as `Fetcher` does.
        """
        with self.line() as transport:
            data = self.fetcher(transport).download_bytes(self.url + path, max_bytes)
        self.rate.pay(len(data))
        return data

    def target(self, path: str, length_bytes: int, sha256: str) -> bytes:
        """A verified file.

        Raises:
            TrustError: code "target-hash".
            KeyfitError, tuf.api.exceptions.DownloadError: as for `data`.
        """
        try:
            data = self.data(path, length_bytes)
        except DownloadLengthMismatchError:
            data = b""
        if len(data) != length_bytes or hashlib.sha256(data).hexdigest() != sha256:
            raise TrustError("target-hash", f"Expected {path} from {origin(self.url)} with its signed hash and length, came other"
                             " bytes.", hint="Nothing that readers see was changed. Tell the publisher of this repository.")
        return data

    def each(self, work: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
        """Do `work` for every item, several at a time; results in order. The first failure ends it."""
        waiting = iter(items)
        with ThreadPoolExecutor(self._jobs) as pool:
            try:
                while batch := list(islice(waiting, _AT_A_TIME)):
                    yield from pool.map(work, batch)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
