"""The linter: one story per check, each with the line it points at."""

import pytest

from keyfit.publisher.brandfile import load_brands
from keyfit.publisher.lint import Problem, lint, page_faults

from .conftest import README, Write


def found(folder: object) -> tuple[str, ...]:
    return tuple(str(problem) for problem in problems(folder))


def problems(folder: object) -> tuple[Problem, ...]:
    from pathlib import Path

    assert isinstance(folder, Path)
    return lint(load_brands(folder), folder)


def test_a_sound_brand_has_no_problems(write: Write) -> None:
    assert found(write()) == ()


@pytest.mark.parametrize(("old", "new", "expected"), [
    ('brand = "acme"', 'brand = "acne"', ":2: error: expected the folder's name 'acme', came 'acne'"),
    ('manufacturer = "Acme"\nsources = ["dump"]', 'manufacturer = "Acme"\nsources = [\n"dump",\n"rumour"]',
     ":25: error: expected a key of [sources], came 'rumour'"),
    ('archive = "a', 'unused = "x"\narchive = "a', ":10: error: the source 'unused' is used nowhere"),
    ('names = { en = "Acme", ', "names = { ", ":3: error: expected a text in 'en', came zh_CN"),
    (', zh_CN = "点击"', "", ": error: expected a text in 'zh_CN', came en"),
    ('vendor = "Acme Ltd"', 'vendor = "Acme \\u202eLtd"', ":4: error: expected one line of printable text"),
    ('vendor = "Acme Ltd"', 'vendor = "Acme \\u001b[31m"', ":4: error: expected one line of printable text"),
    ('id = "two"', 'id = "one"', ":26: error: expected an id of its own, 'one' is taken"),
    ('packages = ["pcscd"]', 'packages = ["gone"]', ":28: error: expected the id of a package, came 'gone'"),
    ('patches = ["one"]', 'patches = ["gone"]', ":16: error: expected the id of a patch, came 'gone'"),
    ("bcd_device_min = 0x0100", "bcd_device_min = 0x0201",
     ":30: error: expected bcd_device_min of at most 0x0200, came 0x0201"),
    ("id_vendor = 0x1234\nid_product = 0x0002\n", "id_product = 0x0002\n",
     ":30: error: expected id_vendor beside id_product, came none"),
    ("id_product = 0x0002\n", "", ":30: warning: claims the whole vendor 1234"),
    ("0x0b", "0x03", ":61: error: expected a match for 1234:0001 with b_interface_class 0x0B"),
    ('0x0001\nfriendly', '0x0009\nfriendly', ":61: error: expected an id that a match of this brand names"),
    ('file = "acme_1_amd64.deb"\n', "", ": error: acme-deb: expected the name of the file for the kind deb, came none"),
    ('kind = "deb"', 'kind = "msi"', ": error: acme-deb: expected one of windows for the kind msi, came linux"),
    ('file = "acme_1_amd64.deb"\n', 'file = "a.deb"\nfiles = ["a"]\n', ": error: acme-deb: expected files for an archive"),
    ('kind = "deb"', 'kind = "archive"\nfiles = ["lib/a.so", "lib/../../etc/x"]',
     ": error: acme-deb: expected a path inside the archive, came 'lib/../../etc/x'"),
    ("bank.example", "192.0.2.1", ": error: expected a host name in ASCII, came '192.0.2.1'"),
    ("bank.example", "xn--bnk-5na.example", ": error: expected a host name in ASCII"),
    ('status = "supported"', 'status = "supported"\ninsert_order = "unplug-before-install"',
     ":7: error: expected insert_order_sources beside it, came none"),
    ("[hand_off]", '[pin]\nmin_length = 8\nmax_length = 6\nadvice = { en = "a", zh_CN = "b" }\nsources = ["dump"]\n'
     "[hand_off]", ": error: expected at most max_length 6, came 8"),
])
def test_a_fault_in_meaning_is_found_at_its_line(write: Write, old: str, new: str, expected: str) -> None:
    texts = found(write(old, new))

    assert [text for text in texts if expected in text], texts


@pytest.mark.parametrize("url", [
    "http://bank.example/", "https://user@bank.example/", "https://bank.example:8443/", "https://bank/",
    "https://b\u0430nk.example/", "https://[::1]/", "https://bank..example/", "https://bank.example:x/", "javascript:alert(1)",
])
def test_g2_only_plain_https_pages_are_let_through(url: str) -> None:
    assert list(page_faults(url))


def test_a_plain_https_page_is_let_through() -> None:
    assert list(page_faults("https://www.bank.example/a/b?c=d")) == []


def test_the_readme_has_the_fixed_headings_and_exactly_the_ids(write: Write) -> None:
    readme = README.replace("## Privileges\n", "").replace("`1234:0002`", "`1234:0007`")

    assert found(write(readme=readme)) == (
        "drivers/acme/README.md:1: error: expected the heading '## Privileges', found none",
        "drivers/acme/README.md:5: error: expected a row for `1234:0002`, which driver.toml names",
        "drivers/acme/README.md:10: error: `1234:0007` is not in driver.toml",
    )


def test_a_missing_readme_is_found(write: Write) -> None:
    folder = write()
    (folder / "acme" / "README.md").unlink()

    assert found(folder) == ("drivers/acme/README.md:1: error: expected a readable README.md in UTF-8,"
                             " came: FileNotFoundError",)


def test_two_brands_may_not_claim_an_id_that_nothing_tells_apart(write: Write) -> None:
    write()
    (problem,) = problems(_rival(write, 'manufacturer = "Acme"', 'manufacturer = "Acme*"'))

    assert problem.path == "drivers/rival/driver.toml"
    assert problem.line == 18
    assert "1234:0001: a device could fit this match and one of acme equally well" in problem.text


@pytest.mark.parametrize("new", [
    'manufacturer = "Rival"', "bcd_device_min = 1", 'manufacturer = "Acme"\nproduct = "Rival"', "",
])
def test_two_brands_may_share_an_id_if_strings_revision_or_rank_decide(write: Write, new: str) -> None:
    write()

    assert problems(_rival(write, 'manufacturer = "Acme"', new)) == ()


def test_two_brands_may_share_an_id_if_only_the_answer_to_reset_decides(write: Write) -> None:
    write('manufacturer = "Acme"', 'atr = ["3B00"]')

    assert problems(_rival(write, 'manufacturer = "Acme"', 'atr = ["3B01"]')) == ()


def _rival(write: Write, old: str, new: str) -> object:
    readme = README.replace("1234:0002", "1234:0003")
    return write('brand = "acme"', 'brand = "rival"', "0x0002", "0x0003", old, new, folder="rival", readme=readme)
