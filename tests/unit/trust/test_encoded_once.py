"""What is signed is encoded once, not twice as in python-tuf's own loader, and judged the same."""

from pathlib import Path

import pytest
from tuf.api.exceptions import RepositoryError, UnsignedMetadataError
from tuf.api.metadata import Metadata, Root, Snapshot, Timestamp

from keyfit.trust.metadata import _load_data
from tests.sim.tufrepository import TufRepository, edited


@pytest.fixture
def repository(tmp_path: Path) -> TufRepository:
    return TufRepository(tmp_path)


def test_the_same_comes_out_as_of_python_tuf(repository: TufRepository) -> None:
    from tuf.ngclient._internal.trusted_metadata_set import _load_from_metadata

    root = Metadata[Root].from_bytes(repository.trusted_root).signed
    for role, name in ((Timestamp, "timestamp"), (Snapshot, "snapshot")):
        data = repository.published[name][0]
        assert _load_data(role, data, root) == _load_from_metadata(role, data, root)  # type: ignore[type-var]
    assert _load_data(Root, repository.trusted_root) == _load_from_metadata(Root, repository.trusted_root)


def test_a1_the_same_is_refused(repository: TufRepository) -> None:
    """A1: another type, other keys, bytes changed after signing."""
    root = Metadata[Root].from_bytes(repository.trusted_root).signed
    with pytest.raises(RepositoryError, match="Expected 'timestamp', got 'snapshot'"):
        _load_data(Timestamp, repository.published["snapshot"][0], root)
    forge = edited(lambda content: content["signed"].update(version=7))
    with pytest.raises(UnsignedMetadataError):
        _load_data(Timestamp, forge(repository.published["timestamp"][0]), root)
    repository.rotate("timestamp")
    repository.publish("timestamp")
    with pytest.raises(UnsignedMetadataError):
        _load_data(Timestamp, repository.published["timestamp"][-1], root)


def test_a_delegated_role_is_judged_under_its_name(repository: TufRepository) -> None:
    repository.delegate("targets", "brand", paths=["*"])
    repository.publish("brand", "targets")
    from tuf.api.metadata import Targets

    targets = Metadata[Targets].from_bytes(repository.published["targets"][-1]).signed
    brand = repository.published["brand"][0]
    assert _load_data(Targets, brand, targets, "brand")[0].version == 1
    with pytest.raises(ValueError, match="other"):
        _load_data(Targets, brand, targets, "other")


def test_the_client_loads_that_way(repository: TufRepository, tmp_path: Path) -> None:
    """If python-tuf moves what is replaced, everything goes on working, slower; this test says so."""
    from datetime import UTC, datetime

    from keyfit.trust.limits import Limits
    from keyfit.trust.metadata import Fetcher, _DatedUpdater
    from keyfit.trust.transport import Transport

    (tmp_path / "cache").mkdir()
    updater = _DatedUpdater(str(tmp_path / "cache"), tmp_path.as_uri() + "/metadata/",
                            fetcher=Fetcher(Transport(Limits()), frozenset()), bootstrap=repository.trusted_root)
    updater.judge_at(datetime.now(UTC))
    updater.refresh()
    assert vars(updater._trusted_set)["_load_data"] is _load_data
