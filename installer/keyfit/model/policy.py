"""What the administrator of a machine has decided. Read by `keyfit.platforms` from a place that only they can write."""

from typing import Annotated

from msgspec import Meta, Struct

ExactVersion = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,47}=[1-9][0-9]{0,9}\Z")]
"""A brand and one sequence of its data: "acme=4"."""


class Policy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings, with their values where the administrator says nothing.

    Attributes:
        offline_kit_grace_days: for how long an offline kit may still be used after it expired, if no repository can be
            reached.
        allow: versions that may be used although they were withdrawn, are too old, or are older than the installed one.
    """

    offline_kit_grace_days: Annotated[int, Meta(ge=0, le=365)] = 0
    allow: Annotated[tuple[ExactVersion, ...], Meta(max_length=64)] = ()

    def allows(self, brand: str, sequence: int) -> bool:
        """True if exactly this version of exactly this brand is named."""
        return f"{brand}={sequence}" in self.allow
