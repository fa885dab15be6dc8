"""Where files wait to be installed."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyfit.engine.journal import Journal
from keyfit.engine.staging import FOLDER, LOCK, Staging, chunks_of
from keyfit.errors import HostError, KeyfitError, StorageError, TrustError
from keyfit.model.catalog import Payload
from keyfit.privatefiles import FileLock, foreign_influence

DATA = b"a driver" * 1000


def payload(data: bytes = DATA, name: str = "driver.deb") -> Payload:
    return Payload(file=name, sha256=hashlib.sha256(data).hexdigest(), length_bytes=len(data))


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """A state directory of an administrator whose umask lets nobody else look."""
    old = os.umask(0o077)
    yield tmp_path / "var" / "lib" / "keyfit"
    os.umask(old)


def code(error: "pytest.ExceptionInfo[KeyfitError]") -> str:
    return error.value.code


def test_d1_d2_a_file_is_hashed_while_it_is_written_and_nobody_else_can_reach_it(state: Path) -> None:
    """D1, D2."""
    with Staging(state) as staging:
        path = staging.take(payload(), [DATA[:5], DATA[5:]])
        assert path.read_bytes() == DATA
        assert path.name == "driver.deb"
        assert staging.holds(payload()) == path
        assert path.stat().st_mode & 0o777 == 0o600
        assert {p.stat().st_mode & 0o777 for p in (path.parent, path.parent.parent, state / FOLDER)} == {0o700}
        assert staging.holds(payload(b"another")) is None
    assert not path.exists()
    assert [p.name for p in (state / FOLDER).iterdir()] == [LOCK]


def test_what_is_installed_can_be_looked_up_by_everyone_whatever_the_umask(state: Path) -> None:
    """The state directory itself holds the list of what is installed."""
    with Staging(state):
        assert state.stat().st_mode & 0o777 == (0o755 if os.geteuid() == 0 else 0o700)


@pytest.mark.parametrize(("chunks", "expected"), [
    ([DATA[:-1]], "payload-hash"), ([DATA, b"x"], "payload-too-long"), ([b"x" * len(DATA)], "payload-hash"),
    ([], "payload-hash"), ([DATA] * 1000, "payload-too-long"),
])
def test_d2_other_bytes_are_refused_and_gone(state: Path, chunks: list[bytes], expected: str) -> None:
    """D2, A3."""
    with Staging(state) as staging:
        with pytest.raises(TrustError) as error:
            staging.take(payload(), chunks)
        assert code(error) == expected
        assert staging.holds(payload()) is None
        assert [p.name for p in (state / FOLDER).rglob("*") if p.is_file()] == [LOCK, LOCK]


@pytest.mark.parametrize("name", ["../driver.deb", "/etc/passwd", "a/b", "", ".", "..", LOCK])
def test_a8_a_payload_s_name_is_one_plain_name(state: Path, name: str) -> None:
    """A8. Whatever the catalog's own check lets through."""
    with Staging(state) as staging, pytest.raises(TrustError) as error:
        staging.take(payload(name=name), [DATA])
    assert code(error) == "manifest-invalid"


def test_d2_a_file_that_was_exchanged_or_linked_is_noticed(state: Path) -> None:
    """D2. Nobody but the administrator could, and still it is looked at before every use."""
    with Staging(state) as staging:
        path = staging.take(payload(), [DATA])
        os.link(path, path.with_name("again"))
        with pytest.raises(StorageError):
            staging.holds(payload())
        path.with_name("again").unlink()
        assert staging.holds(payload()) == path
        path.rename(path.with_name("old"))
        path.write_bytes(DATA)
        with pytest.raises(StorageError):
            staging.holds(payload())


def test_d2_the_source_is_a_file_of_ours_with_one_name(tmp_path: Path) -> None:
    """D2, D3. No link, no second name, no device, nobody else's."""
    source = tmp_path / "source"
    source.write_bytes(DATA)
    assert b"".join(chunks_of(source)) == DATA
    (tmp_path / "link").symlink_to(source)
    os.mkfifo(tmp_path / "fifo")
    for other in ("link", "fifo", "nothing"):
        with pytest.raises(StorageError):
            list(chunks_of(tmp_path / other))
    os.link(source, tmp_path / "second")
    with pytest.raises(StorageError):
        list(chunks_of(source))


def test_what_an_interrupted_change_left_is_removed_and_what_is_in_use_is_not(state: Path) -> None:
    """D4, D7."""
    with Staging(state) as running:
        path = running.take(payload(), [DATA])
        left = state / FOLDER / "0123456789abcdef"
        (left / "fedcba9876543210").mkdir(parents=True)
        (left / "fedcba9876543210" / "driver.deb").write_bytes(b"half")
        (left / LOCK).touch(0o600)
        with Staging(state) as other:
            assert not left.exists()
            assert other.take(payload(), [DATA]) != path
        assert running.holds(payload()) == path


def test_d4_clean_up_follows_no_link_and_removes_nothing_else(state: Path, tmp_path: Path) -> None:
    """D4. A link in place of a folder."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").write_text("mine")
    with Staging(state):
        pass
    left = state / FOLDER / "0123456789abcdef"
    left.mkdir(mode=0o700)
    (left / "inner").symlink_to(victim)
    (state / FOLDER / "elsewhere").symlink_to(victim)
    with Staging(state):
        pass
    assert (victim / "file").read_text() == "mine"
    assert not left.exists()


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o1777])
def test_d1_a_state_directory_that_others_can_write_is_refused(state: Path, mode: int) -> None:
    """D1. Sticky or not: what lies in it directly has to be ours alone."""
    state.mkdir(parents=True)
    state.chmod(mode)
    with pytest.raises(HostError) as error, Staging(state):
        pass
    assert code(error) == "state-dir-writable"
    assert not (state / FOLDER).exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
@pytest.mark.parametrize("which", ["keyfit", "lib", "var"])
def test_d1_another_user_s_directory_on_the_way_is_refused(state: Path, which: str) -> None:
    """D1. Whoever owns one of them can exchange all below it."""
    state.mkdir(parents=True)
    os.chown(next(p for p in (state, *state.parents) if p.name == which), 65534, 65534)
    with pytest.raises(HostError) as error, Staging(state):
        pass
    assert code(error) == "state-dir-writable"


def test_a_sticky_directory_on_the_way_is_no_obstacle(tmp_path: Path) -> None:
    """As /tmp is one for trees of the tests' kind."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    (shared / "mine").mkdir(mode=0o755)
    assert foreign_influence(shared / "mine") == ""
    shared.chmod(0o777)
    assert "others may write" in foreign_influence(shared / "mine")


def test_a_lock_that_another_process_holds_is_waited_for(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two changes beginning at once do not take each other's folders for abandoned ones."""
    monkeypatch.setattr("keyfit.engine.staging.ENTER_WAIT_S", 0.0)
    with Staging(state):
        pass
    with FileLock(state / FOLDER / LOCK, 0.0), pytest.raises(HostError), Staging(state):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_d1_no_change_is_begun_where_somebody_else_could_exchange_the_record(state: Path) -> None:
    """D1. The lock that every change needs, those that stage nothing included."""
    journal = Journal(state)
    with journal.locked():
        pass
    os.chown(state.parent, 65534, 65534)
    with pytest.raises(HostError) as error, journal.locked():
        pass
    assert code(error) == "state-dir-writable"
