"""A client and its signed repository: what is accepted, and under which name everything else is refused."""

import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from keyfit.errors import BusyError, NetworkError, StorageError, TrustError, UserError
from keyfit.privatefiles import FileLock
from keyfit.trust.repository import TufRepository
from tests.sim.brands import a_brand, a_match
from tests.sim.repository import IMPATIENT, SignedRepository
from tests.sim.world import SimClock, with_sequence

ACME = a_brand("acme", a_match(id_vendor=0x1234, id_product=1))


@pytest.fixture
def repository(tmp_path: Path) -> SignedRepository:
    return SignedRepository(tmp_path / "publisher")


def refused(client: TufRepository) -> str:
    with pytest.raises(TrustError) as caught:
        client.refresh()
    assert caught.value.hint
    return caught.value.code


def test_a_manifest_comes_out_as_it_went_in(repository: SignedRepository, tmp_path: Path) -> None:
    target = repository.release(ACME)
    client = repository.client(tmp_path)

    client.refresh()
    manifest = client.manifest(target)

    assert manifest is not None
    assert manifest.brands == (ACME,)
    assert client.manifest("brand/nobody/linux-amd64.json") is None


def test_a_manifest_may_be_asked_for_without_a_refresh_before(repository: SignedRepository, tmp_path: Path) -> None:
    assert repository.client(tmp_path).manifest(repository.release(ACME)) is not None


def test_a_new_release_reaches_a_client_that_has_the_old_one(repository: SignedRepository, tmp_path: Path) -> None:
    target = repository.release(ACME)
    assert repository.client(tmp_path).manifest(target) is not None

    repository.release(with_sequence(ACME, 7))

    manifest = repository.client(tmp_path).manifest(target)
    assert manifest is not None
    assert manifest.brands[0].sequence == 7


def test_names_that_no_target_can_have_are_no_targets(repository: SignedRepository, tmp_path: Path) -> None:
    """A8."""
    client = repository.client(tmp_path)

    for name in ("brand/../../etc/passwd", "brand/Ünicode/linux-amd64.json", "", "/etc/passwd", "a" * 200, "brand\\x"):
        assert client.manifest(name) is None


def test_a1_a_planted_root_in_the_cache_is_not_trusted(repository: SignedRepository, tmp_path: Path) -> None:
    """A1: the attacker owns a whole repository, and has put its root and metadata into the cache."""
    target = repository.release(ACME)
    attacker = SignedRepository(tmp_path / "attacker")
    attacker.release(with_sequence(ACME, 99))
    attacker.client(tmp_path).refresh()
    planted = tmp_path / "metadata" / "tuf" / "root.json"
    planted.unlink()
    planted.write_bytes(attacker.trusted_root)
    (tmp_path / "metadata" / "tuf" / "root_history" / "2.root.json").write_bytes(attacker.trusted_root)

    assert refused(attacker.client(tmp_path, trusted_root=repository.trusted_root)) == "metadata-signature"
    manifest = repository.client(tmp_path).manifest(target)
    assert manifest is not None
    assert manifest.brands[0].sequence == 1


def test_a1_what_is_no_root_is_named(repository: SignedRepository, tmp_path: Path) -> None:
    """A1: no root at all never means "trust what is cached"."""
    repository.client(tmp_path).refresh()

    for root in (b"", b"{}", b"not json", (repository.folder / "metadata" / "timestamp.json").read_bytes()):
        assert refused(repository.client(tmp_path, trusted_root=root)) == "trusted-root-invalid"


def test_a5_a_lower_sequence_than_the_one_used_is_refused(repository: SignedRepository, tmp_path: Path) -> None:
    """A5: the publisher signs it properly; only the sequence tells that it is old."""
    target = repository.release(with_sequence(ACME, 5))
    assert repository.client(tmp_path).manifest(target) is not None
    repository.release(with_sequence(ACME, 4))

    with pytest.raises(TrustError, match="sequence 5 or later") as caught:
        repository.client(tmp_path).manifest(target)

    assert caught.value.code == "rollback"


def test_a5_the_floor_holds_across_targets_and_repositories(repository: SignedRepository, tmp_path: Path) -> None:
    """A5: one floor per brand, whatever source it came from."""
    assert repository.client(tmp_path).manifest(repository.release(with_sequence(ACME, 5))) is not None
    stick = SignedRepository(tmp_path / "stick")
    target = stick.release(with_sequence(ACME, 4))

    with pytest.raises(TrustError) as caught:
        stick.client(tmp_path).manifest(target)

    assert caught.value.code == "rollback"


def test_a5_damaged_floors_are_no_reason_to_forget_them(repository: SignedRepository, tmp_path: Path) -> None:
    """A5."""
    target = repository.release(ACME)
    assert repository.client(tmp_path).manifest(target) is not None
    (tmp_path / "metadata" / "floors.json").write_bytes(b"{}garbage")

    with pytest.raises(StorageError) as caught:
        repository.client(tmp_path).manifest(target)

    assert caught.value.code == "floors-damaged"


