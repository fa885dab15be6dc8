"""A2. Keys, thresholds and rotations."""

import json
from typing import Any, NamedTuple

import pytest
from securesystemslib.signer import CryptoSigner

from tests.conformance.runner import Client
from tests.sim.tufrepository import TufRepository, edited


class Signed(NamedTuple):
    """A version: which of ten keys the role has, how many it needs, and which sign."""

    keys: str
    needs: int
    by: str


def set_keys(repository: TufRepository, role: str, signers: list[CryptoSigner], version: Signed) -> None:
    for keyid in list(repository.root.roles[role].keyids):
        repository.root.revoke_key(keyid, role)
    for number in version.keys:
        repository.root.add_key(signers[int(number)].public_key, role)
    repository.root.roles[role].threshold = version.needs
    repository.signers[role] = [signers[int(number)] for number in version.by]


@pytest.fixture(scope="module")
def signers() -> list[CryptoSigner]:
    return [CryptoSigner.generate_ed25519() for _ in range(10)]


ROOTS: dict[str, tuple[list[Signed], int]] = {
    "one key becomes another": ([Signed("1", 1, "1"), Signed("2", 1, "21"), Signed("2", 1, "2")], 3),
    "strangers sign along": ([Signed("1", 1, "714"), Signed("2", 1, "8219"), Signed("2", 1, "924")], 3),
    "3 of 5, always others": ([Signed("01234", 3, "024"), Signed("01234", 3, "041"), Signed("01234", 3, "134")], 3),
    "3 of 5, one replaced": ([Signed("01234", 3, "024"), Signed("01345", 3, "041")], 2),
    "3 of 5, one replaced by itself": ([Signed("01234", 3, "024"), Signed("01345", 3, "0245"), Signed("01345", 3, "045")], 3),
    "3 of 5, all replaced": ([Signed("01234", 3, "024"), Signed("56789", 3, "024567"), Signed("56789", 3, "789")], 3),
    "more needed": ([Signed("123", 1, "1"), Signed("123", 2, "13")], 2),
    "more needed, key added": ([Signed("1", 1, "1"), Signed("12", 2, "12")], 2),
    "fewer needed": ([Signed("123", 2, "12"), Signed("123", 1, "12"), Signed("123", 1, "3")], 3),
    "not by the old key": ([Signed("1", 1, "1"), Signed("2", 1, "234")], 1),
    "not by the new key": ([Signed("1", 1, "1"), Signed("2", 1, "134")], 1),
    "too few of the new": ([Signed("01234", 3, "024"), Signed("01345", 3, "024")], 1),
    "too few of the old": ([Signed("01234", 3, "024"), Signed("01345", 3, "045")], 1),
    "more needed, too few": ([Signed("123", 1, "1"), Signed("123", 2, "2")], 1),
    "fewer needed, too few for now": ([Signed("123", 2, "12"), Signed("123", 1, "1")], 1),
    "refused in the middle": ([Signed("1", 1, "1"), Signed("2", 1, "2"), Signed("1", 1, "12")], 1),
    "first one too weak": ([Signed("12", 2, "1"), Signed("12", 1, "1")], 0),
}


@pytest.mark.parametrize("name", ROOTS)
def test_root_rotation(client: Client, repository: TufRepository, signers: list[CryptoSigner], name: str) -> None:
    """Every root is signed by enough keys of the one before it and of its own; the last good one stays."""
    versions, good = ROOTS[name]
    for path in (repository.folder / "metadata").glob("*.root.json"):
        path.unlink()
    repository.published.pop("root")
    for version in versions:
        set_keys(repository, "root", signers, version)
        repository.publish("root")
    client.init()

    assert client.refresh() == (0 if good == len(versions) else 1)
    kept = (client.metadata / "root.json").read_bytes()
    assert kept == repository.published["root"][max(good, 1) - 1]
    assert ("timestamp" in client.asked()) is (good == len(versions))


OTHERS: dict[str, tuple[Signed, bool]] = {
    "another key": (Signed("2", 1, "2"), True),
    "strangers sign along": (Signed("1", 1, "314"), True),
    "by the old key": (Signed("2", 1, "1"), False),
    "by strangers": (Signed("2", 1, "134"), False),
    "3 of 5": (Signed("01234", 3, "024"), True),
    "3 of 5, others": (Signed("01234", 3, "134"), True),
    "3 of 5, all": (Signed("01234", 3, "01234"), True),
    "2 of 5 and a stranger": (Signed("01345", 3, "024"), False),
    "2 of 5": (Signed("01345", 3, "04"), False),
    "nobody": (Signed("1", 1, ""), False),
}


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
@pytest.mark.parametrize("name", OTHERS)
def test_rotation_of_other_roles(client: Client, repository: TufRepository, signers: list[CryptoSigner], name: str,
                                 role: str) -> None:
    """A key that root has taken away is worth nothing from then on."""
    assert client.refresh() == 0
    version, good = OTHERS[name]
    set_keys(repository, role, signers, version)
    repository.publish("root", "targets", "snapshot", "timestamp")

    assert client.refresh() == (0 if good else 1)
    assert client.trusted()["root"] == 2
    assert client.trusted()[role] == (2 if good else 1)


def test_a_revoked_key_costs_old_metadata_its_trust(client: Client, repository: TufRepository) -> None:
    """Nothing new is published but root: what lies in the folder is signed by a key that does not count any more."""
    assert client.refresh() == 0
    old = repository.signers["targets"]
    repository.rotate("targets")
    repository.signers["targets"] = old
    repository.publish("root")

    assert client.refresh() == 1


