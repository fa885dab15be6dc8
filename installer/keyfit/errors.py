"""The one exception tree and the one table of outcomes with their exit codes.

Every failure that a user can meet is a `KeyfitError`. Its class says who can act on it, its `code` is a stable
identifier (never translated), `message` says what was expected and what came, `hint` says what to do.
Things that are no failures (nothing to do, restart required) are outcomes, not errors.
"""

from collections.abc import Mapping
from enum import StrEnum


class Outcome(StrEnum):
    """How a command ended; stable identifiers, part of the JSON interface."""

    DONE = "done"
    RESTART_REQUIRED = "restart-required"
    UPDATES_AVAILABLE = "updates-available"
    FAILED_UNCHANGED = "failed-unchanged"
    USAGE = "usage"
    NO_TOKEN = "no-token"
    NETWORK = "network"
    INTERNAL = "internal"
    CANNOT_WRITE = "cannot-write"
    BUSY = "busy"
    TRUST = "trust"
    ELEVATION_REQUIRED = "elevation-required"
    FORBIDDEN = "forbidden"
    UNSUPPORTED = "unsupported"
    INTERRUPTED = "interrupted"
    CANCELLED = "cancelled"


EXIT_CODES: dict[Outcome, tuple[int, int]] = {
    Outcome.DONE: (0, 0),
    Outcome.RESTART_REQUIRED: (102, 3010),
    Outcome.UPDATES_AVAILABLE: (100, 100),
    Outcome.FAILED_UNCHANGED: (1, 1603),
    Outcome.USAGE: (2, 1639),
    Outcome.NO_TOKEN: (66, 259),
    Outcome.NETWORK: (69, 1612),
    Outcome.INTERNAL: (70, 1627),
    Outcome.CANNOT_WRITE: (73, 112),
    Outcome.BUSY: (75, 1618),
    Outcome.TRUST: (76, 577),
    Outcome.ELEVATION_REQUIRED: (77, 740),
    Outcome.FORBIDDEN: (78, 1625),
    Outcome.UNSUPPORTED: (79, 1633),
    Outcome.INTERRUPTED: (80, 1604),
    Outcome.CANCELLED: (130, 1602),
}
"""Outcome -> (POSIX, Windows). POSIX values follow sysexits.h where it has a word for the case (66 EX_NOINPUT,
69 EX_UNAVAILABLE, 70 EX_SOFTWARE, 73 EX_CANTCREAT, 75 EX_TEMPFAIL, 76 EX_PROTOCOL, 77 EX_NOPERM, 78 EX_CONFIG);
Windows values are the Windows Installer and Win32 error codes of the same meaning."""


class KeyfitError(Exception):
    """Base of all failures shown to a user.

    Args:
        code: stable kebab-case identifier, for example "repository-unreachable".
        message: what was expected and what came, one or two sentences, no trailing newline.
        hint: what the reader can do about it.
        outcome: overrides the class's outcome.
    """

    outcome: Outcome = Outcome.FAILED_UNCHANGED

    def __init__(self, code: str, message: str, *, hint: str = "", outcome: Outcome | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        if outcome is not None:
            self.outcome = outcome


class UserError(KeyfitError):
    """The user can act: wrong command line, no token plugged in, cancelled."""

    outcome = Outcome.USAGE


class NoTokenError(UserError):
    """No token was found, or none of the known drivers is for it."""

    outcome = Outcome.NO_TOKEN


class NetworkError(KeyfitError):
    """The network or the repository's server can act."""

    outcome = Outcome.NETWORK


class TrustError(KeyfitError):
    """The publisher can act: a signature, hash, expiry or rollback check failed."""

    outcome = Outcome.TRUST


class WithdrawnError(TrustError):
    """The publisher has withdrawn it. `reason` is the publisher's own text by language, shown after the message in the
    reader's."""

    def __init__(self, code: str, message: str, reason: Mapping[str, str], *, hint: str = "") -> None:
        super().__init__(code, message, hint=hint)
        self.reason = dict(reason)


class DataError(KeyfitError):
    """The author of a file can act: it is malformed. `problems` lists every fault found, one line each."""

    outcome = Outcome.USAGE

    def __init__(self, code: str, message: str, problems: tuple[str, ...] = (), *, hint: str = "",
                 outcome: Outcome | None = None) -> None:
        super().__init__(code, message, hint=hint, outcome=outcome)
        self.problems = problems


class HostError(KeyfitError):
    """The machine or its administrator can act: a tool failed, a file cannot be written, no rights."""

    outcome = Outcome.FAILED_UNCHANGED


class StorageError(HostError):
    """Disk full, read-only, or a file cannot be written."""

    outcome = Outcome.CANNOT_WRITE


class BusyError(HostError):
    """Another installation is running."""

    outcome = Outcome.BUSY


class ElevationError(HostError):
    """Administrator rights are needed and were not given."""

    outcome = Outcome.ELEVATION_REQUIRED


class UnsupportedError(HostError):
    """This system cannot be served."""

    outcome = Outcome.UNSUPPORTED


class PolicyError(KeyfitError):
    """The administrator's policy forbids it, or two brands claim one device."""

    outcome = Outcome.FORBIDDEN


class InterruptedChangeError(KeyfitError):
    """An earlier change was cut off and has to be finished or taken back first."""

    outcome = Outcome.INTERRUPTED


class BugError(KeyfitError):
    """A fault of Keyfit's own."""

    outcome = Outcome.INTERNAL
