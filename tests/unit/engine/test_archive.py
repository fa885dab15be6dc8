"""Security H3: a hostile archive is refused whole, by the client that unpacks and by the publisher's check alike."""

import hashlib
import io
import os
import tracemalloc
from itertools import count
from pathlib import Path

import pytest
from msgspec.structs import replace

from keyfit.engine import archives
from keyfit.engine.archives.policy import LIMITS, Meter, Refused
from keyfit.engine.steps.archive import Kind
from keyfit.engine.steps.base import State
from keyfit.errors import HostError, TrustError
from keyfit.model.catalog import Payload
from keyfit.model.plan import Archive
from keyfit.platforms.linux.host import LinuxHost
from tests.sim import archivetable
from tests.sim.archivetable import CONTENT, FILES, GOOD_MEMBERS, good_archives, tar, zipped

GOOD = good_archives()
HOSTILE = archivetable.table()
HASHES = {name: hashlib.sha256(data).hexdigest() for name, data in CONTENT.items()}
PREFIX = "/opt/keyfit/brands/acme/module"


def check(data: bytes, files: tuple[str, ...] = FILES, limits: archives.Limits = LIMITS) -> dict[str, str]:
    return archives.check(io.BytesIO(data), files, None, limits)


def test_h3_the_table_has_enough_in_it() -> None:
    """Beside the names, which every reader gets wrong in its own way, 50 of each form."""
    assert len([case for case in HOSTILE if case.startswith("tar") and "name:" not in case]) >= 50
    assert len([case for case in HOSTILE if case.startswith("zip") and "name:" not in case]) >= 50


@pytest.mark.parametrize("case", GOOD)
def test_h3_a_good_archive_is_taken(case: str) -> None:
    assert check(GOOD[case]) == HASHES


@pytest.mark.parametrize("case", HOSTILE)
def test_h3_a_hostile_archive_is_refused(case: str) -> None:
    data, said = HOSTILE[case]
    with pytest.raises(Refused) as caught:
        check(data)
    assert said in str(caught.value)
    assert str(caught.value).isprintable()
    assert str(caught.value).isascii()


def test_h3_the_clash_of_two_listed_folders_refuses() -> None:
    with pytest.raises(Refused, match="another spelling"):
        check(tar([("lib/a", b"x"), ("LIB/b", b"x")]), ("lib/a", "LIB/b"))


@pytest.mark.parametrize("limit", [{"files": 1}, {"entries": 1}, {"total_bytes": 100}, {"free_bytes": 100, "ratio": 1},
                                   {"depth": 1}, {"name_characters": 6}, {"seconds": -1.0}])
@pytest.mark.parametrize("form", ["tar.gz", "zip"])
def test_h3_every_limit_refuses(form: str, limit: dict[str, float]) -> None:
    check(GOOD[form])
    with pytest.raises(Refused):
        check(GOOD[form], limits=replace(LIMITS, **limit))


def test_h3_time_is_looked_at_with_every_piece() -> None:
    clock = count()
    meter = Meter(1_000, replace(LIMITS, seconds=5), lambda: next(clock))
    for _ in range(5):
        meter.count(1)
    with pytest.raises(Refused, match="within 5 seconds"):
        meter.count(1)


