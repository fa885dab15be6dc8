"""Gets bytes from https, loopback http and file addresses, within limits that no server can stretch.

Every HTTP exchange runs in a thread of its own that hands over what came; the caller waits for it with a clock in hand.
So a server that drips its headers, its TLS handshake or its body one byte at a time holds up that thread, which is then
left behind, and never the caller.
"""

import os
import queue
import stat
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from keyfit.errors import NetworkError
from keyfit.trust.addresses import check_redirect, origin
from keyfit.trust.coding import CodingError, gunzip
from keyfit.trust.limits import CHUNK_BYTES, Limits

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

    from keyfit.trust.session import Session

REDIRECTS = (301, 302, 303, 307, 308)
_TRY_LATER = "Try again later; if it stays so, ask the publisher."
_CHECK_NETWORK = "Check the network connection and the proxy settings, then try again."


class Answer:
    """What a server said: status, headers, and the body as it comes. A context manager."""

    def __init__(self, url: str, status: int, headers: Mapping[str, str], source: "_Exchange | Iterator[bytes]",
                 may_be_gzip: bool = False) -> None:
        self.url = url
        self.status = status
        self.headers = headers
        self._source = source
        self._may_be_gzip = may_be_gzip

    def content(self) -> Iterator[bytes]:
        """The file that was asked for: the body without its content coding.

        Raises:
            NetworkError: as `chunks`; or the coding is damaged.
        """
        if self._coding() != "gzip":
            yield from self.chunks()
            return
        try:
            yield from gunzip(self.chunks())
        except CodingError as error:
            raise NetworkError("bad-answer", f"Expected {_file_name(self.url)} in one gzip stream, {origin(self.url)} sent"
                               f" {error}.", hint=_TRY_LATER) from error

    def chunks(self) -> Iterator[bytes]:
        """The body, as it was sent.

        Raises:
            NetworkError: cut off, too slow, or over its deadline.
        """
        yield from self._source.body() if isinstance(self._source, _Exchange) else self._source

    def __enter__(self) -> "Answer":
        return self

    def __exit__(self, *_: object) -> None:
        if isinstance(self._source, _Exchange):
            self._source.abandon()

    def require_data(self) -> None:
        """Refuse an answer that cannot be the file that was asked for.

        Raises:
            NetworkError: a sign-in page, a server in trouble, or an answer in a form that we did not ask for.
        """
        name = origin(self.url)
        is_page = self.headers.get("Content-Type", "").lower().startswith(("text/html", "application/xhtml"))
        if self.status == 511 or (self.status in (200, 206) and is_page):
            raise captive_portal(self.url)
        if self.status in (403, 404, 410):
            raise NetworkError("repository-file-missing", f"{name} does not have {_file_name(self.url)} (HTTP status"
                               f" {self.status}).", hint="Check the repository's address; otherwise ask the publisher.")
        if self.status == 407:
            raise NetworkError("proxy-failed", "The proxy asks for a user name and password.", hint=_CHECK_NETWORK)
        if self.status not in (200, 206):
            raise NetworkError("repository-unreachable", f"Expected {_file_name(self.url)}, {name} answered with HTTP"
                               f" status {self.status}.", hint=_retry_hint(self.headers.get("Retry-After", "")))
        if self._coding() not in (("identity", "gzip") if self._may_be_gzip else ("identity",)):
            raise NetworkError("bad-answer", f"Expected {_file_name(self.url)} as it is, {name} sent it in another"
                               " coding.", hint="The publisher's server may use gzip for metadata and manifests, and"
                               " must not compress anything else.")

    def _coding(self) -> str:
        return self.headers.get("Content-Encoding", "identity").strip().lower()


