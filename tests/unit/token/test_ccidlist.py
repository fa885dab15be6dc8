"""The list of readers in a driver bundle: read as the daemon reads it, edited without touching another byte."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyfit.core import ccidlist
from keyfit.errors import DataError

HEAD = """<?xml version="1.0" encoding="UTF-8"?>
<plist version="1.0">
<dict>
\t<key>CFBundleName</key>
\t<string>CCIDCLASSDRIVER</string>
"""
Entry = tuple[int, int, str]


def a_list(*entries: Entry, newline: str = "\n", indent: str = "\t\t", close: str = "</array>") -> bytes:
    """A bundle's Info.plist with the given readers."""
    columns = ([f"0x{e[0]:04X}" for e in entries], [f"0x{e[1]:04X}" for e in entries],
               [e[2].replace("&", "&amp;") for e in entries])
    text = HEAD
    for key, column in zip(ccidlist.KEYS, columns, strict=True):
        text += f"\t<key>{key}</key>\n\t<array>\n"
        text += "".join(f"{indent}<string>{value}</string>\n" for value in column)
        text += f"\t{close}\n\n"
    return (text + "</dict>\n</plist>\n").replace("\n", newline).encode()


TWO = ((0x08E6, 0x3437, "Gemplus GemPC Key"), (0x04B9, 0x1300, "Giesecke & Devrient"))
NEW = (0x1234, 0xABCD, "Acme Token (One)")


def as_tuples(data: bytes) -> list[Entry]:
    return [(e.id_vendor, e.id_product, e.friendly_name) for e in ccidlist.parse(data).entries()]


def test_a_list_is_read_in_order_with_its_entities_undone() -> None:
    assert as_tuples(a_list(*TWO)) == list(TWO)
    assert ccidlist.problems(a_list(*TWO)) == ()


def test_arrays_that_are_never_closed_are_read_as_the_daemon_reads_them() -> None:
    """Two real bundles of Debian 12 write `<array>` where `</array>` belongs."""
    assert as_tuples(a_list(*TWO, close="<array>")) == list(TWO)
    assert ccidlist.problems(a_list(*TWO, close="<array>")) == ()


@pytest.mark.parametrize("layout", [{}, {"newline": "\r\n"}, {"indent": ""}, {"indent": "        "},
                                    {"close": "<array>"}])
def test_an_added_entry_comes_last_and_can_be_taken_back(layout: dict[str, str]) -> None:
    before = a_list(*TWO, **layout)
    after = ccidlist.add_entry(before, *NEW)
    assert as_tuples(after) == [*TWO, NEW]
    assert ccidlist.problems(after) == ()
    assert set(after.splitlines()) - set(before.splitlines()) == {
        layout.get("indent", "\t\t").encode() + f"<string>{value}</string>".encode()
        for value in ("0x1234", "0xABCD", "Acme Token (One)")}
    assert ccidlist.remove_entry(after, *NEW) == before


def test_adding_works_when_the_array_stands_on_one_line_with_its_value() -> None:
    before = a_list(TWO[0]).replace(b">\n\t\t<string>", b"><string>").replace(b"</string>\n\t</a", b"</string></a")
    after = ccidlist.add_entry(before, *NEW)
    assert as_tuples(after) == [TWO[0], NEW]
    assert ccidlist.remove_entry(after, *NEW) == before


def test_an_entry_is_taken_back_from_a_list_that_grew_in_the_meantime() -> None:
    mine = ccidlist.add_entry(a_list(*TWO), *NEW)
    grown = ccidlist.add_entry(mine, 0x5678, 0x0001, "Other")
    assert as_tuples(ccidlist.remove_entry(grown, *NEW)) == [*TWO, (0x5678, 0x0001, "Other")]


def test_another_name_for_the_same_ids_is_not_ours_to_remove() -> None:
    data = a_list(*TWO, (NEW[0], NEW[1], "The distribution's name"))
    assert ccidlist.remove_entry(data, *NEW) == data


BROKEN = {
    "unequal length": a_list(*TWO).replace(b"\t\t<string>0x04B9</string>\n", b""),
    "missing": a_list(*TWO).replace(b"ifdProductID", b"ifdProduct"),
    "appears 2 times": a_list(*TWO) + b"<key>ifdVendorID</key>\n",
    "is no USB id": a_list(*TWO).replace(b"0x04B9", b"0x04G9"),
    "listed twice": a_list(*TWO, TWO[0]),
    "shares its line": a_list(*TWO).replace(b"</string>\n\t\t<string>Gies", b"</string><string>Gies"),
    "bytes; at most": a_list(*TWO) + b" " * ccidlist.MAX_BYTES,
}


