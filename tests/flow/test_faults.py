"""Calls that fail while Keyfit changes the machine (security D7): a full disk, a bad one, no permission, a signal.

This is a third of the calls, each with one of the errors; `python -m tests.faults` tries every call with every error.
"""

from pathlib import Path

import pytest

from tests.faults import ERRORS, Case, Trial, attempt_all
from tests.sim.wholejob import VERBS, Publisher

MOST_LASTING = 24
"""How many calls are tried as the first of a disk that stays full."""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Publisher(tmp_path_factory.mktemp("publisher")).repository.folder


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Trial:
    return Trial(tmp_path_factory.mktemp("machine"), repository)


@pytest.mark.timeout(900)
def test_d7_a_call_that_fails_leaves_the_machine_as_it_was_or_as_it_should_be(trial: Trial, repository: Path,
                                                                               tmp_path: Path) -> None:
    cases = trial.sample()
    assert {case.verb for case in cases} == set(VERBS)
    assert {case.error for case in cases} == set(ERRORS)

    tried = list(attempt_all(tmp_path, repository, cases))

    assert [one for one in tried if one.problems] == []
    assert len(tried) == len(cases) > 100
    assert {one.exit_code for one in tried} >= {0, 73, 80}
    assert {one.call for one in tried} >= {"write", "fsync", "rename", "renameat2", "unlink", "mkdir", "pwrite64", "fdatasync"}


@pytest.mark.timeout(900)
def test_d7_a_disk_that_is_full_from_some_moment_on(trial: Trial, repository: Path, tmp_path: Path) -> None:
    """Then taking back may fail too, and `recover` does it when there is room again."""
    every = trial.every(["ENOSPC"], for_good=True)
    cases: list[Case] = every[:: len(every) // MOST_LASTING]

    tried = list(attempt_all(tmp_path, repository, cases))

    assert [one for one in tried if one.problems] == []
    assert len(tried) >= MOST_LASTING
    assert 73 in {one.exit_code for one in tried}
