"""Kills of a real process in a tree with real files and a real dpkg: beside every journal commit, at random calls that change a
file, and inside dpkg."""

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from keyfit.engine.journal import Journal
from keyfit.errors import KeyfitError
from tests.kill_loop import workshop
from tests.kill_loop.tally import Tally, judge
from tests.kill_loop.workshop import Snapshot, Workshop
from tests.sim import syscalls

CHECKOUT = Path(__file__).resolve().parents[2]
VERBS = ("install", "upgrade", "uninstall", "patch", "repair", "recover")
KINDS = ("call", "dpkg with keyfit", "dpkg alone")
WEIGHTS = (6, 3, 1)


class Loop:
    """All kills in a tree, into one tally. `folder` is nobody else's. Each kill begins with a copy of the tree as it is before
    the verb, always at the same path."""

    def __init__(self, folder: Path, tally: Tally) -> None:
        self._templates, self._tally = folder / "templates", tally
        self._run = Workshop(folder / "run")
        self._old: dict[str, Snapshot] = {}
        self._new: dict[str, Snapshot] = {}
        self._moments: dict[str, int] = {}
        self._calls: dict[tuple[str, str], int] = {}
        self._processes = multiprocessing.get_context("forkserver")
        self._processes.set_forkserver_preload([workshop.__name__])
        self._prepare()

    def boundaries(self, verb: str) -> int:
        """How many moments beside commits a verb has."""
        if verb not in self._moments:
            self.start(verb)
            told = self._run.folder / "moments"
            assert self._end_at(verb, 0, told) == 0
            self._moments[verb] = int(told.read_text())
        return self._moments[verb]

    def every_boundary(self, verb: str, *, first: int = 1, every: int = 1) -> None:
        """Kill beside each commit, or each `every`-th from `first` on."""
        for moment in range(first, self.boundaries(verb) + 1, every):
            self.start(verb)
            code = self._end_at(verb, moment)
            self._check("tree, beside every commit", verb, f"moment {moment}", code == -signal.SIGKILL)

    def every_call_of_dpkg(self, verb: str) -> None:
        """End dpkg and Keyfit before each call of dpkg's."""
        for at in range(1, self._count(verb, "dpkg") + 1):
            self.start(verb)
            done = self._kill(verb, "dpkg with keyfit", at)
            if done.returncode == 0:
                return  # no dpkg of this verb makes that many calls
            self._check("tree, dpkg with keyfit, every call", verb, f"call {at}", done.returncode == -signal.SIGKILL,
                        done.stderr.decode()[-300:])

    def random_moments(self, number: int, chance: random.Random) -> None:
        """Kill at random calls of Keyfit's process, and of dpkg's, with and without Keyfit's. What ends by itself does not
        count: the calls of a verb are counted over all its dpkgs, and one may make fewer."""
        while number:
            verb, kind = chance.choice(VERBS), chance.choices(KINDS, WEIGHTS)[0]
            if verb == "patch":
                kind = "call"  # no dpkg has to do with it
            at = chance.randint(1, self._count(verb, kind))
            self.start(verb)
            done = self._kill(verb, kind, at)
            if done.returncode != 0:
                met = done.returncode == -signal.SIGKILL or kind == "dpkg alone"
                self._check(f"tree, {kind}", verb, f"call {at}", met, done.stderr.decode()[-300:])
                number -= 1

    def _kill(self, verb: str, kind: str, at: int) -> "subprocess.CompletedProcess[bytes]":
        if kind == "call":
            return syscalls.killed(self._command(verb), at, cwd=CHECKOUT)
        environment = {**os.environ, "KILLED_DPKG_AT": str(at), "KILLED_WITH_IT": str(int(kind == "dpkg with keyfit"))}
        return subprocess.run(self._command(verb), env=environment, capture_output=True, timeout=100, check=False, cwd=CHECKOUT)

    def _count(self, verb: str, kind: str) -> int:
        """How many calls there are to end it at."""
        key = (verb, "call" if kind == "call" else "dpkg")
        if key not in self._calls:
            self.start(verb)
            if kind == "call":
                self._calls[key] = len(syscalls.calls(self._command(verb), cwd=CHECKOUT))
            else:
                with tempfile.NamedTemporaryFile() as log:
                    subprocess.run(self._command(verb), env={**os.environ, "KILLED_DPKG_LOG": log.name}, timeout=100, check=True,
                                   cwd=CHECKOUT, capture_output=True)
                    self._calls[key] = len(Path(log.name).read_text().split())
        return self._calls[key]

    def _command(self, verb: str) -> list[str]:
        return [sys.executable, "-m", "tests.kill_loop.workshop", str(self._run.folder), verb, "0"]

    def _end_at(self, verb: str, moment: int, told: Path | None = None) -> int | None:
        process = self._processes.Process(target=workshop.main, args=(str(self._run.folder), verb, str(moment), str(told or "")))
        process.start()
        process.join(100)
        return process.exitcode

    def _check(self, where: str, verb: str, moment: str, ended_as_meant: bool, said: str = "") -> None:
        """Recover once, and see that the machine is as before or as after."""
        row = self._tally.row(where, verb)
        if not ended_as_meant:
            row.failures.append(f"{moment}: it was not killed, and failed: {said}")
        journal = Journal(self._run.state)
        interrupted = bool(journal.open_transactions())
        try:
            self._run.perform("recover", journal)
        except KeyfitError as error:
            row.failures.append(f"{moment}: recover: {error.code}: {error.message}")
        now = self._run.snapshot()
        old, new = now == self._old[verb], now == self._new[verb]
        problems = [*workshop.differences(self._old[verb], now), "or", *workshop.differences(self._new[verb], now)]
        if not old and not new:
            old = self._finishes(verb, now, journal)
        judge(row, moment, old=old, new=new, recovered=interrupted, open_left=bool(journal.open_transactions()),
              problems=problems)

    def _finishes(self, verb: str, now: Snapshot, journal: Journal) -> bool:
        """A repair goes step by step, an uninstall transaction by transaction: what is done is on record, and doing it again
        does the rest. What is neither old nor new in itself is not allowed all the same."""
        states = (self._old[verb], self._new[verb])
        if verb not in ("repair", "uninstall") or journal.open_transactions():
            return False
        if verb == "repair" and any(now.get(name) not in [state.get(name) for state in states] for name in {*now, *states[0]}):
            return False
        self._run.perform(verb, journal)
        return self._run.snapshot() == self._new[verb]

    def start(self, verb: str) -> Workshop:
        """The machine as it is before a verb."""
        shutil.rmtree(self._run.folder, ignore_errors=True)
        shutil.copytree(self._templates / verb, self._run.folder, symlinks=True)
        return self._run

    def _save(self, verb: str) -> None:
        shutil.copytree(self._run.folder, self._templates / verb, symlinks=True)
        self._old[verb] = self._run.snapshot()

    def _performed(self, *verbs: str) -> Snapshot:
        for verb in verbs:
            self._run.perform(verb, Journal(self._run.state))
        return self._run.snapshot()

    def _prepare(self) -> None:
        """The tree before each verb, and the snapshots before and after."""
        self._run.make()
        for verb in ("install", "patch"):
            self._save(verb)
        self._new["patch"] = self._performed("patch")
        self.start("install")
        self._new["install"] = self._performed("install")
        self._save("upgrade")
        self._new["upgrade"] = self._performed("upgrade")
        self._save("uninstall")
        self._new["uninstall"] = self._performed("uninstall")
        self.start("upgrade")
        self._run.damage()
        self._save("repair")
        self._new["repair"] = self._performed("repair")
        nearly_done = self.boundaries("install") - 6
        self.start("install")
        assert self._end_at("install", nearly_done) == -signal.SIGKILL
        self._save("recover")
        self._old["recover"] = self._old["install"]
        self._new["recover"] = self._new["install"]
