from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.runner import Client
from tests.sim.repository import HostileServer
from tests.sim.tufrepository import TufRepository


@pytest.fixture
def repository(tmp_path: Path) -> TufRepository:
    return TufRepository(tmp_path / "repository")


@pytest.fixture
def server(repository: TufRepository) -> Iterator[HostileServer]:
    with HostileServer(repository.folder) as server:
        yield server


@pytest.fixture
def client(tmp_path: Path, repository: TufRepository, server: HostileServer) -> Client:
    """A client that was given the first root."""
    client = Client(tmp_path / "client", repository, server)
    assert client.init() == 0
    assert client.asked() == []
    return client