class Transport:
    """One per repository; keeps its connections. Not for use by several threads at once."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._session: Session | None = None

    def get(self, url: str, *, seconds: float, allowed_hosts: frozenset[str],
            headers: Mapping[str, str] | None = None, may_be_gzip: bool = False) -> Answer:
        """Ask for `url`, which was checked before, and follow redirects.

        Args:
            seconds: for everything until the last byte.
            allowed_hosts: to which a redirect may lead.
            may_be_gzip: the server may compress the answer, which `Answer.content` undoes.

        Raises:
            NetworkError: no answer in time, or a redirect that is refused.
        """
        if url.startswith("file:"):
            return _open_file(url)
        asked = dict(headers or {}) | ({"Accept-Encoding": "gzip"} if may_be_gzip else {})
        deadline = time.monotonic() + seconds
        for _ in range(self.limits.redirects + 1):
            exchange = _Exchange(self, url, asked, deadline)
            status, answered = exchange.head()
            if status not in REDIRECTS:
                return Answer(url, status, answered, exchange, may_be_gzip)
            exchange.abandon()
            url = check_redirect(url, answered.get("Location", ""), allowed_hosts)
        raise NetworkError("too-many-redirects", f"{origin(url)} redirects more than {self.limits.redirects} times.",
                           hint=_TRY_LATER)

    def session(self) -> "Session":
        """The session; a new one after an exchange was left behind with the old one."""
        if self._session is None:
            from keyfit.trust.session import Session

            self._session = Session()
        return self._session

    def forget_session(self) -> None:
        """Do not use the session's connections again."""
        self._session = None


class _Exchange:
    """One request and its answer."""

    _QUEUED = 4
    """Chunks read ahead: bounds the memory that a fast server can make us use."""

    def __init__(self, transport: Transport, url: str, headers: dict[str, str], deadline: float) -> None:
        self._transport = transport
        self._limits = transport.limits
        self._url = url
        self._deadline = deadline
        self._queue: queue.Queue[tuple[int, Mapping[str, str]] | bytes | NetworkError | None] = queue.Queue(self._QUEUED)
        self._stop = threading.Event()
        self._done = False
        self._response: BaseHTTPResponse | None = None
        threading.Thread(target=self._run, args=(transport.session(), headers), daemon=True).start()

    def head(self) -> tuple[int, Mapping[str, str]]:
        """Status and headers."""
        item = self._next(min(self._limits.connect_s + self._limits.silence_s, self._left()))
        if not isinstance(item, tuple):
            raise NetworkError("bad-answer", f"{origin(self._url)} ended the exchange without an answer.",
                               hint=_TRY_LATER)
        return item

    def body(self) -> Iterator[bytes]:
        """Chunks until the end, each window of time with enough of them."""
        window_ends, got = time.monotonic() + self._limits.window_s, 0
        while True:
            item = self._next(min(window_ends - time.monotonic(), self._left()), slow_if_empty=True)
            if item is None:
                return
            if isinstance(item, bytes):
                got += len(item)
                yield item
            if time.monotonic() >= window_ends:
                if got < self._limits.window_rate * self._limits.window_s:
                    self._too_slow(f"fewer than {self._limits.window_rate} bytes per second came for"
                                   f" {self._limits.window_s:g} s")
                window_ends, got = time.monotonic() + self._limits.window_s, 0

    def abandon(self) -> None:
        """Let the thread end by itself; if there was more to come, without using its connection again."""
        self._stop.set()
        if not self._done:
            self._transport.forget_session()
            if self._response is not None:
                with suppress(OSError, ValueError, RuntimeError):  # it may be ending on its own
                    self._response.shutdown()  # wakes the thread if it waits for bytes
        while not self._queue.empty():
            self._queue.get_nowait()

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            self._too_slow("its time was over before it was complete")
        return left

    def _too_slow(self, why: str) -> None:
        self.abandon()
        raise NetworkError("download-too-slow", f"{_file_name(self._url)} from {origin(self._url)} was given up: {why}.",
                           hint="Try again on a better connection; what was downloaded of a driver is kept.")

    def _next(self, seconds: float, slow_if_empty: bool = False) -> tuple[int, Mapping[str, str]] | bytes | None:
        try:
            item = self._queue.get(timeout=max(seconds, 0.001))
        except queue.Empty:
            self._left()
            if slow_if_empty:
                return b""
            self.abandon()
            raise NetworkError("repository-unreachable", f"{origin(self._url)} does not answer.",
                               hint=_CHECK_NETWORK) from None
        if isinstance(item, NetworkError):
            self._done = True
            self._transport.forget_session()
            raise item
        self._done = self._done or item is None
        return item

    def _run(self, session: "Session", headers: dict[str, str]) -> None:
        import urllib3

        try:
            self._exchange(session, headers)
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            self._queue.put(_network_error(self._url, error, in_body=self._response is not None))
        finally:
            self._queue.put(None)

    def _exchange(self, session: "Session", headers: dict[str, str]) -> None:
        response = session.get(self._url, headers, connect_s=self._limits.connect_s, silence_s=self._limits.silence_s)
        self._response = response
        try:
            self._queue.put((response.status, response.headers))
            # read1 returns what has come; read would wait until the whole chunk is there
            while not self._stop.is_set():
                chunk = response.read1(CHUNK_BYTES, decode_content=False)
                if not chunk:
                    return
                self._queue.put(chunk)
        finally:
            response.close()  # a connection whose answer was read to its end has gone back by now


