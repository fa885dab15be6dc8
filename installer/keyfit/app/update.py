"""Are there newer drivers for what is installed? Only looks; installing them is `install`."""

from datetime import UTC, datetime
from typing import Any

from keyfit.app.context import Context
from keyfit.app.select import choices
from keyfit.core.withdrawal import told
from keyfit.errors import KeyfitError, Outcome, UnsupportedError, WithdrawnError
from keyfit.model.catalog import brand_target
from keyfit.model.result import Message, OperationResult


def check(context: Context, *, exit_code: bool = False, language: str = "en") -> OperationResult:
    """Hold what is on record against the newest signed data, after the strict workflow.

    Args:
        exit_code: "updates available" is an outcome of its own.
        language: of a publisher's reasons.

    Raises:
        NetworkError, TrustError: from the repository.
        HostError: what is installed cannot be read.
    """
    keep = context.begin_check()
    checked_at = context.clock.now()
    installed = context.journal.installed()
    repository = context.repository
    updates: list[dict[str, Any]] = []
    messages: list[Message] = list(repository.notes())
    for brand, sequence in sorted(installed.items()):
        found = _compare(context, brand, sequence, updates, language)
        messages += [found] if found is not None else []
    day = datetime.fromtimestamp(checked_at, UTC)
    messages.append(_summary(day, installed, updates))
    result = OperationResult(
        command="update", outcome=Outcome.UPDATES_AVAILABLE if updates and exit_code else Outcome.DONE,
        data={"checked": day.strftime("%Y-%m-%dT%H:%M:%SZ"), "installed": [
            {"brand": brand, "sequence": sequence} for brand, sequence in sorted(installed.items())], "updates": updates},
        messages=tuple(messages))
    keep(repository, checked_at, result)
    return result


def update() -> OperationResult:
    """Install what is newer.

    Raises:
        UnsupportedError: always: this is not built.
    """
    raise UnsupportedError("update-not-built", "This version of Keyfit can only look for newer drivers; it does not install"
                           " them by `update`.", hint="keyfit update --check names the brands that have one; install it with"
                           " `sudo keyfit install BRAND`.")


def _compare(context: Context, brand: str, sequence: int, updates: list[dict[str, Any]], language: str) -> Message | None:
    """One brand. What is newer is added to `updates`."""
    facts = context.facts
    offered = choices(context, brand_target(brand, facts.system, facts.architecture))
    newest = next((b for b in offered.brands if b.brand == brand), None) if offered else None
    if offered is None or newest is None:
        return Message(level="warning", code="no-longer-offered", text=f"The repository has nothing for {brand} any more.",
                       hint="Ask the bank or the publisher of the repository what to use instead.")
    if brand in offered.refused:
        return _refused(offered.refused[brand], brand, language, is_installed=newest.sequence == sequence)
    if newest.sequence <= sequence:
        return None
    updates.append({"brand": brand, "name": newest.names.get("en", brand), "installed": sequence,
                    "available": newest.sequence})
    return Message(level="info", code="update-available", text=f"{brand}: number {newest.sequence} is available, number"
                   f" {sequence} is installed.", hint=f"sudo keyfit install {brand}")


def _refused(error: KeyfitError, brand: str, language: str, *, is_installed: bool) -> Message:
    """Why the newest version may not be used; if it is the one that is here, how to get rid of it (security J4)."""
    if not isinstance(error, WithdrawnError):
        return Message(level="warning", code=error.code, text=error.message, hint=error.hint)
    remove = f"It is installed here; to take it back: sudo keyfit uninstall {brand}. " if is_installed else ""
    return Message(level="warning", code=error.code, text=told(error, language), hint=remove + error.hint)


def _summary(day: datetime, installed: dict[str, int], updates: list[dict[str, Any]]) -> Message:
    shown = day.strftime("%Y-%m-%d %H:%M UTC")
    if updates:
        return Message(level="info", code="updates", text=f"Newer drivers: {len(updates)}, by the full check of {shown}.")
    if not installed:
        return Message(level="info", code="nothing-installed", text="Keyfit has installed no driver here, so there is none to"
                       f" update. The signed data is in order since the full check of {shown}.")
    return Message(level="info", code="nothing-new", text=f"Nothing new since the full check of {shown}.")
