"""Carries a plan out, or takes it back: journalled step by step, undone when a step fails, recoverable after a power cut."""

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from keyfit.core.plan import identities
from keyfit.engine import steps
from keyfit.engine.journal import Journal, Record, StepRecord
from keyfit.engine.steps.base import Fetch
from keyfit.errors import InterruptedChangeError, KeyfitError, Outcome, UserError
from keyfit.model.plan import DistributionPackages, Plan, Step, Wait
from keyfit.ports import Host, Reporter


class Result(Struct, frozen=True, kw_only=True):
    """What came of it.

    Attributes:
        kept: what was left alone because somebody else changed or needs it, one line each.
        repaired: ids of steps that were done again.
        notes: what `recover` did, one line a transaction.
    """

    outcome: Outcome = Outcome.DONE
    kept: tuple[str, ...] = ()
    repaired: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def carry_out(plan: Plan, *, host: Host, journal: Journal, fetch: Fetch, reporter: Reporter,
              wait: Callable[[Wait], None], verb: str = "install") -> Result:
    """Do every step of the plan, or none.

    All files are fetched and verified before the first change; the user's hands are waited for before the step that needs it.

    Raises:
        KeyfitError: a step failed; what was done has been taken back.
        InterruptedChangeError: it failed and could not be taken back: `recover` is needed.
    """
    with journal.locked():
        if journal.open_transactions():
            raise InterruptedChangeError("interrupted", "An earlier change was interrupted and has to be put right first.",
                                         hint="sudo keyfit recover")
        _fetch_all(plan, fetch, reporter)
        txn = journal.begin(verb, plan)
        try:
            for seq, step in enumerate(plan.steps):
                for due in (w for w in plan.waits if w.before == step.id):
                    wait(due)
                _do(step, seq, txn, host=host, journal=journal, fetch=fetch, reporter=reporter)
        except KeyboardInterrupt as error:
            _take_back(txn, host=host, journal=journal, reporter=reporter, cause="cancelled")
            raise UserError("cancelled", "Cancelled; what was done has been taken back.", outcome=Outcome.CANCELLED) from error
        except KeyfitError as error:
            _take_back(txn, host=host, journal=journal, reporter=reporter, cause=error.message)
            raise
        journal.finish(txn, "done")
    return Result()


def uninstall(brand: str, *, host: Host, journal: Journal, reporter: Reporter, latest_only: bool = False) -> Result:
    """Take back what is on record for a brand, newest first; what others need or changed stays and is named.

    Args:
        latest_only: only the last transaction, for an install that did not prove itself.
    """
    with journal.locked():
        records = list(reversed(journal.records(brand)))
        kept: list[str] = []
        for record in records[:1] if latest_only else records:
            kept += _remove(record, host=host, journal=journal, reporter=reporter)
        _release_shared(host=host, journal=journal, reporter=reporter)
    return Result(kept=tuple(kept))


def repair(brand: str, *, host: Host, journal: Journal, reporter: Reporter, fetch: Fetch) -> Result:
    """Do again every recorded step whose effect is gone."""
    repaired = []
    with journal.locked():
        for record in journal.records(brand):
            by_id = {s.step_id: s for s in record.steps}
            for step in record.plan.steps:
                known = by_id.get(step.id)
                if known is None or known.state != "done" or steps.detect(step.change, host).satisfied:
                    continue
                reporter.step(step.id, "start", step.action)
                after = steps.apply(step.change, host, steps.detect(step.change, host).before, fetch)
                journal.done(record.id, known.seq, _merged(known.after, after))
                reporter.step(step.id, "done", step.action)
                repaired.append(step.id)
    return Result(repaired=tuple(repaired))


def recover(*, host: Host, journal: Journal, reporter: Reporter) -> Result:
    """Put right what was interrupted: an install whose steps were all done is finished, any other is taken back; an uninstall
    is gone on with. Ends in one run."""
    notes = []
    with journal.locked():
        for record in journal.open_transactions():
            if record.state == "removing":
                kept = _remove(record, host=host, journal=journal, reporter=reporter)
                _release_shared(host=host, journal=journal, reporter=reporter)
                notes.append(f"{record.plan.brand}: the uninstall was finished" + "".join(f"; {k}" for k in kept))
            elif len(record.steps) == len(record.plan.steps) and all(s.state in ("done", "skipped") for s in record.steps):
                journal.finish(record.id, "done", "finished by recover")
                notes.append(f"{record.plan.brand}: all steps had been done; the install was finished")
            else:
                _take_back(record.id, host=host, journal=journal, reporter=reporter, cause="interrupted")
                notes.append(f"{record.plan.brand}: the install was interrupted and has been taken back")
    return Result(notes=tuple(notes))


def _fetch_all(plan: Plan, fetch: Fetch, reporter: Reporter) -> None:
    needed = [p for p in (steps.payload_of(s.change) for s in plan.steps) if p is not None]
    if needed:
        reporter.stage("Fetching " + ", ".join(p.file for p in needed))
        for payload in needed:
            fetch(payload)


