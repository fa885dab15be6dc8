"""The cheap check: is the timestamp on the server still the one of the last strict workflow?

It comes before the strict workflow, never instead of it: what was found is told again only while the server says that
nothing changed, nothing that was signed has expired, and the strict workflow is less than a day old by a clock that has
not gone back (security A6). A publisher's rule makes that sound: a new root is always published with a new timestamp.

What is remembered lies in `poll.json` beside the trusted metadata, as private as that. Whatever is odd about it, about the
answer or about the way there leads to the strict workflow.

This module imports next to nothing: the whole process is to cost no more than the request itself.
"""

import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

FILE_NAME = "poll.json"
STRICT_EVERY_S = 86_400.0
MAX_BYTES = 65_536
CONNECT_S = 10.0
ANSWER_S = 10.0
HEAD_BYTES = 16_384
"""More headers than that are not read."""
LEVELS = ("info", "warning", "error")


def remember(folder: str, *, version: str, urls: "Sequence[str]", inputs: "Mapping[str, list[int] | None]", url: str,
             etag: str, strict_at: float, expires: float, data: "Mapping[str, Any]",
             messages: "Sequence[Sequence[str]]") -> None:
    """Write down what a strict workflow found.

    Args:
        version: of this program.
        urls: the repository's addresses, as they were given.
        inputs: see `places.inputs`.
        url, etag: of the timestamp.
        strict_at, expires: seconds since the epoch; the second is the first expiry of what was verified.
        data: JSON-able, as in the output.
        messages: level, code, text and hint of each.

    Raises:
        StorageError: it cannot be written.
    """
    import json
    from pathlib import Path

    from keyfit.privatefiles import write_private

    text = json.dumps({"version": version, "urls": list(urls), "inputs": dict(inputs), "url": url, "etag": etag,
                       "strict_at": strict_at, "expires": expires, "data": dict(data),
                       "messages": [list(m) for m in messages]}).encode()
    if len(text) <= MAX_BYTES and _usable_etag(etag):
        write_private(Path(folder) / FILE_NAME, text)


def recall(folder: str, *, version: str, urls: "Sequence[str]", inputs: "Mapping[str, list[int] | None]",
           now: float) -> "dict[str, Any] | None":
    """What was remembered, if it still stands; None if the strict workflow is due."""
    import json

    try:
        content = json.loads(_read(folder))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or not _well_formed(content):
        return None
    same = content["version"] == version and content["urls"] == list(urls) and content["inputs"] == dict(inputs)
    ours = any(content["url"] == url.rstrip("/") + "/metadata/timestamp.json" for url in urls)
    # each on its own: a number that is none compares as False
    fresh = content["strict_at"] <= now < content["strict_at"] + STRICT_EVERY_S and now < content["expires"]
    return content if same and ours and fresh else None


def is_unchanged(url: str, etag: str, agent: str) -> bool:
    """Ask for the timestamp with one conditional request. True only if the server says that it is still the same.

    No proxy and no redirect is followed: then this is False.
    """
    import time

    where = _parts(url)
    if where is None:
        return False
    scheme, host, port, path = where
    name = f"[{host}]" if ":" in host else host
    shown = name if port in (80, 443) else f"{name}:{port}"
    # the same headers as of the strict workflow, because a tag belongs to one coding of the file
    request = (f"GET {path} HTTP/1.1\r\nHost: {shown}\r\nUser-Agent: {agent}\r\nAccept: */*\r\nAccept-Encoding: gzip\r\n"
               f"If-None-Match: {etag}\r\nConnection: close\r\n\r\n")
    try:
        with _connection(scheme, host, port) as connection:
            connection.sendall(request.encode("ascii"))
            head, until = b"", time.monotonic() + ANSWER_S
            while b"\r\n\r\n" not in head and len(head) < HEAD_BYTES:
                connection.settimeout(max(until - time.monotonic(), 0.001))
                piece = connection.recv(4096)
                if not piece:
                    break
                head += piece
    except (OSError, ValueError):  # ssl's errors are OSErrors
        return False
    return head.startswith((b"HTTP/1.1 304", b"HTTP/1.0 304")) and b"\r\n\r\n" in head