def test_a_snapshot_below_its_threshold(client: Client, repository: TufRepository) -> None:
    repository.add_key("snapshot")
    repository.add_key("snapshot")
    repository.root.roles["snapshot"].threshold = 3
    repository.publish("root", "targets", "snapshot", "timestamp")
    assert client.refresh() == 0
    repository.signers["snapshot"].pop()
    repository.publish("targets", "snapshot", "timestamp")

    assert client.refresh() == 1
    assert client.trusted() == {"root": 2, "timestamp": 3, "snapshot": 2, "targets": 2}


def test_a_threshold_that_no_number_of_keys_can_reach(client: Client, repository: TufRepository) -> None:
    repository.add_key("snapshot")
    repository.root.roles["snapshot"].threshold = 3
    repository.publish("root", "snapshot", "timestamp")

    assert client.refresh() == 1
    assert client.trusted() == {"root": 2, "timestamp": 2}


@pytest.mark.parametrize("threshold", [0, -1, "1", None])
def test_a_threshold_that_is_none(client: Client, repository: TufRepository, threshold: Any) -> None:
    """CVE-2026-23992: a threshold of 0 asks for no signature at all. The roots here are signed properly, so only the client's
    own check is left."""
    class Odd(type(repository.root.roles["timestamp"])):  # type: ignore[misc]
        def to_dict(self) -> dict[str, Any]:
            return super().to_dict() | {"threshold": threshold}

    repository.root.roles["timestamp"].__class__ = Odd
    repository.publish("root")
    repository.signers["timestamp"] = []
    repository.publish("timestamp")

    assert client.refresh() == 1
    assert client.trusted() == {"root": 1}


def test_one_key_counted_several_times(client: Client, repository: TufRepository) -> None:
    """GHSA-pwqf-9h7j-7mv8: the key id, and the signature, stand there as often as the threshold needs."""
    signer = repository.signers["snapshot"][0]
    repository.root.roles["snapshot"].threshold = 3
    repository.root.roles["snapshot"].keyids *= 3

    def repeat(content: dict[str, Any]) -> None:
        content["signatures"] = [s for s in content["signatures"] if s["keyid"] == signer.public_key.keyid] * 3

    repository.publish("root")
    repository.publish("snapshot", change=edited(repeat))
    repository.publish("timestamp")

    assert client.refresh() == 1
    assert "snapshot" not in client.trusted()


def test_the_same_signature_twice(client: Client, repository: TufRepository) -> None:
    """Even if once would have been enough: key ids are unique among signatures (specification, section 4.2)."""
    def twice(content: dict[str, Any]) -> None:
        content["signatures"] *= 2

    repository.publish("snapshot", change=edited(twice))
    repository.publish("timestamp")

    assert client.refresh() == 1
    assert client.trusted() == {"root": 1, "timestamp": 2}


@pytest.mark.parametrize("bad", ["", "00" * 64, "zz", "é"])
def test_a_bad_signature_beside_enough_good_ones(client: Client, repository: TufRepository, bad: str) -> None:
    spoiled = repository.signers["timestamp"][0].public_key.keyid
    repository.add_key("timestamp")

    def spoil(content: dict[str, Any]) -> None:
        for signature in content["signatures"]:
            if signature["keyid"] == spoiled:
                signature["sig"] = bad

    repository.publish("root")
    repository.publish("timestamp", change=edited(spoil))

    assert client.refresh() == 0
    assert client.trusted()["timestamp"] == 2


@pytest.mark.parametrize(("generate", "scheme"), [
    (CryptoSigner.generate_rsa, "rsassa-pss-sha256"), (CryptoSigner.generate_rsa, "rsa-pkcs1v15-sha256"),
    (CryptoSigner.generate_ecdsa, "ecdsa-sha2-nistp256"), (CryptoSigner.generate_ed25519, "ed25519"),
], ids=["rsa-pss", "rsa-pkcs1", "ecdsa", "ed25519"])
def test_kinds_of_keys(client: Client, repository: TufRepository, generate: Any, scheme: str) -> None:
    signer = generate(scheme=scheme) if "rsa" in scheme else generate()
    assert signer.public_key.scheme == scheme
    repository.add_key("root", signer)
    repository.root.roles["root"].threshold = 2
    repository.publish("root")
    assert client.refresh() == 0
    assert client.trusted()["root"] == 2

    def swap(content: dict[str, Any]) -> None:
        """A signature of the right kind, over something else."""
        old = json.loads(repository.published["root"][-1])
        for signature in content["signatures"]:
            if signature["keyid"] == signer.public_key.keyid:
                signature["sig"] = next(s["sig"] for s in old["signatures"] if s["keyid"] == signature["keyid"])

    repository.publish("root", change=edited(swap))
    assert client.refresh() == 1
    assert client.trusted()["root"] == 2


def test_a_kind_of_key_that_nobody_knows(client: Client, repository: TufRepository) -> None:
    """A root that names one is refused whole, so the client must learn a new kind of key before root does."""
    signer = repository.signers["timestamp"][0]
    key = repository.root.keys[signer.public_key.keyid]
    key.keytype, key.scheme = "future", "future-1"
    repository.publish("root", "timestamp")

    assert client.refresh() == 1
    assert client.trusted() == {"root": 1}
