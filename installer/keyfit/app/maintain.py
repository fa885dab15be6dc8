"""What was done, and taking it back: uninstall, repair, history, recover.

Each that changes something has two halves: the question and the report, as the user; and the change, here or in the elevated
helper, by the functions that end in `_here`.
"""

from collections.abc import Callable
from pathlib import Path

from keyfit.app.context import Context
from keyfit.app.elevated import ask_helper
from keyfit.app.install import fetch_here
from keyfit.app.verify import find_brand
from keyfit.engine import steps, transaction
from keyfit.engine.helper.messages import Done, Recover, Repair, Uninstall
from keyfit.engine.staging import Staging, remove_abandoned
from keyfit.errors import ElevationError, HostError, NoTokenError, Outcome, UserError
from keyfit.model.catalog import Payload
from keyfit.model.result import Message, OperationResult


def uninstall(context: Context, name: str, *, silent: bool = False) -> OperationResult:
    """Take back all that Keyfit put there for a brand; what others changed since stays and is named.

    Raises:
        NoTokenError: nothing of that brand is on record.
    """
    _needs_rights(context, f"uninstall {name}", silent=silent)
    if _surely_not_on_record(context, name):
        find_brand(context, name)
        raise _not_installed(name)
    if not context.reporter.confirm(f"Keyfit will take back everything that it installed for {name}."):
        raise UserError("cancelled", "Cancelled; nothing was changed.", outcome=Outcome.CANCELLED)
    if context.facts.elevated:
        return uninstall_here(context, name)
    done = ask_helper(context, Uninstall(brand=name), "uninstall")
    return OperationResult(command="uninstall", outcome=done.outcome, data={"brand": name, "kept": list(done.kept)},
                           messages=done.messages)


def uninstall_here(context: Context, name: str) -> OperationResult:
    """The change itself."""
    context.require_safe_program()
    if not context.journal.records(name):
        raise _not_installed(name)
    result = transaction.uninstall(name, host=context.host, journal=context.journal, reporter=context.reporter)
    messages = [Message(level="warning", code="kept", text=text) for text in result.kept]
    messages.append(Message(level="info", code="uninstalled", text=f"{name}: everything was taken back."
                            if not result.kept else f"{name}: taken back, except for what is named above."))
    return OperationResult(command="uninstall", outcome=result.outcome, data={"brand": name, "kept": list(result.kept)},
                           messages=tuple(messages))


def repair(context: Context, name: str | None) -> OperationResult:
    """Do again every recorded step whose effect is gone."""
    _needs_rights(context, "repair")
    if name and _surely_not_on_record(context, name):
        find_brand(context, name)
        raise _nothing_to_repair()
    if not context.facts.elevated:
        request = Repair(brand=name, source="kit" if context.repository.offline else "repository")
        return _told("repair", "repaired", ask_helper(context, request, "repair"))
    with Staging(context.journal.state_dir) as staging:
        return repair_here(context, name, fetch_here(context, staging))


def repair_here(context: Context, name: str | None, fetch: Callable[[Payload], Path]) -> OperationResult:
    """The change itself.

    Args:
        fetch: gives the staged file of a payload.
    """
    context.require_safe_program()
    brands = [name] if name else sorted({r.plan.brand for r in context.journal.records()})
    if not brands or not any(context.journal.records(b) for b in brands):
        raise _nothing_to_repair()
    repaired: list[str] = []
    for brand in brands:
        result = transaction.repair(brand, host=context.host, journal=context.journal, reporter=context.reporter,
                                    fetch=_permitting(context, brand, fetch))
        repaired += result.repaired
    text = f"Repaired: {', '.join(repaired)}." if repaired else "Everything is as recorded; nothing was changed."
    return OperationResult(command="repair", outcome=Outcome.DONE, data={"repaired": repaired},
                           messages=(Message(level="info", code="repaired" if repaired else "nothing-to-do",
                                             text=text),))


def _permitting(context: Context, brand: str, fetch: Callable[[Payload], Path]) -> Callable[[Payload], Path]:
    """Files of a recorded version that was withdrawn are fetched all the same if the administrator's policy names exactly that
    version (security A5)."""
    allowed = {payload.sha256 for record in context.journal.records(brand)
               if context.policy.allows(brand, record.plan.sequence)
               for payload in (steps.payload_of(step.change) for step in record.plan.steps) if payload is not None}

    def permitted(payload: Payload) -> Path:
        if payload.sha256 in allowed:
            context.repository.permit(payload)
        return fetch(payload)
    return permitted


def history(context: Context) -> OperationResult:
    """Every change that was begun, newest last."""
    entries = context.journal.history()
    return OperationResult(command="history", outcome=Outcome.DONE, data={"history": [e.as_data() for e in entries]})


def recover(context: Context) -> OperationResult:
    """Finish or take back what was interrupted."""
    _needs_rights(context, "recover")
    if context.facts.elevated:
        return recover_here(context)
    return _told("recover", "recovered", ask_helper(context, Recover(), "recover"))


def recover_here(context: Context) -> OperationResult:
    """The change itself."""
    context.require_safe_program()
    result = transaction.recover(host=context.host, journal=context.journal, reporter=context.reporter)
    remove_abandoned(context.journal.state_dir)
    messages = tuple(Message(level="info", code="recovered", text=text) for text in result.notes) or (
        Message(level="info", code="nothing-to-do", text="No change was interrupted."),)
    return OperationResult(command="recover", outcome=result.outcome, data={"recovered": list(result.notes)},
                           messages=messages)


def _told(command: str, what: str, done: Done) -> OperationResult:
    return OperationResult(command=command, outcome=done.outcome, data={what: list(done.changed)}, messages=done.messages)


def _surely_not_on_record(context: Context, name: str) -> bool:
    """True if that can be said without the rights to read the record itself."""
    if context.facts.elevated:
        return not context.journal.records(name)
    try:
        return name not in context.journal.installed()
    except HostError:
        return False


def _nothing_to_repair() -> NoTokenError:
    return NoTokenError("not-installed", "Nothing is on record to repair.", hint="Install it: keyfit install")


def _not_installed(name: str) -> NoTokenError:
    return NoTokenError("not-installed", f"Nothing was installed for {name} by Keyfit.",
                        hint="See `keyfit history`. What was there before Keyfit is never removed by it.")


def _needs_rights(context: Context, command: str, *, silent: bool = False) -> None:
    if not context.facts.elevated and (silent or context.elevator is None):
        raise ElevationError("not-elevated", "Changing the system needs administrator rights.",
                             hint=f"sudo keyfit {command}")
