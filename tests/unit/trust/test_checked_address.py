"""One address of a repository, at any time and with bounded grace, where python-tuf's public interface does not reach."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tuf.api.metadata import Metadata
from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet
from tuf.ngclient.config import EnvelopeType

from keyfit.errors import BugError, TrustError
from keyfit.trust.limits import Limits
from keyfit.trust.metadata import CheckedAddress, Fetcher
from keyfit.trust.transport import Transport
from tests.sim.tufrepository import TufRepository

DAY = 86_400.0
ROLES = ("timestamp", "snapshot", "targets", "below")


@pytest.fixture
def repository(tmp_path: Path) -> TufRepository:
    repository = TufRepository(tmp_path / "repository")
    repository.delegate("targets", "below")
    repository.add_target("below", "file", b"content")
    repository.publish_all("below", "targets")
    return repository


def checked(repository: TufRepository, **options: Any) -> CheckedAddress:
    folder = repository.folder.parent / "client"
    folder.mkdir(exist_ok=True)
    url = repository.folder.as_uri()
    return CheckedAddress(metadata_url=url + "/metadata/", targets_url=url + "/targets/", folder=folder,
                          trusted_root=repository.trusted_root, fetcher=Fetcher(Transport(Limits()), frozenset()), **options)


def expire(repository: TufRepository, role: str, in_days: float) -> None:
    repository.roles[role].expires = datetime.now(UTC).replace(microsecond=0) + timedelta(days=in_days)
    repository.publish(role, *{"below": ("snapshot", "timestamp"), "targets": ("snapshot", "timestamp"),
                               "snapshot": ("timestamp",)}.get(role, ()))


def refused(repository: TufRepository, **options: Any) -> str:
    with pytest.raises(TrustError) as caught:
        checked(repository, **options).target("file", 1000)
    return caught.value.code


def test_python_tuf_keeps_its_reference_time_where_we_set_it(repository: TufRepository) -> None:
    """Fails if the private attribute moves; then `_DatedUpdater` needs another way."""
    trusted = TrustedMetadataSet(repository.trusted_root, EnvelopeType.METADATA)

    assert isinstance(vars(trusted)["reference_time"], datetime)


def test_without_that_attribute_no_time_is_set_at_all(repository: TufRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrustedMetadataSet, "__init__", _without_time(TrustedMetadataSet.__init__))

    with pytest.raises(BugError):
        checked(repository)


def _without_time(original: Any) -> Any:
    def init(self: Any, *arguments: Any) -> None:
        original(self, *arguments)
        del self.reference_time
    return init


@pytest.mark.parametrize("role", ["root", *ROLES])
def test_a6_expiry_is_judged_at_the_given_time(repository: TufRepository, role: str) -> None:
    """A6: earlier or later than the system's clock."""
    expire(repository, role, 7)
    assert checked(repository).target("file", 1000) == b"content"
    assert refused(repository, reference_time=time.time() + 8 * DAY) == "metadata-expired"

    expire(repository, role, -1)
    assert refused(repository) == "metadata-expired"
    assert checked(repository, reference_time=time.time() - 2 * DAY).target("file", 1000) == b"content"


@pytest.mark.parametrize("role", ROLES)
def test_grace_is_bounded(repository: TufRepository, role: str) -> None:
    expire(repository, role, -5)

    assert refused(repository, grace_s=4 * DAY) == "metadata-expired"
    assert checked(repository, grace_s=6 * DAY).target("file", 1000) == b"content"


def test_there_is_no_grace_for_the_root(repository: TufRepository) -> None:
    expire(repository, "root", -1)

    assert refused(repository, grace_s=365 * DAY) == "metadata-expired"
    assert refused(repository, grace_s=365 * DAY, reference_time=time.time()) == "metadata-expired"


def test_the_root_expires_at_the_very_second(repository: TufRepository) -> None:
    expires = repository.root.expires.timestamp()

    assert refused(repository, reference_time=expires, grace_s=DAY) == "metadata-expired"
    for role in ROLES:
        repository.roles[role].expires = repository.later + timedelta(days=9)
        repository.publish_all(role)
    assert checked(repository, reference_time=expires - 1, grace_s=DAY).target("file", 1000) == b"content"


def test_delegated_roles(repository: TufRepository) -> None:
    repository.delegate("targets", "another/name")
    repository.delegate("below", "deeper")
    repository.publish_all("deeper", "below", "another/name", "targets")

    assert checked(repository).delegated_roles() == ("below", "another/name")


def test_delegated_roles_of_bins_and_of_nothing(tmp_path: Path) -> None:
    repository = TufRepository(tmp_path / "bins")
    assert checked(repository).delegated_roles() == ()

    bins = repository.delegate_bins("targets", 3, "bin")
    repository.publish_all(*bins, "targets")
    assert checked(repository).delegated_roles() == tuple(bins)
    assert len(bins) == 8


def test_a_target_longer_than_we_take_is_not_fetched(repository: TufRepository) -> None:
    address = checked(repository)
    for path in (repository.folder / "targets").rglob("*.file"):
        path.unlink()

    with pytest.raises(TrustError) as caught:
        address.target("file", 6)
    assert caught.value.code == "manifest-invalid"


def test_standing_is_the_first_expiry_of_the_top(repository: TufRepository) -> None:
    """Over file:// there is no tag."""
    expire(repository, "below", 1)
    expire(repository, "snapshot", 3)

    standing = checked(repository).standing()
    assert standing.expires == repository.snapshot.expires.timestamp()
    assert standing.etag == ""
    assert standing.url == repository.folder.as_uri() + "/metadata/timestamp.json"
    kept = Metadata[Any].from_bytes((repository.folder.parent / "client/snapshot.json").read_bytes())
    assert kept.signed.expires.timestamp() == standing.expires
