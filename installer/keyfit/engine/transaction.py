"""Carries a plan out, takes it back or repairs it: journalled step by step, undone when a step fails, recoverable after a power
cut.

Before a step acts, the journal holds what was there and what will be there. So what an interrupted step did can be told from
what others did since; they are never overwritten.
"""

from collections.abc import Callable, Iterable
from typing import Any

from msgspec import Struct

from keyfit.core.plan import identities
from keyfit.engine import steps, wayback
from keyfit.engine.journal import Journal, Record, StepRecord
from keyfit.engine.steps import packagetools
from keyfit.engine.steps.base import Fetch, State
from keyfit.errors import HostError, InterruptedChangeError, KeyfitError, Outcome, UserError
from keyfit.model.plan import Change, DistributionPackages, PackageFile, Plan, Step, Wait
from keyfit.ports import Host, Reporter

BOOT_ID = "/proc/sys/kernel/random/boot_id"
"""Another one after every start of the machine (random(4), Linux)."""
UNDER_WAY = ("intended", "undoing", "releasing")
"""States of a step that may be half-way; "releasing" is the taking back of one that was left to another brand."""


class Result(Struct, frozen=True, kw_only=True):
    """What came of it.

    Attributes:
        kept: what was left alone because somebody else changed or needs it, one line each.
        repaired: ids of steps that were done again.
        notes: what `recover` did, one line a transaction.

    The outcome is DONE, or RESTART_REQUIRED if all was done and takes effect when the machine has been started again.
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
        _refuse_interrupted(journal)
        _fetch_all((step.change for step in plan.steps), fetch, reporter)
        _refuse_unfinished((step.change for step in plan.steps), host)
        wayback.refuse_one_way((step.change for step in plan.steps), plan.brand, host, journal)
        boot = boot_id(host)
        txn = journal.begin(verb, plan, boot=boot)
        restart = plan.restart
        try:
            for seq, step in enumerate(plan.steps):
                for due in (w for w in plan.waits if w.before == step.id):
                    wait(due)
                after = _do(step, seq, txn, plan.brand, host=host, journal=journal, fetch=fetch, reporter=reporter)
                restart = restart or bool(after.get("restart"))
        except KeyboardInterrupt as error:
            _take_back(txn, host=host, journal=journal, reporter=reporter, cause="cancelled")
            raise UserError("cancelled", "Cancelled; what was done has been taken back.", outcome=Outcome.CANCELLED) from error
        except KeyfitError as error:
            _take_back(txn, host=host, journal=journal, reporter=reporter, cause=error.message)
            raise
        restart = restart and bool(boot)
        journal.finish(txn, "done", restart=restart)
        wayback.tidy(journal)
    return Result(outcome=Outcome.RESTART_REQUIRED if restart else Outcome.DONE)


def boot_id(host: Host) -> str:
    """Which start of the machine this is; "" for a tree that is not running, in which nothing waits for a restart."""
    return (host.read_bytes(BOOT_ID) or b"").decode("ascii", "replace").strip() if host.facts().root == "/" else ""


def restart_pending(host: Host, journal: Journal) -> tuple[str, ...]:
    """Brands whose install takes effect only when the machine has been started again, which it has not been since."""
    boot = boot_id(host)
    return tuple(sorted({r.plan.brand for r in journal.records() if r.restart and r.boot == boot}))


def uninstall(brand: str, *, host: Host, journal: Journal, reporter: Reporter, latest_only: bool = False) -> Result:
    """Take back what is on record for a brand, newest first; what others need or changed stays and is named.

    Args:
        latest_only: only the last transaction, for an install that did not prove itself.
    """
    with journal.locked():
        _refuse_interrupted(journal)
        records = list(reversed(journal.records(brand)))[:1 if latest_only else None]
        _refuse_unfinished((step.change for record in records for step in record.plan.steps), host)
        kept: list[str] = []
        for number in [record.id for record in records]:
            record = next(r for r in journal.records(brand) if r.id == number)  # a newer one may have handed something down
            kept += _remove(record, host=host, journal=journal, reporter=reporter, whole=not latest_only)
        _release_shared(host=host, journal=journal, reporter=reporter)
        wayback.tidy(journal)
    return Result(kept=tuple(kept))


def repair(brand: str, *, host: Host, journal: Journal, reporter: Reporter, fetch: Fetch) -> Result:
    """Do again every recorded step whose effect is gone, unless a newer record has changed the same thing since. Each is
    journalled for itself: what was repaired stays so.

    Raises:
        KeyfitError: a step could not be repaired; it has been taken back.
        InterruptedChangeError: it could not be taken back either: `recover` is needed.
    """
    repaired: list[str] = []
    with journal.locked():
        _refuse_interrupted(journal)
        records = journal.records(brand)
        for record in records:
            repaired += _repair(record, wayback.superseded(record, records), host=host, journal=journal, reporter=reporter,
                                fetch=fetch)
    return Result(repaired=tuple(repaired))


def recover(*, host: Host, journal: Journal, reporter: Reporter) -> Result:
    """Put right what was interrupted: an install whose steps were all done is finished, any other is taken back, and so is the
    step of a repair; an uninstall is gone on with. Ends in one run, and may itself be interrupted."""
    notes = []
    with journal.locked():
        for record in journal.open_transactions():
            if record.state == "removed":
                notes.append(f"{record.plan.brand}: what was left to another brand is taken back")
            elif record.state == "removing":
                kept = _remove(record, host=host, journal=journal, reporter=reporter)
                notes.append(f"{record.plan.brand}: the uninstall was finished" + "".join(f"; {k}" for k in kept))
            elif len(record.steps) == len(record.plan.steps) and all(s.state in ("done", "skipped") for s in record.steps):
                restart = record.plan.restart or any(s.after.get("restart") for s in record.steps)
                journal.finish(record.id, "done", "finished by recover", restart=restart and bool(record.boot))
                notes.append(f"{record.plan.brand}: all steps had been done; the install was finished")
            else:
                _take_back(record.id, host=host, journal=journal, reporter=reporter, cause="interrupted")
                what = ("the repair was interrupted and has been taken back; repair it again" if record.verb == "repair"
                        else "the install was interrupted and has been taken back")
                notes.append(f"{record.plan.brand}: {what}")
        _release_shared(host=host, journal=journal, reporter=reporter)
        wayback.tidy(journal)
        journal.publish()
    restart = bool(notes) and bool(restart_pending(host, journal))
    return Result(notes=tuple(notes), outcome=Outcome.RESTART_REQUIRED if restart else Outcome.DONE)


def _refuse_interrupted(journal: Journal) -> None:
    if journal.open_transactions():
        raise InterruptedChangeError("interrupted", "An earlier change was interrupted and has to be put right first.",
                                     hint="sudo keyfit recover")


def _refuse_unfinished(changes: Iterable[Change], host: Host) -> None:
    """Nothing is begun while the package manager is at work for others, or was cut off by them."""
    if any(packagetools.is_package(change) for change in changes):
        packagetools.refuse_unfinished(host)


def _fetch_all(changes: Iterable[Change], fetch: Fetch, reporter: Reporter) -> None:
    needed = [p for p in map(steps.payload_of, changes) if p is not None]
    if needed:
        reporter.stage("Fetching " + ", ".join(p.file for p in needed))
        for payload in needed:
            fetch(payload)


def _do(step: Step, seq: int, txn: int, brand: str, *, host: Host, journal: Journal, fetch: Fetch, reporter: Reporter) -> State:
    found = steps.detect(step.change, host)
    if found.satisfied:
        journal.skipped(txn, seq, step.id, found.before)
        reporter.step(step.id, "skip", step.action)
        return {}
    before = wayback.noted(step.change, found.before, brand, journal)
    after = _act(step, seq, txn, before, host=host, journal=journal, fetch=fetch, reporter=reporter)
    journal.done(txn, seq, after)
    reporter.step(step.id, "done", step.action)
    return after


def _act(step: Step, seq: int, txn: int, before: State, *, host: Host, journal: Journal, fetch: Fetch,
         reporter: Reporter) -> State:
    reporter.step(step.id, "start", step.action)
    try:
        wayback.keep(step.change, journal, fetch)
        journal.intend(txn, seq, step.id, before, steps.expect(step.change, host, before, fetch))
        return steps.apply(step.change, host, before, fetch)
    except KeyfitError:
        reporter.step(step.id, "failed", step.action)
        raise


def _repair(record: Record, superseded: set[str], *, host: Host, journal: Journal, reporter: Reporter,
            fetch: Fetch) -> list[str]:
    known = {s.step_id: s for s in record.steps if s.state == "done" and s.step_id not in superseded}
    broken = [step for step in record.plan.steps
              if step.id in known and not wayback.is_there(step.change, known[step.id], host)]
    if not broken:
        return []
    _fetch_all((step.change for step in broken), fetch, reporter)
    _refuse_unfinished((step.change for step in broken), host)
    wayback.refuse_one_way((step.change for step in broken), record.plan.brand, host, journal)
    txn = journal.begin("repair", record.plan, boot=boot_id(host))
    repaired = []
    try:
        for step in broken:
            found = steps.detect(step.change, host)
            if not found.satisfied:  # a step before may have brought it along
                own = known[step.id]
                before = wayback.noted(step.change, found.before, record.plan.brand, journal)
                after = _act(step, own.seq, txn, before, host=host, journal=journal, fetch=fetch, reporter=reporter)
                journal.repaired(txn, own.seq, record.id, _merged(own.after, after))
                reporter.step(step.id, "done", step.action)
                repaired.append(step.id)
    except KeyboardInterrupt as error:
        _take_back(txn, host=host, journal=journal, reporter=reporter, cause="cancelled")
        raise UserError("cancelled", "Cancelled; the step that was being repaired has been taken back.",
                        outcome=Outcome.CANCELLED) from error
    except KeyfitError as error:
        _take_back(txn, host=host, journal=journal, reporter=reporter, cause=error.message)
        raise
    journal.finish(txn, "repaired")
    return repaired


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
    wayback.tidy(journal)


def _remove(record: Record, *, host: Host, journal: Journal, reporter: Reporter, whole: bool = False) -> list[str]:
    """Take a finished transaction back.

    Args:
        whole: with all others of its brand.

    Raises:
        KeyfitError: nothing could be taken back; all is as it was.
        InterruptedChangeError: part of it was; `recover` goes on.
    """
    journal.mark_removing(record.id)
    try:
        kept = _undo_steps(record, host=host, journal=journal, reporter=reporter, whole=whole)
    except KeyfitError as error:
        now = next(r for r in journal.open_transactions() if r.id == record.id)
        changes = {step.id: step.change for step in record.plan.steps}
        untouched = all(s.state == was.state or (s.state == "undoing" and wayback.is_there(changes[s.step_id], s, host))
                        for s, was in zip(now.steps, record.steps, strict=True))  # also if only writing it down failed
        if record.state == "done" and untouched and not packagetools.is_unfinished(host):
            journal.reopen(record.id)
            raise
        raise InterruptedChangeError("undo-failed", f"Not everything could be taken back: {error.message}",
                                     hint="Put right what it says, then run: sudo keyfit recover") from error
    journal.finish(record.id, "removed", "; ".join(kept)[:2000])
    return kept


def _undo_steps(record: Record, *, host: Host, journal: Journal, reporter: Reporter,
                states: tuple[str, ...] = ("done", "intended", "undoing"), whole: bool = False) -> list[str]:
    """Undo the steps that are in one of `states`, last first; what was left alone, one line each."""
    _ready_package_tools(record, host, states)
    by_id = {step.id: step for step in record.plan.steps}
    kept = []
    for done in sorted(record.steps, key=lambda s: s.seq, reverse=True):
        if done.state in states:
            step = by_id[done.step_id]
            text = _undo_step(step, done, record, host=host, journal=journal, whole=whole)
            reporter.step(step.id, "undo", text or step.undo)
            kept += [text] if text else []
    return kept


def _ready_package_tools(record: Record, host: Host, states: tuple[str, ...]) -> None:
    """What a package step that was cut off left is put right; what others left is none of our business, and in the way."""
    by_id = {step.id: step.change for step in record.plan.steps}
    packages = [(by_id[s.step_id], s) for s in record.steps if s.state in states and packagetools.is_package(by_id[s.step_id])]
    ours = {name for change, done in packages if done.state in UNDER_WAY for name in _brought(change, done.before, host)}
    if any(done.state in UNDER_WAY for _, done in packages):
        packagetools.put_right(host, ours)
    elif packages:
        packagetools.refuse_unfinished(host)


def _brought(change: Change, before: State, host: Host) -> set[str]:
    """Packages that may have come with a step that was cut off."""
    if isinstance(change, PackageFile):
        return {change.name}
    return packagetools.unfinished(host) - set(before.get("installed", ()))


def _undo_step(step: Step, done: StepRecord, record: Record, *, host: Host, journal: Journal, whole: bool) -> str:
    if isinstance(step.change, PackageFile) and "sha256" in done.before:  # an upgrade: what others need is there afterwards too
        return wayback.undo(step.change, done, record, host=host, journal=journal, whole=whole)
    others = [r for r in journal.records() if r.id != record.id and r.plan.brand != record.plan.brand]
    needed = {key: r.plan.brand for r in others for key in needs(r.plan)} if record.verb != "repair" else {}
    needing = sorted({needed[key] for key in identities(step.change) if key in needed})
    after = done.after
    if isinstance(step.change, DistributionPackages) and "added" in after:
        needing = sorted({needed[f"package:{name}"] for name in after["added"] if f"package:{name}" in needed})
        after = {"added": [name for name in after["added"] if f"package:{name}" not in needed]}
    elif needing:
        journal.undone(record.id, done.seq, "shared")
        return f"{step.action}: stays, because {', '.join(needing)} needs it too"
    journal.undoing(record.id, done.seq)
    text = _undo_change(step.change, host, done.before, after)
    if needing:
        left = [name for name in done.after["added"] if host.installed(name)]
        journal.undone(record.id, done.seq, "shared", {"added": left})
        return f"{', '.join(left)}: stays, because {', '.join(needing)} needs it too"
    journal.undone(record.id, done.seq, "kept" if text else "undone")
    return text


def _undo_change(change: Change, host: Host, before: State, after: State) -> str:
    """Undo; if somebody else changes the thing at that very moment, look once more: now it is theirs, or as it was again."""
    try:
        return steps.undo(change, host, before, after)
    except HostError as error:
        if error.code != "changed-meanwhile":
            raise
        return steps.undo(change, host, before, after)


def _release_shared(*, host: Host, journal: Journal, reporter: Reporter) -> None:
    """Take back what brands removed earlier had left for a brand that is gone now too."""
    for record in reversed(journal.shared()):
        _undo_steps(record, host=host, journal=journal, reporter=reporter, states=("shared", "releasing"))


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
