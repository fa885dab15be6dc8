"""A2. Downloading what was found."""

from pathlib import Path

import pytest

from tests.conformance.runner import Client
from tests.sim.repository import HostileServer, endless_body, wrong_bytes
from tests.sim.tufrepository import TufRepository


@pytest.mark.parametrize("name", ["file", "a/b/file.txt", "file with blank", "ä", "%20", "a%2Fb", "-dash", "..", ".", "a..b",
                                  "~", "con", "x" * 150 + "/" + "y" * 150])
def test_names(client: Client, repository: TufRepository, name: str) -> None:
    """A8: whatever is in a name, the file lies in the target folder, under one name that no other target has."""
    info = repository.add_target("targets", name, b"content")
    for served, data in ((info.get_prefixed_paths()[0], b"content"),):
        for spelling in {served, served.replace(" ", "%20"), served.replace("ä", "%C3%A4")}:
            (repository.folder / "targets" / spelling).parent.mkdir(parents=True, exist_ok=True)
            (repository.folder / "targets" / spelling).write_bytes(data)
    repository.publish_all("targets")

    assert client.download(name) == 0
    assert client.downloaded() == [b"content"]
    assert {path.name for path in client.metadata.parent.iterdir()} == {"metadata", "targets", "initial-root.json"}


@pytest.mark.parametrize("hashes", [("sha256",), ("sha512",), ("sha256", "sha512"), ("sha512", "sha256"), ("blake2b-256",),
                                    ("sha3_256",)])
def test_hash_algorithms(client: Client, repository: TufRepository, hashes: tuple[str, ...]) -> None:
    info = repository.add_target("targets", "a/file", b"content", hashes)
    repository.publish_all("targets")

    assert client.download("a/file") == 0
    assert client.downloaded() == [b"content"]
    assert client.asked()[-1].removeprefix("/targets/") in info.get_prefixed_paths()


@pytest.mark.parametrize("hashes", [{"future": "ab" * 32}, {"sha256": "good", "future": "ab" * 32}, {"shake_128": "ab" * 16}])
def test_unknown_hash_algorithms(client: Client, repository: TufRepository, hashes: dict[str, str]) -> None:
    """Also beside a good one: all that is listed has to match."""
    info = repository.add_target("targets", "file", b"content")
    info.hashes = {name: info.hashes["sha256"] if value == "good" else value for name, value in hashes.items()}
    repository.serve_target(info, b"content")
    repository.publish_all("targets")

    assert client.download("file") == 1
    assert client.downloaded() == []
    assert client.said.startswith("target-hash")


def test_one_of_two_hashes_is_wrong(client: Client, repository: TufRepository) -> None:
    info = repository.add_target("targets", "file", b"content", ("sha256", "sha512"))
    info.hashes["sha512"] = "00" * 64
    repository.publish_all("targets")

    assert client.download("file") == 1
    assert client.downloaded() == []


def test_an_empty_target(client: Client, repository: TufRepository) -> None:
    repository.add_target("targets", "empty", b"")
    repository.publish_all("targets")

    assert client.download("empty") == 0
    assert client.downloaded() == [b""]


@pytest.mark.parametrize("data", [b"other!!", b"content and more", b"cont", b""], ids=["other", "longer", "shorter", "empty"])
def test_other_bytes_than_were_signed(client: Client, repository: TufRepository, data: bytes) -> None:
    good = repository.add_target("targets", "good", b"content")
    bad = repository.add_target("targets", "bad", b"content")
    repository.publish_all("targets")
    assert client.download("good") == 0
    repository.serve_target(good, data)
    repository.serve_target(bad, data)

    client.download("good")
    assert client.download("bad") == 1
    assert client.downloaded() == [b"content"]


def test_a_file_that_is_there_is_not_fetched_again(client: Client, repository: TufRepository, server: HostileServer) -> None:
    repository.add_target("targets", "a/file", b"content")
    repository.publish_all("targets")
    assert client.download("a/file") == 0
    client.asked()
    server.misbehave("targets/", wrong_bytes())

    assert client.download("a/file") == 0
    assert client.asked() == ["2.root", "timestamp"]


def test_a_file_that_was_changed_here_is_fetched_again(client: Client, repository: TufRepository) -> None:
    repository.add_target("targets", "file", b"content")
    repository.publish_all("targets")
    assert client.download("file") == 0
    next(client.targets.iterdir()).write_bytes(b"changed")

    assert client.download("file") == 0
    assert client.downloaded() == [b"content"]


def test_a_link_in_the_folder_is_replaced_not_followed(client: Client, repository: TufRepository, tmp_path: Path) -> None:
    repository.add_target("targets", "file", b"content")
    repository.publish_all("targets")
    (tmp_path / "elsewhere").write_bytes(b"elsewhere")
    (client.targets / "file").symlink_to(tmp_path / "elsewhere")

    assert client.download("file") == 0
    assert client.downloaded() == [b"content"]
    assert (tmp_path / "elsewhere").read_bytes() == b"elsewhere"


def test_new_content_takes_the_place_of_the_old(client: Client, repository: TufRepository) -> None:
    for number in range(3):
        repository.add_target("targets", "file", b"content %d" % number)
        repository.publish_all("targets")

        assert client.download("file") == 0
        assert client.downloaded() == [b"content %d" % number]


def test_several_in_their_order(client: Client, repository: TufRepository) -> None:
    """One refresh for all of them."""
    names = ["c", "a", "b"]
    infos = [repository.add_target("targets", name, name.encode()) for name in names]
    repository.publish_all("targets")

    assert client.download(*names) == 0
    assert client.asked() == ["2.root", "timestamp", "2.snapshot", "2.targets",
                              *(f"/targets/{info.get_prefixed_paths()[0]}" for info in infos)]


def test_the_first_that_fails_ends_it(client: Client, repository: TufRepository) -> None:
    for name in ("a", "b"):
        repository.add_target("targets", name, name.encode())
    repository.publish_all("targets")

    assert client.download("a", "nothing", "b") == 1
    assert client.downloaded() == [b"a"]


def test_a7_a_target_without_end(client: Client, repository: TufRepository, server: HostileServer) -> None:
    """A7: one byte more than was signed ends it."""
    repository.add_target("targets", "file", b"content")
    repository.publish_all("targets")
    server.misbehave("targets/", endless_body())

    assert client.download("file") == 1
    assert client.downloaded() == []
