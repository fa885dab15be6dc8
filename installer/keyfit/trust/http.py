"""Fetches bytes by https or from files, within limits of size, time and speed (security A7, F1, F3, F4).

https is checked against the system's own certificates, so that a company's interception works and a distrusted authority does
not; nothing can turn the check off. Redirects are followed by hand. `Retry-After` is never waited for.
"""

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urljoin, urlsplit

from msgspec import Struct

from keyfit import __version__
from keyfit.errors import NetworkError, UserError

if TYPE_CHECKING:
    import requests

CHUNK_BYTES = 65_536
MAX_REDIRECTS = 3
LOOPBACK = ("127.0.0.1", "localhost", "::1")
USER_AGENT = f"keyfit/{__version__}"


class Limits(Struct, frozen=True, kw_only=True):
    """Bounds of one transfer, in seconds and bytes per second.

    `slow_after_s` is how long a transfer may crawl below `min_bytes_per_s` on average before it is given up.
    """

    connect_s: float = 15.0
    gap_s: float = 30.0
    total_s: float = 60.0
    min_bytes_per_s: float = 1000.0
    slow_after_s: float = 15.0


class HttpStatusError(NetworkError):
    """The server answered with an error status."""

    def __init__(self, url: str, status: int) -> None:
        super().__init__("http-status", f"{_short(url)} answered with status {status}.",
                         hint="Try again later; if it stays so, tell the publisher of the repository.")
        self.status = status


def check_url(url: str) -> None:
    """Accept https, file, and http to this very machine.

    Raises:
        UserError: "repository-address".
    """
    parts = urlsplit(url)
    if parts.scheme == "file" and not parts.netloc:
        return
    if parts.scheme == "https" and parts.hostname and "@" not in parts.netloc:
        return
    if parts.scheme == "http" and parts.hostname in LOOPBACK:
        return
    raise UserError("repository-address", f"{_short(url)!r} cannot be used: a repository is an https address or a folder.",
                    hint="Use https://...; plain http is only accepted for this machine itself.")


class Fetcher:
    """Opens transfers; one connection pool for all of them."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._session: requests.Session | None = None

    def stream(self, url: str, *, headers: Mapping[str, str] | None = None, start: int = 0,
               limits: Limits | None = None) -> Iterator[bytes]:
        """The body in chunks. With `start`, from that byte on; a server that ignores it gets the rest skipped.

        Raises:
            HttpStatusError, NetworkError: not reachable, too slow, cut off, a captive portal.
            UserError: the address, or one that it redirects to, is not allowed.
        """
        bounds = limits or self._limits
        if urlsplit(url).scheme == "file":
            yield from _file(url, start)
            return
        asked = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **(headers or {})}
        if start:
            asked["Range"] = f"bytes={start}-"
        response = self._open(url, asked, bounds)
        try:
            skip = start if start and response.status_code == 200 else 0
            yield from _bounded(response, bounds, skip, url)
        finally:
            response.close()

    def _open(self, url: str, headers: Mapping[str, str], bounds: Limits) -> "requests.Response":
        import requests

        for _ in range(MAX_REDIRECTS + 1):
            check_url(url)
            try:
                response = self._pool().get(url, headers=dict(headers), stream=True, allow_redirects=False,
                                            timeout=(bounds.connect_s, bounds.gap_s), proxies=self._proxies(url))
            except requests.exceptions.SSLError as error:
                raise NetworkError("tls", f"The identity of {_short(url)} could not be verified: {_reason(error)}.",
                                   hint="If your company inspects https, its certificate has to be in the system's store. "
                                   "The check cannot be turned off.") from error
            except requests.RequestException as error:
                raise _unreachable(url, error) from error
            if response.status_code in (301, 302, 303, 307, 308) and "Location" in response.headers:
                target = urljoin(url, response.headers["Location"])
                response.close()
                if urlsplit(url).scheme == "https" and urlsplit(target).scheme != "https":
                    raise NetworkError("redirect-refused", f"{_short(url)} redirects to an address that is not https.",
                                       hint="Tell the publisher of the repository.")
                url = target
                continue
            return self._checked(url, response)
        raise NetworkError("redirect-refused", f"{_short(url)} redirects more than {MAX_REDIRECTS} times.",
                           hint="Tell the publisher of the repository.")

    def _checked(self, url: str, response: "requests.Response") -> "requests.Response":
        if response.status_code == 511 or (
                response.status_code == 200 and response.headers.get("Content-Type", "").startswith("text/html")):
            response.close()
            raise NetworkError("captive-portal", f"Instead of {_short(url)} a web page came: the network wants you to sign in.",
                               hint="Open a browser, sign in to the network, then run this again.")
        if response.status_code not in (200, 206):
            response.close()
            raise HttpStatusError(url, response.status_code)
        return response

    def _pool(self) -> "requests.Session":
        if self._session is None:
            import ssl

            import requests
            import truststore
            from requests.adapters import HTTPAdapter

            class SystemTrust(HTTPAdapter):
                """Certificates are checked by the system's store."""

                def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
                    super().init_poolmanager(*args, ssl_context=truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT), **kwargs)

                def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
                    return super().proxy_manager_for(
                        proxy, ssl_context=truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT), **kwargs)

                def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
                    """The context does it; a bundle named by the environment is not loaded."""
                    conn.cert_reqs = "CERT_REQUIRED"
                    conn.ca_certs = conn.ca_cert_dir = None

            session = requests.Session()
            session.trust_env = False  # no .netrc, no certificate bundle from the environment
            session.mount("https://", SystemTrust())
            self._session = session
        return self._session

    @staticmethod
    def _proxies(url: str) -> dict[str, str]:
        """The system's proxies, but none for this machine itself."""
        from urllib.request import getproxies, proxy_bypass

        host = urlsplit(url).hostname or ""
        if host in LOOPBACK or proxy_bypass(host):
            return {}
        return {k: v for k, v in getproxies().items() if k in ("http", "https", "all")}