def _do(step: Step, seq: int, txn: int, *, host: Host, journal: Journal, fetch: Fetch, reporter: Reporter) -> None:
    found = steps.detect(step.change, host)
    journal.intend(txn, seq, step.id, found.before)
    if found.satisfied:
        journal.undone(txn, seq, "skipped")
        reporter.step(step.id, "skip", step.action)
        return
    reporter.step(step.id, "start", step.action)
    try:
        after = steps.apply(step.change, host, found.before, fetch)
    except KeyfitError:
        reporter.step(step.id, "failed", step.action)
        raise
    journal.done(txn, seq, after)
    reporter.step(step.id, "done", step.action)


def _take_back(txn: int, *, host: Host, journal: Journal, reporter: Reporter, cause: str) -> None:
    """Undo the steps of a running transaction, last first.

    Raises:
        InterruptedChangeError: an undo failed; the transaction stays open.
    """
    record = next((r for r in journal.open_transactions() if r.id == txn), None)
    if record is None:
        return
    try:
        kept = _undo_steps(record, host=host, journal=journal, reporter=reporter)
    except KeyfitError as error:
        raise InterruptedChangeError(
            "undo-failed", f"{cause} Taking it back failed too: {error.message}",
            hint="Put right what it says, then run: sudo keyfit recover") from error
    journal.finish(txn, "undone", "; ".join([cause, *kept])[:2000])


def _remove(record: Record, *, host: Host, journal: Journal, reporter: Reporter) -> list[str]:
    """Take a finished transaction back.

    Raises:
        KeyfitError: nothing could be taken back; all is as it was.
        InterruptedChangeError: part of it was; `recover` goes on.
    """
    journal.mark_removing(record.id)
    try:
        kept = _undo_steps(record, host=host, journal=journal, reporter=reporter)
    except KeyfitError as error:
        now = next(r for r in journal.open_transactions() if r.id == record.id)
        if now.steps == record.steps and record.state == "done":
            journal.reopen(record.id)
            raise
        raise InterruptedChangeError("undo-failed", f"Not everything could be taken back: {error.message}",
                                     hint="Put right what it says, then run: sudo keyfit recover") from error
    journal.finish(record.id, "removed", "; ".join(kept)[:2000])
    return kept


def _undo_steps(record: Record, *, host: Host, journal: Journal, reporter: Reporter,
                states: tuple[str, ...] = ("done", "intended")) -> list[str]:
    """Undo the steps that are in one of `states`, last first; what was left alone, one line each."""
    by_id = {step.id: step for step in record.plan.steps}
    kept = []
    for done in sorted(record.steps, key=lambda s: s.seq, reverse=True):
        if done.state in states:
            step = by_id[done.step_id]
            text = _undo_step(step, done, record, host=host, journal=journal)
            reporter.step(step.id, "undo", text or step.undo)
            kept += [text] if text else []
    return kept


def _undo_step(step: Step, done: StepRecord, record: Record, *, host: Host, journal: Journal) -> str:
    others = [r for r in journal.records() if r.id != record.id and r.plan.brand != record.plan.brand]
    needed = {key: r.plan.brand for r in others for key in needs(r.plan)}
    needing = sorted({needed[key] for key in identities(step.change) if key in needed})
    after = done.after
    if isinstance(step.change, DistributionPackages) and "added" in after:
        needing = sorted({needed[f"package:{name}"] for name in after["added"] if f"package:{name}" in needed})
        after = {"added": [name for name in after["added"] if f"package:{name}" not in needed]}
    elif needing:
        journal.undone(record.id, done.seq, "shared")
        return f"{step.action}: stays, because {', '.join(needing)} needs it too"
    text = steps.undo(step.change, host, done.before, after)
    if needing:
        left = [name for name in done.after["added"] if host.installed(name)]
        journal.undone(record.id, done.seq, "shared", {"added": left})
        return f"{', '.join(left)}: stays, because {', '.join(needing)} needs it too"
    journal.undone(record.id, done.seq, "kept" if text else "undone")
    return text


def _release_shared(*, host: Host, journal: Journal, reporter: Reporter) -> None:
    """Take back what brands removed earlier had left for a brand that is gone now too."""
    for record in reversed(journal.shared()):
        _undo_steps(record, host=host, journal=journal, reporter=reporter, states=("shared",))


def needs(plan: Plan) -> set[str]:
    """Keys of all that a brand on record asks for, whether this plan had to bring it or found it there."""
    return {*plan.needs, *(key for step in plan.steps for key in identities(step.change))}


def _merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """What a repair adds to what the step did at first."""
    merged = {**new}
    if "added" in old:
        merged["added"] = sorted({*old["added"], *new.get("added", [])})
    if "base" in old:
        merged["base"] = old["base"]
    return merged
