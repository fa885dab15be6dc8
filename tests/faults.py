"""Every call by which Keyfit changes a file fails once: `python -m tests.faults` tries all of them with all errors.

For each run of the command line (see `tests.sim.wholejob`): it ends with an exit code of the table and a message that says
what to do; the machine is as before or as after, or the exit code says that `recover` is needed and it ends in one run; the
next run does the job; no temporary file stays. An interrupted call (EINTR) is survived, if POSIX has that error for it.
"""

import argparse
import itertools
import json
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from keyfit.errors import EXIT_CODES, Outcome
from tests.sim import syscalls
from tests.sim.wholejob import VERBS, Job, Publisher, Snapshot

ERRORS = ("ENOSPC", "EIO", "EACCES", "EINTR")
INTERRUPTIBLE = ("open", "openat", "write", "pwrite", "writev", "ftruncate", "fsync", "fchmod", "fchown")
"""Calls that may end with EINTR by POSIX.1-2024; with "64" at the end too. SQLite alone uses fdatasync and does not try it
again: that one ends as a write that failed."""
CODES = {posix for posix, _ in EXIT_CODES.values()}
INTERNAL, INTERRUPTED = (EXIT_CODES[outcome][0] for outcome in (Outcome.INTERNAL, Outcome.INTERRUPTED))
NOT_THERE = ("not-installed", "unknown-brand")
"""What an uninstall says if nothing is installed; the brand of these tests is in no shipped data."""


class Case(NamedTuple):
    """A call, by its number in a run, that fails; `for_good`: and all later ones."""

    verb: str
    number: int
    error: str
    for_good: bool = False


class Tried(NamedTuple):
    """What came of a case."""

    case: Case
    call: str
    exit_code: int
    message: str
    problems: tuple[str, ...]


class Trial:
    """Tries cases on one machine."""

    def __init__(self, folder: Path, repository: Path) -> None:
        self.job = Job(folder, repository)
        self.calls = {verb: self.job.calls(verb) for verb in VERBS}

    def every(self, errors: Iterable[str] = ERRORS, *, for_good: bool = False) -> list[Case]:
        """All cases."""
        return [Case(verb, number, error, for_good) for error in errors for verb in VERBS
                for number in range(1, len(self.calls[verb]) + 1)]

    def rotation(self) -> list[Case]:
        """Every call once, each with the next error."""
        errors = itertools.cycle(ERRORS)
        return [Case(verb, number, next(errors)) for verb in VERBS for number in range(1, len(self.calls[verb]) + 1)]

    def sample(self) -> list[Case]:
        """Of all the rotation every third, and the first of each kind of call in each run."""
        seen: set[tuple[str, str]] = set()
        chosen = []
        for position, case in enumerate(self.rotation()):
            kind = case.verb, self.calls[case.verb][case.number - 1]
            if position % 3 == 0 or kind not in seen:  # 3 and the four errors of the rotation have no divisor in common
                chosen.append(case)
            seen.add(kind)
        return chosen

    def attempt(self, case: Case) -> Tried:
        """Run it, then look at the machine, then run it again without a fault."""
        self.job.start(case.verb)
        done = syscalls.failing(self.job.command(case.verb), case.number, case.error, for_good=case.for_good,
                                environment=self.job.environment(), cwd="/")
        problems, message = list(spoken_problems(done.returncode, done.stdout, done.stderr)), ""
        if not problems:
            message = " ".join(m["code"] for m in json.loads(done.stdout)["messages"])
        call = self.calls[case.verb][case.number - 1]
        if case.error == "EINTR" and not case.for_good and done.returncode and call.removesuffix("64") in INTERRUPTIBLE:
            problems.append("an interrupted call was not tried again")
        problems += self._machine_problems(case, done.returncode)
        return Tried(case, call, done.returncode, message, tuple(problems))

    def _machine_problems(self, case: Case, code: int) -> Iterable[str]:
        job, verb = self.job, case.verb
        now = job.snapshot()
        if code == 0 and now != job.after[verb]:
            yield f"it reported success, but {difference(now, job.after[verb])}"
        # what the install that was killed left there is taken away by a recover that can, at the latest by the next run
        left = [path for path in job.litter() if not (verb == "recover" and ("/staging/" in path or "/kept/" in path))]
        if not case.for_good and not self._removes(case) and left:
            yield f"left over: {left}"
        if code == INTERRUPTED:
            recovered, document = job.run_here("recover")
            if recovered:
                yield f"recover ended with {recovered}: {document['messages']}"
            now = job.snapshot()
        if not self._is_whole(verb, now):
            yield f"half done with exit code {code}: {difference(now, job.before[verb])}"
        yield from self._next_problems(case, now)

    def _is_whole(self, verb: str, now: Snapshot) -> bool:
        """As before or as after. A repair begins with a damaged machine, so each part of it may be either."""
        before, after = self.job.before[verb], self.job.after[verb]
        if verb == "repair":
            return all(now.get(path) in (before.get(path), after.get(path)) for path in {*now, *before, *after})
        return now in (before, after)

    def _next_problems(self, case: Case, now: Snapshot) -> Iterable[str]:
        job, verb = self.job, case.verb
        code, document = job.run_here(verb)
        if code == INTERRUPTED and document["messages"][0]["code"] == "interrupted":  # it says that recover is needed first
            job.run_here("recover")
            code, document = job.run_here(verb)
        was_done = verb == "uninstall" and now == job.after[verb] and document["messages"][0]["code"] in NOT_THERE
        if code and not was_done:
            yield f"the next run ended with {code}: {document['messages']}"
        end = job.snapshot()
        if end != job.after[verb]:
            yield f"after the next run {difference(end, job.after[verb])}"
        # what could not be removed from staging is when the next change begins; there may have been none to make
        allowed = case.for_good or self._removes(case)
        left = [path for path in job.litter() if not (allowed and ("/staging/" in path or "/kept/" in path))]
        if left:
            yield f"left over after the next run: {left}"

    def _removes(self, case: Case) -> bool:
        return self.calls[case.verb][case.number - 1].startswith(("unlink", "rmdir"))


