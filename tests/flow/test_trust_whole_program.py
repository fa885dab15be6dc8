"""The whole program, as its own process: data that is kept back, a folder that is half there, a hostile environment."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.sim.brands import a_brand, a_match
from tests.sim.repository import SignedRepository

ACME = a_brand("acme", a_match(id_vendor=0x1234, id_product=1))


class Customer:
    """A user with a cache of his own, who asks `keyfit plan acme`."""

    def __init__(self, repository: SignedRepository, folder: Path, cache: Path | None = None) -> None:
        self.root = folder / "root.json"
        self.root.write_bytes(repository.trusted_root)
        self.cache = cache or folder / "cache"
        self.tree = folder / "tree"
        self.tree.mkdir(exist_ok=True)
        self._url = repository.url

    def command(self) -> list[str]:
        return [sys.executable, "-P", "-m", "keyfit", "plan", "acme", "--json", "--root", str(self.tree), "--state-dir",
                str(self.cache / "state"), "--cache-dir", str(self.cache), "--repository", self._url, "--trust-root",
                str(self.root)]

    def ask(self, at: str = "") -> tuple[int, str]:
        """(exit code, code of the first error or ""), with the clock at `at` (as faketime understands it)."""
        done = subprocess.run([*(["faketime", at] if at else []), *self.command()], capture_output=True, text=True, check=False)
        return outcome(done.returncode, done.stdout)


def outcome(returncode: int, stdout: str) -> tuple[int, str]:
    document: dict[str, Any] = json.loads(stdout)
    errors = [message["code"] for message in document["messages"] if message["level"] == "error"]
    return returncode, errors[0] if errors else ""


@pytest.fixture
def repository(tmp_path: Path) -> SignedRepository:
    made = SignedRepository(tmp_path / "publisher")
    made.release(ACME)
    return made


def test_a6_a_withheld_timestamp_is_good_for_three_days(repository: SignedRepository, tmp_path: Path) -> None:
    """A6, a freeze: whoever keeps the newest timestamp back can do so until the old one expires."""
    customer = Customer(repository, tmp_path)

    assert customer.ask("+2 days") == (0, "")
    assert customer.ask("+4 days") == (76, "metadata-expired")


def test_a7_half_a_metadata_folder_heals(repository: SignedRepository, tmp_path: Path) -> None:
    """A7: what a power cut or a full disk can leave: files cut short, empty, or gone."""
    customer = Customer(repository, tmp_path)
    assert customer.ask() == (0, "")
    folder = next(path.parent for path in customer.cache.rglob("timestamp.json"))
    for number, path in enumerate(sorted(folder.glob("*.json"))):
        if not path.is_symlink():
            data = path.read_bytes()
            path.write_bytes((b"", data[:len(data) // 2], b"null")[number % 3])

    assert customer.ask() == (0, "")

    shutil.rmtree(folder)
    assert customer.ask() == (0, "")


def test_the_environment_does_not_weaken_anything(repository: SignedRepository, tmp_path: Path) -> None:
    """F1: variables that other programs obey."""
    customer = Customer(repository, tmp_path)
    stranger = SignedRepository(tmp_path / "stranger")
    stranger.release(ACME)
    hostile = os.environ | {"PYTHONHTTPSVERIFY": "0", "CURL_CA_BUNDLE": "/dev/null", "REQUESTS_CA_BUNDLE": "/dev/null",
                            "KEYFIT_TRUST_ROOT": str(stranger.folder / "metadata" / "1.root.json"),
                            "KEYFIT_POLICY": "/dev/null"}
    command = [part if part != repository.url else stranger.url for part in customer.command()]

    done = subprocess.run(command, capture_output=True, text=True, env=hostile, check=False)

    assert outcome(done.returncode, done.stdout) == (76, "metadata-signature")
