"""The HTTP session: the system's certificate store, no .netrc, no cookies, no retries of its own."""

import ssl
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
import truststore
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies

from keyfit import __version__
from keyfit.trust.addresses import host_of, is_loopback


class SystemStoreAdapter(HTTPAdapter):
    """Verifies certificates with the system's own store and with nothing else (security F1).

    requests hands its bundled list to every connection; the three methods below keep it out.
    """

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Direct connections."""
        super().init_poolmanager(*args, ssl_context=_system_context(), **kwargs)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        """Connections through a proxy, and to a proxy that speaks TLS itself."""
        if not proxy.lower().startswith("socks"):
            kwargs["proxy_ssl_context"] = _system_context()
        return super().proxy_manager_for(proxy, ssl_context=_system_context(), **kwargs)

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Always verify, whatever `verify` says."""
        conn.cert_reqs = "CERT_REQUIRED"
        conn.ca_certs = None
        conn.ca_cert_dir = None

    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> Any:
        """The same for the key under which connections are kept."""
        return super().build_connection_pool_key_attributes(request, True, None)


def new_session() -> requests.Session:
    """A session that takes nothing from the environment but the proxy addresses (see `proxies`)."""
    session = requests.Session()
    session.trust_env = False  # no .netrc, no REQUESTS_CA_BUNDLE
    session.headers.clear()
    session.headers.update({"User-Agent": f"keyfit/{__version__}", "Accept": "*/*", "Accept-Encoding": "identity"})
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.mount("https://", SystemStoreAdapter())
    return session


def proxies(url: str) -> dict[str, str]:
    """The system's proxies for an address: *_proxy and no_proxy, the Windows registry, the macOS settings."""
    if is_loopback(host_of(url)):
        return {}
    return dict(get_environ_proxies(url))


def _system_context() -> ssl.SSLContext:
    context = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
