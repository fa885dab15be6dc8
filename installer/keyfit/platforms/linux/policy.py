"""The administrator's policy: /etc/keyfit/policy.toml, read strictly or not at all (security D6)."""

import os
import stat
import tomllib

import msgspec

from keyfit.errors import PolicyError
from keyfit.model.policy import Policy
from keyfit.platforms.linux.posix import posix
from keyfit.platforms.linux.walk import walk

PATH = "/etc/keyfit/policy.toml"
MAX_BYTES = 65_536
_EXPECTED = {
    "offline_kit_grace_days": "a whole number of days, 0 to 365",
    "allow": 'a list of at most 64 texts such as "acme=4", a brand and the exact number of its data',
}
"""Key -> what its value has to be, for people."""


def read_policy(root: str) -> Policy:
    """The policy of the machine below `root`; one that says nothing if there is no file.

    Raises:
        PolicyError: somebody else than root could have written the file, or it holds anything that is not understood.
            It is never used in part.
    """
    data = _read(root)
    if data is None:
        return Policy()
    try:
        settings = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:  # no UTF-8, no TOML, a number of thousands of digits
        raise _refused("policy-invalid", f"it is no TOML: {error}", hint="Correct the file, or remove it.") from error
    for key in settings:
        if key not in _EXPECTED:
            raise _refused("policy-unknown-key", f"expected one of the keys {', '.join(_EXPECTED)}, came {ascii(key)[:60]}",
                           hint="Correct the key. Nothing of the policy counts until all of it is understood.")
    for key, value in settings.items():
        try:
            msgspec.convert({key: value}, Policy)
        except msgspec.ValidationError as error:
            raise _refused("policy-wrong-value", f"expected {_EXPECTED[key]} for {key}, came {ascii(value)[:60]}",
                           hint="Correct the value. Nothing of the policy counts until all of it is understood.") from error
    return msgspec.convert(settings, Policy)


def _read(root: str) -> bytes | None:
    """The file's content, after a look at the very file that is open and at the directory that holds it."""
    try:
        with walk(root, PATH) as place:
            if place is None or place.found is None:
                return None
            _check_owner(os.fstat(place.directory), "its directory")
            if not stat.S_ISREG(os.fstat(place.found).st_mode):
                raise _refused("policy-unsafe", "it is no regular file", hint="Put a file there, or nothing.")
            handle = os.open(place.name, os.O_RDONLY | posix.O_CLOEXEC | posix.O_NOFOLLOW | posix.O_NONBLOCK,
                             dir_fd=place.directory)
            with os.fdopen(handle, "rb") as file:
                _check_owner(os.fstat(handle), "the file")
                data = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _refused("policy-unreadable", str(error.strerror),
                       hint=f"Make it readable for everyone: chmod 644 {PATH}") from error
    if len(data) > MAX_BYTES:
        raise _refused("policy-invalid", f"it has more than {MAX_BYTES} bytes", hint="A policy is a few lines long.")
    return data


def _check_owner(status: os.stat_result, what: str) -> None:
    if status.st_uid != 0:
        raise _refused("policy-unsafe", f"{what} belongs to user {status.st_uid}, not to root", hint=f"chown root {PATH}")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise _refused("policy-unsafe", f"others than root may write to {what}", hint=f"chmod go-w {PATH}")


def _refused(code: str, why: str, *, hint: str) -> PolicyError:
    return PolicyError(code, f"The policy {PATH} is not used: {why}.", hint=hint)
