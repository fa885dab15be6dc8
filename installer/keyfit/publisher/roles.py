"""Which roles a repository has, whose keys sign them, and how long a signature counts.

`root` delegates to `targets`, that to terminating roles: `app` (versions of Keyfit itself), one `brand-<brand>` for each
brand with keys of its own, and `drivers`, which delegates to hash bins. An offline kit is a repository of the same shape
under a root of its own. Sources: The Update Framework specification 1.0.34; TAP 15 for succinct hash bins.
"""

import re
from collections.abc import Mapping

from msgspec import Struct

from keyfit.errors import UserError

BIN_PREFIX = "b"
"""Short, since every client downloads the names of all bins with each snapshot."""
_BIN = re.compile(r"b-[0-9a-f]+\Z")
BRAND_PREFIX = "brand-"
DRIVER_PATHS = ("usb/*/*", "brand/*/*", "grant/*")
"""What `drivers` may name (TUF path patterns match segment by segment)."""
APP_PATHS = ("app/*",)
_THRESHOLD = re.compile(r"([a-z-]+)=([0-9]{1,2})/([0-9]{1,2})\Z")
MAX_KEYS = 15


class Threshold(Struct, frozen=True, kw_only=True):
    """How many of how many keys a role needs."""

    needed: int
    keys: int


class Layout(Struct, frozen=True, kw_only=True):
    """One kind of repository.

    Attributes:
        owners: TUF role -> whose keys sign it; "bins" stands for all hash bins.
        life_days: TUF role -> how long a signature counts. What people sign lasts; what a machine signs is renewed.
        bin_bits: 2 ** bin_bits hash bins. It can never be changed for clients that have seen the repository: TUF refuses
            a snapshot that lacks a role it had (specification 1.0.34, 5.5.5).
    """

    owners: Mapping[str, str]
    life_days: Mapping[str, int]
    bin_bits: int
    has_app: bool


ONLINE = Layout(
    owners={role: role for role in ("root", "targets", "app", "drivers", "bins", "snapshot", "timestamp")},
    life_days={"root": 365, "targets": 180, "app": 180, "drivers": 180, "brand": 180, "bins": 90, "snapshot": 30,
               "timestamp": 3},
    bin_bits=10, has_app=True)
"""1024 bins cost a first contact with 100 000 manifests about 13 kB; 16 000 bins would cost 41 kB of snapshot."""
MEDIA = Layout(
    owners={"root": "media-root"} | dict.fromkeys(("targets", "drivers", "bins", "snapshot", "timestamp"), "media"),
    life_days={"root": 3650} | dict.fromkeys(("targets", "drivers", "bins", "snapshot", "timestamp"), 730),
    bin_bits=6, has_app=False)
"""Offline kits: pressed rarely, read from a disc, valid for the life of the disc."""

OWNERS = (*ONLINE.owners.values(), "media-root", "media")
"""Everybody who holds keys, but the brands."""
DEFAULT_THRESHOLDS: Mapping[str, Threshold] = {
    "root": Threshold(needed=3, keys=5), "targets": Threshold(needed=2, keys=3), "app": Threshold(needed=2, keys=3),
    "drivers": Threshold(needed=2, keys=3), "bins": Threshold(needed=1, keys=1),
    "snapshot": Threshold(needed=1, keys=1), "timestamp": Threshold(needed=1, keys=1),
    "media-root": Threshold(needed=3, keys=5), "media": Threshold(needed=2, keys=3),
}
"""Several people for what lasts, one machine for what is renewed often (security K1)."""


def parse_thresholds(texts: tuple[str, ...]) -> dict[str, Threshold]:
    """Read `--threshold ROLE=NEEDED/KEYS` over the defaults.

    Raises:
        UserError: not of this form, no such role, or more needed than there are.
    """
    thresholds = dict(DEFAULT_THRESHOLDS)
    for text in texts:
        found = _THRESHOLD.fullmatch(text)
        if found is None or found.group(1) not in OWNERS:
            raise UserError("bad-threshold", f"Expected ROLE=NEEDED/KEYS such as root=3/5, came {text!a}.",
                            hint=f"Roles are {', '.join(OWNERS)}.")
        needed, keys = int(found.group(2)), int(found.group(3))
        if not 1 <= needed <= keys <= MAX_KEYS:
            raise UserError("bad-threshold", f"Expected 1 to {MAX_KEYS} keys and no more needed than there are, came"
                            f" {text!a}.", hint="For example root=3/5.")
        thresholds[found.group(1)] = Threshold(needed=needed, keys=keys)
    return thresholds


def is_bin(role: str) -> bool:
    """True for the name of a hash bin."""
    return _BIN.fullmatch(role) is not None


def brand_role(brand: str) -> str:
    """The role of a brand with its own keys."""
    return BRAND_PREFIX + brand


def kind_of(role: str) -> str:
    """"bins" for any hash bin, "brand" for any brand's role, else the role itself."""
    if is_bin(role):
        return "bins"
    return "brand" if role.startswith(BRAND_PREFIX) else role


def parent_of(role: str) -> str:
    """The role that delegates to this one."""
    if is_bin(role):
        return "drivers"
    return "targets" if role in ("app", "drivers") or role.startswith(BRAND_PREFIX) else "root"