@pytest.mark.parametrize("role", ["targets", "drivers", "bins", "snapshot", "timestamp"])
def test_a6_an_expired_role_is_refused(repository: SignedRepository, tmp_path: Path, role: str) -> None:
    """A6: whichever role it is; the bins' age shows when a manifest is asked for."""
    target = repository.release(ACME)
    repository.expire(role)

    with pytest.raises(TrustError) as caught:
        repository.client(tmp_path).manifest(target)

    assert caught.value.code == "metadata-expired"


def test_a6_an_expired_root_is_refused(tmp_path: Path) -> None:
    """A6."""
    assert refused(SignedRepository(tmp_path / "old", expired_root=True).client(tmp_path)) == "metadata-expired"


def test_a6_a_clock_before_the_newest_signed_date_is_named(repository: SignedRepository, tmp_path: Path) -> None:
    """A6: a clock that was set back would bring expired metadata to life again."""
    clock = SimClock()
    clock.time = datetime.now(UTC).timestamp()
    repository.client(tmp_path, clock=clock).refresh()

    clock.time -= timedelta(hours=20).total_seconds()
    repository.client(tmp_path, clock=clock).refresh()
    clock.time -= timedelta(hours=20).total_seconds()

    assert refused(repository.client(tmp_path, clock=clock)) == "clock-behind"


def test_a6_a_first_contact_with_a_wrong_clock_is_named_too(repository: SignedRepository, tmp_path: Path) -> None:
    """A6."""
    clock = SimClock()
    clock.time = datetime(2000, 1, 1, tzinfo=UTC).timestamp()

    assert refused(repository.client(tmp_path, clock=clock)) == "clock-behind"


def test_a6_only_signed_dates_raise_the_floor(repository: SignedRepository, tmp_path: Path) -> None:
    """A6: a clock that once ran ahead must not lock the machine out when it is set right."""
    clock = SimClock()
    clock.time = datetime(2099, 1, 1, tzinfo=UTC).timestamp()
    assert refused(repository.client(tmp_path, clock=clock)) == "metadata-expired"
    clock.time = datetime.now(UTC).timestamp()

    repository.client(tmp_path, clock=clock).refresh()


@pytest.mark.parametrize(("pattern", "old", "new", "code"), [
    ("metadata/timestamp.json", b'"expires":"20', b'"expires":"21', "metadata-signature"),
    ("metadata/*.snapshot.json", b'"expires":"20', b'"expires":"21', "metadata-hash"),
    ("metadata/*.targets.json", b'"terminating":true', b'"terminating":false', "metadata-signature"),
    ("metadata/*.targets.json", b'"expires":"20', b'"expires":"21', "metadata-signature"),
    ("metadata/*.drivers.json", b'"expires":"20', b'"expires":"21', "metadata-signature"),
    ("metadata/2.b-*.json", b'"expires":"20', b'"expires":"21', "metadata-signature"),
    ("targets/**/*.json", b'"sequence":1', b'"sequence":9', "target-hash"),
])
def test_what_was_changed_after_signing_is_refused(repository: SignedRepository, tmp_path: Path, pattern: str,
                                                   old: bytes, new: bytes, code: str) -> None:
    target = repository.release(ACME)
    repository.tamper(pattern, old, new)

    with pytest.raises(TrustError) as caught:
        repository.client(tmp_path).manifest(target)

    assert caught.value.code == code


def test_a_repository_that_was_set_back_is_refused(repository: SignedRepository, tmp_path: Path) -> None:
    repository.release(ACME)
    repository.keep(tmp_path / "kept")
    repository.release(with_sequence(ACME, 2))
    repository.client(tmp_path).refresh()
    repository.go_back(tmp_path / "kept")

    assert refused(repository.client(tmp_path)) == "metadata-rollback"


def test_a_cut_metadata_file_is_refused(repository: SignedRepository, tmp_path: Path) -> None:
    repository.truncate("metadata/timestamp.json", 100)

    assert refused(repository.client(tmp_path)) == "metadata-invalid"


def test_a_missing_metadata_file_is_the_repositorys_fault(repository: SignedRepository, tmp_path: Path) -> None:
    repository.withhold("metadata/timestamp.json")

    with pytest.raises(NetworkError, match=r"timestamp\.json") as caught:
        repository.client(tmp_path).refresh()

    assert caught.value.code == "repository-file-missing"


def test_a_damaged_cache_heals_itself(repository: SignedRepository, tmp_path: Path) -> None:
    target = repository.release(ACME)
    assert repository.client(tmp_path).manifest(target) is not None
    for path in (tmp_path / "metadata" / "tuf").glob("*.json"):
        path.write_bytes(b"")

    assert repository.client(tmp_path).manifest(target) is not None


