"""A2. The client workflow as a whole: what is asked for, in which order, and what is kept after each way to fail."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.runner import Client
from tests.sim.repository import HostileServer
from tests.sim.tufrepository import TufRepository, edited


def test_first_refresh(client: Client, repository: TufRepository) -> None:
    assert client.refresh() == 0

    assert client.asked() == ["2.root", "timestamp", "1.snapshot", "1.targets"]
    for role in ("root", "timestamp", "snapshot", "targets"):
        assert (client.metadata / f"{role}.json").read_bytes() == repository.published[role][-1]


def test_second_refresh_asks_for_root_and_timestamp_only(client: Client) -> None:
    client.refresh()
    client.asked()

    assert client.refresh() == 0
    assert client.asked() == ["2.root", "timestamp"]


def test_download_refreshes_first(client: Client) -> None:
    assert client.download("nothing") == 1

    assert client.asked() == ["2.root", "timestamp", "1.snapshot", "1.targets"]
    assert client.trusted() == {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1}
    assert client.downloaded() == []


def test_all_roots_are_fetched_one_after_the_other(client: Client, repository: TufRepository) -> None:
    repository.publish("root", "root", "root")

    assert client.refresh() == 0
    assert client.asked()[:5] == ["2.root", "3.root", "4.root", "5.root", "timestamp"]
    assert client.refresh() == 0
    assert client.asked() == ["5.root", "timestamp"]
    assert client.trusted()["root"] == 4


def test_a_gap_between_roots_is_not_jumped(client: Client, repository: TufRepository) -> None:
    repository.publish("root", "root")
    repository.withdraw("2.root.json")

    assert client.refresh() == 0
    assert client.trusted()["root"] == 1
    assert client.asked()[:2] == ["2.root", "timestamp"]


def test_a1_init_again_changes_the_anchor(client: Client, tmp_path: Path) -> None:
    """A1: after it, the other repository's metadata is worth nothing."""
    assert client.refresh() == 0
    other = TufRepository(tmp_path / "other")

    assert client.init(other.trusted_root) == 0
    assert client.refresh() == 1


def test_a1_a_planted_root_is_not_the_anchor(client: Client, repository: TufRepository, tmp_path: Path,
                                             server: HostileServer) -> None:
    """A1: who can write into the folder plants the whole of another repository, and serves it."""
    other = TufRepository(tmp_path / "other")
    server.folder = other.folder
    (client.metadata / "root.json").write_bytes(other.trusted_root)
    history = client.metadata / "root_history"
    history.mkdir()
    (history / "1.root.json").write_bytes(other.trusted_root)

    assert client.refresh() == 1
    assert (client.metadata / "root.json").read_bytes() == repository.trusted_root


def remove_version(content: dict[str, Any]) -> None:
    del content["signed"]["version"]


def spoil_signature(content: dict[str, Any]) -> None:
    content["signatures"][0]["sig"] = "00" * 64


def drop_signature(content: dict[str, Any]) -> None:
    content["signatures"] = []


@pytest.mark.parametrize("change", [remove_version, spoil_signature, drop_signature])
def test_a_first_root_that_is_none(client: Client, repository: TufRepository, change: Any) -> None:
    client.init(edited(change)(repository.trusted_root))

    assert client.refresh() == 1
    assert client.asked() == []


@pytest.mark.parametrize("root", [b"", b"{}", b"not JSON", b"[" * 100_000, b'{"signed": {"_type": "root"}, "signatures": 1}'])
def test_a_first_root_that_is_junk(client: Client, root: bytes) -> None:
    client.init(root or b" ")

    assert client.refresh() == 1
    assert client.asked() == []


BEFORE = {
    "root": {"root": 1},
    "timestamp": {"root": 2},
    "snapshot": {"root": 2, "timestamp": 2},
    "targets": {"root": 2, "timestamp": 2, "snapshot": 2},
}
"""What is trusted when the fault is in this role of a repository whose roles all have version 2."""


@pytest.mark.parametrize("role", BEFORE)
def test_unsigned(client: Client, repository: TufRepository, role: str) -> None:
    repository.signers[role] = []
    repository.publish("root", "targets", "snapshot", "timestamp")

    assert client.refresh() == 1
    assert client.trusted() == BEFORE[role]


@pytest.mark.parametrize("role", BEFORE)
def test_not_a_byte_may_be_changed(client: Client, repository: TufRepository, role: str) -> None:
    def change(content: dict[str, Any]) -> None:
        content["signed"]["expires"] = "2099-01-01T00:00:00Z"

    for each in ("root", "targets", "snapshot", "timestamp"):
        repository.publish(each, change=edited(change) if each == role else bytes)

    assert client.refresh() == 1
    assert client.trusted() == BEFORE[role]


@pytest.mark.parametrize("role", ["root", "snapshot", "targets"])
def test_another_version_than_the_name_says(client: Client, repository: TufRepository, role: str) -> None:
    for each in ("root", "targets", "snapshot", "timestamp"):
        repository.publish(each)
        if each == role:
            repository.roles[role].version = 3
            repository.put(role, repository.sign(role), number=2)
            repository.roles[role].version = 2
            if role != "root":
                above = repository.timestamp.snapshot_meta if role == "snapshot" else repository.snapshot.meta["targets.json"]
                above.version = 2

    assert client.refresh() == 1
    assert client.trusted() == BEFORE[role]


