"""The metadata that a build carries for the first contact: what it saves, and that nothing depends on it."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.sim.brands import a_brand, a_match
from tests.sim.repository import HostileServer, SignedRepository

ACME = a_brand("acme", a_match(id_vendor=0x1234, id_product=1))
STATIC = ("targets", "drivers")


class Build:
    """A repository and the seed of a build made from it."""

    def __init__(self, folder: Path) -> None:
        self.repository = SignedRepository(folder / "publisher")
        self.target = self.repository.release(ACME)
        self.seed = folder / "seed"
        self.seed.mkdir()
        for role in STATIC:
            shutil.copy(self.repository.newest(f"metadata/*.{role}.json"), self.seed / f"{role}.json")

    def first_contact(self, folder: Path, server: HostileServer, *, seeded: bool = True) -> list[str]:
        """What a fresh client asks for until it has its manifest."""
        server.requests.clear()
        client = self.repository.client(folder, server.url, seed=self.seed if seeded else None)
        assert client.manifest(self.target) is not None
        return [path.rpartition("/")[2].lstrip("0123456789.") if "metadata" in path else "manifest"
                for path, _ in server.requests]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    return Build(tmp_path)


@pytest.fixture
def server(build: Build) -> Iterator[HostileServer]:
    with HostileServer(build.repository.folder) as server:
        yield server


def test_a_seed_saves_two_requests(build: Build, server: HostileServer, tmp_path: Path) -> None:
    without = build.first_contact(tmp_path / "without", server, seeded=False)
    seeded = build.first_contact(tmp_path / "seeded", server)

    assert [name for name in without if name not in seeded] == ["targets.json", "drivers.json"]
    assert len(without) == 7
    assert len(seeded) == 5


def test_an_old_seed_saves_what_has_not_changed(build: Build, server: HostileServer, tmp_path: Path) -> None:
    build.repository.expire("targets")
    build.repository.expire("")  # signs anew what has expired
    assert build.repository.newest("metadata/*.targets.json").name.startswith("3.")

    asked = build.first_contact(tmp_path / "client", server)
    assert "targets.json" in asked
    assert "drivers.json" not in asked


def junk(path: Path) -> None:
    path.write_bytes(b"{" * 1000)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def forged(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"version":1', b'"version":2').replace(b'"version": 1', b'"version": 2'))


def huge(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(5_000_001)


def nested(path: Path) -> None:
    path.write_bytes(b"[" * 1_000_000)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("spoil", [junk, empty, forged, huge, nested, folder, fifo, Path.unlink])
def test_a_spoilt_seed_costs_nothing_but_the_saving(build: Build, server: HostileServer, tmp_path: Path,
                                                    spoil: Callable[[Path], None]) -> None:
    for role in STATIC:
        spoil(build.seed / f"{role}.json")

    assert build.first_contact(tmp_path / "spoilt", server) == build.first_contact(tmp_path / "none", server, seeded=False)


def test_no_seed_at_all(build: Build, server: HostileServer, tmp_path: Path) -> None:
    shutil.rmtree(build.seed)

    assert len(build.first_contact(tmp_path / "client", server)) == 7


def test_a1_a_seed_brings_no_root_and_no_snapshot(build: Build, server: HostileServer, tmp_path: Path) -> None:
    """A1: only roles below the snapshot are taken, and never a name that leads elsewhere."""
    for name in ("root", "timestamp", "snapshot"):
        (build.seed / f"{name}.json").write_bytes(b"planted")
    (build.seed / "floors").write_bytes(b"planted")
    (build.seed / ".json").write_bytes(b"planted")

    assert len(build.first_contact(tmp_path / "client", server)) == 5
    kept = [path for path in (tmp_path / "client").rglob("*") if path.is_file()]
    assert not any(path.read_bytes() == b"planted" for path in kept)


def test_what_was_fetched_is_not_replaced_by_the_seed(build: Build, server: HostileServer, tmp_path: Path) -> None:
    """The seed is for the first contact; later it would be older than what is there."""
    build.first_contact(tmp_path / "client", server)
    kept = tmp_path / "client/metadata/tuf/targets.json"
    before = kept.stat().st_mtime_ns
    junk(build.seed / "targets.json")

    assert build.first_contact(tmp_path / "client", server) == ["root.json", "timestamp.json", "manifest"]
    assert kept.stat().st_mtime_ns == before
