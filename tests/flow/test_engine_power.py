"""Security D7: whenever the power goes, after `recover` the machine is as before or as after, never in between."""

from pathlib import Path

import pytest

from keyfit.engine import transaction
from keyfit.model.plan import Change
from tests.sim.host import SimHost, differences
from tests.sim.plans import changes, fetcher, machine, plan
from tests.sim.power import Power, PowerCut, PoweredJournal
from tests.sim.world import SimReporter

KINDS = {type(change).__name__: change for change in changes()}


class Story:
    """One machine whose power goes at a chosen moment."""

    def __init__(self, folder: Path, *wanted: Change) -> None:
        self.power = Power()
        self.host = machine(SimHost(folder / "machine", power=self.power))
        self.host.real_path("/home/user").mkdir(parents=True)
        self.journal = PoweredJournal(folder / "state", self.power)
        self.plan = plan(*wanted)
        self.folder = folder

    def install(self) -> None:
        transaction.carry_out(self.plan, host=self.host, journal=self.journal, fetch=fetcher(self.folder),
                              reporter=SimReporter(), wait=lambda wait: None)

    def uninstall(self) -> None:
        transaction.uninstall("acme", host=self.host, journal=self.journal, reporter=SimReporter())

    def start_again_and_recover(self) -> None:
        """A new process after the power is back: nothing is known but what is on disk."""
        self.power.restore()
        self.journal = PoweredJournal(self.folder / "state", self.power)
        transaction.recover(host=self.host, journal=self.journal, reporter=SimReporter())


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home directory below the machine, whoever runs the tests."""
    monkeypatch.setenv("HOME", "/home/user")
    for name in ("SUDO_UID", "PKEXEC_UID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", lambda: Path("/home/user"))


def moments_of(folder: Path, *wanted: Change, uninstalling: bool = False) -> int:
    """How many moments the whole story has, measured on a machine that keeps its power."""
    story = Story(folder, *wanted)
    if uninstalling:
        story.install()
        story.power.restore()
    (story.uninstall if uninstalling else story.install)()
    return story.power.moments


@pytest.mark.parametrize("wanted", [*[(c,) for c in KINDS.values()], changes()], ids=[*KINDS, "all"])
def test_d7_power_cut_while_installing_leaves_old_or_new(tmp_path: Path, wanted: tuple[Change, ...]) -> None:
    whole = Story(tmp_path / "whole", *wanted)
    old = whole.host.snapshot()
    whole.install()
    new = whole.host.snapshot()
    assert new != old
    for moment in range(1, whole.power.moments + 1):
        story = Story(tmp_path / str(moment), *wanted)
        story.power.cut_at = moment
        with pytest.raises(PowerCut):
            story.install()
        story.start_again_and_recover()
        wanted_state = new if story.journal.records("acme") else old
        assert differences(wanted_state, story.host.snapshot()) == [], f"after a cut at moment {moment}"
        assert not story.journal.open_transactions()


@pytest.mark.parametrize("wanted", [*[(c,) for c in KINDS.values()], changes()], ids=[*KINDS, "all"])
def test_d7_power_cut_while_uninstalling_leaves_old_or_new(tmp_path: Path, wanted: tuple[Change, ...]) -> None:
    for moment in range(1, moments_of(tmp_path / "whole", *wanted, uninstalling=True) + 1):
        story = Story(tmp_path / str(moment), *wanted)
        clean = story.host.snapshot()
        story.install()
        installed = story.host.snapshot()
        story.power.restore()
        story.power.cut_at = moment
        with pytest.raises(PowerCut):
            story.uninstall()
        story.start_again_and_recover()
        wanted_state = installed if story.journal.records("acme") else clean
        assert differences(wanted_state, story.host.snapshot()) == [], f"after a cut at moment {moment}"
        assert not story.journal.open_transactions()


def test_d7_recover_that_is_cut_itself_ends_all_the_same(tmp_path: Path) -> None:
    story = Story(tmp_path, *changes())
    old = story.host.snapshot()
    story.power.cut_at = moments_of(tmp_path / "whole", *changes()) - 3
    with pytest.raises(PowerCut):
        story.install()
    cut_at = 1
    while True:
        story.power.restore()
        story.power.cut_at = cut_at
        try:
            transaction.recover(host=story.host, journal=PoweredJournal(tmp_path / "state", story.power),
                                reporter=SimReporter())
        except PowerCut:
            cut_at += 1
            continue
        break
    assert cut_at > 5
    assert differences(old, story.host.snapshot()) == []
