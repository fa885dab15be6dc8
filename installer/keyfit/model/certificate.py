"""What a token says about itself: readers, slots, flags, certificates. Read without a login, always."""

from enum import StrEnum

from msgspec import Struct


class Reader(Struct, frozen=True, kw_only=True):
    """A PC/SC reader. `atr` is upper-case hex of the card in it, empty if there is none."""

    name: str
    atr: str = ""


class CertificateInfo(Struct, frozen=True, kw_only=True):
    """One X.509 certificate found on the token. Dates are ISO 8601 in UTC; names are RFC 4514 strings, cleaned."""

    label: str
    subject: str
    issuer: str
    not_before: str
    not_after: str
    sha256: str
    ca: bool = False


class SlotReport(Struct, frozen=True, kw_only=True):
    """One PKCS#11 slot with a token in it. PIN fields come from the token's CK_TOKEN_INFO flags (PKCS#11 2.40, 3.2)."""

    slot: str
    label: str
    model: str
    manufacturer: str
    initialised: bool
    login_required: bool
    pin_initialised: bool
    pin_to_be_changed: bool
    pin_count_low: bool
    pin_final_try: bool
    pin_locked: bool
    certificates: tuple[CertificateInfo, ...] = ()


class ModuleReport(Struct, frozen=True, kw_only=True):
    """What happened when a child process loaded a module.

    Attributes:
        loaded: False with `error` set if it could not be loaded or initialised, crashed, or did not answer in time.
        description: the library's own description and version.
    """

    path: str
    loaded: bool
    error: str = ""
    description: str = ""
    slots: tuple[SlotReport, ...] = ()


class CertificateState(StrEnum):
    """State of the user's certificate on the token."""

    UNKNOWN = "unknown"
    ABSENT = "absent"
    VALID = "valid"
    EXPIRING = "expiring"
    EXPIRED = "expired"
    NOT_YET_VALID = "not-yet-valid"


class PinState(StrEnum):
    """What the token's flags say of the PIN."""

    UNKNOWN = "unknown"
    OK = "ok"
    TO_BE_CHANGED = "to-be-changed"
    NOT_SET = "not-set"
    LOW = "low"
    FINAL_TRY = "final-try"
    LOCKED = "locked"