@pytest.mark.parametrize(("missing", "last"), [("timestamp.json", "timestamp"), ("2.snapshot.json", "2.snapshot"),
                                               ("2.targets.json", "2.targets")])
def test_missing(client: Client, repository: TufRepository, missing: str, last: str) -> None:
    assert client.refresh() == 0
    repository.publish_all("targets")
    repository.withdraw(missing)
    client.asked()

    assert client.refresh() == 1
    assert client.asked()[-1] == last
    new = {"timestamp": 2, "snapshot": 2} if last == "2.targets" else {"timestamp": 2} if last == "2.snapshot" else {}
    assert client.trusted() == {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1} | new


def test_the_same_timestamp_version_with_other_content(client: Client, repository: TufRepository) -> None:
    assert client.refresh() == 0
    before = (client.metadata / "timestamp.json").read_bytes()
    repository.timestamp.snapshot_meta.version = 100
    repository.put("timestamp", repository.sign("timestamp"))
    client.asked()

    assert client.refresh() == 0
    assert client.asked()[-1] == "timestamp"
    assert (client.metadata / "timestamp.json").read_bytes() == before


def test_a_snapshot_in_place_of_a_timestamp(client: Client, repository: TufRepository) -> None:
    """Signed by the timestamp's key, with all that a timestamp needs; only its type is another."""
    repository.add_key("snapshot", repository.signers["timestamp"][0])
    repository.snapshot.meta = {"snapshot.json": repository.timestamp.snapshot_meta}
    repository.publish("root")
    repository.snapshot.version = 2
    (repository.folder / "metadata" / "timestamp.json").write_bytes(repository.sign("snapshot"))

    assert client.refresh() == 1
    assert client.trusted() == {"root": 2}


def test_what_was_served_is_kept_byte_for_byte(client: Client, repository: TufRepository) -> None:
    def reorder(data: bytes) -> bytes:
        return json.dumps(json.loads(data), indent=3, sort_keys=False).encode() + b" \n"

    for role in ("root", "targets", "snapshot", "timestamp"):
        repository.publish(role, change=reorder)

    assert client.refresh() == 0
    for role in ("root", "timestamp", "snapshot", "targets"):
        assert (client.metadata / f"{role}.json").read_bytes() == repository.published[role][-1]


def test_unknown_fields_count_for_signatures(client: Client, repository: TufRepository) -> None:
    signer = repository.add_key("root")
    repository.root.unrecognized_fields["x"] = {"deep": [1, "ä"]}
    repository.root.keys[signer.public_key.keyid].unrecognized_fields["y"] = "z"
    repository.root.roles["root"].unrecognized_fields["z"] = True
    repository.publish("root")

    assert client.refresh() == 0
    assert client.trusted()["root"] == 2

    def add(content: dict[str, Any]) -> None:
        content["signed"]["added-after-signing"] = 1

    repository.publish("root", change=edited(add))
    assert client.refresh() == 1
    assert client.trusted()["root"] == 2


def test_an_old_field_of_keys_means_nothing(client: Client, repository: TufRepository) -> None:
    """"keyid_hash_algorithms" is no part of the specification."""
    keyid = repository.root.roles["snapshot"].keyids[0]
    repository.root.keys[keyid].unrecognized_fields["keyid_hash_algorithms"] = "md5"
    repository.publish("root", "snapshot", "timestamp")

    assert client.refresh() == 0
    assert client.trusted()["snapshot"] == 2


@pytest.mark.parametrize("data", [b"", b"{", b"null", b"[]", b'{"signed": {}, "signatures": []}', b"[" * 10_000, b"\xff\xfe"])
@pytest.mark.parametrize("role", ["root", "timestamp", "snapshot", "targets"])
def test_junk_in_place_of_a_role(client: Client, repository: TufRepository, role: str, data: bytes) -> None:
    """H4: parser confusion ends in a refusal, never in a fault of ours."""
    for each in ("root", "targets", "snapshot", "timestamp"):
        repository.publish(each, change=(lambda _: data) if each == role else bytes)

    assert client.refresh() == 1
    assert client.trusted() == BEFORE[role]


def test_without_consistent_snapshots(tmp_path: Path) -> None:
    """Names without versions and hashes."""
    repository = TufRepository(tmp_path / "plain", consistent=False)
    repository.add_target("targets", "a/b", b"content")
    repository.publish_all("targets")
    with HostileServer(repository.folder) as server:
        client = Client(tmp_path / "client", repository, server)
        client.init()

        assert client.download("a/b") == 0
        assert client.asked() == ["2.root", "timestamp", "snapshot", "targets", "/targets/a/b"]
        assert client.downloaded() == [b"content"]


@pytest.mark.parametrize("arguments", [[], ["refresh"], ["--metadata-dir", "m", "refresh"], ["--metadata-dir", "m", "fly"],
                                       ["--metadata-dir", "m", "--metadata-url", "http://127.0.0.1/", "download"]])
def test_a_wrong_command_line(client: Client, arguments: list[str]) -> None:
    assert client._run(*arguments) == 1
    assert client.asked() == []


def test_f1_plain_http_to_elsewhere_is_refused(client: Client) -> None:
    """F1: the adapter has no other rules than the product."""
    assert client._run("--metadata-dir", str(client.metadata), "--metadata-url", "http://192.0.2.1/metadata", "refresh") == 1
    assert client.said.startswith("https-required")
