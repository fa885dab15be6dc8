"""HTTP connections: the system's certificate store and proxies; no .netrc, no cookies, no redirects, no retries."""

import os
import ssl
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import truststore
from urllib3 import BaseHTTPResponse, PoolManager, ProxyManager, Timeout
from urllib3.exceptions import ProxyError
from urllib3.util import make_headers

from keyfit import __version__
from keyfit.core.secret import Secret
from keyfit.trust.addresses import host_of, is_loopback

_HEADERS = {"User-Agent": f"keyfit/{__version__}", "Accept": "*/*", "Accept-Encoding": "identity"}


class Session:
    """Keeps connections, to servers and to proxies. Certificates are verified with the system's own store and with nothing
    else (security F1): no list of roots is brought along, and no setting or variable turns the check off."""

    def __init__(self) -> None:
        self._managers: dict[tuple[str, Secret], PoolManager] = {}

    def get(self, url: str, headers: Mapping[str, str], *, connect_s: float, silence_s: float) -> BaseHTTPResponse:
        """The answer to one request, its body not yet read.

        Raises:
            urllib3.exceptions.HTTPError, OSError, ValueError: as urllib3 says.
        """
        return self._manager(url).urlopen(
            "GET", url, headers=_HEADERS | dict(headers), redirect=False, retries=False, preload_content=False,
            decode_content=False, timeout=Timeout(connect=connect_s, read=silence_s))

    def _manager(self, url: str) -> PoolManager:
        scheme, proxy = urlsplit(url).scheme, proxy_for(url)
        if (scheme, proxy) not in self._managers:
            self._managers[scheme, proxy] = _new_manager(scheme, proxy)
        return self._managers[scheme, proxy]


def proxy_for(url: str) -> Secret:
    """The system's proxy for an address: *_proxy and no_proxy, the Windows registry, the macOS settings. "" for none.

    A secret, because it may hold a user and a password (security F3).
    """
    host = host_of(url)
    if is_loopback(host) or _is_excepted(host) or proxy_bypass(host):
        return Secret("")
    proxies = getproxies()
    proxy = proxies.get(urlsplit(url).scheme) or proxies.get("all") or ""
    return Secret(proxy if "://" in proxy or not proxy else "http://" + proxy)


def _is_excepted(host: str) -> bool:
    """True if `no_proxy` names a network that this numeric address is in; the rest of `no_proxy` is Python's own matter."""
    try:
        address = ip_address(host)
    except ValueError:
        return False
    for entry in (os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or "").split(","):
        try:
            if address in ip_network(entry.strip(), strict=False):
                return True
        except ValueError:
            continue
    return False


def _new_manager(scheme: str, proxy: Secret) -> PoolManager:
    context = _system_context() if scheme == "https" else None
    if not proxy:
        return PoolManager(ssl_context=context)
    try:
        parts = urlsplit(proxy.reveal())
        address = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else None
        return ProxyManager(address, ssl_context=context, proxy_headers=make_headers(proxy_basic_auth=login),
                            proxy_ssl_context=_system_context() if parts.scheme == "https" else None)
    except ValueError as error:  # a kind that urllib3 does not know, or no address
        raise ProxyError("unusable address", error) from error


def _system_context() -> ssl.SSLContext:
    context = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
