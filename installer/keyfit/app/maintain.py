"""What was done, and taking it back: uninstall, repair, history, recover."""

from keyfit.app.context import Context
from keyfit.app.verify import find_brand
from keyfit.engine import transaction
from keyfit.errors import ElevationError, NoTokenError, Outcome, UserError
from keyfit.model.result import Message, OperationResult


def uninstall(context: Context, name: str) -> OperationResult:
    """Take back all that Keyfit put there for a brand; what others changed since stays and is named.

    Raises:
        NoTokenError: nothing of that brand is on record.
    """
    _needs_rights(context, f"uninstall {name}")
    if not context.journal.records(name):
        find_brand(context, name)
        raise NoTokenError("not-installed", f"Nothing was installed for {name} by Keyfit.",
                           hint="See `keyfit history`. What was there before Keyfit is never removed by it.")
    if not context.reporter.confirm(f"Keyfit will take back everything that it installed for {name}."):
        raise UserError("cancelled", "Cancelled; nothing was changed.", outcome=Outcome.CANCELLED)
    result = transaction.uninstall(name, host=context.host, journal=context.journal, reporter=context.reporter)
    messages = [Message(level="warning", code="kept", text=text) for text in result.kept]
    messages.append(Message(level="info", code="uninstalled", text=f"{name}: everything was taken back."
                            if not result.kept else f"{name}: taken back, except for what is named above."))
    return OperationResult(command="uninstall", outcome=result.outcome, data={"brand": name, "kept": list(result.kept)},
                           messages=tuple(messages))


def repair(context: Context, name: str | None) -> OperationResult:
    """Do again every recorded step whose effect is gone."""
    _needs_rights(context, "repair")
    brands = [name] if name else sorted({r.plan.brand for r in context.journal.records()})
    if name:
        find_brand(context, name)
    if not brands or not any(context.journal.records(b) for b in brands):
        raise NoTokenError("not-installed", "Nothing is on record to repair.", hint="Install it: keyfit install")
    repaired: list[str] = []
    for brand in brands:
        result = transaction.repair(
            brand, host=context.host, journal=context.journal, reporter=context.reporter,
            fetch=lambda p: context.repository.payload(
                p, lambda done, total: context.reporter.progress(p.file, done, total)))
        repaired += result.repaired
    text = f"Repaired: {', '.join(repaired)}." if repaired else "Everything is as recorded; nothing was changed."
    return OperationResult(command="repair", outcome=Outcome.DONE, data={"repaired": repaired},
                           messages=(Message(level="info", code="repaired" if repaired else "nothing-to-do",
                                             text=text),))


def history(context: Context) -> OperationResult:
    """Every change that was begun, newest last."""
    entries = context.journal.history()
    return OperationResult(command="history", outcome=Outcome.DONE, data={"history": [e.as_data() for e in entries]})


def recover(context: Context) -> OperationResult:
    """Finish or take back what was interrupted."""
    _needs_rights(context, "recover")
    result = transaction.recover(host=context.host, journal=context.journal, reporter=context.reporter)
    messages = tuple(Message(level="info", code="recovered", text=text) for text in result.notes) or (
        Message(level="info", code="nothing-to-do", text="No change was interrupted."),)
    return OperationResult(command="recover", outcome=result.outcome, data={"recovered": list(result.notes)},
                           messages=messages)


def _needs_rights(context: Context, command: str) -> None:
    if not context.facts.elevated:
        raise ElevationError("not-elevated", "Changing the system needs administrator rights.",
                             hint=f"sudo keyfit {command}")
