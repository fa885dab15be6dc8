"""The linter: one story per check, each with the line it points at."""

import re
from hashlib import sha256

import pytest

from keyfit.errors import DataError
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


WINDOWS = '''[[package]]
id = "acme-msi"
component = "module"
kind = "msi"
name = "acme"
file = "acme.msi"
on = { system = "windows", architecture = ["amd64"] }
sources = ["archive"]
EXTRA
[[module]]'''
SIGNATURE = '''signature = { kind = "authenticode", subject = "CN=Acme Ltd.,C=US", issuer = "CN=CA,C=US", sources = ["dump"] }'''
PAYLOAD = 'payload = { file = "acme.msi", sha256 = "' + "0123456789abcdef" * 4 + '", length_bytes = 5000 }\n'


@pytest.mark.parametrize(("extra", "level", "expected"), [
    ("", "warning", "expected a signature that names who signs the file for windows, found none; without it"),
    (PAYLOAD, "error", "expected a signature that names who signs the file for windows, found none"),
    (SIGNATURE, "", ""),
    (PAYLOAD + SIGNATURE, "", ""),
    (SIGNATURE.replace("CN=Acme Ltd.,", "Acme Ltd., "), "error", "signature.subject: expected a whole name as RFC 4514"),
    (SIGNATURE.replace('"CN=CA,', '"cn=CA,'), "error", "signature.issuer: expected"),
    (SIGNATURE.replace('kind = "auth', 'kernel = true, kind = "auth'), "error", "expected kernel = true for a driver package"),
    ('signature = { kind = "apple-developer", team_id = "ABCDE12345", sources = ["dump"] }', "error",
     "expected a signature of the kind authenticode for windows, came apple-developer"),
    (SIGNATURE + "\n" + PAYLOAD.replace("acme.msi", "other.msi"), "error",
     "expected the payload's file acme.msi, came other.msi"),
    (SIGNATURE + "\n" + PAYLOAD.replace("5000", "59"), "error", "expected a package of at least 60 bytes, came 59"),
    (SIGNATURE + "\n" + PAYLOAD.replace("0123456789abcdef" * 4, "0" * 64), "error", "expected the hash of a file, came 0000"),
    (SIGNATURE + "\n" + PAYLOAD.replace("0123456789abcdef" * 4, sha256(b"").hexdigest()),
     "error", "expected the hash of a file, came e3b0c44298fc1c14"),
])
def test_b1_b2_packages_for_windows_name_their_signer(write: Write, extra: str, level: str, expected: str) -> None:
    """B1: with a file it is an error, without one a reminder. B2: the whole name, in the one form."""
    texts = found(write("[[module]]", WINDOWS.replace("EXTRA", extra)))

    assert all(f" {level}: acme-msi: " in text and expected in text for text in texts), texts
    assert bool(texts) is bool(level)


def test_b1_a_linux_package_has_no_vendor_signature(write: Write) -> None:
    (text,) = found(write('file = "acme_1_amd64.deb"\n', 'file = "acme_1_amd64.deb"\n' + SIGNATURE + "\n"))

    assert "acme-deb: expected no signature: only files for Windows and macOS are signed by their vendors" in text


def test_b6_a_declared_file_on_the_block_list_is_an_error_at_its_line(write: Write) -> None:
    folder = write("[[module]]", WINDOWS.replace("EXTRA", PAYLOAD + SIGNATURE))
    (folder / "blocklist.toml").write_text('schema = 1\n[sources]\ns = "x"\n[[driver]]\nfile = "bad.sys"\nsources = ["s"]\n'
                                           f'sha256 = ["{"0123456789abcdef" * 4}"]\n')
    (text,) = found(folder)

    assert text == "drivers/acme/driver.toml:62: error: acme-msi: the file is on the driver block list: bad.sys"


def test_b6_a_block_list_that_is_none_is_an_error(write: Write) -> None:
    folder = write()
    (folder / "blocklist.toml").write_text("schema = 1\n")
    (text,) = found(folder)

    assert "/drivers/blocklist.toml:1: error: blocklist.toml: Object missing required field" in text


@pytest.mark.parametrize(("old", "new", "expected"), [
    ('kind = "deb"', 'kind = "script"', "package[1].kind: expected one of 'archive', 'deb',"
     " 'distribution', 'dmg', 'exe', 'inf', 'msi', 'pkg', 'rpm', came 'script'"),
    ('kind = "ccid-list-entry"', 'kind = "registry"', "patch[0].kind: expected one of ccid-list-entry, udev-rule,"
     " kernel-module-blacklist, service, came 'registry'"),
    ('file = "acme_1_amd64.deb"', 'command = "x"', "package[1].command: expected one of the fields"),
    ('page = "https', 'page = "http', "hand_off.page: expected text of the form ^https://"),
    ('file = "acme_1_amd64.deb"\n', 'file = "a.deb"\npayload = { file = "a.deb", length_bytes = 99, sha256 = "' + "ab" * 32
     + '", mirrors = ["http://example.com/a.deb"] }\n', "mirrors[0]: expected text of the form ^https://"),
])
def test_a9_f1_verbs_are_a_closed_list_and_addresses_are_https(write: Write, old: str, new: str, expected: str) -> None:
    """A9, J3: signed data selects among compiled-in verbs; F1: https only. Told with file, line and what would do."""
    with pytest.raises(DataError) as caught:
        load_brands(write(old, new))

    (problem,) = caught.value.problems
    assert expected in problem
    assert re.match(r"drivers/acme/driver\.toml:\d+: ", problem)


def test_one_brand_of_many_is_checked_without_reading_the_others(write: Write) -> None:
    folder = write('manufacturer = "Acme"\nsources = ["dump"]', 'manufacturer = "Acme"\nsources = ["rumour"]')
    (folder / "broken").mkdir()
    (folder / "broken" / "driver.toml").write_bytes(b"\xff")

    (problem,) = lint(load_brands(folder, ["acme"]), folder, ["acme"])
    assert (problem.path, problem.line) == ("drivers/acme/driver.toml", 23)


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
