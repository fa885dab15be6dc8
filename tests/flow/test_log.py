"""The log as an administrator meets it: which commands keep one, what is in it, and that no command fails for its sake."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.flow.test_canary import BRAND, Machine
from tests.flow.test_first_commands import RECORDINGS, document, keyfit

RECORDING = RECORDINGS / "acs-cryptomate-t1.json"
LOG_CODE = ("keyfit.platforms.linux.logfiles", "keyfit.platforms.linux.identity", "keyfit.core.logline", "keyfit.core.redact",
            "keyfit.ui.logged", "keyfit.ui.crash", "logging")

SHOWS_LOADED = """
import sys
looked_for = sys.argv.pop(1).split(",")
from keyfit.__main__ import main
try:
    main()
finally:
    print("LOADED", *(name for name in looked_for if name in sys.modules), file=sys.stderr)
"""
"""Runs the program and names those of some modules that it has loaded."""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with a package database and nothing else."""
    (tmp_path / "tree/var/lib/dpkg").mkdir(parents=True)
    (tmp_path / "tree/var/lib/dpkg/status").write_text("")
    return tmp_path / "tree"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(tmp_path_factory.mktemp("log"))


def log_of(tree: Path) -> Path:
    return tree / "var/log/keyfit/keyfit.log"


def events(tree: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log_of(tree).read_text("ascii").splitlines()]


def named(found: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [event["fields"] for event in found if event["event"] == name]


def test_an_install_and_what_takes_it_back_can_be_followed_in_the_log(machine: Machine) -> None:
    assert machine.run("install", BRAND, "--yes").returncode == 0
    first = events(machine.tree)
    assert machine.run("uninstall", BRAND, "--yes", "--verbose").returncode == 0
    second = events(machine.tree)[len(first):]

    assert [event["event"] for event in first][::len(first) - 1] == ["run-begun", "run-ended"]
    assert {event["command"] for event in first} == {"install"}
    assert len({event["pid"] for event in first}) == 1
    assert any("Install the package keyfit-try" in line for line in named(first, "asked")[0]["question"])
    assert named(first, "answered") == [{"yes": True}]
    done = [step["id"] for step in named(first, "step") if step["state"] == "done"]
    assert done == [step["id"] for step in named(first, "step") if step["state"] == "start"]
    assert len(done) == 4
    assert {"dpkg", "dpkg-deb"} <= {ran["program"] for ran in named(first, "program-ended")}
    assert all(ran["seconds"] >= 0 for ran in named(first, "program-ended"))
    assert named(first, "program-output") == []
    assert named(first, "run-ended") == [
        {"outcome": "done", "exit_code": 0, "errors": [], "said": named(first, "run-ended")[0]["said"]}]

    assert {event["level"] for event in second} == {"info", "traffic"}
    removed = [said for said in named(second, "program-output") if "Removing keyfit-try" in said["stdout"]]
    assert removed
    assert removed[0]["argv"][0] == "dpkg"
    assert sum(step["state"] == "undo" for step in named(second, "step")) == 4


def test_a_failure_is_logged_with_its_code(tree: Path) -> None:
    done = keyfit("uninstall", "acs-cryptomate", "--yes", "--json", "--root", tree)

    (ended,) = named(events(tree), "run-ended")
    assert (ended["outcome"], ended["exit_code"]) == (document(done)["outcome"], done.returncode)
    assert ended["errors"] == ["not-installed: " + document(done)["messages"][0]["text"]]
    assert events(tree)[-1]["level"] == "error"


@pytest.mark.parametrize("arguments", [
    ["devices"], ["devices", "--verbose"], ["plan", "acs-cryptomate"], ["verify"], ["certificate", "acs-cryptomate"],
    ["history"], ["install", "acs-cryptomate", "--dry-run"], ["update", "--check"], ["--help"], ["install", "--help"],
    ["install", "--nonsense"],
], ids=" ".join)
def test_what_changes_nothing_keeps_no_log_and_loads_no_code_for_it(tree: Path, tmp_path: Path, arguments: list[str]) -> None:
    common = ["--root", tree, "--emulate", RECORDING, "--cache-dir", tmp_path / "cache", "--repository", tmp_path / "nowhere",
              "--trust-root", RECORDING]
    done = subprocess.run([sys.executable, "-c", SHOWS_LOADED, ",".join(LOG_CODE), *map(str, [*arguments, *common])],
                          capture_output=True, text=True, timeout=60, check=False, env=os.environ | {"HOME": str(tmp_path)})

    loaded = done.stderr.rpartition("LOADED")[2].split()
    assert "LOADED" in done.stderr
    assert set(loaded) <= ({"logging"} if _talks_to_a_repository(arguments) else set()), done.stderr
    assert not (tree / "var/log").exists()
    assert not (tmp_path / ".local").exists()


def _talks_to_a_repository(arguments: list[str]) -> bool:
    """urllib3 loads the standard library's logging by itself."""
    return arguments[0] in ("plan", "install", "update", "certificate")


@pytest.mark.parametrize("options", [[], ["--json"], ["--quiet"]], ids=["text", "json", "quiet"])
@pytest.mark.parametrize("plant", ["symlink", "hardlink"])
def test_d5_a_planted_log_changes_nothing_but_that_the_user_is_told_once(tree: Path, tmp_path: Path, plant: str,
                                                                          options: list[str]) -> None:
    target = tmp_path / "precious"
    target.write_text("precious\n")
    target.chmod(0o644)
    log_of(tree).parent.mkdir(parents=True)
    (log_of(tree).symlink_to if plant == "symlink" else log_of(tree).hardlink_to)(target)
    before = target.stat()

    done = keyfit("recover", "--root", tree, *options)

    after = target.stat()
    assert done.returncode == 0, done
    assert target.read_text() == "precious\n"
    assert (after.st_mode, after.st_uid, after.st_mtime_ns) == (before.st_mode, before.st_uid, before.st_mtime_ns)
    told = "There is no log of this run"
    if options == ["--json"]:
        assert [m["code"] for m in document(done)["messages"]] == ["nothing-to-do", "no-log"]
        assert done.stderr == ""
    else:
        assert done.stderr.count(told) == (0 if options else 1)
        assert told not in done.stdout


@pytest.mark.parametrize("spoil", ["full", "read-only", "no-directory"])
def test_no_command_fails_because_it_cannot_be_logged(tree: Path, spoil: str) -> None:
    place = log_of(tree).parent
    place.mkdir(parents=True)
    scripts = {
        "full": 'mount -t tmpfs -o size=4k,mode=0700 none "$1" && (head -c 99999 /dev/zero > "$1/ballast" 2>/dev/null || :)',
        "read-only": 'mount -t tmpfs -o ro,mode=0700 none "$1"',
        "no-directory": 'rmdir "$1" && echo no > "$1"',
    }
    program = [sys.executable, "-m", "keyfit", "recover", "--json", "--root", str(tree)]

    script = scripts[spoil] + ' && shift && exec "$@"'
    done = subprocess.run(["unshare", "--mount", "sh", "-c", script, "sh", str(place), *program], capture_output=True, text=True,
                          timeout=60, check=False)

    assert done.returncode == 0, done
    assert [m["code"] for m in json.loads(done.stdout)["messages"]] == ["nothing-to-do", "no-log"]
