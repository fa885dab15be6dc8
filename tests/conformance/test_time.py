"""A2, A6. Expiry: of what is served, and of what lies in the folder from earlier. The clock is moved with libfaketime."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.conformance.runner import Client
from tests.sim.tufrepository import TufRepository

NOW = datetime.now(UTC)
PAST = NOW.replace(microsecond=0) - timedelta(days=1)
DAY_7, DAY_18, DAY_21 = (NOW.replace(microsecond=0) + timedelta(days=days) for days in (7, 18, 21))


@pytest.mark.parametrize(("role", "kept"), [
    ("root", {"root": 2, "timestamp": 1, "snapshot": 1, "targets": 1}),
    ("timestamp", {"root": 2, "timestamp": 1, "snapshot": 1, "targets": 1}),
    ("snapshot", {"root": 2, "timestamp": 2, "snapshot": 1, "targets": 1}),
    ("targets", {"root": 2, "timestamp": 2, "snapshot": 2, "targets": 1}),
])
def test_a6_served_expired(client: Client, repository: TufRepository, role: str, kept: dict[str, int]) -> None:
    """A6: an expired root is kept all the same (specification, 5.3.8), so that the next one can follow it."""
    assert client.refresh() == 0
    repository.roles[role].expires = PAST
    repository.publish("root", "targets", "snapshot", "timestamp")

    assert client.refresh() == 1
    assert client.trusted() == kept


def test_an_expired_root_in_between_does_no_harm(client: Client, repository: TufRepository) -> None:
    repository.root.expires = PAST
    repository.publish("root")
    repository.root.expires = DAY_21
    repository.publish("root")

    assert client.refresh() == 0
    assert client.trusted()["root"] == 3


@pytest.mark.parametrize("role", ["root", "timestamp", "snapshot", "targets"])
def test_a6_what_was_good_once_expires_in_the_folder(client: Client, repository: TufRepository, role: str) -> None:
    """A6: a freeze: the server goes on serving the same."""
    repository.roles[role].expires = DAY_7
    repository.publish("root", "targets", "snapshot", "timestamp")
    assert client.refresh() == 0
    assert client.refresh(at=DAY_7 - timedelta(days=1)) == 0

    assert client.refresh(at=DAY_18) == 1


@pytest.mark.parametrize("role", ["root", "timestamp", "snapshot", "targets"])
def test_what_expired_in_the_folder_can_be_renewed(client: Client, repository: TufRepository, role: str) -> None:
    repository.roles[role].expires = DAY_7
    repository.publish("root", "targets", "snapshot", "timestamp")
    assert client.refresh() == 0
    repository.roles[role].expires = DAY_21
    repository.publish("root", "targets", "snapshot", "timestamp")

    assert client.refresh(at=DAY_18) == 0
    assert client.trusted() == {"root": 3, "timestamp": 3, "snapshot": 3, "targets": 3}


def test_an_expired_timestamp_still_guards_against_rollback(client: Client, repository: TufRepository) -> None:
    repository.publish("timestamp", "timestamp")
    repository.timestamp.expires = DAY_7
    repository.publish("timestamp")
    assert client.refresh() == 0
    repository.timestamp.expires = DAY_21
    repository.timestamp.version = 2
    repository.put("timestamp", repository.sign("timestamp"))

    assert client.refresh(at=DAY_18) == 1
    assert client.trusted()["timestamp"] == 4


def test_a_delegated_role_served_expired(client: Client, repository: TufRepository) -> None:
    repository.delegate("targets", "below").expires = PAST
    repository.add_target("below", "file", b"content")
    repository.publish_all("below", "targets")

    assert client.refresh() == 0
    assert client.download("file") == 1
    assert client.downloaded() == []
    assert client.trusted() == {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2}


def test_a_delegated_role_expires_in_the_folder(client: Client, repository: TufRepository) -> None:
    repository.delegate("targets", "below").expires = DAY_7
    for name in ("one", "two"):
        repository.add_target("below", name, name.encode())
    repository.publish_all("below", "targets")
    assert client.download("one") == 0

    assert client.download("two", at=DAY_18) == 1
    assert client.downloaded() == [b"one"]

    repository.roles["below"].expires = DAY_21
    repository.publish_all("below")
    assert client.download("two", at=DAY_18) == 0
    assert client.downloaded() == [b"one", b"two"]


def test_far_in_the_future_and_back(client: Client) -> None:
    """A clock that once ran ahead leaves nothing behind that is in the way later."""
    assert client.refresh(at=datetime(2099, 1, 1, tzinfo=UTC)) == 1
    assert client.refresh() == 0