def _connection(scheme: str, host: str, port: int) -> "Any":
    import socket

    # as bytes: for str Python would import its tables for international names
    address: Any = (host.encode("ascii"), port)
    plain = socket.create_connection(address, CONNECT_S)
    if scheme == "http":
        return plain
    import ssl

    context = ssl.create_default_context()  # OpenSSL's own store, which on Linux is the system's (security F1)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        return context.wrap_socket(plain, server_hostname=host)
    except (OSError, ValueError):
        plain.close()
        raise


def _parts(url: str) -> tuple[str, str, int, str] | None:
    """Scheme, host, port and path; None for what the cheap check leaves alone. `addresses.check_repository` has seen it."""
    scheme, _, rest = url.partition("://")
    place, slash, path = rest.partition("/")
    if place.startswith("["):
        host, _, port = place[1:].partition("]")
        port = port.removeprefix(":")
    else:
        host, _, port = place.partition(":")
    if scheme not in ("https", "http") or not host or not url.isascii() or not url.isprintable() or " " in url:
        return None
    if scheme == "http" and not is_loopback(host):
        return None
    if not (port or "1").isdecimal() or len(port) > 5 or "@" in place:
        return None
    return scheme, host, int(port or (443 if scheme == "https" else 80)), slash + path


def is_loopback(host: str) -> bool:
    """True for this machine, without importing what `addresses.is_loopback` needs; other ways to write it are left out."""
    parts = host.split(".")
    return host in ("localhost", "::1") or (
        len(parts) == 4 and parts[0] == "127" and all(part.isdecimal() and len(part) <= 3 for part in parts))


def goes_directly(url: str, environment: "Mapping[str, str]") -> bool:
    """True if no proxy may be in the way: none is named, or the address is on this machine."""
    where = _parts(url)
    named = any(value and name.lower().endswith("_proxy") and name.lower() != "no_proxy"
                for name, value in environment.items())
    return where is not None and (not named or is_loopback(where[1]))


def _read(folder: str) -> bytes:
    """The file, if nobody but we and root can have written it. In step with `keyfit.privatefiles`, which costs more to
    import than the rest of the check.

    Raises:
        OSError, ValueError: there is none, or it is not safe to read.
    """
    directory = os.lstat(folder)
    owners = (0, os.geteuid()) if hasattr(os, "geteuid") else (0,)
    if not stat.S_ISDIR(directory.st_mode) or directory.st_uid not in owners or directory.st_mode & 0o022:
        raise ValueError("no private directory")
    handle = os.open(folder + "/" + FILE_NAME, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
                     | getattr(os, "O_CLOEXEC", 0))
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1 or status.st_uid not in owners \
                or status.st_mode & 0o022 or status.st_size > MAX_BYTES:
            raise ValueError("no private file")
        return os.read(handle, MAX_BYTES)
    finally:
        os.close(handle)


def _well_formed(content: "dict[str, Any]") -> bool:
    texts = all(isinstance(content.get(name), str) for name in ("version", "url", "etag"))
    numbers = all(isinstance(content.get(name), float) for name in ("strict_at", "expires"))
    messages = content.get("messages")
    return texts and numbers and _usable_etag(content["etag"]) and isinstance(content.get("data"), dict) \
        and isinstance(content["data"].get("updates"), list) and isinstance(messages, list) and all(
            isinstance(m, list) and len(m) == 4 and all(isinstance(part, str) for part in m) and m[0] in LEVELS
            for m in messages)


def _usable_etag(etag: str) -> bool:
    """An entity tag (RFC 9110, section 8.8.3) that fits into one header."""
    opaque = etag.removeprefix("W/")
    return len(etag) <= 200 and len(opaque) >= 2 and opaque[0] == opaque[-1] == '"' and etag.isascii() \
        and etag.isprintable()
