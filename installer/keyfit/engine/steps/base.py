"""What every kind of step is: it can look, act, look again, and take back."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from msgspec import Struct

from keyfit.model.catalog import Payload
from keyfit.ports import Host

Fetch = Callable[[Payload], Path]
"""Gives the verified file of a payload."""
State = dict[str, Any]
"""What a step writes down about the machine; JSON."""

C = TypeVar("C", contravariant=True)


class Detected(Struct, frozen=True, kw_only=True):
    """What a step found: `satisfied` if nothing has to be done, and the state to go back to."""

    satisfied: bool
    before: State


class StepKind(Protocol[C]):
    """One kind of step. `change` holds typed fields from a plan; nothing in it is a command."""

    def detect(self, change: C, host: Host, /) -> Detected:
        """Look, without changing anything."""

    def expect(self, change: C, host: Host, before: State, fetch: Fetch, /) -> State:
        """What the machine will be like after `apply`, as far as it is known before: content hashes, names, versions.

        It changes nothing. It is written down together with `before`, so that an `apply` that was cut off can be told from
        what others did meanwhile.

        Raises:
            KeyfitError: it is known now that `apply` would fail.
        """

    def apply(self, change: C, host: Host, before: State, fetch: Fetch, /) -> State:
        """Make the change and say what was done.

        Raises:
            KeyfitError: it could not be made; the machine may be half changed, and `undo` puts that right.
        """

    def undo(self, change: C, host: Host, before: State, after: State, /) -> str:
        """Put back what `before` says; also after an `apply` that was cut off. `after` is then what `expect` gave, or empty
        in records of versions that did not write that down.

        Returns:
            "" if all is as before; else what was left alone and why, because somebody else changed it since.
        """