@pytest.mark.parametrize("problem", BROKEN)
def test_a_damaged_list_is_named_and_never_edited(problem: str) -> None:
    """One wrong line makes the daemon forget every reader of the machine."""
    data = BROKEN[problem]
    assert any(problem in found for found in ccidlist.problems(data)), ccidlist.problems(data)
    for edit in (lambda: ccidlist.add_entry(data, *NEW), lambda: ccidlist.remove_entry(data, *TWO[0])):
        with pytest.raises(DataError) as caught:
            edit()
        assert caught.value.code == "ccid-list-broken"
        assert caught.value.problems == ccidlist.problems(data)


def test_a_list_of_unequal_length_serves_no_reader() -> None:
    assert ccidlist.parse(BROKEN["unequal length"]).entries() == ()


def test_a_string_inside_an_xml_comment_counts_as_it_does_for_the_daemon() -> None:
    data = a_list(*TWO) + b"<!-- <string>0x0001</string> -->"
    assert ccidlist.parse(data).entries() == ()


@pytest.mark.parametrize("entry", [
    (0x10000, 1, "Name"), (-1, 1, "Name"), (1, 0x10000, "Name"), (1, 1, ""), (1, 1, "</string>"), (1, 1, "a\nb"),
    (1, 1, "a&b"), (1, 1, "x" * 61), (1, 1, "two  blanks"), (1, 1, "#a"), (1, 1, "Gerät"),
])
def test_h1_values_that_do_not_belong_in_the_file_are_refused(entry: Entry) -> None:
    with pytest.raises(DataError) as caught:
        ccidlist.add_entry(a_list(*TWO), *entry)
    assert caught.value.code == "ccid-list-entry"


def test_a_pair_that_is_listed_already_is_not_listed_again() -> None:
    with pytest.raises(DataError) as caught:
        ccidlist.add_entry(a_list(*TWO), TWO[0][0], TWO[0][1], "Another name")
    assert caught.value.code == "ccid-list-duplicate"


ids = st.integers(0, 0xFFFF)
NAME = string.ascii_letters + string.digits + " ._+()/-"
names = st.text(NAME, min_size=1, max_size=60).map(lambda t: " ".join(t.split())).filter(
    lambda t: ccidlist.FRIENDLY_NAME.fullmatch(t) is not None)
entries = st.lists(st.tuples(ids, ids, names), min_size=1, max_size=8, unique_by=lambda e: e[:2])
layouts = st.fixed_dictionaries({"newline": st.sampled_from(["\n", "\r\n"]), "indent": st.text("\t ", max_size=6),
                                 "close": st.sampled_from(["</array>", "<array>"])})


@given(entries, st.tuples(ids, ids, names), layouts)
def test_adding_and_removing_any_entry_gives_back_every_byte(listed: list[Entry], new: Entry,
                                                             layout: dict[str, str]) -> None:
    before = a_list(*listed, **layout)
    if new[:2] in [e[:2] for e in listed]:
        with pytest.raises(DataError):
            ccidlist.add_entry(before, *new)
        return
    after = ccidlist.add_entry(before, *new)
    assert ccidlist.problems(after) == ()
    assert as_tuples(after) == [*listed, new]
    assert ccidlist.remove_entry(after, *new) == before


pieces = st.sampled_from([b"<key>ifdVendorID</key>", b"<key>ifdProductID</key>", b"<key>ifdFriendlyName</key>",
                          b"<string>0x12</string>", b"<string>", b"</string>", b"\n", b"\r\n", b"\t", b"#", b"<!--",
                          b"-->", b"<array>", b"</array>", b"<key>", b"</key>", b"a", b"\xff", b"\0"])


@given(st.lists(pieces, max_size=40).map(b"".join), st.tuples(ids, ids, names))
def test_h4_whatever_the_file_holds_an_edit_is_refused_or_sound(data: bytes, new: Entry) -> None:
    try:
        after = ccidlist.add_entry(data, *new)
    except DataError:
        return
    assert ccidlist.problems(after) == ()
    assert as_tuples(after) == [*as_tuples(data), new]
    assert ccidlist.remove_entry(after, *new) == data
