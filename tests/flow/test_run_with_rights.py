"""A run with administrator's rights on the system itself: what lies in the user's reach has no effect on it.

In a copy of the running system, so that "/" may be changed and programs may be planted in it.
"""

import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from keyfit.platforms.linux.programs import PROGRAMS
from tests.flow.test_no_surface import BRAND, PAGE, Bank, here
from tests.sim import debs
from tests.sim.livecopy import LiveCopy
from tests.sim.straced import Call, calls, command, traced

USER = "nobody"
HOME = "/tmp/home"
MARK = "/tmp/ran"
PLANTED = (*PROGRAMS, "pcscd", "python3", "sh", "ldconfig", "dpkg-split", "tar", "rm", "pkexec", "sudo", "gpg")
"""Programs that Keyfit runs, that those run, or that one might look for in PATH."""


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    return Bank(tmp_path_factory.mktemp("bank"))


@pytest.fixture
def machine(bank: Bank, tmp_path: Path) -> Iterator["Machine"]:
    shutil.copytree(bank.folder, tmp_path / "bank")
    with LiveCopy(tmp_path) as copy:
        yield Machine(copy, here(bank, tmp_path))


class Machine:
    """A running system on which an administrator calls Keyfit, as sudo would have it."""

    def __init__(self, copy: LiveCopy, bank: Bank) -> None:
        self.copy, self.bank = copy, bank

    def run(self, *arguments: object, environment: Mapping[str, str] | None = None, cwd: str = "/"
            ) -> tuple[dict[str, Any], list[Call]]:
        """What it said, and all that it and its children did."""
        log = Path("/tmp/calls")
        done = self.copy.run(command(log, self.bank.command(*arguments), environment), cwd=cwd)
        assert done.stdout, done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        return document, list(calls(self.path(str(log))))

    def path(self, path: str) -> Path:
        return self.copy.root / path.lstrip("/")

    def put(self, path: str, text: str, mode: int = 0o644) -> None:
        target = self.path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)


# -- settings of the user's -----------------------------------------------------------------------------------------------


def test_d6_what_lies_in_the_users_home_and_environment_has_no_effect(machine: Machine) -> None:
    """D6: a policy, a cache with metadata, settings of Python, dpkg and apt, and every variable of ours; the plan is the same to
    the letter, and none of these files is so much as opened."""
    plain, _ = machine.run("plan", BRAND)
    evil = 'offline_kit_grace_days = 365\nallow = ["avest=1"]\n'
    for name in (".config/keyfit/policy.toml", ".keyfit/policy.toml", ".keyfit.toml", "keyfit/policy.toml", "policy.toml",
                 ".local/share/keyfit/policy.toml", ".dpkg.cfg", ".config/apt.conf", "updater.ini", "sitecustomize.py",
                 ".cache/keyfit/metadata/tuf/root.json", ".cache/keyfit/payloads/x", "state/journal.sqlite", "msgspec.py",
                 ".pydistutils.cfg", ".pythonrc.py", ".netrc", "keyfit/__init__.py"):
        machine.put(f"{HOME}/{name}", evil)
    hostile = {"HOME": HOME, "XDG_CONFIG_HOME": f"{HOME}/.config", "XDG_CACHE_HOME": f"{HOME}/.cache", "XDG_CONFIG_DIRS": HOME,
               "XDG_DATA_HOME": f"{HOME}/.local/share", "KEYFIT_ROOT": HOME, "KEYFIT_STATE_DIR": f"{HOME}/state",
               "KEYFIT_CACHE_DIR": f"{HOME}/.cache/keyfit", "KEYFIT_REPOSITORY": f"{HOME}/repository", "KEYFIT_EMULATE": HOME,
               "KEYFIT_TRUST_ROOT": f"{HOME}/root.json", "KEYFIT_POLICY": f"{HOME}/policy.toml", "NETRC": f"{HOME}/.netrc",
               "SUDO_USER": USER, "SUDO_UID": "65534", "USER": USER}

    told, seen = machine.run("plan", BRAND, environment=hostile, cwd=HOME)
    done, also = machine.run("install", BRAND, "--silent", environment=hostile, cwd=HOME)

    assert told["data"]["plan"] == plain["data"]["plan"]
    assert done["outcome"] == "done", done
    touched = {path for call in (*seen, *also) if call.name != "execve" for path in call.paths if path.startswith(HOME)}
    assert touched == set()
    assert machine.path("/var/lib/keyfit").is_dir()
    assert not machine.path(f"{HOME}/state/installed.json").exists()


def test_d6_a_policy_of_the_users_does_not_become_one_by_a_link(machine: Machine) -> None:
    """D6: /etc/keyfit may not lead to a file that is not root's."""
    machine.put(f"{HOME}/policy.toml", 'allow = ["avest=1"]')
    os.chown(machine.path(f"{HOME}/policy.toml"), 65534, 65534)
    machine.copy.run(["sh", "-c", f"mkdir -p /etc/keyfit; ln -s {HOME}/policy.toml /etc/keyfit/policy.toml"])

    said, _ = machine.run("install", BRAND, "--silent")

    assert (said["exit_code"], said["messages"][0]["code"]) == (78, "policy-unsafe")


# -- programs ---------------------------------------------------------------------------------------------------------------


