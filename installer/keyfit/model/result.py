"""What a use case hands back: one value that every face of Keyfit (text, JSON, window) renders."""

from typing import Any, Literal

from msgspec import Struct

from keyfit.errors import Outcome

Level = Literal["info", "warning", "error"]


class Message(Struct, frozen=True, kw_only=True):
    """`code` is stable; `text` and `hint` are for people and may be translated."""

    level: Level
    code: str
    text: str
    hint: str = ""


class OperationResult(Struct, frozen=True, kw_only=True):
    """The outcome of a command, its data (JSON-able) and what to tell the user."""

    command: str
    outcome: Outcome
    data: dict[str, Any] = {}
    messages: tuple[Message, ...] = ()


class Link(Struct, frozen=True, kw_only=True):
    """One link of the chain token - USB - driver - reader - module - token - browser.

    Attributes:
        id: "bus", "driver", "reader", "module", "token", "browser-firefox", "browser-chromium".
        state: "ok", "broken", "not-checked" (an earlier link is broken), "not-needed".
        cure: what to do if it is broken.
    """

    id: str
    state: Literal["ok", "broken", "not-checked", "not-needed"]
    text: str
    cure: str = ""


class Verdict(Struct, frozen=True, kw_only=True):
    """The chain in order. `works` is True only if the token answered and no link is broken."""

    brand: str
    works: bool
    links: tuple[Link, ...]

    @property
    def first_broken(self) -> Link | None:
        """The link to mend first, or None."""
        return next((link for link in self.links if link.state == "broken"), None)
