"""Which addresses a repository may have: https, a folder, or http on this machine (ADR 2, security F1)."""

import re
from ipaddress import ip_address
from urllib.parse import urljoin, urlsplit

from keyfit.errors import NetworkError, UserError

_VISIBLE = re.compile(r"[!-\[\]-~]+\Z")
"""Printable ASCII without blank and backslash: browsers and parsers disagree about the rest."""


def check_repository(url: str) -> str:
    """Return the address with a slash at its end.

    Raises:
        UserError: code "https-required" or "bad-repository-address".
    """
    try:
        scheme, host = _parts(url)
    except ValueError as error:
        raise UserError("bad-repository-address", f"Expected a repository address, came {_without_login(url)!a}: {error}.",
                        hint="Write it as https://host/path or file:///folder.") from error
    if scheme == "http" and not is_loopback(host):
        raise UserError("https-required", f"Expected an https address, came {url}.",
                        hint="Plain http is only accepted on this machine (127.0.0.1, ::1, localhost).")
    if scheme == "file" and host not in ("", "localhost"):
        raise UserError("bad-repository-address", f"Expected a folder of this machine, came {url}.",
                        hint="Write it as file:///folder.")
    return url if url.endswith("/") else url + "/"


def check_redirect(url: str, location: str, allowed_hosts: frozenset[str]) -> str:
    """The address that an answer sends us to (security F3).

    Raises:
        NetworkError: code "redirect-refused": not https, or to a host that nobody who is trusted has named.
    """
    sign_in = "If this network has a sign-in page, sign in with a browser and try again."
    try:
        target = urljoin(url, location)
        scheme, host = _parts(target)
    except ValueError as error:
        raise NetworkError("redirect-refused", f"{origin(url)} redirects to an address that is none.",
                           hint=sign_in) from error
    if scheme != "https":
        raise NetworkError("redirect-refused", f"Expected a redirect to https, {origin(url)} sends to {scheme}.",
                           hint=sign_in)
    if host not in allowed_hosts:
        raise NetworkError("redirect-refused", f"{origin(url)} redirects to {host}, which is no host of the repository.",
                           hint=sign_in + " Otherwise the publisher has to name that host as a mirror.")
    return target


def is_loopback(host: str) -> bool:
    """True for localhost and for loopback addresses written as numbers; no name is looked up."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def host_of(url: str) -> str:
    """The host, in small letters; "" if there is none."""
    return urlsplit(url).hostname or ""


def origin(url: str) -> str:
    """Scheme and host for messages: never a user, a password, a path or a query (security F3)."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}" if parts.scheme != "file" else url


def _without_login(url: str) -> str:
    """For a message about an address that is refused (security F3)."""
    return re.sub(r"//[^/]*@", "//...@", url)


def _parts(url: str) -> tuple[str, str]:
    if not _VISIBLE.fullmatch(url):
        raise ValueError("it holds blanks, backslashes or characters beyond ASCII")
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http", "file"):
        raise ValueError("it is neither https nor a folder")
    if parts.username is not None or parts.password is not None:
        raise ValueError("it holds a user name or password")
    _ = parts.port  # raises ValueError if it is no number
    if parts.scheme != "file" and not parts.hostname:
        raise ValueError("it has no host")
    return parts.scheme, parts.hostname or ""
