"""The first commands, run as a program: from the checkout, or the frozen one that KEYFIT_PROGRAM names."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
RECORDINGS = CHECKOUT / "tests" / "data" / "recordings"
SCHEMA = json.loads((CHECKOUT / "docs" / "schemas" / "output.schema.json").read_text())
PROGRAM = [os.environ["KEYFIT_PROGRAM"]] if "KEYFIT_PROGRAM" in os.environ else [sys.executable, "-m", "keyfit"]


def keyfit(*arguments: object, **environment: str) -> "subprocess.CompletedProcess[str]":
    given = {k: v for k, v in os.environ.items() if not k.startswith("KEYFIT_")} | environment
    return subprocess.run([*PROGRAM, *map(str, arguments)], capture_output=True, text=True, env=given, timeout=60,
                          stdin=subprocess.DEVNULL, check=False)


def document(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    """The one JSON document on stdout, held against the published schema."""
    parsed: dict[str, Any] = json.loads(done.stdout)
    jsonschema.validate(parsed, SCHEMA)
    assert parsed["exit_code"] == done.returncode
    return parsed


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """An empty tree with a package database."""
    database = tmp_path / "tree" / "var" / "lib" / "dpkg"
    (database / "info").mkdir(parents=True)
    (database / "status").write_text("")
    (database / "available").write_text("")
    (tmp_path / "tree" / "etc").mkdir()
    (tmp_path / "tree" / "etc" / "os-release").write_text('ID=debian\nVERSION_ID="12"\n')
    return tmp_path / "tree"


def test_help_shows_an_example_for_every_command() -> None:
    top = keyfit("--help")
    commands = [line.split()[0] for line in top.stdout.split("Commands:")[1].splitlines() if line.startswith("  ")
                and not line.startswith("   ")]

    assert top.returncode == 0
    assert {"devices", "install", "verify", "uninstall"} <= set(commands)
    for command in commands:
        assert f"Example: keyfit {command}" in keyfit(command, "--help").stdout


def test_an_emulated_token_is_named(tree: Path) -> None:
    done = keyfit("devices", "--json", "--emulate", RECORDINGS / "acs-cryptomate-t1.json", "--root", tree)

    (device,) = document(done)["data"]["devices"]
    assert (device["id_vendor"], device["id_product"]) == (0x072F, 0xB200)
    assert device["hardware_id"].startswith("USB\\VID_072F&PID_B200&REV_")
    assert device["is_token"] is True
    assert device["brand"] == "acs-cryptomate"
    assert device["driver"]["state"] == "missing"


def test_explain_gives_each_candidate_a_rank_and_a_reason(tree: Path) -> None:
    done = keyfit("devices", "--explain", "--json", "--emulate", RECORDINGS / "acs-cryptomate-t1.json", "--root", tree)

    (device,) = document(done)["data"]["devices"]
    ranks = [c["rank"] for c in device["candidates"]]
    assert ranks == sorted(ranks, reverse=True)
    assert all(c["reason"] for c in device["candidates"])
    assert device["candidates"][0]["chosen"]


def test_options_may_stand_before_the_command(tree: Path) -> None:
    recording = RECORDINGS / "acs-cryptomate-t1.json"

    assert keyfit("--json", "--emulate", recording, "--root", tree, "devices").stdout == keyfit(
        "devices", "--json", "--emulate", recording, "--root", tree).stdout


def test_verify_names_the_first_broken_link_and_its_cure(tree: Path) -> None:
    done = keyfit("verify", "--json", "--emulate", RECORDINGS / "acs-cryptomate-t1.json", "--root", tree)

    verdict = document(done)["data"]["verdict"]
    assert done.returncode == 66
    assert verdict["works"] is False
    assert verdict["first_broken"] == "driver"
    assert "keyfit install acs-cryptomate" in str(verdict["links"])


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["nonsense"], 2),
        (["devices", "--nonsense"], 2),
        (["install", "no-such-brand", "--repository", "/nowhere", "--trust-root", "/nowhere"], 2),
        (["install", "--silent"], 2),
        (["devices", "--root", "/no/such/tree"], 2),
        (["devices", "--emulate", "/no/such/recording"], 2),
        (["apply", "/no/such/plan"], 2),
        (["certificate", "--timeout", "-3"], 2),
    ],
)
def test_a_wrong_command_line_is_refused_with_a_reason(arguments: list[str], code: int) -> None:
    done = keyfit(*arguments)

    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("Error: ")
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_errors_in_json_are_one_document_too() -> None:
    parsed = document(keyfit("install", "--silent", "--json"))

    assert parsed["outcome"] == "usage"
    assert parsed["messages"][0]["code"] == "silent-needs-brand"
    assert parsed["messages"][0]["hint"]


def test_d6_an_elevated_process_ignores_the_environment(tree: Path) -> None:
    """The caller's environment must not steer a process with administrator rights; an ordinary one may use it."""
    done = keyfit("devices", "--json", "--root", tree, KEYFIT_EMULATE=str(RECORDINGS / "acs-cryptomate-t1.json"))
    devices = document(done)["data"]["devices"]

    named = [d["brand"] for d in devices if d["brand"] == "acs-cryptomate" and d["bus_path"]]
    assert bool(named) is (os.geteuid() != 0)


def test_history_of_a_fresh_machine_is_empty(tree: Path) -> None:
    assert document(keyfit("history", "--json", "--root", tree))["data"] == {"history": []}
