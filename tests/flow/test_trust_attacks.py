"""Attacks on the whole program, as its own process: the clock, the disk, two at once. Those on single parts are in the other
tests; `tests/attacks.py` lists all of them by requirement."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
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


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=0700", "none", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a6_a_clock_that_was_set_back_is_named(repository: SignedRepository, tmp_path: Path) -> None:
    """A6: back to where expired data would be good again. Nothing of what is remembered changes by it."""
    customer = Customer(repository, tmp_path)
    assert customer.ask() == (0, "")

    assert customer.ask("2000-01-01 00:00:00") == (76, "clock-behind")
    assert customer.ask("-3 days") == (76, "clock-behind")

    assert customer.ask("-2 hours") == (0, "")
    assert customer.ask() == (0, "")


def test_a6_a_clock_that_ran_ahead_refuses_and_poisons_nothing(repository: SignedRepository, tmp_path: Path) -> None:
    """A6: everything looks expired then; once the clock is right, all is well."""
    customer = Customer(repository, tmp_path)
    assert customer.ask() == (0, "")

    assert customer.ask("+5 days") == (76, "metadata-expired")
    assert customer.ask("+1 year") == (76, "metadata-expired")
    assert customer.ask("2099-12-31 23:59:00") == (76, "metadata-expired")

    assert customer.ask() == (0, "")


def test_a6_a_withheld_timestamp_is_good_for_three_days(repository: SignedRepository, tmp_path: Path) -> None:
    """A6, a freeze: whoever keeps the newest timestamp back can do so until the old one expires."""
    customer = Customer(repository, tmp_path)

    assert customer.ask("+2 days") == (0, "")
    assert customer.ask("+4 days") == (76, "metadata-expired")


def test_two_programs_on_one_cache_do_not_spoil_it(repository: SignedRepository, tmp_path: Path) -> None:
    """One lock: python-tuf alone fails now and then when two processes renew one folder."""
    customer = Customer(repository, tmp_path)

    running = [subprocess.Popen(customer.command(), stdout=subprocess.PIPE, text=True) for _ in range(6)]
    ended = [(child.communicate(timeout=60)[0], child.returncode) for child in running]

    assert [outcome(code, out) for out, code in ended] == [(0, "")] * 6
    assert customer.ask() == (0, "")


def test_a7_a_disk_that_is_full_in_the_middle_of_a_refresh_leaves_the_old_data(repository: SignedRepository, tmp_path: Path,
                                                                               small_disk: Path) -> None:
    """A7, D7: told as such, and nothing that was trusted is lost."""
    customer = Customer(repository, tmp_path, cache=small_disk / "cache")
    assert customer.ask() == (0, "")
    repository.release(ACME)
    repository.refresh()
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 1024):
                pass
        except OSError:
            pass
    before = sorted(path.name for path in (small_disk / "cache").rglob("*.json"))

    assert customer.ask() == (73, "disk-full")

    assert sorted(path.name for path in (small_disk / "cache").rglob("*.json")) == before
    filler.unlink()
    assert customer.ask() == (0, "")


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
    """F1, J2: variables that other programs obey."""
    customer = Customer(repository, tmp_path)
    stranger = SignedRepository(tmp_path / "stranger")
    stranger.release(ACME)
    hostile = os.environ | {"PYTHONHTTPSVERIFY": "0", "CURL_CA_BUNDLE": "/dev/null", "REQUESTS_CA_BUNDLE": "/dev/null",
                            "KEYFIT_TRUST_ROOT": str(stranger.folder / "metadata" / "1.root.json"),
                            "KEYFIT_POLICY": "/dev/null"}
    command = [part if part != repository.url else stranger.url for part in customer.command()]

    done = subprocess.run(command, capture_output=True, text=True, env=hostile, check=False)

    assert outcome(done.returncode, done.stdout) == (76, "metadata-signature")
