"""A withdrawal in words: what happened, and the publisher's own reason."""

from keyfit.core.plan import text_in
from keyfit.core.text import clean
from keyfit.errors import WithdrawnError

MAX_REASON = 400
"""As long as a text of brand data may be (`model.catalog.Text`)."""


def told(error: WithdrawnError, language: str) -> str:
    """The message with the reason in the reader's language, or in English."""
    reason = clean(text_in(error.reason, language), MAX_REASON)
    return f"{error.message} {reason}" if reason else error.message
