"""macOS installer packages. They are written by the tests themselves: no tool on this system makes signed ones."""

import zlib
from datetime import UTC, datetime
from pathlib import Path
from struct import pack

import pytest

from keyfit.publisher.inspection import pkg
from keyfit.publisher.inspection.authenticode import Trust
from keyfit.publisher.inspection.chain import Roots
from keyfit.publisher.inspection.reports import PkgReport
from keyfit.publisher.inspection.source import Malformed, Source
from tests.sim import signing
from tests.sim.xarfile import DEVELOPER, TEAM, component, cpio, developer, stapled, xar


@pytest.fixture(scope="session")
def author(signers: Path) -> signing.Identity:
    return developer(signers)


@pytest.fixture(scope="session")
def apple(author: signing.Identity) -> Trust:
    """The developer's root, in Apple's place."""
    return Trust(Roots(author.root.read_bytes()), datetime.now(UTC))


def read(data: bytes, trust: Trust) -> PkgReport:
    return pkg.inspect(Source.of(data), trust)


@pytest.mark.parametrize("style", ["sha1", "sha256"])
def test_b7_a_signed_package_tells_team_identifier_and_files(style: str, author: signing.Identity, apple: Trust) -> None:
    report = read(stapled(xar(component(scripts={"postinstall": b"#!/bin/sh\ntrue\n"}), author, style=style)), apple)

    assert report.components == ("com.example.acme 1.2.3",)
    assert report.files == ("/Library/Acme/acme.dylib",)
    assert (report.scripts, report.stapled) == (("postinstall",), True)
    assert report.problems == report.notes == ()
    assert report.signature is not None
    assert (report.signature.fault, report.signature.team_id, report.signature.subject) == ("", TEAM, DEVELOPER)


def test_a_product_archive_has_its_components_one_level_down(author: signing.Identity, apple: Trust) -> None:
    parts = {"Distribution": b"<installer-gui-script><pkg-ref id='a'>#acme.pkg</pkg-ref></installer-gui-script>"}
    parts |= {f"acme.pkg/{name}": data for name, data in component(location="/usr/local").items()}
    report = read(xar(parts, author), apple)

    assert report.components == ("com.example.acme 1.2.3",)
    assert report.files == ("/usr/local/Library/Acme/acme.dylib",)
    assert "no notarisation ticket" in report.notes[0]


def test_a_payload_in_apples_chunked_xz_is_listed(author: signing.Identity, apple: Trust) -> None:
    import lzma

    plain = cpio({"./a": (0o100644, b"x" * 300_000), "./b": (0o100644, b"y")})
    half = len(plain) // 2
    chunks = [plain[:half], plain[half:]]
    packed = b"pbzx" + pack(">Q", 0x1000000) + b"".join(
        pack(">QQ", len(chunk), len(lzma.compress(chunk))) + lzma.compress(chunk) for chunk in chunks)

    assert read(xar({**component(), "Payload": packed}, author), apple).files == ("/a", "/b")


def test_b3_a_changed_byte_is_found_in_table_and_heap(author: signing.Identity, apple: Trust) -> None:
    data = xar(component(), author)
    for position in (40, len(data) - 10):
        changed = bytearray(data)
        changed[position] ^= 1
        with pytest.raises(Malformed):
            read(bytes(changed), apple)


def test_b3_a_signature_of_another_package_proves_nothing(author: signing.Identity, apple: Trust) -> None:
    """The signature's octets of one package in the place of another's."""
    good, other = xar(component(), author), xar(component({"./evil": (0o100755, b"evil")}), author)

    def signature_at(data: bytes) -> int:
        return 28 + int.from_bytes(data[8:16], "big") + 20

    grafted = bytearray(other)
    grafted[signature_at(other) : signature_at(other) + 256] = good[signature_at(good) : signature_at(good) + 256]
    found = read(bytes(grafted), apple).signature
    assert found is not None
    assert "changed since" in found.fault


