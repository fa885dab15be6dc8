"""The record survives what may happen to it, and is never silently begun anew."""

import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from keyfit.engine.journal import SCHEMA_VERSION, Journal
from keyfit.errors import BusyError, HostError, StorageError
from tests.sim.plans import changes, plan

PLAN = plan(changes()[3])


def test_reading_makes_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "state")
    assert (journal.records(), journal.history(), journal.open_transactions()) == ((), (), ())
    assert not (tmp_path / "state").exists()


def test_the_state_before_is_on_disk_before_the_change(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.intend(journal.begin("install", PLAN), 0, "step-0", {"old": "äöü"}, {"new": "ß"})
    (seen,) = Journal(tmp_path).open_transactions()
    (step,) = seen.steps
    assert (seen.plan, seen.state) == (PLAN, "running")
    assert (step.state, step.before, step.after) == ("intended", {"old": "äöü"}, {"new": "ß"})


def test_commits_are_synced_to_the_disk(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.begin("install", PLAN)
    assert journal._open().execute("PRAGMA synchronous").fetchone() == (2,)
    assert journal._open().execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_d5_only_the_owner_can_read_or_write_the_record(tmp_path: Path) -> None:
    Journal(tmp_path / "state").begin("install", PLAN)
    assert stat.S_IMODE((tmp_path / "state" / "journal.sqlite").stat().st_mode) == 0o600
    assert not stat.S_IMODE((tmp_path / "state").stat().st_mode) & 0o022


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757])
def test_d1_a_state_directory_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(mode)
    with pytest.raises(HostError) as caught:
        Journal(tmp_path / "state").begin("install", PLAN)
    assert caught.value.code == "state-dir-writable"


def test_d3_a_link_in_place_of_the_state_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o755)
    (tmp_path / "state").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(HostError):
        Journal(tmp_path / "state").begin("install", PLAN)
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("name", ["journal.sqlite", "lock"])
def test_d3_links_planted_in_the_state_directory_are_not_followed(tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim"
    state = tmp_path / "state"
    state.mkdir()
    (state / name).symlink_to(victim)
    journal = Journal(state)
    with pytest.raises(HostError), journal.locked():
        journal.begin("install", PLAN)
    assert not victim.exists()


def test_d3_a_link_to_an_existing_file_is_not_followed_either(tmp_path: Path) -> None:
    state, victim = tmp_path / "state", tmp_path / "victim"
    state.mkdir()
    victim.write_bytes(b"")
    (state / "journal.sqlite").symlink_to(victim)
    with pytest.raises(HostError):
        Journal(state).begin("install", PLAN)
    assert victim.read_bytes() == b""


def test_a_damaged_record_is_an_error_and_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite").write_bytes(b"this is no database" * 100)
    with pytest.raises(HostError) as caught:
        Journal(tmp_path).records()
    assert (caught.value.code, bool(caught.value.hint)) == ("journal-damaged", True)
    with pytest.raises(HostError):
        Journal(tmp_path).begin("install", PLAN)
    assert (tmp_path / "journal.sqlite").read_bytes() == b"this is no database" * 100


def test_a_record_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    Journal(tmp_path).begin("install", PLAN)
    with sqlite3.connect(tmp_path / "journal.sqlite") as db:
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(HostError) as caught:
        Journal(tmp_path).records()
    assert caught.value.code == "journal-newer"


def test_a_full_disk_is_a_storage_error(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.begin("install", PLAN)
    journal._open().execute("PRAGMA max_page_count = 1")

    def fill() -> None:
        for _ in range(50):
            journal.begin("install", PLAN)

    with pytest.raises(StorageError) as caught:
        fill()
    assert caught.value.code == "disk-full"


def test_a_record_that_another_program_holds_is_busy_not_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keyfit.engine.journal.BUSY_TIMEOUT_S", 0.1)
    Journal(tmp_path).begin("install", PLAN)
    holder = sqlite3.connect(tmp_path / "journal.sqlite", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(BusyError):
            Journal(tmp_path).begin("install", PLAN)
    finally:
        holder.close()


def test_d3_the_lock_is_gone_with_the_process_that_held_it(tmp_path: Path) -> None:
    code = ("import os, signal, sys; from pathlib import Path; from keyfit.engine.journal import Journal\n"
            "with Journal(Path(sys.argv[1])).locked(): os.kill(os.getpid(), signal.SIGKILL)")
    subprocess.run([sys.executable, "-c", code, tmp_path], check=False, timeout=60)
    with Journal(tmp_path).locked(), pytest.raises(BusyError), Journal(tmp_path).locked():
        pass
