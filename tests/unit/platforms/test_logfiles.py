"""Security D5 and I2: where the log lies, who may read it, what becomes of planted files and of a flood."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keyfit.platforms.linux import logfiles
from keyfit.platforms.linux.identity import private_values
from keyfit.platforms.linux.logfiles import (
    MAX_RUN_BYTES,
    OLD_FILES,
    FileLog,
    event_log,
    machine_directory,
    user_directory,
)

NOBODY = 65534


def log_in(tree: Path, **given: Any) -> FileLog:
    return FileLog(lambda: machine_directory(str(tree)), f"{tree}/var/log/keyfit/keyfit.log", command="install",
                   redact=lambda text: text, **given)


def folder(tree: Path) -> Path:
    return tree / "var/log/keyfit"


def events(tree: Path) -> list[dict[str, Any]]:
    """All that is kept, oldest first; a line that is none fails the test."""
    files = sorted(folder(tree).iterdir(), key=lambda p: (len(p.name), p.name), reverse=True)
    return [json.loads(text) for path in files for text in path.read_text("ascii").splitlines()]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=["umask-000", "umask-022", "umask-077"])
def any_umask(request: pytest.FixtureRequest) -> Any:
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.mark.usefixtures("any_umask")
def test_i2_the_machines_log_is_its_owners_alone(tmp_path: Path) -> None:
    log = log_in(tmp_path, max_bytes=4_000)
    for number in range(100):
        log.event("info", "step", number=number)

    assert log.problem == ""
    assert mode(folder(tmp_path)) == 0o700
    assert {mode(path) for path in folder(tmp_path).iterdir()} == {0o600}
    assert mode(folder(tmp_path).parent) == 0o755
    assert {path.lstat().st_uid for path in folder(tmp_path).iterdir()} == {os.geteuid()}


def test_i2_an_event_says_when_what_who(tmp_path: Path) -> None:
    log_in(tmp_path).event("warning", "step", id="udev-1", state="skip")

    (event,) = events(tmp_path)
    assert (event["level"], event["event"], event["pid"], event["command"]) == ("warning", "step", os.getpid(), "install")
    assert event["fields"] == {"id": "udev-1", "state": "skip"}
    assert abs(time.mktime(time.strptime(event["time"][:19], "%Y-%m-%dT%H:%M:%S")) - time.mktime(time.gmtime())) < 60
    assert event["time"].endswith("Z")


def test_what_programs_say_is_kept_only_when_asked_for(tmp_path: Path) -> None:
    log_in(tmp_path).event("traffic", "program-output", stdout="quiet")
    assert not folder(tmp_path).exists()

    log_in(tmp_path, traffic=True).event("traffic", "program-output", stdout="loud")
    assert [event["fields"] for event in events(tmp_path)] == [{"stdout": "loud"}]


def plant_link(path: Path, target: Path) -> None:
    path.symlink_to(target)


def plant_hard_link(path: Path, target: Path) -> None:
    path.hardlink_to(target)


def plant_dangling_link(path: Path, target: Path) -> None:
    path.symlink_to(target.with_name("not-there"))


def plant_fifo(path: Path, target: Path) -> None:
    os.mkfifo(path)


def plant_directory(path: Path, target: Path) -> None:
    path.mkdir()


def plant_anothers(path: Path, target: Path) -> None:
    path.write_text("theirs\n")
    os.chown(path, NOBODY, NOBODY)


def plant_device(path: Path, target: Path) -> None:
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))


PLANTED = [plant_link, plant_hard_link, plant_dangling_link, plant_fifo, plant_directory, plant_anothers, plant_device]


@pytest.mark.parametrize("plant", PLANTED, ids=lambda f: f.__name__)
def test_d5_what_was_planted_at_the_logs_path_is_left_alone(tmp_path: Path, plant: Callable[[Path, Path], None]) -> None:
    """CVE-2015-4481, CVE-2016-5293, CVE-2019-6163."""
    target = tmp_path / "target"
    target.write_text("precious\n")
    target.chmod(0o640)
    folder(tmp_path).mkdir(parents=True)
    path = folder(tmp_path) / "keyfit.log"
    plant(path, target)
    before = [_all_about(p) for p in (target, path)]
    log = log_in(tmp_path)

    for _ in range(3):
        log.event("error", "step", text="canary")

    assert [_all_about(p) for p in (target, path)] == before
    assert not (tmp_path / "not-there").exists()
    assert str(path) in log.problem
    assert {p.name for p in folder(tmp_path).iterdir()} == {"keyfit.log"}


def _all_about(path: Path) -> tuple[object, ...]:
    status = path.lstat()
    content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
    return status.st_mode, status.st_uid, status.st_gid, status.st_nlink, status.st_size, status.st_mtime_ns, content


@pytest.mark.parametrize("name", ["keyfit.log.1", f"keyfit.log.{OLD_FILES}"])
def test_d5_a_link_at_the_name_of_an_old_file_is_replaced_and_not_followed(tmp_path: Path, name: str) -> None:
    target = tmp_path / "target"
    target.write_text("precious\n")
    folder(tmp_path).mkdir(parents=True)
    (folder(tmp_path) / name).symlink_to(target)
    log = log_in(tmp_path, max_bytes=2_000)

    for number in range(200):
        log.event("info", "step", number=number)

    assert log.problem == ""
    assert target.read_text() == "precious\n"
    assert not any(path.is_symlink() for path in folder(tmp_path).iterdir())


@pytest.mark.parametrize("spoil", ["link", "others-may-write", "anothers", "file"])
def test_d5_a_directory_that_another_could_have_put_there_is_not_used(tmp_path: Path, spoil: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    folder(tmp_path).parent.mkdir(parents=True)
    if spoil == "link":
        folder(tmp_path).symlink_to(elsewhere)
    elif spoil == "file":
        folder(tmp_path).write_text("no directory")
    else:
        folder(tmp_path).mkdir()
        folder(tmp_path).chmod(0o777 if spoil == "others-may-write" else 0o700)
        if spoil == "anothers":
            os.chown(folder(tmp_path), NOBODY, NOBODY)
    before = folder(tmp_path).lstat()
    log = log_in(tmp_path)

    log.event("info", "step")

    after = folder(tmp_path).lstat()
    assert (before.st_mode, before.st_uid, before.st_gid) == (after.st_mode, after.st_uid, after.st_gid)
    assert list(elsewhere.iterdir()) == []
    assert "no log of this run" in log.problem


def test_d3_a_link_on_the_way_stays_inside_the_tree(tmp_path: Path) -> None:
    tree, outside = tmp_path / "tree", tmp_path / "outside"
    tree.mkdir()
    outside.mkdir()
    (tree / "var").symlink_to(outside)

    log_in(tree).event("info", "step")

    assert list(outside.iterdir()) == []


def test_d5_owner_and_mode_of_what_is_there_stay(tmp_path: Path) -> None:
    folder(tmp_path).mkdir(parents=True)
    folder(tmp_path).chmod(0o750)
    before = mode(folder(tmp_path))
    path = folder(tmp_path) / "keyfit.log"
    path.write_text("")
    path.chmod(0o640)
    os.chown(path, os.geteuid(), 4)

    log_in(tmp_path).event("info", "step")

    assert (mode(folder(tmp_path)), mode(path), path.stat().st_gid) == (before, 0o640, 4)
    assert len(events(tmp_path)) == 1


def test_i2_a_flood_of_one_run_is_cut_off_and_leaves_what_earlier_ones_wrote(tmp_path: Path) -> None:
    log_in(tmp_path).event("info", "run-begun", mark="earlier")
    log = log_in(tmp_path, traffic=True)
    for _ in range(1_000):
        log.event("traffic", "program-output", stdout="x" * 10_000)
    log.event("error", "run-ended", mark="the end is not lost")

    kept = events(tmp_path)
    size = sum(path.stat().st_size for path in folder(tmp_path).iterdir())
    assert MAX_RUN_BYTES * 0.9 < size < MAX_RUN_BYTES * 1.1
    assert kept[0]["fields"] == {"mark": "earlier"}
    assert [event["event"] for event in kept].count("log-limit") == 1
    assert kept[-1]["fields"] == {"mark": "the end is not lost"}
    for _ in range(1_000):
        log.event("error", "crash", frames=["y" * 8_000] * 3)
    assert sum(path.stat().st_size for path in folder(tmp_path).iterdir()) < 2.1 * MAX_RUN_BYTES


def test_i2_a_flood_of_many_runs_cannot_fill_the_disk(tmp_path: Path) -> None:
    for run in range(40):
        log = log_in(tmp_path, max_bytes=20_000)
        for number in range(100):
            log.event("info", "step", run=run, number=number, text="x" * 100)
        assert log.problem == ""
        log.close()

    kept = [event["fields"] for event in events(tmp_path)]
    assert len(list(folder(tmp_path).iterdir())) == OLD_FILES + 1
    assert all(path.stat().st_size <= 20_000 for path in folder(tmp_path).iterdir())
    assert [(event["run"], event["number"]) for event in kept][-1] == (39, 99)
    order = [(event["run"], event["number"]) for event in kept]
    assert order == sorted(order)
    assert order[0] > (20, 0)


def test_i2_a_log_that_cannot_be_renamed_away_stops_growing(tmp_path: Path) -> None:
    (folder(tmp_path) / "keyfit.log.1" / "in-the-way").mkdir(parents=True)
    log = log_in(tmp_path, max_bytes=5_000)

    for number in range(500):
        log.event("info", "step", number=number)

    assert (folder(tmp_path) / "keyfit.log").stat().st_size <= 5_000
    assert "cannot be written" in log.problem


def test_several_processes_lose_no_line_and_tear_none(tmp_path: Path) -> None:
    program = ("import sys\nfrom tests.unit.platforms.test_logfiles import log_in\nfrom pathlib import Path\n"
               "log = log_in(Path(sys.argv[1]), max_bytes=200_000)\n"
               "for n in range(300): log.event('info', 'step', who=sys.argv[2], n=n, text='x' * 300)\n"
               "sys.exit(bool(log.problem))")
    running = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path), str(who)], cwd=Path(__file__).parents[3])
               for who in range(4)]
    assert [process.wait(60) for process in running] == [0] * 4

    kept = [(event["fields"]["who"], event["fields"]["n"]) for event in events(tmp_path)]
    assert sorted(kept) == sorted((str(who), n) for who in range(4) for n in range(300))


def test_a_torn_line_of_a_run_that_was_cut_off_spoils_only_itself(tmp_path: Path) -> None:
    folder(tmp_path).mkdir(parents=True)
    path = folder(tmp_path) / "keyfit.log"
    path.write_bytes(b'{"time":"2026-01-0')
    path.chmod(0o600)

    log_in(tmp_path).event("info", "step")

    lines = path.read_text().splitlines()
    assert lines[0] == '{"time":"2026-01-0'
    assert json.loads(lines[1])["event"] == "step"


def test_a_planted_fifo_or_a_lock_of_another_process_keeps_nobody_waiting(tmp_path: Path) -> None:
    import fcntl

    folder(tmp_path).mkdir(parents=True)
    holder = os.open(folder(tmp_path), os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    log = log_in(tmp_path, max_bytes=2_000)
    done = threading.Event()

    def write() -> None:
        for number in range(200):
            log.event("info", "step", number=number)
        done.set()

    threading.Thread(target=write, daemon=True).start()
    assert done.wait(20)
    assert (folder(tmp_path) / "keyfit.log").stat().st_size <= 4_000
    os.close(holder)
    log.event("info", "step", number=-1)
    assert events(tmp_path)[-1]["fields"] == {"number": -1}


@pytest.mark.usefixtures("any_umask")
def test_i2_a_users_own_log_and_what_is_missing_of_the_way_are_private(tmp_path: Path) -> None:
    place = tmp_path / "home" / ".local" / "state" / "keyfit"
    (tmp_path / "home").mkdir(mode=0o755)
    (tmp_path / "home").chmod(0o755)
    log = FileLog(lambda: user_directory(str(place)), "here", command="install", redact=str)

    log.event("info", "step")

    assert log.problem == ""
    assert [mode(p) & 0o077 for p in (place / "keyfit.log", place, place.parent, place.parent.parent)] == [0] * 4
    assert mode(tmp_path / "home") == 0o755


def test_i2_whose_log_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert event_log("/", "install", traffic=False).where == "/var/log/keyfit/keyfit.log"
    assert event_log(str(tmp_path), "install", traffic=False).where.endswith(f"{tmp_path.name}/var/log/keyfit/keyfit.log")
    monkeypatch.setattr(logfiles.places, "is_elevated", lambda: False)
    assert event_log("/", "install", traffic=False).where.endswith(f"{tmp_path.name}/state/keyfit/keyfit.log")
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert event_log("/", "install", traffic=False).where == "~/.local/state/keyfit/keyfit.log"


def test_i2_f3_what_is_private_here() -> None:
    known = private_values({
        "HOME": "/home/ada", "USER": "ada", "SUDO_UID": "65534", "https_proxy": "http://ada2:p%40ss@proxy:3128",
        "ALL_PROXY": "socks5://plain.example:1", "TOKEN_PIN": "424242", "AWS_SECRET_KEY": "k3y5", "KEYFIT_ROOT": "/srv/tree",
        "COMPASS": "north", "SPINNER": "yes", "USE_KEY": "no"})

    assert known["/home/ada"] == "~"
    assert known["ada"] == known["nobody"] == "<user>"
    assert {"ada2", "p%40ss", "p@ss", "424242", "k3y5"} <= known.keys()
    assert known[os.uname().nodename] == "<host>"
    assert not {"plain.example", "north", "yes", "no", "/srv/tree", "root", "", "/"} & known.keys()
