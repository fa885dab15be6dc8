"""A client and its signed repository: what is accepted, and under which name everything else is refused."""

import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from keyfit.errors import BusyError, NetworkError, StorageError, TrustError, UserError
from keyfit.privatefiles import FileLock
from keyfit.trust.repository import TufRepository
from tests.sim.brands import a_brand, a_match
from tests.sim.layered import LayeredRepository
from tests.sim.repository import (
    IMPATIENT,
    Behaviour,
    HostileServer,
    SignedRepository,
    drip_body,
    endless_body,
    sign_in_page,
    silence,
    status,
    wrong_bytes,
)
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


def test_a6_a_stolen_timestamp_key_does_not_set_the_clock(repository: SignedRepository, tmp_path: Path) -> None:
    """A6: a date far ahead is refused, and is not kept: when the thief is out, this machine goes on."""
    clock = SimClock()
    clock.time = datetime.now(UTC).timestamp()
    repository.release(ACME)
    repository.keep(tmp_path / "before")
    repository.refresh_at(datetime.now(UTC) + timedelta(days=300))
    with pytest.raises(TrustError) as caught:
        repository.client(tmp_path, clock=clock).refresh()
    assert caught.value.code == "clock-behind"

    shutil.rmtree(tmp_path / "metadata" / "tuf")  # as a new root with another timestamp key has the effect of
    repository.go_back(tmp_path / "before")
    repository.client(tmp_path, clock=clock).refresh()


def test_a6_a_mirror_with_a_date_far_ahead_is_passed_over(tmp_path: Path) -> None:
    """A6: the thief's timestamp lies on one mirror, a newer one of the publisher on the next."""
    repository = LayeredRepository(tmp_path / "repository", days=365)
    repository.publish(signed_at=datetime.now(UTC) + timedelta(days=300))
    shutil.copytree(repository.folder, tmp_path / "mirror")
    repository.publish()
    assert refused(repository.client(tmp_path / "one", (tmp_path / "mirror").as_uri())) == "clock-behind"

    repository.client(tmp_path / "two", (tmp_path / "mirror").as_uri(), repository.url).refresh()
    repository.client(tmp_path / "two").refresh()


def test_a6_no_clock_is_before_the_date_of_the_build(repository: SignedRepository, tmp_path: Path) -> None:
    """A6: a machine that has seen nothing yet has that at least."""
    clock = SimClock()
    clock.time = datetime.now(UTC).timestamp()
    built = clock.time + timedelta(days=2).total_seconds()

    assert refused(repository.client(tmp_path, clock=clock, built_at=built)) == "clock-behind"
    assert refused(repository.client(tmp_path, clock=clock, built_at=built + 1e9)) == "clock-behind"
    repository.client(tmp_path, clock=clock, built_at=clock.time + 3600).refresh()


def test_a6_expiry_is_judged_at_the_newest_date_that_is_known(repository: SignedRepository, tmp_path: Path) -> None:
    """A6: a clock that is a little behind keeps nothing alive: the timestamp lasts three days, the build is of the hour
    after."""
    clock = SimClock()
    clock.time = (datetime.now(UTC) + timedelta(days=2.9)).timestamp()
    repository.client(tmp_path / "one", clock=clock).refresh()

    client = repository.client(tmp_path / "two", clock=clock, built_at=clock.time + timedelta(hours=5).total_seconds())

    assert refused(client) == "metadata-expired"


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


Spoil = Callable[[Path, SignedRepository], Behaviour | None]


def _stale(folder: Path, repository: SignedRepository) -> None:
    """Well-formed, and unexpired, but older than what the client knows."""
    shutil.rmtree(folder)
    shutil.copytree(folder.with_name("kept"), folder)


def _wrong_signatures(folder: Path, repository: SignedRepository) -> None:
    """A whole repository, signed by somebody else."""
    attacker = SignedRepository(folder.with_name("attacker"))
    attacker.release(with_sequence(ACME, 99))
    shutil.rmtree(folder)
    shutil.copytree(attacker.folder, folder)


def _own_timestamp(folder: Path, repository: SignedRepository) -> None:
    """Everything as it is, but for a timestamp of the attacker's."""
    attacker = SignedRepository(folder.with_name("attacker"))
    shutil.copy(attacker.folder / "metadata" / "timestamp.json", folder / "metadata" / "timestamp.json")


