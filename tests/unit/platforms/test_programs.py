"""The system's programs: only those of the table, in a clean environment, ended as a whole when they take too long."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil
import pytest

from keyfit.errors import BugError, HostError
from keyfit.platforms.linux import programs


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of the table, "dpkg", that does what a test writes into it."""
    path = tmp_path / "dpkg"
    monkeypatch.setitem(programs.PROGRAMS, "dpkg", (str(path),))
    return path


def write(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def processes_with(word: str) -> list[psutil.Process]:
    return [p for p in psutil.process_iter(["cmdline"]) if word in (p.info["cmdline"] or [])]


def test_every_program_of_the_table_has_absolute_paths_of_the_system() -> None:
    for name, paths in programs.PROGRAMS.items():
        assert all(path.startswith(("/usr/bin/", "/usr/sbin/", "/bin/", "/sbin/")) for path in paths)
        assert all(Path(path).name == name for path in paths)


def test_c10_arguments_are_handed_over_as_they_are(script: Path) -> None:
    write(script, 'printf "<%s>" "$@"')
    hostile = ["$(id)", "`id`", "a b", "x;id", "*", "%n", "new\nline", "'\"", "--", ""]

    done = programs.run(["dpkg", *hostile], timeout_s=10)

    assert done.stdout == "".join(f"<{word}>" for word in hostile)
    assert done.argv == ("dpkg", *hostile)


def test_c10_a_program_planted_in_path_or_here_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = tmp_path / "dpkg"
    write(planted, "echo planted")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)

    assert "planted" not in programs.run(["dpkg", "--version"], timeout_s=30).stdout


def test_c10_what_is_not_in_the_table_is_refused() -> None:
    for name in ("sh", "/bin/sh", "../bin/sh", ""):
        with pytest.raises(BugError):
            programs.run([name, "-c", "id"], timeout_s=10)


def test_a_program_that_is_not_installed_is_named(script: Path) -> None:
    with pytest.raises(HostError) as caught:
        programs.run(["dpkg"], timeout_s=10)

    assert caught.value.code == "program-missing"
    assert "dpkg" in caught.value.message


def test_a_program_that_cannot_be_started_is_named(script: Path) -> None:
    script.write_text("#!/nowhere/interpreter\n")
    script.chmod(0o755)

    with pytest.raises(HostError) as caught:
        programs.run(["dpkg"], timeout_s=10)

    assert caught.value.code == "program-not-started"


def test_c5_nothing_of_the_callers_environment_is_passed_on(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(script, "/usr/bin/env")
    hostile = ("LD_PRELOAD_CANARY", "LD_LIBRARY_PATH", "PYTHONPATH", "_PYI_APPLICATION_HOME_DIR", "PERL5LIB", "DPKG_ROOT",
               "TMPDIR", "IFS", "BASH_ENV", "KEYFIT_ROOT", "LANG", "http_proxy")
    for name in hostile:
        monkeypatch.setenv(name, "/canary")
    monkeypatch.setenv("TMPDIR", "/tmp")

    done = programs.run(["dpkg"], timeout_s=10, environment={"DPKG_FORCE": "confold"})
    seen = dict(line.split("=", 1) for line in done.stdout.splitlines())

    assert seen.pop("PWD", "/") == "/"
    seen = {name: value for name, value in seen.items() if name not in ("_", "SHLVL", "OLDPWD")}
    assert seen == {**programs.CLEAN_ENVIRONMENT, "DPKG_FORCE": "confold"}


def test_c5_no_descriptor_and_no_terminal_is_handed_down(script: Path, tmp_path: Path) -> None:
    write(script, "ls /proc/self/fd; tty; readlink /proc/self/fd/0; ps -o sid= -p $$; umask")
    opened = os.open(tmp_path, os.O_RDONLY)
    os.dup2(opened, 77, inheritable=True)
    try:
        lines = programs.run(["dpkg"], timeout_s=10).stdout.split("\n")
    finally:
        os.close(opened)
        os.close(77)

    assert lines[:4] == ["0", "1", "2", "3"], "the three standard ones, and the directory that ls has open"
    assert lines[4:6] == ["not a tty", "/dev/null"]
    assert int(lines[6]) != os.getsid(0)
    assert lines[7] == "0022"


def test_output_and_exit_code_come_back(script: Path) -> None:
    write(script, "echo out; echo err >&2; exit 3")

    done = programs.run(["dpkg"], timeout_s=10)

    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")


def test_output_that_is_no_utf8_is_replaced_and_long_output_is_cut(script: Path) -> None:
    write(script, r"printf '\377'; head -c 3000000 /dev/zero | tr '\0' x; head -c 3000000 /dev/zero >&2")

    done = programs.run(["dpkg"], timeout_s=30)

    assert done.stdout == "\ufffd" + "x" * (programs.MAX_OUTPUT_BYTES - 1)
    assert len(done.stderr) == programs.MAX_OUTPUT_BYTES


def test_input_reaches_the_program(script: Path) -> None:
    write(script, "wc -c")

    assert programs.run(["dpkg"], timeout_s=10, input_text="x" * 500_000).stdout.strip() == "500000"


def test_input_that_is_not_read_hinders_nobody(script: Path) -> None:
    write(script, "exit 0")

    assert programs.run(["dpkg"], timeout_s=10, input_text="x" * 500_000).returncode == 0


def test_a_daemon_that_is_left_behind_is_not_waited_for(script: Path) -> None:
    write(script, "sleep 4213 & echo started")
    start = time.monotonic()
    try:
        assert programs.run(["dpkg"], timeout_s=60).stdout == "started\n"
        assert time.monotonic() - start < 30
    finally:
        for process in processes_with("4213"):
            process.kill()


@pytest.mark.parametrize("family", [
    "sleep {n}",
    "sleep {n} & sleep {n} & wait",
    "(sleep {n} &) ; (sleep {n} &) ; sleep {n}",  # their own parents have ended
    "setsid sleep {n}",
    "trap '' TERM; sleep {n} & while :; do wait; done",
], ids=["child", "children", "orphans", "own-session", "deaf"])
def test_c8_at_the_time_limit_the_whole_tree_is_ended(
    script: Path, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "GRACE_S", 1.0)
    write(script, family.format(n=4217))

    with pytest.raises(HostError) as caught:
        programs.run(["dpkg"], timeout_s=1.0)

    assert caught.value.code == "program-timeout"
    psutil.wait_procs(processes_with("4217"), timeout=5)
    assert processes_with("4217") == []
