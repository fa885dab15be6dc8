"""What of this machine and its user may not be in a log: names, home directories, credentials (security I2, F3)."""

import importlib
import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from keyfit.core.redact import HIDDEN
from keyfit.invoker import CALLERS
from keyfit.platforms.linux.posix import posix

PUBLIC_USERS = ("root",)
PUBLIC_HOSTS = ("localhost",)
SHORTEST_SECRET = 4
"""A PIN has at least as many digits (PKCS#11 tokens: the brands' rules begin at 4); shorter values are switches."""
_SECRETIVE = re.compile(r"(?i)(?:^|_)(?:pin|puk|pass|pwd|key|token)(?:_|$)|passw|passphrase|secret|credential")
"""Names of variables whose values are likely to be secrets."""


def private_values(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Private value -> what stands in its place, as `core.redact.redactor` takes it."""
    found = _host() | _users(environment)
    for name, value in environment.items():
        if _SECRETIVE.search(name) and len(value) >= SHORTEST_SECRET:
            found[value] = HIDDEN
        elif name.lower().endswith("_proxy") and "@" in value:
            found |= dict.fromkeys(_credentials(value), HIDDEN)
    return {value: by for value, by in found.items() if value.strip("/ ")}


def _host() -> dict[str, str]:
    name = posix.uname().nodename
    return {host: "<host>" for host in (name, name.partition(".")[0]) if host.lower() not in PUBLIC_HOSTS}


def _users(environment: Mapping[str, str]) -> dict[str, str]:
    """Names and home directories of whom this process runs as and works for."""
    pwd: Any = importlib.import_module("pwd")  # which not every system has that this file is checked on
    numbers = {posix.getuid(), posix.geteuid()}
    numbers |= {int(environment[name]) for name in CALLERS if environment.get(name, "").isdecimal()}
    found = {environment.get("HOME", ""): "~"}
    for number in numbers:
        try:
            entry = pwd.getpwuid(number)
        except (KeyError, OverflowError):
            continue
        found[entry.pw_dir] = "~"
        if entry.pw_name not in PUBLIC_USERS:
            found[entry.pw_name] = "<user>"
            found[entry.pw_gecos.split(",")[0]] = "<user>"
    for name in ("USER", "LOGNAME", "SUDO_USER"):
        if environment.get(name, "root") not in PUBLIC_USERS:
            found[environment[name]] = "<user>"
    return found


def _credentials(proxy: str) -> set[str]:
    """User and password of a proxy's address, as they stand there and decoded."""
    try:
        parts = urlsplit(proxy if "://" in proxy else "http://" + proxy)
        raw = {parts.username or "", parts.password or ""}
    except ValueError:
        return set()
    return raw | {unquote(value) for value in raw}
