"""Editing files that belong to others: what was there stays, what is added can be taken out again."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyfit.core import firefoxpolicy, nssmodules
from keyfit.errors import KeyfitError

NAMES = st.text(st.characters(categories=("L", "N"), max_codepoint=0x2FF), min_size=1, max_size=12)
VALUES = st.recursive(st.none() | st.booleans() | st.integers() | NAMES, lambda v: st.lists(v) | st.dictionaries(NAMES, v),
                      max_leaves=8)
MODULE = "/usr/lib/acme.so"


def policies(**others: object) -> bytes:
    return json.dumps({"policies": others}).encode()


@given(others=st.dictionaries(NAMES, VALUES))
def test_firefox_other_policies_stay_in_their_order(others: dict[str, object]) -> None:
    before = policies(**others)
    after = json.loads(firefoxpolicy.add(before, "ACME", MODULE))
    assert list(after["policies"])[: len(others)] == list(others)
    assert {k: after["policies"][k] for k in others} == others
    back = json.loads(firefoxpolicy.remove(json.dumps(after).encode(), "ACME"))
    assert back == json.loads(before)


@pytest.mark.parametrize("devices", [{"Old": "/a.so"}, {"Add": {"Old": "/a.so"}}, {"Delete": ["Old"]},
                                     {"Add": {"Old": "/a.so"}, "Delete": ["X"]}],
                         ids=["flat", "add", "delete", "both"])
def test_firefox_both_forms_are_kept(devices: dict[str, object]) -> None:
    before = policies(SecurityDevices=devices)
    after = firefoxpolicy.add(before, "ACME", MODULE)
    assert firefoxpolicy.module(after, "ACME") == MODULE
    old = firefoxpolicy.module(before, "Old")
    assert firefoxpolicy.module(after, "Old") == old
    assert json.loads(firefoxpolicy.remove(after, "ACME")) == json.loads(before)


def test_firefox_a_new_file_is_what_firefox_documents() -> None:
    assert json.loads(firefoxpolicy.add(None, "ACME", MODULE)) == {
        "policies": {"SecurityDevices": {"Add": {"ACME": MODULE}}}}


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b'{"policies": 1}', b'{"policies": {"SecurityDevices": []}}',
                                  b'{"policies": {"SecurityDevices": {"Add": []}}}', b"[" * 100_000, b"\xff\xfe\x00",
                                  b'{"policies": {"a": 1}, "policies": {"b": 2}}'])
def test_h4_a_malformed_policies_file_is_an_error(data: bytes) -> None:
    with pytest.raises(KeyfitError):
        firefoxpolicy.add(data, "ACME", MODULE)


INTERNAL = nssmodules.empty("/home/user/.pki/nssdb")
PARAGRAPHS = st.lists(st.tuples(NAMES, NAMES), max_size=4).map(
    lambda many: b"".join(f"\nlibrary=/usr/lib/{lib}.so\nname={name}\n".encode() for lib, name in many))


@given(others=PARAGRAPHS, ending=st.sampled_from([b"", b"\n", b"\n\n"]))
def test_nss_adding_and_removing_gives_the_same_bytes(others: bytes, ending: bytes) -> None:
    before = INTERNAL + others + ending
    after = nssmodules.add(before, "ACME", MODULE)
    assert after.startswith(before)
    assert nssmodules.has(after, "ACME", MODULE)
    assert nssmodules.remove(after, "ACME", MODULE) == before


def test_nss_adding_twice_changes_nothing() -> None:
    once = nssmodules.add(INTERNAL, "ACME", MODULE)
    assert nssmodules.add(once, "ACME", MODULE) == once


def test_nss_what_others_append_later_stays() -> None:
    theirs = b"\nlibrary=/usr/lib/theirs.so\nname=Theirs\n"
    assert nssmodules.remove(nssmodules.add(INTERNAL, "ACME", MODULE) + theirs, "ACME", MODULE) == INTERNAL + theirs


@pytest.mark.parametrize(("name", "library"), [("A\nlibrary=/evil.so", MODULE), ("ACME", "/x.so\nname=Other"),
                                               ("A\r", MODULE), ("", MODULE), ("ACME", "")])
def test_a9_a_name_or_path_cannot_bring_lines_of_its_own(name: str, library: str) -> None:
    with pytest.raises(KeyfitError):
        nssmodules.add(INTERNAL, name, library)