@pytest.mark.parametrize("broken", ["unreachable", "stale", "forged"])
def test_the_next_address_is_tried_when_one_fails(repository: SignedRepository, tmp_path: Path, broken: str) -> None:
    """A bad mirror can answer well-formed and stale: the whole workflow moves on to the next."""
    target = repository.release(ACME)
    mirror = tmp_path / "mirror"
    if broken != "unreachable":
        shutil.copytree(repository.folder, mirror)
    if broken == "forged":
        (mirror / "metadata" / "timestamp.json").write_bytes(
            (repository.folder / "metadata" / "1.snapshot.json").read_bytes())
    repository.release(with_sequence(ACME, 2))
    if broken == "stale":
        repository.client(tmp_path).refresh()

    client = repository.client(tmp_path, mirror.as_uri(), repository.url)
    client.refresh()
    manifest = client.manifest(target)

    assert manifest is not None
    assert manifest.brands[0].sequence == 2


def test_a_failed_check_is_told_before_an_unreachable_server(repository: SignedRepository, tmp_path: Path) -> None:
    repository.expire("timestamp")

    assert refused(repository.client(tmp_path, (tmp_path / "nowhere").as_uri(), repository.url)) == "metadata-expired"


def test_h4_a_signed_manifest_that_is_malformed_is_refused(repository: SignedRepository, tmp_path: Path) -> None:
    """H4: a signature does not make bad data good."""
    target = repository.release(ACME)
    good = repository.targets[target]
    hostile = {
        "unknown-field": good.replace(b'{"keyfit":1', b'{"run":"rm -rf /","keyfit":1', 1),
        "twice": good.replace(b'{"keyfit":1', b'{"keyfit":1,"keyfit":1', 1),
        "deep": b'{"a":' * 40 + b"1" + b"}" * 40,
        "other-path": good.replace(target.encode(), b"brand/other/linux-amd64.json"),
        "big": good + b" " * 1_000_001,
        "not-json": b"\xff\xfe",
    }

    for name, data in hostile.items():
        repository.release_raw({target: data})
        with pytest.raises(TrustError) as caught:
            repository.client(tmp_path / name).manifest(target)
        assert caught.value.code == "manifest-invalid", name


def test_two_processes_take_turns(repository: SignedRepository, tmp_path: Path) -> None:
    client = repository.client(tmp_path, limits=msgspec.structs.replace(IMPATIENT, lock_wait_s=0.2))

    with FileLock(tmp_path / "metadata" / "lock", 1), pytest.raises(BusyError) as caught:
        client.refresh()
    client.refresh()

    assert caught.value.code == "repository-busy"


@pytest.mark.parametrize("name", ["lock", "floors.json", "tuf"])
def test_d3_links_planted_in_the_metadata_directory_are_not_followed(repository: SignedRepository, tmp_path: Path,
                                                                     name: str) -> None:
    """D3: the file or directory that the link points to stays as it is."""
    target = repository.release(ACME)
    victim = tmp_path / "victim"
    victim.mkdir() if name == "tuf" else victim.write_bytes(b"{}")
    (tmp_path / "metadata").mkdir(mode=0o700)
    (tmp_path / "metadata" / name).symlink_to(victim)

    with pytest.raises(StorageError) as caught:
        repository.client(tmp_path).manifest(target)

    assert caught.value.code == "unsafe-file"
    assert list(victim.iterdir()) == [] if victim.is_dir() else victim.read_bytes() == b"{}"


def test_d6_a_metadata_directory_that_others_can_write_is_refused(repository: SignedRepository, tmp_path: Path) -> None:
    """D6: whoever writes there can take back what was learnt about old versions."""
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata").chmod(0o777)

    with pytest.raises(StorageError) as caught:
        repository.client(tmp_path).refresh()

    assert caught.value.code == "unsafe-file"


def test_what_the_client_writes_is_for_its_user_alone(repository: SignedRepository, tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        assert repository.client(tmp_path).manifest(repository.release(ACME)) is not None
    finally:
        os.umask(old)

    assert (tmp_path / "metadata").stat().st_mode & 0o777 == 0o700
    for name in ("lock", "floors.json"):
        assert (tmp_path / "metadata" / name).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("url", ["http://packages.example.com/", "http://192.0.2.7/", "http://127.0.0.1.example.com/"])
def test_f1_plain_http_is_for_this_machine_only(tmp_path: Path, url: str) -> None:
    """F1."""
    with pytest.raises(UserError) as caught:
        TufRepository(urls=[url], trusted_root=b"", metadata_dir=tmp_path, cache_dir=tmp_path)

    assert caught.value.code == "https-required"