@pytest.mark.parametrize("form", ["tar", "zip"])
def test_h3_a_large_file_is_never_whole_in_memory(form: str, tmp_path: Path) -> None:
    path = tmp_path / "large"
    large = os.urandom(1_000_000) * 40
    path.write_bytes(tar([("x", large)]) if form == "tar" else zipped([("x", large)]))
    del large
    tracemalloc.start()
    try:
        with path.open("rb") as file:
            archives.check(file, ("x",))
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("case", GOOD)
def test_h3_every_cut_of_a_good_archive_is_refused(case: str) -> None:
    data = GOOD[case]
    whole = len(data) if case[:3] != "tar" or "." in case else len(data.rstrip(b"\0")) + 1
    for end in range(0, whole, 1 + whole // 60):
        with pytest.raises(Refused):
            check(data[:end])


# ---- the step that unpacks


class Machine:
    """A machine below a folder, and an archive that was fetched for it."""

    def __init__(self, tmp_path: Path) -> None:
        self.root = tmp_path / "root"
        self.root.mkdir()
        self.host = LinuxHost(str(self.root))
        self.payload = tmp_path / "payload"
        self.folder = self.root / PREFIX[1:]
        self.kind = Kind()
        self.give(GOOD["tar.gz"])

    def give(self, data: bytes) -> None:
        self.payload.write_bytes(data)
        self.change = Archive(prefix=PREFIX, files=FILES, payload=Payload(
            file="m.tar.gz", sha256=hashlib.sha256(data).hexdigest(), length_bytes=max(1, len(data))))

    def fetch(self, _: Payload) -> Path:
        return self.payload

    def install(self) -> tuple[State, State]:
        """The states before and after."""
        before = self.kind.detect(self.change, self.host).before
        expected = self.kind.expect(self.change, self.host, before, self.fetch)
        after = self.kind.apply(self.change, self.host, before, self.fetch)
        assert after == expected
        return before, after

    def files(self) -> set[str]:
        """Everything below the root, with what it is."""
        return {f"{path.relative_to(self.root)}{'' if path.is_file() or path.is_symlink() else '/'}"
                for path in self.root.rglob("*")}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_h3_a_good_archive_is_unpacked_and_taken_back(machine: Machine) -> None:
    before, after = machine.install()

    assert {name: (machine.folder / name).read_bytes() for name in FILES} == CONTENT
    assert [(machine.folder / name).stat().st_mode & 0o7777 for name in FILES] == [0o755, 0o644]
    assert machine.kind.detect(machine.change, machine.host).satisfied
    assert machine.kind.undo(machine.change, machine.host, before, after) == ""
    assert machine.files() == set()


@pytest.mark.parametrize("case", HOSTILE)
def test_h3_nothing_of_a_hostile_archive_stays(machine: Machine, case: str) -> None:
    """Known before anything is written; and if the archive became hostile in between, still nothing stays."""
    before = machine.kind.detect(machine.change, machine.host).before
    machine.give(HOSTILE[case][0])
    for step in (machine.kind.expect, machine.kind.apply):
        with pytest.raises(TrustError) as caught:
            step(machine.change, machine.host, before, machine.fetch)
        assert caught.value.code == "archive-refused"
        assert machine.files() <= {"opt/", "opt/keyfit/", "opt/keyfit/brands/", "opt/keyfit/brands/acme/"}
    machine.kind.undo(machine.change, machine.host, before, {})
    assert machine.files() == set()


@pytest.mark.parametrize("prefix", ["/opt/keyfit", "/opt/keyfit/brands/", "/etc", "/opt/keyfit/brands/../../etc",
                                    "/opt/keyfit/brands/a//b", "/opt/keyfit/brands/a/./b", "opt/keyfit/brands/a"])
def test_h3_nothing_is_unpacked_elsewhere(machine: Machine, prefix: str) -> None:
    change = replace(machine.change, prefix=prefix)
    for step in (machine.kind.expect, machine.kind.apply):
        with pytest.raises(HostError, match="only"):
            step(change, machine.host, {"existed": False, "present": [], "made": []}, machine.fetch)
    assert machine.files() == set()


def test_d4_files_that_somebody_changed_or_added_stay_and_are_named(machine: Machine) -> None:
    before, after = machine.install()
    (machine.folder / "readme").write_text("mine")
    (machine.folder / "lib/notes").write_text("mine")

    said = machine.kind.undo(machine.change, machine.host, before, after)

    assert said.startswith("lib/notes, readme in ")
    assert {name for name in machine.files() if not name.endswith("/")} == {
        f"{PREFIX[1:]}/readme", f"{PREFIX[1:]}/lib/notes"}


def test_d4_an_undo_that_knows_no_hashes_removes_nothing(machine: Machine) -> None:
    before, _ = machine.install()

    assert "stayed" in machine.kind.undo(machine.change, machine.host, before, {})
    assert (machine.folder / "readme").exists()


@pytest.mark.parametrize("place", ["", "lib", "lib/module.so", "readme"])
def test_d4_links_that_were_planted_are_never_followed_by_an_undo(machine: Machine, tmp_path: Path, place: str) -> None:
    """Each folder and file of ours is exchanged for a link to the like of it elsewhere; what is there stays."""
    before, after = machine.install()
    elsewhere = tmp_path / "elsewhere"
    machine.folder.rename(elsewhere)
    if place:
        os.makedirs(machine.folder / "lib")
    target = machine.folder / place
    if target.is_dir():
        target.rmdir()
    target.symlink_to(elsewhere / place)

    said = machine.kind.undo(machine.change, machine.host, before, after)

    assert "stayed" in said
    assert {name: (elsewhere / name).read_bytes() for name in FILES} == CONTENT
    assert target.is_symlink()


@pytest.mark.parametrize("left", ["link", "file", "folder of somebody else's"])
def test_d3_what_stands_where_the_new_folder_is_made_is_not_written_through(machine: Machine, tmp_path: Path,
                                                                            left: str) -> None:
    beside = machine.folder.with_name(".module.keyfit")
    beside.parent.mkdir(parents=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "readme").write_text("keep")
    if left == "link":
        beside.symlink_to(elsewhere)
    elif left == "file":
        beside.write_text("keep")
    else:
        beside.mkdir()
        (beside / "other").write_text("keep")
    before = machine.kind.detect(machine.change, machine.host).before

    with pytest.raises(HostError) as caught:
        machine.kind.apply(machine.change, machine.host, before, machine.fetch)

    assert caught.value.code == "folder-exists"
    assert os.listdir(elsewhere) == ["readme"]
    assert not machine.folder.exists()


def test_d3_a_folder_on_the_way_that_is_a_link_is_not_gone_through(machine: Machine, tmp_path: Path) -> None:
    """The last folder but one; links above it, as /opt itself may be one, are resolved inside the root."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    machine.folder.parent.parent.mkdir(parents=True)
    machine.folder.parent.symlink_to(elsewhere)
    before = machine.kind.detect(machine.change, machine.host).before
    machine.kind.apply(machine.change, machine.host, before, machine.fetch)

    assert os.listdir(elsewhere) == []


def test_d7_what_an_interrupted_run_left_is_cleared_by_the_next_and_by_undo(machine: Machine) -> None:
    beside = machine.folder.with_name(".module.keyfit")
    (beside / "lib").mkdir(parents=True)
    (beside / "readme").write_bytes(TEXT_HALF)
    before, after = machine.install()
    assert not beside.exists()

    (beside / "lib").mkdir(parents=True)
    (beside / "readme").write_bytes(TEXT_HALF)
    assert machine.kind.undo(machine.change, machine.host, {**before, "made": []}, after) == ""
    assert not beside.exists()


TEXT_HALF = CONTENT["readme"][:2]


def test_a_folder_from_which_files_are_missing_is_completed(machine: Machine) -> None:
    machine.install()
    (machine.folder / "readme").unlink()
    (machine.folder / "lib/module.so").unlink()
    (machine.folder / "lib").rmdir()
    (machine.folder / "notes").write_text("mine")
    (machine.folder / "readme").write_bytes(CONTENT["readme"])

    before, after = machine.install()

    assert {name: (machine.folder / name).read_bytes() for name in FILES} == CONTENT
    assert machine.kind.undo(machine.change, machine.host, before, after) == ""
    assert (machine.folder / "readme").exists(), "it was there before the step"
    assert not (machine.folder / "lib").exists()
    assert (machine.folder / "notes").exists()


@pytest.mark.parametrize("odd", ["changed", "link"])
def test_a_folder_with_a_changed_file_is_left_alone(machine: Machine, odd: str) -> None:
    machine.install()
    (machine.folder / "lib/module.so").unlink()
    (machine.folder / "readme").unlink()
    if odd == "changed":
        (machine.folder / "readme").write_text("mine")
    else:
        (machine.folder / "copy").write_bytes(CONTENT["readme"])
        (machine.folder / "readme").symlink_to("copy")
    before = machine.kind.detect(machine.change, machine.host).before

    with pytest.raises(HostError) as caught:
        machine.kind.apply(machine.change, machine.host, before, machine.fetch)

    assert caught.value.code == "file-changed"
    assert not (machine.folder / "lib/module.so").exists()


def test_a_folder_of_somebody_else_is_not_unpacked_into(machine: Machine) -> None:
    machine.folder.mkdir(parents=True)
    before = machine.kind.detect(machine.change, machine.host).before

    with pytest.raises(HostError) as caught:
        machine.kind.apply(machine.change, machine.host, before, machine.fetch)

    assert caught.value.code == "folder-exists"
    assert machine.kind.undo(machine.change, machine.host, before, {}) == ""
    assert machine.folder.is_dir()


def test_the_names_in_the_list_are_held_to_the_policy_too(machine: Machine) -> None:
    machine.change = replace(machine.change, files=("../evil",))
    machine.payload.write_bytes(tar(GOOD_MEMBERS))
    with pytest.raises(HostError):
        machine.kind.expect(machine.change, machine.host, {}, machine.fetch)