def _mixed(folder: Path, repository: SignedRepository) -> None:
    """An old snapshot under the name of the new one."""
    old, new = (max(where.glob("metadata/*.snapshot.json"), key=lambda p: int(p.name.split(".")[0]))
                for where in (folder.with_name("kept"), folder))
    shutil.copy(old, new)


def _other_targets(folder: Path, repository: SignedRepository) -> None:
    """Metadata as it is; the manifests are others."""
    for path in (folder / "targets").rglob("*.json"):
        path.write_bytes(b"{" * path.stat().st_size)


def _garbage(folder: Path, repository: SignedRepository) -> None:
    for path in (folder / "metadata").iterdir():
        path.write_bytes(b"\x00garbage")


def _endless(folder: Path, repository: SignedRepository) -> Behaviour:
    return endless_body()


def _drip(folder: Path, repository: SignedRepository) -> Behaviour:
    return drip_body(0.02)


def _silent(folder: Path, repository: SignedRepository) -> Behaviour:
    return silence()


def _sign_in(folder: Path, repository: SignedRepository) -> Behaviour:
    return sign_in_page()


def _overloaded(folder: Path, repository: SignedRepository) -> Behaviour:
    return status(503, Retry_After="86400")


@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize("first", ["bad", "good"])
@pytest.mark.parametrize("spoil", [_stale, _wrong_signatures, _own_timestamp, _mixed, _other_targets, _garbage, _endless,
                                   _drip, _silent, _sign_in, _overloaded], ids=lambda spoil: spoil.__name__.strip("_"))
def test_a_malicious_mirror_does_not_stand_before_a_good_one(repository: SignedRepository, tmp_path: Path, spoil: Spoil,
                                                             first: str, fresh: bool) -> None:
    """A2, A5, A7: whatever it serves, in whichever order the two are named, and whether the machine has seen the newest
    data before or nothing yet: the newest data comes out, and a driver."""
    target = repository.release(ACME)
    repository.keep(tmp_path / "kept")
    repository.release(with_sequence(ACME, 2))
    driver = repository.add_payload("libacme.deb", b"driver")
    bad_folder = tmp_path / "mirror"
    shutil.copytree(repository.folder, bad_folder)
    if not fresh:
        repository.client(tmp_path).refresh()
    behaviour = spoil(bad_folder, repository)
    with HostileServer(bad_folder) as bad, HostileServer(repository.folder) as good:
        bad.misbehave("metadata/" if behaviour else "payloads/", behaviour or wrong_bytes())
        urls = (bad.url, good.url) if first == "bad" else (good.url, bad.url)
        client = repository.client(tmp_path, *urls)

        client.refresh()
        manifest = client.manifest(target)

        assert manifest is not None
        assert manifest.brands[0].sequence == 2
        assert client.payload(driver).read_bytes() == b"driver"


def test_a5_a_mirror_that_is_behind_the_floor_is_passed_over(repository: SignedRepository, tmp_path: Path) -> None:
    """A5: this machine's TUF metadata is fresh, so that nothing but the sequence, learnt from a kit, tells the mirror's
    age."""
    target = repository.release(with_sequence(ACME, 4))
    shutil.copytree(repository.folder, tmp_path / "mirror")
    repository.release(with_sequence(ACME, 5))
    kit = SignedRepository(tmp_path / "kit")
    assert kit.client(tmp_path, kind="media").manifest(kit.release(with_sequence(ACME, 5))) is not None

    manifest = repository.client(tmp_path, (tmp_path / "mirror").as_uri(), repository.url).manifest(target)

    assert manifest is not None
    assert manifest.brands[0].sequence == 5


def test_a5_if_every_mirror_is_behind_the_floor_that_is_told(repository: SignedRepository, tmp_path: Path) -> None:
    """A5."""
    target = repository.release(with_sequence(ACME, 4))
    shutil.copytree(repository.folder, tmp_path / "mirror")
    kit = SignedRepository(tmp_path / "kit")
    assert kit.client(tmp_path, kind="media").manifest(kit.release(with_sequence(ACME, 5))) is not None

    with pytest.raises(TrustError) as caught:
        repository.client(tmp_path, (tmp_path / "mirror").as_uri(), repository.url).manifest(target)

    assert caught.value.code == "rollback"


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
