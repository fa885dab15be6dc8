"""A2. Versions only go up, and what belongs together stays together."""

import hashlib

import pytest
from tuf.api.metadata import MetaFile

from tests.conformance.runner import Client
from tests.sim.tufrepository import TufRepository


def test_timestamp_rollback(client: Client, repository: TufRepository) -> None:
    repository.publish("timestamp")
    assert client.refresh() == 0
    repository.timestamp.version = 1
    repository.put("timestamp", repository.sign("timestamp"))

    assert client.refresh() == 1
    assert client.trusted()["timestamp"] == 2
    assert client.asked()[-1] == "timestamp"


@pytest.mark.parametrize("hashes", [False, True])
def test_snapshot_rollback(client: Client, repository: TufRepository, hashes: bool) -> None:
    """A newer timestamp that names an older snapshot."""
    repository.hashes_in_meta = hashes
    repository.publish("snapshot", "timestamp")
    assert client.refresh() == 0
    old = repository.published["snapshot"][0]
    repository.timestamp.snapshot_meta = MetaFile(1, len(old), {"sha256": hashlib.sha256(old).hexdigest()}) if hashes \
        else MetaFile(1)
    repository.publish("timestamp")

    assert client.refresh() == 1
    assert client.trusted() == {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1}
    assert client.asked()[-1] == "timestamp"


@pytest.mark.parametrize("hashes", [False, True])
def test_targets_rollback(client: Client, repository: TufRepository, hashes: bool) -> None:
    """A newer snapshot that names older targets; the snapshot in the folder is used for the check even if its hash is no
    longer the timestamp's."""
    repository.hashes_in_meta = hashes
    repository.publish("targets", "targets", "snapshot", "timestamp")
    assert client.refresh() == 0
    repository.targets.version = 1
    repository.publish("targets", "snapshot", "timestamp")

    assert client.refresh() == 1
    assert client.trusted()["targets"] == 3
    assert client.trusted()["snapshot"] == 2


def test_a_role_may_not_vanish_from_the_snapshot(client: Client, repository: TufRepository) -> None:
    repository.delegate("targets", "below")
    repository.publish_all("below", "targets")
    assert client.refresh() == 0
    del repository.snapshot.meta["below.json"]
    repository.publish("snapshot", "timestamp")

    assert client.refresh() == 1
    assert client.trusted()["snapshot"] == 2


def test_top_level_targets_may_not_vanish_from_the_snapshot(client: Client, repository: TufRepository) -> None:
    assert client.refresh() == 0
    del repository.snapshot.meta["targets.json"]
    repository.publish("snapshot", "timestamp")

    assert client.refresh() == 1
    assert client.trusted()["snapshot"] == 1


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_recovery_from_a_fast_forward(client: Client, repository: TufRepository, role: str) -> None:
    """Somebody had the keys and let versions run ahead. New keys for those who vouch for them set them back."""
    repository.roles[role].version = 100_000
    repository.put(role, repository.sign(role))
    repository.publish(*{"timestamp": (), "snapshot": ("timestamp",), "targets": ("snapshot", "timestamp")}[role])
    assert client.refresh() == 0
    assert client.trusted()[role] == 100_000

    for rotated in {"timestamp": ("timestamp",), "snapshot": ("timestamp", "snapshot"),
                    "targets": ("timestamp", "snapshot")}[role]:
        repository.rotate(rotated)
    repository.publish("root")
    repository.roles[role].version = 1
    repository.publish(*{"timestamp": ("timestamp",), "snapshot": ("snapshot", "timestamp"),
                         "targets": ("targets", "snapshot", "timestamp")}[role])

    assert client.refresh() == 0
    assert client.trusted()[role] == 2


def test_no_recovery_without_new_keys(client: Client, repository: TufRepository) -> None:
    repository.timestamp.version = 100_000
    repository.put("timestamp", repository.sign("timestamp"))
    assert client.refresh() == 0
    repository.publish("root")
    repository.timestamp.version = 1
    repository.publish("timestamp")

    assert client.refresh() == 1
    assert client.trusted()["timestamp"] == 100_000


@pytest.mark.parametrize(("role", "kept"), [("snapshot", {"timestamp": 3, "snapshot": 2, "targets": 2}),
                                            ("targets", {"timestamp": 3, "snapshot": 3, "targets": 2})])
@pytest.mark.parametrize("what", ["hash", "length"])
def test_mix_and_match(client: Client, repository: TufRepository, role: str, kept: dict[str, int], what: str) -> None:
    """Properly signed, of the right version, and yet not the one that belongs to the rest."""
    repository.hashes_in_meta = True
    repository.publish("targets", "snapshot", "timestamp")
    assert client.refresh() == 0

    repository.publish("targets")
    if role == "snapshot":
        repository.publish("snapshot")
        meta = repository.timestamp.snapshot_meta
    else:
        meta = repository.snapshot.meta["targets.json"]
    if what == "hash":
        meta.hashes = {"sha256": "0" * 64}
    else:
        assert meta.length is not None
        meta.length -= 1
    repository.publish(*(("timestamp",) if role == "snapshot" else ("snapshot", "timestamp")))

    assert client.refresh() == 1
    assert client.trusted() == {"root": 1} | kept


def test_a_delegated_role_that_the_snapshot_does_not_name(client: Client, repository: TufRepository) -> None:
    repository.delegate("targets", "below")
    repository.add_target("below", "file", b"content")
    repository.publish("below", "targets")
    del repository.snapshot.meta["below.json"]
    repository.publish("snapshot", "timestamp")

    assert client.download("file") == 1
    assert client.downloaded() == []
    assert "1.below" not in client.asked()


@pytest.mark.parametrize("hashes", [False, True])
def test_a_delegated_role_rolls_back(client: Client, repository: TufRepository, hashes: bool) -> None:
    repository.hashes_in_meta = hashes
    repository.delegate("targets", "below")
    repository.add_target("below", "file", b"old")
    repository.publish("below", "below", "targets", "snapshot", "timestamp")
    assert client.download("file") == 0
    repository.roles["below"].version = 0
    repository.publish("below", "snapshot", "timestamp")

    assert client.download("file") == 1
    assert client.trusted()["below"] == 2