def _bounded(response: "requests.Response", bounds: Limits, skip: int, url: str) -> Iterator[bytes]:
    import requests
    from urllib3.exceptions import HTTPError

    began = time.monotonic()
    received = 0
    try:
        for chunk in response.raw.stream(CHUNK_BYTES, decode_content=False):
            received += len(chunk)
            took = time.monotonic() - began
            if took > bounds.total_s or (took > bounds.slow_after_s and received / took < bounds.min_bytes_per_s):
                raise NetworkError("download-too-slow", f"{_short(url)} sends too slowly: {received} bytes in {took:.0f} s.",
                                   hint="Try again later, or use another repository.")
            if skip >= len(chunk):
                skip -= len(chunk)
                continue
            yield chunk[skip:]
            skip = 0
    except (requests.RequestException, HTTPError, OSError) as error:
        raise _unreachable(url, error) from error


def _file(url: str, start: int) -> Iterator[bytes]:
    path = unquote(urlsplit(url).path)
    try:
        with open(path, "rb") as file:
            file.seek(start)
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
    except FileNotFoundError as error:
        raise HttpStatusError(url, 404) from error
    except OSError as error:
        raise NetworkError("repository-unreachable", f"{path} cannot be read: {error.strerror}.",
                           hint="Check the folder or the medium.") from error


def _unreachable(url: str, error: Exception) -> NetworkError:
    return NetworkError("repository-unreachable", f"{_short(url)} cannot be reached: {_reason(error)}.",
                        hint="Check the network connection and the address, then run this again.")


def _reason(error: Exception) -> str:
    """The innermost cause in a few words; libraries wrap it several times over."""
    inner: Any = error
    while getattr(inner, "args", None) and isinstance(inner.args[0], Exception):
        inner = inner.args[0]
    inner = getattr(inner, "reason", inner)
    text = str(inner).rsplit(": ", 1)[-1]
    return text.strip("()'\". ")[:160] or type(inner).__name__


def _short(url: str) -> str:
    return url if len(url) <= 120 else url[:117] + "..."