def captive_portal(url: str) -> NetworkError:
    """A page came where data was expected (security F4)."""
    return NetworkError("captive-portal", f"Expected {_file_name(url)} from {origin(url)}, came a web page.",
                        hint="This network probably needs you to sign in: open a browser, sign in, and try again.")


def _open_file(url: str) -> Answer:
    from urllib.request import url2pathname

    path = url2pathname(urlsplit(url).path)
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        handle = os.open(path, flags)
    except (FileNotFoundError, NotADirectoryError):
        return Answer(url, 404, {}, iter(()))
    except (OSError, ValueError) as error:
        raise _file_error(path, error) from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        return Answer(url, 404, {}, iter(()))
    return Answer(url, 200, {}, _read_file(handle, path))


def _read_file(handle: int, path: str) -> Iterator[bytes]:
    with os.fdopen(handle, "rb") as file:
        try:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
        except OSError as error:
            raise _file_error(path, error) from error


def _file_error(path: str, error: OSError | ValueError) -> NetworkError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return NetworkError("repository-unreachable", f"{path} cannot be read: {reason}.",
                        hint="Check that the folder or medium is there and readable.")


def _network_error(url: str, error: Exception, *, in_body: bool) -> NetworkError:
    """An error of urllib3 or the system, in words of ours: theirs may hold a proxy's password."""
    from urllib3 import exceptions

    name = origin(url)
    if isinstance(error, exceptions.SSLError):
        return NetworkError("tls-not-trusted", f"The certificate of {name} is not trusted by this system.",
                            hint="Check date and time. If your company inspects traffic, its certificate authority"
                            " belongs into the system's certificate store.")
    if isinstance(error, exceptions.ProxyError):
        return NetworkError("proxy-failed", f"The proxy on the way to {name} cannot be used.", hint=_CHECK_NETWORK)
    if isinstance(error, exceptions.ReadTimeoutError):
        return NetworkError("download-too-slow", f"{name} stopped sending.", hint=_CHECK_NETWORK) if in_body else \
            NetworkError("repository-unreachable", f"{name} does not answer.", hint=_CHECK_NETWORK)
    if in_body:
        return NetworkError("connection-cut", f"The connection to {name} was cut.", hint=_CHECK_NETWORK)
    return NetworkError("repository-unreachable", f"No connection to {name}.", hint=_CHECK_NETWORK)


def _retry_hint(retry_after: str) -> str:
    if retry_after.isascii() and retry_after.isdigit() and len(retry_after) < 7:
        return f"The server asks to wait {int(retry_after)} seconds before trying again."
    return _TRY_LATER


def _file_name(url: str) -> str:
    return urlsplit(url).path.rpartition("/")[2][:120] or "the file"
