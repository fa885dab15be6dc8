"""Security D7: whenever the power goes, after `recover` the machine is as before or as after, never in between: each kind of
step for itself. All together: see `test_kill_loop`."""

from pathlib import Path

import pytest

from keyfit.model.plan import Change
from tests.kill_loop.simulated import Story
from tests.sim.host import differences
from tests.sim.plans import changes
from tests.sim.power import PowerCut

KINDS = {type(change).__name__: change for change in changes()}


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


@pytest.mark.parametrize("wanted", [(c,) for c in KINDS.values()], ids=list(KINDS))
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
        story.restart()
        story.recover()
        wanted_state = new if story.journal.records("acme") else old
        assert differences(wanted_state, story.host.snapshot()) == [], f"after a cut at moment {moment}"
        assert not story.journal.open_transactions()


@pytest.mark.parametrize("wanted", [(c,) for c in KINDS.values()], ids=list(KINDS))
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
        story.restart()
        story.recover()
        wanted_state = installed if story.journal.records("acme") else clean
        assert differences(wanted_state, story.host.snapshot()) == [], f"after a cut at moment {moment}"
        assert not story.journal.open_transactions()