def spoken_problems(code: int, out: bytes, err: bytes) -> Iterable[str]:
    """What is wrong with an exit code and with what was said."""
    if code not in CODES or code == INTERNAL:
        yield f"exit code {code}: {(out + err).decode()[-600:]}"
        return
    if b"Traceback" in err or b"Error:" in err:
        yield f"a traceback: {err.decode()[-600:]}"
    try:
        document: dict[str, Any] = json.loads(out)
    except ValueError:
        yield f"no document: {out!r}"
        return
    errors = [m for m in document["messages"] if m["level"] == "error"]
    if code and not (errors and errors[0]["text"] and errors[0]["hint"]):
        yield f"nothing that helps was said: {document['messages']}"


def difference(one: Snapshot, other: Snapshot) -> str:
    """The first paths that are not the same."""
    return "differs: " + ", ".join(sorted(p for p in {*one, *other} if one.get(p) != other.get(p))[:5])


_trial: Trial


def _begin(folder: str, repository: Path) -> None:
    global _trial
    _trial = Trial(Path(tempfile.mkdtemp(dir=folder)), repository)


def _attempt(case: Case) -> Tried:
    return _trial.attempt(case)


def attempt_all(folder: Path, repository: Path, cases: Sequence[Case], jobs: int = 2) -> Iterable[Tried]:
    """All cases, on several machines at once."""
    with multiprocessing.get_context("spawn").Pool(jobs, _begin, (str(folder), repository)) as pool:
        yield from pool.imap_unordered(_attempt, cases, chunksize=4)


def main() -> int:
    """Try all, print every problem, then the tally; 1 if there was one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--verb", choices=VERBS, action="append", help="only this one (repeatable)")
    parser.add_argument("--error", choices=ERRORS, action="append", help="only this one (repeatable)")
    parser.add_argument("--for-good", action="store_true", help="from the call on, every call fails")
    parser.add_argument("--rotation", action="store_true", help="every call once, with one of the errors")
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="keyfit-faults-", dir="/dev/shm") as folder:
        repository = Publisher(Path(folder) / "publisher").repository.folder
        trial = Trial(Path(folder) / "first", repository)
        cases = trial.rotation() if given.rotation else trial.every(given.error or ERRORS, for_good=given.for_good)
        cases = [case for case in cases if case.verb in (given.verb or VERBS)]
        tried = []
        for one in attempt_all(Path(folder), repository, cases, given.jobs):
            tried.append(one)
            if one.problems:
                print(tuple(one.case), one.call, one.message, *one.problems, sep="\n   ", flush=True)
    tell(tried, time.monotonic() - began)
    return 1 if any(t.problems for t in tried) else 0


def tell(tried: Sequence[Tried], seconds: float) -> None:
    """The tally."""
    for verb in VERBS:
        for error in ERRORS:
            own = [t for t in tried if (t.case.verb, t.case.error) == (verb, error)]
            codes = ", ".join(f"{count} x {code}" for code, count in sorted(Counter(t.exit_code for t in own).items()))
            if own:
                print(f"{verb:10} {error:7} {len(own):4} runs, exit codes {codes}; {sum(bool(t.problems) for t in own)} wrong")
    print(f"{len(tried)} runs in {seconds:.0f} s, {sum(bool(t.problems) for t in tried)} wrong")


if __name__ == "__main__":
    sys.exit(main())
