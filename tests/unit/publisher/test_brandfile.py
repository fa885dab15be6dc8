"""Brand files in, brands or every fault out; never anything else."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from keyfit.errors import DataError
from keyfit.model.catalog import Brand
from keyfit.publisher import brandfile
from keyfit.publisher.brandfile import load_brand, load_brands
from keyfit.publisher.schema import brand_schema

from .conftest import DRIVER, Write


def problems_of(path: Path) -> tuple[str, ...]:
    with pytest.raises(DataError) as caught:
        load_brands(path)
    assert caught.value.code == "brand-file-invalid"
    return caught.value.problems


def test_a_sound_file_becomes_a_brand(write: Write) -> None:
    (brand,) = load_brands(write())

    assert brand.brand == "acme"
    assert brand.names["zh_CN"] == "阿克米"
    assert brand.model[0].match[0].id_vendor == 0x1234
    assert brand.patch[0].id == "one"


def test_every_fault_of_every_file_is_told_at_once_with_its_line(write: Write) -> None:
    write("sequence = 1", "sequence = 0", 'status = "supported"', 'status = "fine"\ncolour = "red"')
    found = problems_of(write("0x0001", "0x10001", folder="other"))

    assert found == (
        "drivers/acme/driver.toml:5: sequence: expected a number of at least 1, came 0",
        "drivers/acme/driver.toml:6: status: expected one of 'listed', 'supported', came 'fine'",
        found[2],
        "drivers/other/driver.toml:20: model[0].match[0].id_product: expected a number of at most 65535, came 65537",
        "drivers/other/driver.toml:65: patch[0].id_product: expected a number of at most 65535, came 65537",
    )
    assert found[2].startswith("drivers/acme/driver.toml:7: colour: expected one of the fields brand, ")


@pytest.mark.parametrize(("old", "new", "expected"), [
    ('brand = "acme"', 'brand = "Acme"', ":2: brand: expected text of the form "),
    ('brand = "acme"', 'brand = "acme\\n"', ":2: "),
    ("zh_CN = \"阿克米\"", 'chinese = "x"', ":3: names.chinese: expected text of the form "),
    ("id_vendor = 0x1234\nid_product = 0x0001\nb_i", 'id_vendor = "1234"\nid_product = 1\nb_i',
     ":19: model[0].match[0].id_vendor: expected a value of type integer, came '1234'"),
    ("id_product = 0x0002", "id_product = 2.0", ":32: model[1].match[0].id_product: "),
    ('kind = "ccid-list-entry"', 'kind = "run"', ":62: patch[0].kind: expected one of ccid-list-entry, udev-rule, "),
    ('friendly_name = "Acme One"\n', "", ":61: patch[0]: expected the field 'friendly_name', came none"),
    ('packages = ["pcscd"]', 'packages = [\n  "pcscd",\n  "../x",\n]', ":30: model[1].packages[1]: "),
    ("id_product = 0x0002", "id_product = 99999999999999999999", ": expected a 64-bit number, came one of 67 bits"),
    ('vendor = "Acme Ltd"', "vendor = 1979-05-27", ":4: vendor: expected a value of type string, came datetime.date("),
    ("[sources]\n", "[a.b.c.d.e.f.g]\nh.i.j.k.l.m.n = 1\n[sources]\n", ":9: expected at most 12 levels of nesting"),
    ("sequence = 1", "sequence = 1\nsequence = 2", ":6: expected TOML, came: "),
    ("[sources]", "[sources", ":8: expected TOML, came: "),
    ("sequence = 1", "sequence = " + "9" * 5000, ": expected TOML, came: "),
    ("sequence = 1", "sequence = " + "[" * 5000, ":5: expected at most 12 levels of nesting, came more"),
    ("[sources]\n", "[sources]\n" + ".".join("a" * 40000) + " = 1\n", ":9: expected at most 12 levels of nesting, came more"),
])
def test_a_fault_names_line_expectation_and_what_came(write: Write, old: str, new: str, expected: str) -> None:
    found = problems_of(write(old, new))

    assert [line for line in found if expected in line], found


def test_bytes_that_are_no_utf8_are_refused_with_their_line(write: Write) -> None:
    folder = write()
    path = folder / "acme" / "driver.toml"
    path.write_bytes(path.read_bytes().replace(b"Acme Ltd", b"Acme \xff"))

    assert problems_of(folder) == ("drivers/acme/driver.toml:4: expected UTF-8, came byte 0xFF",)


def test_a_file_beyond_256_kb_is_refused_unread(write: Write) -> None:
    folder = write(before=DRIVER + "#" * brandfile.MAX_BYTES)

    assert problems_of(folder) == ("drivers/acme/driver.toml:1: expected at most 262144 bytes, came more",)


def test_two_folders_for_one_brand_are_refused(write: Write) -> None:
    write()
    found = problems_of(write(folder="zweite"))

    assert found == ("drivers/zweite/driver.toml:1: expected a brand of its own, came 'acme', which"
                     " drivers/acme/driver.toml has already",)


def test_a_folder_without_a_file_and_no_folder_at_all_are_refused(write: Write, tmp_path: Path) -> None:
    folder = write()
    (folder / "empty").mkdir()

    assert problems_of(folder) == ("drivers/empty/driver.toml:1: expected a readable file, came: "
                                   "No such file or directory",)
    assert problems_of(tmp_path / "nowhere")[0].endswith("expected a folder of brands, came: No such file or directory")


def test_a_sources_key_with_a_final_newline_is_refused_although_the_published_pattern_allows_it(write: Write) -> None:
    found = problems_of(write('dump = "a recorded device"', '"dump\\n" = "x"\ndump = "a recorded device"'))

    assert found


MUTATION = st.tuples(st.integers(0, len(DRIVER)), st.integers(0, 60),
                     st.one_of(st.binary(max_size=12), st.sampled_from([
                         b"[", b"]]", b"{", b"}", b'"', b"'''", b'"""', b"\\", b"=", b"\n", b"nan", b"-inf", b"0x" + b"f" * 9000,
                         b"1e999", b"a.b.c = 1\n", b"[[model]]\n", b"\x00", b"\r", b"12:00:00", b"[package]\n"])))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=st.one_of(
    st.binary(max_size=300),
    st.text(alphabet='[]{}"\'#=.,\\\n ab1-+:', max_size=200).map(str.encode),
    st.lists(MUTATION, min_size=1, max_size=4).map(lambda changes: _mutate(DRIVER.encode(), changes)),
))
def test_nothing_malformed_gives_anything_but_a_data_error(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "driver.toml"
    path.write_bytes(raw)

    read = _read(path)

    if isinstance(read, DataError):
        assert read.problems
        for text in read.problems:
            assert "expected" in text.lower()
            assert 1 <= int(text.split("driver.toml:")[1].split(":")[0]) <= raw.count(b"\n") + 1
    else:
        assert read.brand


def _read(path: Path) -> Brand | DataError:
    try:
        return load_brand(path)
    except DataError as error:
        return error


def _mutate(raw: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    for start, length, new in changes:
        raw = raw[:start] + new + raw[start + length :]
    return raw


ODD = (None, True, 0, -1, 1, 65_536, 1.0, "", "x", "x\n", "\n", "http://a.example/", "A B", "a" * 500, [], [""], {},
       {"kind": "x"}, [1], "0x0b", "deb", "windows", "3B00", {"en": ""}, {"EN": "x"}, {"en": "x", "zh_CN\n": "y"})


@settings(max_examples=300, deadline=None)
@given(pick=st.integers(0, 10**6), value=st.sampled_from(ODD), extra=st.booleans())
def test_what_becomes_a_brand_fits_the_published_schema(pick: int, value: object, extra: bool) -> None:
    """Sound files are not held against the schema, since the types forbid at least as much: this is what says so."""
    data = tomllib.loads(DRIVER)
    places = list(_places(data))
    holder, key = places[pick % len(places)]
    if extra and isinstance(holder, dict):
        holder["odd"] = value
    else:
        holder[key] = value
    try:
        msgspec.convert(data, Brand)
    except msgspec.ValidationError:
        return
    assert [error.message for error in Draft202012Validator(brand_schema()).iter_errors(data)] == []


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
    for key in keys:
        yield node, key
        yield from _places(node[key])