def test_b7_an_unsigned_package_has_no_signer(apple: Trust) -> None:
    assert read(xar(component()), apple).signature is None


def test_b7_the_same_names_below_another_root_are_no_one(apple: Trust, tmp_path: Path) -> None:
    found = read(xar(component(), developer(tmp_path)), apple).signature

    assert found is not None
    assert (found.team_id, bool(found.fault)) == (TEAM, True)


def test_b7_a_certificate_for_code_is_none_for_installers(apple: Trust, author: signing.Identity, tmp_path: Path) -> None:
    coder = signing.make(tmp_path, subject=DEVELOPER, authority=author, usages=(signing.CODE_SIGNING,))
    found = read(xar(component(), coder), apple).signature

    assert found is not None
    assert "not for this use" in found.fault


@pytest.mark.parametrize(("files", "location", "expected"), [
    ({"./a": (0o104755, b"")}, "/", "/a: expected no set-user-id"), ({"./a": (0o100666, b"")}, "/", "everyone may write"),
    ({"../a": (0o100644, b"")}, "/", "expected an absolute path without"), ({"./a": (0o020644, b"")}, "/", "came a device"),
    ({"./a": (0o120777, b"../../etc")}, "/", "expected a link inside the system"),
    ({"./a": (0o120777, b"/tmp/x")}, "/", "expected a link inside the system"),
    ({"./a": (0o100644, b"")}, "/../etc", "expected an absolute path without"),
])
def test_h3_what_a_payload_may_not_hold(files: dict[str, tuple[int, bytes]], location: str, expected: str,
                                        author: signing.Identity, apple: Trust) -> None:
    assert expected in " ".join(read(xar(component(files, location=location), author), apple).problems)


@pytest.mark.parametrize(("script", "expected"), [
    (b"#!/bin/sh\nspctl --master-disable\n", "touches Gatekeeper"),
    (b"#!/bin/sh\nxattr -dr com.apple.quarantine /Applications/A.app\n", "touches Gatekeeper"),
    (b"#!/bin/sh\nsecurity add-trusted-cert -d -r trustRoot x.cer\n", "touches a certificate trust store"),
    (b"#!/bin/sh\ncsrutil disable\n", "touches driver signing"),
])
def test_j3_f2_what_scripts_do_is_read(script: bytes, expected: str, author: signing.Identity, apple: Trust) -> None:
    assert expected in read(xar(component(scripts={"preinstall": script}), author), apple).problems[0]


def test_j1_a_product_archive_that_fetches_packages_is_refused(author: signing.Identity, apple: Trust) -> None:
    parts = {"Distribution": b"<x><pkg-ref id='a'>https://example.com/other.pkg</pkg-ref></x>",
             **{f"acme.pkg/{name}": data for name, data in component().items()}}

    assert "is elsewhere" in read(xar(parts, author), apple).problems[0]


def test_h4_a_document_type_is_refused(author: signing.Identity, apple: Trust) -> None:
    """H4: no entities, so no bomb and nothing fetched."""
    bomb = '<!DOCTYPE xar [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>'
    with pytest.raises(Malformed, match="document type"):
        read(xar(component(), author, toc=bomb), apple)
    parts = component()
    parts["PackageInfo"] = b'<!DOCTYPE x SYSTEM "http://example.com/x"><pkg-info/>'
    with pytest.raises(Malformed, match="document type"):
        read(xar(parts, author), apple)


@pytest.mark.parametrize("data", [b"", b"xar!" + bytes(40), xar({"a": b"x"}), xar(component())[:200],
                                  pack(">4sHHQQI", b"xar!", 28, 1, 10, 2**40, 1) + zlib.compress(b"x")])
def test_a_file_out_of_form_is_no_package(data: bytes, apple: Trust) -> None:
    with pytest.raises(Malformed):
        read(data, apple)
