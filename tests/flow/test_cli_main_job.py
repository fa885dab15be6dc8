"""The main job and what can go wrong with it, through the command line: a repository that `keyfit-publish` signed, the real
driver package of Debian, real dpkg in a throw-away tree, an emulated token."""

import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.flow.test_first_commands import CHECKOUT, RECORDINGS, document, keyfit
from tests.sim import debs

RECORDING = RECORDINGS / "acs-cryptomate-t1.json"
BUNDLE = "usr/lib/pcsc/drivers/ifd-acsccid.bundle"
DRIVERS = CHECKOUT / "drivers"
DEB_CACHE = Path(os.environ.get("KEYFIT_TEST_CACHE", CHECKOUT / "build" / "debs"))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A publisher's folder, with the ACS driver in it."""
    folder = tmp_path_factory.mktemp("publisher") / "keyfit"
    driver = debs.fetch("libacsccid1", DEB_CACHE)
    publish("init", folder)
    publish("add", folder, "acs-cryptomate", driver, "--drivers", DRIVERS)
    publish("release", folder, "--drivers", DRIVERS, "--hand-off", CHECKOUT / "demo" / "hand-off.toml")
    return folder


@pytest.fixture
def repository(published: Path, tmp_path: Path) -> Path:
    """A copy that the test may spoil."""
    return Path(shutil.copytree(published / "repository", tmp_path / "repository"))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree that takes the package: its libraries count as installed."""
    debs.tree_with_package_database(tmp_path / "tree")
    if "Package: libusb-1.0-0\n" not in (tmp_path / "tree/var/lib/dpkg/status").read_text():
        library = debs.fetch("libusb-1.0-0", DEB_CACHE)
        subprocess.run(["dpkg", f"--root={tmp_path / 'tree'}", "--force-not-root", "--force-script-chrootless", "-i",
                        library], check=True, capture_output=True)
    return tmp_path / "tree"


def publish(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "keyfit.publisher", *map(str, arguments)], check=True, capture_output=True)


def run(tree: Path, repository: object, *arguments: object, root: Path | None = None) -> "subprocess.CompletedProcess[str]":
    trusted = root or (Path(str(repository)) / "metadata" / "1.root.json")
    return keyfit(*arguments, "--json", "--root", tree, "--emulate", RECORDING, "--repository", repository,
                  "--trust-root", trusted, "--cache-dir", tree.parent / "cache")


def state(tree: Path) -> dict[str, Any]:
    """Everything in the tree but Keyfit's own record and dpkg's bookkeeping."""
    ours = tree / "var/lib/keyfit"
    files = {str(p.relative_to(tree)): p.read_bytes() for p in tree.rglob("*")
             if p.is_file() and ours not in p.parents and "var/lib/dpkg/" not in str(p) and "var/log" not in str(p)}
    installed = [x for x in (tree / "var/lib/dpkg/status").read_text().split("\n\n") if "Package: libacsccid1\n" in x]
    return {"files": files, "package": installed}


def refused(tree: Path, repository: object, code: int, *message_codes: str, **options: Any) -> None:
    """An install that fails with this exit code and one of these messages, and changes nothing."""
    before = state(tree)
    done = run(tree, repository, "install", "--yes", **options)
    said = document(done)["messages"]
    assert done.returncode == code, done.stdout
    assert said[0]["code"] in message_codes, said
    assert said[0]["hint"]
    assert state(tree) == before


def test_install_verify_certificate_uninstall(tree: Path, repository: Path) -> None:
    before = state(tree)
    plan = document(run(tree, repository, "plan"))["data"]["plan"]
    assert [s["kind"] for s in plan["steps"]] == ["package-file"]
    assert state(tree) == before

    installed = document(run(tree, repository, "install", "--yes"))
    assert installed["outcome"] == "done"
    assert installed["data"]["verdict"]["works"] is True
    assert "hand-off-shown" in [m["code"] for m in installed["messages"]]
    assert (tree / BUNDLE).is_dir()
    assert document(run(tree, repository, "verify"))["data"]["verdict"]["works"] is True
    certificate = document(run(tree, repository, "certificate"))["data"]
    assert certificate["hand_off"]["page"] == "https://www.example.com/certificate"
    (entry,) = document(run(tree, repository, "history"))["data"]["history"]
    assert (entry["verb"], entry["result"], entry["brand"]) == ("install", "done", "acs-cryptomate")

    assert document(run(tree, repository, "uninstall", "acs-cryptomate", "--yes"))["outcome"] == "done"
    assert state(tree) == before


def test_an_offline_kit_is_a_folder(tree: Path, repository: Path) -> None:
    done = keyfit("install", "--yes", "--json", "--root", tree, "--emulate", RECORDING, "--source", repository,
                  "--trust-root", repository / "metadata" / "1.root.json", "--cache-dir", tree.parent / "cache")

    assert document(done)["data"]["verdict"]["works"] is True


def test_a_saved_plan_works_here_and_is_refused_for_another_tree(tree: Path, repository: Path, tmp_path: Path) -> None:
    saved = tmp_path / "plan.json"
    run(tree, repository, "plan", "--out", saved)
    other = Path(shutil.copytree(tree, tmp_path / "other"))

    refusal = run(other, repository, "apply", saved, "--yes")
    assert refusal.returncode == 78
    assert document(refusal)["messages"][0]["code"] == "plan-of-another-machine"
    assert document(run(tree, repository, "apply", saved, "--yes"))["outcome"] == "done"


def test_a_repository_that_is_not_there(tree: Path, repository: Path, tmp_path: Path) -> None:
    root = repository / "metadata" / "1.root.json"
    refused(tree, tmp_path / "nowhere", 69, "repository-file-missing", root=root)
    refused(tree, "https://127.0.0.1:9/", 69, "repository-unreachable", root=root)


def test_f1_plain_http_to_another_machine_is_refused(tree: Path, repository: Path) -> None:
    done = run(tree, "http://drivers.example.com/", "install", "--yes", root=repository / "metadata" / "1.root.json")

    assert done.returncode == 2
    assert "https" in document(done)["messages"][0]["text"]


def test_tampered_metadata(tree: Path, repository: Path) -> None:
    timestamp = repository / "metadata" / "timestamp.json"
    timestamp.write_bytes(timestamp.read_bytes().replace(b'"version":2', b'"version":9'))

    refused(tree, repository, 76, "metadata-signature", "metadata-hash", "metadata-malformed")


def test_a1_a_repository_signed_by_somebody_else(tree: Path, repository: Path, tmp_path: Path) -> None:
    publish("init", tmp_path / "stranger")
    root = tmp_path / "stranger" / "repository" / "metadata" / "1.root.json"

    done = run(tree, repository, "install", "--yes", root=root)
    assert done.returncode == 76


def test_a6_expired_metadata(tree: Path, tmp_path: Path) -> None:
    from keyfit.publisher.draft import Draft
    from keyfit.publisher.release import Workplace

    folder = tmp_path / "old"
    publish("init", folder)
    old = Workplace(folder, now=lambda: datetime.now(UTC) - timedelta(days=9))
    old.refresh(Draft(old.repository))

    refused(tree, folder / "repository", 76, "metadata-expired")


@pytest.mark.parametrize(("spoil", "code"), [
    (lambda data: data[:-1] + bytes([data[-1] ^ 1]), 76),
    (lambda data: data[: len(data) // 2], 69),
    (lambda data: data + b"more", 76),
    (lambda data: b"", 69),
], ids=["changed", "truncated", "longer", "empty"])
def test_a_payload_that_is_not_what_was_signed(tree: Path, repository: Path, spoil: Any, code: int) -> None:
    payload = next(p for p in (repository / "payloads").rglob("*.deb"))
    payload.write_bytes(spoil(payload.read_bytes()))
    before = state(tree)

    done = run(tree, repository, "install", "--yes")

    assert done.returncode in (code, 76, 69), done.stdout
    assert document(done)["messages"][0]["code"].startswith(("payload", "download"))
    assert state(tree) == before


def test_a_full_disk(tree: Path, repository: Path, tmp_path: Path) -> None:
    """The tree lies on a file system that has no room for the record, in a mount namespace of its own."""
    command = [sys.executable, "-m", "keyfit", "install", "--yes", "--json", "--root", str(tree), "--emulate", str(RECORDING),
               "--repository", str(repository), "--trust-root", str(repository / "metadata" / "1.root.json"),
               "--cache-dir", str(tmp_path / "cache"), "--state-dir", str(tree / "var/lib/keyfit")]
    script = ('mkdir -p "$1" && mount -t tmpfs -o size=64k,mode=0755 none "$1" && head -c 61440 /dev/zero > "$1/ballast"'
              ' && shift && exec "$@"')
    before = state(tree)

    done = subprocess.run(["unshare", "-m", "sh", "-c", script, "sh", str(tree / "var/lib/keyfit"), *command],
                          capture_output=True, text=True, timeout=60)

    assert done.returncode == 73, done.stdout + done.stderr
    assert json.loads(done.stdout)["messages"][0]["hint"]
    assert state(tree) == before


def test_a_read_only_tree(tree: Path, repository: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "keyfit", "install", "--yes", "--json", "--root", str(tree), "--emulate", str(RECORDING),
               "--repository", str(repository), "--trust-root", str(repository / "metadata" / "1.root.json"),
               "--cache-dir", str(tmp_path / "cache")]
    script = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'

    done = subprocess.run(["unshare", "-m", "sh", "-c", script, "sh", str(tree), *command], capture_output=True, text=True,
                          timeout=60)

    assert done.returncode == 73, done.stdout + done.stderr
    assert json.loads(done.stdout)["messages"][0]["hint"]


def test_h1_a_hostile_recording_cannot_dress_up_the_list(tree: Path, tmp_path: Path) -> None:
    hostile = tmp_path / "hostile.json"
    recording = json.loads(RECORDING.read_text())
    recording["devices"][0]["device"] |= {"product": "\x1b[2J$(touch x)\u202egnp.exe", "manufacturer": "../../%n%n\nnext line"}
    hostile.write_text(json.dumps(recording))

    done = keyfit("devices", "--root", tree, "--emulate", hostile)

    assert done.returncode in (0, 2)
    shown = done.stdout + done.stderr
    assert not set("\x1b\u202e") & set(shown)
    assert "\nnext line" not in shown
