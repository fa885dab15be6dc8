"""A2. The graph of delegations: who is asked, in which order, and who is not."""

import hashlib
import itertools

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import DelegatedRole, Delegations

from tests.conformance.runner import Client
from tests.sim.tufrepository import TufRepository

EDGES: dict[str, tuple[str, str]] = {
    "one": ("T>A", "A"),
    "two side by side": ("T>A T>B", "A B"),
    "order of the list, not of names": ("T>B T>A", "B A"),
    "one below another": ("T>A T>B B>C", "A B C"),
    "depth first": ("T>A T>B A>C A>D", "A C D B"),
    "depth first, deeper": ("T>A T>B A>C C>D", "A C D B"),
    "terminating": ("T>A! T>B", "A"),
    "terminating, not the last": ("T>A T>B A>C! A>D", "A C"),
    "terminating, and what is below": ("T>A T>B A>C! C>D", "A C D"),
    "not for this path": ("T>A(*.py) T>B A>C", "B"),
    "not for this path, deeper": ("T>A T>B A>C(*.py) C>D", "A B"),
    "terminating, but not for this path": ("T>A(*.py)! T>B", "B"),
    "to itself": ("T>A A>A", "A"),
    "in a circle": ("T>A T>B B>C C>D D>B", "A B C D"),
    "back to the top": ("T>A A>B B>A", "A B"),
    "diamond": ("T>A T>B B>C A>C", "A C B"),
    "diamond, one side for other paths": ("T>A T>B B>C A>C(*.py)", "A B C"),
    "by folder": ("T>A(x/*) T>B(*/*) T>C(*)", "C"),
}
"""Name -> edges from the top (T), and the order in which roles are asked for a path that is nowhere."""


@pytest.mark.parametrize("name", EDGES)
def test_order(client: Client, repository: TufRepository, name: str) -> None:
    edges, order = EDGES[name]
    roles = build(repository, edges)
    repository.publish_all(*roles, "targets")

    assert client.download("nowhere") == 1
    assert client.asked()[4:] == [f"1.{role}" for role in order.split()]


def build(repository: TufRepository, edges: str) -> list[str]:
    roles: dict[str, None] = {}
    for edge in edges.split():
        parent, _, child = edge.partition(">")
        terminating = child.endswith("!")
        child, _, paths = child.removesuffix("!").removesuffix(")").partition("(")
        repository.delegate("targets" if parent == "T" else parent, child, paths=[paths or "*"], terminating=terminating)
        roles[child] = None
    return list(roles)


@pytest.mark.parametrize(("path", "asked", "found"), [
    ("plain", "", True),
    ("read.md", "A", True),
    ("out/x/1", "B C", True),
    ("out/y/1.zip", "B D", True),
    ("out/y/1.tar", "B", False),
    ("out/z/1.zip", "B", False),
    ("deep/er/x/1", "", False),
    ("READ.MD", "", False),
])
def test_who_signs_what(client: Client, repository: TufRepository, path: str, asked: str, found: bool) -> None:
    """A4: a role's signature counts only for paths that everybody above it gave it."""
    roles = build(repository, "T>A(*.md) T>B(out/*/*) B>C(out/x/*) B>D(out/y/*.zip)")
    for role, name in (("targets", "plain"), ("A", "read.md"), ("C", "out/x/1"), ("D", "out/y/1.zip"),
                       ("D", "out/z/1.zip"), ("D", "out/y/1.tar"), ("A", "READ.MD"), ("A", "deep/er/x/1")):
        repository.add_target(role, name, name.encode())
    repository.publish_all(*roles, "targets")

    assert client.download(path) == (0 if found else 1)
    assert client.downloaded() == ([path.encode()] if found else [])
    assert [each for each in client.asked()[4:] if not each.startswith("/targets")] == [f"1.{r}" for r in asked.split()]


def test_the_first_that_has_it_wins(client: Client, repository: TufRepository) -> None:
    roles = build(repository, "T>A T>B")
    first = repository.add_target("A", "file", b"first")
    repository.add_target("B", "file", b"second!")
    repository.publish_all(*roles, "targets")

    assert client.download("file") == 0
    assert client.downloaded() == [b"first"]
    assert client.asked()[-1] == f"/targets/{first.hashes['sha256']}.file"


def test_a_terminating_role_that_does_not_have_it_ends_the_search(client: Client, repository: TufRepository) -> None:
    roles = build(repository, "T>A! T>B")
    repository.add_target("B", "file", b"second")
    repository.publish_all(*roles, "targets")

    assert client.download("file") == 1
    assert client.downloaded() == []


def test_a_role_that_cannot_be_verified_ends_the_search(client: Client, repository: TufRepository) -> None:
    """Otherwise who holds back A decides that B's file is the one."""
    roles = build(repository, "T>A T>B")
    repository.add_target("B", "file", b"second")
    repository.signers["A"] = [CryptoSigner.generate_ed25519()]
    repository.publish_all(*roles, "targets")

    assert client.download("file") == 1
    assert client.asked()[4:] == ["1.A"]
    assert "A" not in client.trusted()


