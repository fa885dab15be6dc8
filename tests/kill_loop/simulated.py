"""Power cuts of the simulated machine: every moment of every verb, and random ones with further cuts of `recover`."""

import random
from pathlib import Path
from typing import Any

from keyfit.engine import transaction
from keyfit.model.plan import (
    CcidListLine,
    Change,
    DistributionPackages,
    FirefoxPolicy,
    KernelModuleBlacklistFile,
    P11KitModule,
    PackageFile,
    UdevRuleFile,
)
from tests.kill_loop.tally import Tally, judge
from tests.sim.host import SimHost, differences
from tests.sim.packages import SimPackage
from tests.sim.plans import CCID_LIST, NEWER_DRIVER, changes, fetcher, machine, payload, plan
from tests.sim.power import Power, PowerCut, PoweredJournal
from tests.sim.world import SimReporter

VERBS = ("install", "upgrade", "uninstall", "patch", "repair", "recover")
PATCHES = (UdevRuleFile, CcidListLine, KernelModuleBlacklistFile)


class Story:
    """One machine whose power goes at a chosen moment. `wanted` is what it is to install: one change of every kind unless said
    otherwise."""

    def __init__(self, folder: Path, *wanted: Change) -> None:
        self.power = Power()
        self.host = machine(SimHost(folder / "machine", power=self.power))
        self.host.offer(SimPackage(name="opensc"))
        self.host.real_path("/home/user").mkdir(parents=True)
        self.folder = folder
        self.wanted = wanted or changes()
        self.restart()

    def restart(self) -> None:
        """Power is back: a new process, which knows nothing but what is on disk."""
        self.power.restore()
        self.journal = PoweredJournal(self.folder / "state", self.power)

    def carry_out(self, *wanted: Change) -> None:
        transaction.carry_out(plan(*wanted), host=self.host, journal=self.journal, fetch=fetcher(self.folder),
                              reporter=SimReporter(), wait=lambda wait: None)

    def install(self) -> None:
        self.carry_out(*self.wanted)

    def upgrade(self) -> None:
        """Other content for the same files, and more."""
        self.carry_out(*(_newer(change) for change in self.wanted))

    def uninstall(self) -> None:
        transaction.uninstall("acme", host=self.host, journal=self.journal, reporter=SimReporter())

    def patch(self) -> None:
        self.carry_out(*(change for change in self.wanted if isinstance(change, PATCHES)))

    def repair(self) -> None:
        transaction.repair("acme", host=self.host, journal=self.journal, reporter=SimReporter(), fetch=fetcher(self.folder))

    def recover(self) -> tuple[str, ...]:
        return transaction.recover(host=self.host, journal=self.journal, reporter=SimReporter()).notes

    def damage(self) -> None:
        """What a repair puts right: a package, a rule, a module and a file of an archive are gone."""
        for change in self.wanted:
            if isinstance(change, UdevRuleFile | P11KitModule):
                del self.host.files[change.path]
        for name in ("libccid", "libdriver1"):
            self.host.packages.apt_get(["apt-get", "purge", name])
        self.host.real_path("/opt/keyfit/brands/acme/module/readme").unlink()

    def before(self, verb: str) -> None:
        """Bring the machine to where a verb begins."""
        if verb in ("upgrade", "uninstall", "repair"):
            self.install()
        if verb == "uninstall":
            self.upgrade()
        if verb == "repair":
            self.damage()
        self.power.restore()

    def perform(self, verb: str) -> None:
        """Carry a verb out."""
        getattr(self, verb)()


