"""Upgrades of our own package files: what there is to go back to, and who owns what is installed.

A step that replaces a version which Keyfit itself installed notes that file's SHA-256 as `before["sha256"]`. A whole uninstall
does not go back version by version: the older record takes over what is installed, in the same commit in which the newer one
lets go of it, and removes that.
"""

from collections.abc import Collection, Iterable, Iterator

from msgspec import Struct

from keyfit.core.plan import identities
from keyfit.engine import steps
from keyfit.engine.journal import Journal, Record, StepRecord
from keyfit.engine.kept import Kept
from keyfit.engine.steps.base import Fetch, State
from keyfit.errors import HostError, KeyfitError
from keyfit.model.plan import Change, PackageFile, Step
from keyfit.ports import Host


class Owner(Struct, frozen=True, kw_only=True):
    """The step on record that brought what is installed, and the hash of the file that it came from."""

    txn: int
    step: StepRecord
    sha256: str


def noted(change: Change, before: State, brand: str, journal: Journal) -> State:
    """`before`, with the file to go back to if this replaces a version of ours."""
    owner = _owner(change, before, journal.records(brand))
    return before if owner is None else {**before, "sha256": owner.sha256}


def refuse_one_way(changes: Iterable[Change], brand: str, host: Host, journal: Journal) -> None:
    """Before the first change.

    Raises:
        HostError: code "no-way-back": a version of ours would be replaced whose file is not there to go back to.
    """
    records = journal.records(brand)
    for change in changes:
        found = steps.detect(change, host) if isinstance(change, PackageFile) else None
        if isinstance(change, PackageFile) and found is not None and not found.satisfied:
            owner = _owner(change, found.before, records)
            if owner is not None and Kept(journal.state_dir).holds(owner.sha256) is None:
                raise HostError("no-way-back", f"{change.name} {found.before['version']} is not replaced by {change.version},"
                                " because its file, to go back to if that fails, is no longer there as it was.",
                                hint=f"Uninstall first, then install the new one: keyfit uninstall {brand}")


def keep(change: Change, journal: Journal, fetch: Fetch) -> None:
    """Keep the file that is about to be installed, so that it can be gone back to some day."""
    if isinstance(change, PackageFile) and change.format == "deb":
        Kept(journal.state_dir).keep(change.payload, fetch(change.payload))


def tidy(journal: Journal) -> None:
    """Remove the files that no record needs any more. What cannot be removed now is when the next change ends: that this one is
    done stays true."""
    try:
        records = (*journal.records(), *journal.open_transactions())
    except KeyfitError:
        return
    needed = {str(sha256) for record in records for change, done in _packages(record)
              for sha256 in (_sha256(change, done), done.before.get("sha256")) if sha256}
    Kept(journal.state_dir).tidy(needed)


def undo(change: PackageFile, done: StepRecord, record: Record, *, host: Host, journal: Journal, whole: bool) -> str:
    """Take an upgrade back.

    Args:
        whole: all that is on record for the brand is being removed.

    Raises:
        KeyfitError: it could not be taken back.
    """
    file = Kept(journal.state_dir).holds(done.before["sha256"])
    owner = _owner(change, done.before, journal.records(record.plan.brand))
    stays = file is None and steps.detect(change, host).satisfied
    if owner is not None and (whole or stays):
        now = {**owner.step.after, "version": done.after.get("version", change.version), "sha256": _sha256(change, done)}
        journal.handed_down(record.id, done.seq, "undone" if whole else "kept", owner.txn, owner.step.seq, now)
        return "" if whole else (f"{change.name} {now['version']} stayed, because the file of {done.before['version']} is no"
                                 " longer there as it was")
    before = {"version": None} if whole else {**done.before, "file": str(file or "")}
    journal.undoing(record.id, done.seq)
    text = steps.undo(change, host, before, done.after)
    journal.undone(record.id, done.seq, "kept" if text else "undone")
    return text


def is_there(change: Change, done: StepRecord, host: Host) -> bool:
    """True if a step that was done still has its effect; of a package also with the version that was handed down to it."""
    return steps.detect(change, host).satisfied or (
        isinstance(change, PackageFile) and "version" in done.after
        and host.package_versions().get(change.name) == done.after["version"])


def superseded(record: Record, records: Collection[Record]) -> set[str]:
    """Steps of a record whose things a newer one among `records` has changed since."""
    later = {key for newer in records if newer.id > record.id for step, done in _steps(newer) if done.state == "done"
             for key in identities(step.change)}
    return {step.id for step in record.plan.steps if set(identities(step.change)) <= later}


def _owner(change: Change, before: State, records: Iterable[Record]) -> Owner | None:
    if not isinstance(change, PackageFile) or change.format != "deb" or before.get("version") is None:
        return None
    for record in sorted(records, key=lambda r: r.id, reverse=True):
        for package, done in _packages(record):
            is_it = (package.format, package.name) == (change.format, change.name)
            if is_it and done.state == "done" and done.after.get("version") == before["version"]:
                return Owner(txn=record.id, step=done, sha256=_sha256(package, done))
    return None


def _sha256(change: PackageFile, done: StepRecord) -> str:
    """Of the file that the step's package came from: its own, or that of a newer record that handed it down."""
    return str(done.after.get("sha256", change.payload.sha256))


def _packages(record: Record) -> Iterator[tuple[PackageFile, StepRecord]]:
    return ((step.change, done) for step, done in _steps(record) if isinstance(step.change, PackageFile))


def _steps(record: Record) -> Iterator[tuple[Step, StepRecord]]:
    by_id = {step.id: step for step in record.plan.steps}
    return ((by_id[done.step_id], done) for done in record.steps)