def test_a_role_is_verified_for_each_that_delegates_to_it(client: Client, repository: TufRepository) -> None:
    """A and B name C, each with another key; C signs with A's. What came by A is not good for B, in the same process, nor
    from the folder in the next."""
    other = CryptoSigner.generate_ed25519()
    build(repository, "T>A(a/*) T>B(b/*) A>C(a/*)")
    repository.delegate("B", "C", paths=["b/*"], trusts=other)
    for name in ("a/file", "b/file"):
        repository.add_target("C", name, name.encode())
    repository.publish_all("A", "B", "C", "targets")

    assert client.download("a/file", "b/file") == 1
    assert client.downloaded() == [b"a/file"]
    assert client.download("b/file") == 1
    assert client.downloaded() == [b"a/file"]


def test_key_rotation_in_a_delegation(client: Client, repository: TufRepository) -> None:
    repository.delegate("targets", "A")
    repository.add_target("A", "file", b"content")
    repository.publish_all("A", "targets")
    assert client.download("file") == 0
    old = repository.signers["A"]
    assert repository.targets.delegations is not None
    assert repository.targets.delegations.roles is not None
    repository.targets.delegations.roles["A"].keyids = []
    repository.signers["A"] = [CryptoSigner.generate_ed25519()]
    repository.targets.add_key(repository.signers["A"][0].public_key, "A")
    repository.publish_all("A", "targets")
    assert client.download("file") == 0
    assert client.trusted()["A"] == 2

    repository.signers["A"] = old
    repository.publish_all("A")
    assert client.download("file") == 1
    assert client.trusted()["A"] == 2


@pytest.mark.parametrize(("length", "found"), [(20, True), (32, True), (33, False), (60, False)])
def test_a7_depth(client: Client, repository: TufRepository, length: int, found: bool) -> None:
    """A7: 33 roles are asked, counting targets itself, and then no more."""
    roles = ["targets", *(f"level-{number}" for number in range(length))]
    for parent, child in itertools.pairwise(roles):
        repository.delegate(parent, child)
    repository.add_target(roles[-1], "file", b"content")
    repository.publish_all(*roles[1:], "targets")

    assert client.download("file") == (0 if found else 1)
    assert client.downloaded() == ([b"content"] if found else [])
    assert len([each for each in client.asked() if "level-" in each]) == min(length, 32)


@pytest.mark.parametrize("role", ["?", "#", "/role", "../role", "..", ".", "a b", "ä", "%2F", "role.json", "1.root", "con",
                                  "\\x"])
def test_a8_names_of_roles(client: Client, repository: TufRepository, role: str) -> None:
    """A8: a name is quoted in the address and in the folder, and never leads out of it."""
    repository.delegate("targets", role)
    repository.add_target(role, "file", b"content")
    repository.publish_all(role, "targets")

    assert client.download("file") == 0
    assert client.downloaded() == [b"content"]
    assert client.trusted() == {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2, role: 1}
    assert {path.name for path in client.metadata.parent.iterdir()} == {"metadata", "targets", "initial-root.json"}


@pytest.mark.parametrize("role", ["root", "timestamp", "snapshot", "targets"])
def test_a_delegated_role_may_not_have_a_top_level_name(client: Client, repository: TufRepository, role: str) -> None:
    """Its file would take the place of the real one."""
    key = repository.signers["targets"][0].public_key
    repository.targets.delegations = Delegations({key.keyid: key}, {})
    delegated = DelegatedRole("placeholder", [key.keyid], 1, False, paths=["*"])
    delegated.name = role
    assert repository.targets.delegations.roles is not None
    repository.targets.delegations.roles[role] = delegated
    repository.publish_all("targets")

    assert client.download("file") == 1
    assert client.trusted() == {"root": 1, "timestamp": 2, "snapshot": 2}


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_succinct_bins(client: Client, repository: TufRepository, bits: int) -> None:
    """TAP 15: one bin is asked, the one that the hash of the path names; another one's signature counts for nothing."""
    bins = repository.delegate_bins("targets", bits, "bin")
    path = "usb/096e/0807-linux-amd64.json"
    number = int.from_bytes(hashlib.sha256(path.encode()).digest()[:4], "big") >> (32 - bits)
    repository.add_target(bins[number], path, b"manifest")
    repository.add_target(bins[number - 1], "misplaced", b"misplaced")
    wrong = int.from_bytes(hashlib.sha256(b"misplaced").digest()[:4], "big") >> (32 - bits)
    if wrong == (number - 1) % len(bins):
        repository.roles[bins[number - 1]].targets.pop("misplaced")
    repository.publish_all(*bins, "targets")

    assert client.download(path) == 0
    assert client.downloaded() == [b"manifest"]
    assert [each for each in client.asked() if "bin-" in each] == [f"1.{bins[number]}"]
    assert client.download("misplaced") == 1


def test_bins_by_hash_prefixes(client: Client, repository: TufRepository) -> None:
    """The older form: every role lists beginnings of hashes."""
    digits = "0123456789abcdef"
    for role, prefixes in (("low", digits[:8]), ("high", digits[8:])):
        repository.delegate("targets", role)
        assert repository.targets.delegations is not None
        assert repository.targets.delegations.roles is not None
        delegated = repository.targets.delegations.roles[role]
        delegated.paths, delegated.path_hash_prefixes = None, list(prefixes)
    home = "low" if hashlib.sha256(b"file").hexdigest()[0] in digits[:8] else "high"
    repository.add_target(home, "file", b"content")
    repository.publish_all("low", "high", "targets")

    assert client.download("file") == 0
    assert client.asked()[4] == f"1.{home}"
    assert len(client.trusted()) == 5
