"""A value that nothing shows by accident: credentials of a proxy, for one (security I2)."""

from typing import NoReturn

SHOWN = "<secret>"
"""What is seen of any secret, whatever its length."""


class Secret:
    """Holds a text that may be used but not shown.

    Text, representation and formatting give `SHOWN`; encoders and pickling refuse it. Two secrets are equal if what they
    hold is equal, so that they can be keys.
    """

    __slots__ = ("_held",)

    def __init__(self, held: str) -> None:
        self._held = held

    def reveal(self) -> str:
        """The text itself, for the one place that hands it on."""
        return self._held

    def __bool__(self) -> bool:
        return bool(self._held)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._held == other._held

    def __hash__(self) -> int:
        return hash((Secret, self._held))

    def __str__(self) -> str:
        return SHOWN

    def __repr__(self) -> str:
        return SHOWN

    def __format__(self, specification: str) -> str:
        return SHOWN

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not written anywhere")