def plant(folder: Path, mark: str) -> None:
    """Programs that say that they ran."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in PLANTED:
        (folder / name).write_text(f"#!/bin/sh\necho {name} >> {mark}\n")
        (folder / name).chmod(0o755)


def test_c10_programs_planted_in_path_and_in_the_working_directory_are_not_run(machine: Machine) -> None:
    """C10, with all that the programs which Keyfit runs start themselves."""
    plant(machine.path("/tmp/planted"), MARK)
    words = {"PATH": f"/tmp/planted:.:{os.environ['PATH']}", "BROWSER": "/tmp/planted/xdg-open", "DISPLAY": ":7",
             "SHELL": "/tmp/planted/sh", "DPKG_ROOT": "/tmp/planted", "SUDO_UID": "65534"}

    done, seen = machine.run("install", BRAND, "--yes", environment=words, cwd="/tmp/planted")
    gone, more = machine.run("uninstall", BRAND, "--yes", environment=words, cwd="/tmp/planted")

    assert (done["outcome"], gone["outcome"]) == ("done", "done"), (done, gone)
    assert not machine.path(MARK).exists()
    started = [call.paths[0] for call in (*seen, *more) if call.name == "execve" and call.result == 0]
    ours = {path for paths in PROGRAMS.values() for path in paths}
    assert set(started) & ours, started
    assert [path for path in started if path.startswith("/tmp/planted")] == []


def test_the_planted_programs_do_run_where_path_is_asked(tmp_path: Path) -> None:
    """The measure of the one above."""
    plant(tmp_path / "planted", str(tmp_path / "ran"))
    traced(["/bin/sh", "-c", "dpkg --version"], tmp_path / "log", environment={"PATH": str(tmp_path / "planted")})
    assert (tmp_path / "ran").read_text() == "dpkg\n"


@pytest.mark.parametrize("name", ["%TEMP%", "`touch ran`", "$(touch ran)", "a'b\"c", "new\nline", "-rf", "; touch ran", "a & b"])
def test_c10_a_tree_and_a_cache_with_hostile_names(bank: Bank, tmp_path: Path, name: str) -> None:
    """C10: names go from program to program as they are."""
    tree, cache = tmp_path / name / "tree", tmp_path / name / "cache"
    debs.tree_with_package_database(tree)
    words = bank.command("install", BRAND, "--silent", "--root", tree, "--cache-dir", cache)

    done, seen = traced(words, tmp_path / "log", cwd=tmp_path)

    assert json.loads(done.stdout)["outcome"] == "done", done
    assert (tree / "usr/lib/acme/driver.so").read_text() == "elf\n"
    assert list(tmp_path.rglob("ran")) == []
    started = {call.paths[0] for call in seen if call.name == "execve" and call.result == 0}
    assert "/usr/bin/dpkg" in started
    assert {str(Path(path).parent) for path in started - {sys.executable}} <= {"/usr/bin", "/usr/sbin", "/bin", "/sbin"}


# -- the page ---------------------------------------------------------------------------------------------------------------

OPENER = """#!/bin/sh
{ id -u; id -G; printf '%s\\n' "$#" "$@"; } > /tmp/opened.part && mv /tmp/opened.part /tmp/opened
"""


def opened(machine: Machine, environment: Mapping[str, str]) -> list[str] | None:
    """What xdg-open was given: user, groups, number of arguments, arguments. None if the program says that it opened nothing."""
    machine.put("/usr/bin/xdg-open", OPENER, 0o755)
    machine.put("/tmp/opened", "")
    machine.path("/tmp/opened").unlink()
    said, seen = machine.run("certificate", BRAND, "--open", environment=environment)
    codes = [message["code"] for message in said["messages"]]
    ran = [call for call in seen if call.name == "execve" and call.paths[0].endswith("xdg-open")]
    if "hand-off-opened" not in codes:
        assert "hand-off-shown" in codes
        assert ran == []
        return None
    return machine.path("/tmp/opened").read_text().splitlines()


def test_g3_a_page_is_opened_as_the_user_who_asked_or_not_at_all(machine: Machine) -> None:
    """G3: by sudo and by pkexec; never by root, and never without a graphical session."""
    assert machine.run("install", BRAND, "--silent")[0]["outcome"] == "done"
    assert not machine.path("/tmp/opened").exists()
    clean = {"SUDO_UID": "", "PKEXEC_UID": "", "DISPLAY": ":7"}

    for name in ("SUDO_UID", "PKEXEC_UID"):
        assert opened(machine, clean | {name: "65534"}) == ["65534", "65534", "1", PAGE]
    assert opened(machine, clean) is None
    assert opened(machine, clean | {"SUDO_UID": "0"}) is None
    assert opened(machine, clean | {"SUDO_UID": "65534", "DISPLAY": "", "WAYLAND_DISPLAY": ""}) is None


@pytest.mark.parametrize("page", ["-psn", " https://www.example.com/x", "http://www.example.com/", "file:///etc/passwd",
                                  "--new-window=https://www.example.com/", "javascript:alert(1)"])
def test_g3_what_is_no_plain_https_page_is_refused_in_signed_data(tmp_path: Path, page: str) -> None:
    """G3: signed by the right keys; refused before anything is installed, and nothing is opened."""
    bank = Bank(tmp_path / "bank", page)
    with LiveCopy(tmp_path) as copy:
        machine = Machine(copy, bank)
        machine.put("/usr/bin/xdg-open", OPENER, 0o755)
        said, seen = machine.run("install", BRAND, "--yes", environment={"DISPLAY": ":7", "SUDO_UID": "65534"})
        assert (said["exit_code"], said["messages"][0]["code"]) == (76, "manifest-invalid")
        assert [call for call in seen if call.name == "execve" and "xdg-open" in call.text] == []
        assert not machine.path("/tmp/opened").exists()
        assert not machine.path("/usr/lib/acme").exists()
