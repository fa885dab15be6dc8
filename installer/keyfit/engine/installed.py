"""What is installed, for everyone to read: `installed.json` beside the record, which only administrators can read.

It says nothing but brands and the number of their signed data, so that an ordinary user can look for newer ones.
"""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from keyfit.errors import HostError, StorageError
from keyfit.model.catalog import Slug
from keyfit.model.plan import Plan
from keyfit.privatefiles import read_private, write_private

FILE_NAME = "installed.json"
MAX_BYTES = 1_000_000


class _Installed(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    keyfit: int = 1
    brands: dict[Slug, Annotated[int, Meta(ge=0)]] = {}


def newest(plans: Iterable[Plan]) -> dict[str, int]:
    """Brand -> highest number of its signed data among the plans."""
    found: dict[str, int] = {}
    for plan in plans:
        found[plan.brand] = max(plan.sequence, found.get(plan.brand, 0))
    return found


def publish(state_dir: Path, plans: Iterable[Plan]) -> None:
    """Replace the list. The change that it tells of has happened, so it must not fail because of this: without the list
    an ordinary user is told that the record cannot be read."""
    path = state_dir / FILE_NAME
    try:
        write_private(path, msgspec.json.encode(_Installed(brands=newest(plans)), order="deterministic"))
        path.chmod(0o644)
    except (StorageError, OSError):
        with suppress(OSError):
            path.unlink(missing_ok=True)


def read(state_dir: Path) -> dict[str, int]:
    """The list.

    Raises:
        HostError: code "record-unreadable": there is none, or it is not to be trusted.
    """
    try:
        data = read_private(state_dir / FILE_NAME, MAX_BYTES)
        if data is None:
            raise ValueError("it is not there")
        return msgspec.json.decode(data, type=_Installed).brands
    except (StorageError, msgspec.DecodeError, ValueError) as error:
        raise HostError("record-unreadable", f"What is installed here cannot be read from {state_dir / FILE_NAME}: {error}.",
                        hint="Run it with administrator rights: sudo keyfit update --check") from error
