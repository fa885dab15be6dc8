"""A short run of the kill loop (security D7): `python -m tests.kill_loop` does more of it."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kill_loop import simulated, tree
from tests.kill_loop.tally import Tally, judge
from tests.sim.sysfstree import tree_folder

SEED = 4
TREE_MOMENTS = 24


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> None:
    """A home directory below the machine, whoever runs the tests."""
    monkeypatch.setenv("HOME", "/root")
    for name in ("SUDO_UID", "PKEXEC_UID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory: SIGKILL takes nothing from the kernel that it was given, whether it has reached a disk or not."""
    with tree_folder() as made:
        yield made


def old_or_new(tally: Tally) -> None:
    assert tally.failures == []
    for row in tally.rows.values():
        assert row.kills == row.old + row.new > 0


@pytest.mark.timeout(600)
@pytest.mark.parametrize("verb", simulated.VERBS)
def test_d7_a_power_cut_at_every_moment_leaves_old_or_new(folder: Path, verb: str) -> None:
    tally = Tally()
    loop = simulated.Loop(folder, tally)
    if verb == "recover":
        loop.every_moment_of_recover()
    else:
        loop.every_moment(verb)
    old_or_new(tally)
    row = tally.row("simulated, every moment", verb)
    assert row.old > 0
    assert row.new > 0
    assert row.recovered > 20, "cuts that came to nothing prove nothing"


@pytest.mark.timeout(600)
def test_d7_sigkill_beside_commits_and_inside_dpkg_leaves_old_or_new(folder: Path) -> None:
    tally = Tally()
    loop = tree.Loop(folder, tally)
    for offset, verb in enumerate(tree.VERBS):
        loop.every_boundary(verb, first=1 + offset, every=9)
    loop.random_moments(TREE_MOMENTS, random.Random(SEED))
    old_or_new(tally)
    assert {row.where for row in tally.rows.values()} == {"tree, beside every commit", *(f"tree, {kind}" for kind in tree.KINDS)}
    assert sum(row.recovered for row in tally.rows.values()) > TREE_MOMENTS


def test_the_loop_sees_what_is_neither_old_nor_new() -> None:
    tally = Tally()
    row = tally.row("here", "install")
    judge(row, "moment 3", old=False, new=False, open_left=True, recovered=True, problems=["etc/x: gone"])
    judge(row, "moment 4", old=False, new=True, open_left=False, recovered=True, problems=[])
    assert tally.failures == ["here, install: moment 3: one run of recover was not enough",
                              "here, install: moment 3: neither old nor new: etc/x: gone"]
    assert tally.table().splitlines()[-1].split() == ["all", "2", "0", "1", "2", "2"]


def test_the_loop_sees_a_file_that_is_lost_and_one_that_is_left(folder: Path) -> None:
    loop = tree.Loop(folder, Tally())
    shop = loop.start("patch")
    before = shop.snapshot()
    (shop.tree / "etc/theirs.conf").unlink()
    (shop.tree / "etc/litter").write_text("x")
    (shop.tree / "etc/udev/rules.d/70-theirs.rules").chmod(0o600)
    assert [line.split(":")[0] for line in tree.workshop.differences(before, shop.snapshot())] == [
        "etc/litter", "etc/theirs.conf", "etc/udev/rules.d/70-theirs.rules"]