class Loop:
    """All cuts of the simulated machine, into one tally. `folder` is nobody else's."""

    def __init__(self, folder: Path, tally: Tally) -> None:
        self._folder, self._tally, self._number = folder, tally, 0
        self._moments: dict[str, int] = {}
        self._old: dict[str, Any] = {}
        self._new: dict[str, Any] = {}

    def measure(self, verb: str) -> int:
        """How many moments a verb has, with the machine before and after it."""
        if verb not in self._moments:
            story = self._story()
            story.before(verb)
            self._old[verb] = story.host.snapshot()
            story.perform(verb)
            self._new[verb] = story.host.snapshot()
            self._moments[verb] = story.power.moments
        return self._moments[verb]

    def every_moment(self, verb: str) -> None:
        """Cut at each moment."""
        for moment in range(1, self.measure(verb) + 1):
            self._cut("simulated, every moment", verb, moment)

    def every_moment_of_recover(self) -> None:
        """Cut an install near its end, and `recover` at each moment of its own; then an uninstall."""
        for verb in ("install", "uninstall"):
            cut_at, moment = self.measure(verb) - 3, 1
            while self._cut("simulated, every moment", verb, cut_at, again_at=moment, row="recover"):
                moment += 1

    def random_moments(self, number: int, chance: random.Random) -> None:
        """Cut at random, and `recover` too every other time."""
        for _ in range(number):
            verb = chance.choice(VERBS)
            if verb == "recover":
                base = chance.choice(VERBS[:-1])
                self._cut("simulated, random moments", base, chance.randint(1, self.measure(base)),
                          again_at=chance.randint(1, 60), row="recover")
            else:
                self._cut("simulated, random moments", verb, chance.randint(1, self.measure(verb)))

    def _story(self) -> Story:
        self._number += 1
        return Story(self._folder / str(self._number))

    def _cut(self, where: str, verb: str, moment: int, *, again_at: int = 0, row: str = "") -> bool:
        """Cut a verb, and `recover` if `again_at` is given; False if `recover` ended before that."""
        story, was_cut_again = self._story(), False
        story.before(verb)
        story.power.cut_at = moment
        try:
            story.perform(verb)
        except PowerCut:
            pass
        if again_at:
            story.restart()
            story.power.cut_at = again_at
            try:
                story.recover()
            except PowerCut:
                was_cut_again = True
        story.restart()
        notes = story.recover()
        now = story.host.snapshot()
        allowed = self._allowed(verb, story, now)
        text = f"{verb} at {moment}" + (f", recover at {again_at}" if again_at else "")
        judge(self._tally.row(where, row or verb), text, old=allowed == "old", new=allowed == "new", recovered=bool(notes),
              open_left=bool(story.journal.open_transactions()),
              problems=[*differences(self._old[verb], now), "or", *differences(self._new[verb], now)])
        return was_cut_again

    def _allowed(self, verb: str, story: Story, now: dict[str, Any]) -> str:
        """"old", "new", or "" if the machine is neither. A repair is done step by step, so each thing may be either."""
        self.measure(verb)
        if not differences(self._old[verb], now):
            return "old"
        if not differences(self._new[verb], now):
            return "new"
        if verb == "repair" and not _between(self._old[verb], self._new[verb], now):
            story.repair()
            return "old" if not differences(self._new[verb], story.host.snapshot()) else ""
        if verb == "uninstall" and story.journal.records("acme"):  # one of two transactions is taken back, and on record so
            story.uninstall()
            return "old" if not differences(self._new[verb], story.host.snapshot()) else ""
        return ""


def _between(old: Any, new: Any, now: Any) -> list[str]:
    """What is neither as in `old` nor as in `new`."""
    if isinstance(now, dict):
        return [line for key in {*old, *new, *now} for line in
                _between(old.get(key, ""), new.get(key, ""), now.get(key, "")) or []]
    if isinstance(now, set | list):
        return [str(one) for one in now if one not in old and one not in new]
    return [] if now in (old, new) else [str(now)]


def _newer(change: Change) -> Change:
    match change:
        case UdevRuleFile():
            return UdevRuleFile(path=change.path, subsystem="usb", id_vendor=change.id_vendor, id_product=0x9999)
        case P11KitModule():
            return P11KitModule(path=change.path, module="/usr/lib/newer.so")
        case FirefoxPolicy():
            return FirefoxPolicy(path=change.path, name=change.name, module="/usr/lib/newer.so")
        case CcidListLine():
            return CcidListLine(path=CCID_LIST, id_vendor=change.id_vendor, id_product=0x9999, friendly_name="ACME Newer")
        case KernelModuleBlacklistFile():
            return KernelModuleBlacklistFile(path=change.path, modules=(*change.modules, "pn533_usb"))
        case DistributionPackages():
            return DistributionPackages(manager="apt", names=(*change.names, "opensc"))
        case PackageFile():
            return PackageFile(format="deb", name=change.name, version=NEWER_DRIVER.version,
                               payload=payload("newer.deb", NEWER_DRIVER.deb()))
        case _:
            return change
