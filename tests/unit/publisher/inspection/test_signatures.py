"""Authenticode, held against osslsigncode: what holds for it holds here; what it lets through and we do not is told."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from struct import pack, unpack_from

import pytest

from keyfit.publisher.inspection import exe
from keyfit.publisher.inspection.authenticode import Trust
from keyfit.publisher.inspection.chain import Roots
from keyfit.publisher.inspection.pe import layout
from keyfit.publisher.inspection.reports import SignatureReport
from keyfit.publisher.inspection.source import Malformed, Source
from tests.sim import signing, windows

from .conftest import Stamp

DAY_S = 86_400


def signature(data: bytes | Path, trust: Trust) -> SignatureReport:
    content = data if isinstance(data, bytes) else data.read_bytes()
    found = exe.inspect(Source.of(content), trust).binary.signature
    assert found is not None
    return found


def fault(data: bytes | Path, trust: Trust) -> str:
    return signature(data, trust).fault


def test_b2_a_signed_program_tells_the_whole_names_of_signer_and_issuer(signed: Path, vendor: signing.Identity,
                                                                        trust: Trust) -> None:
    found = signature(signed, trust)

    assert signing.verdict(vendor, signed)
    assert (found.fault, found.subject, found.issuer) == ("", signing.VENDOR, signing.ISSUER)
    assert found.chain == (signing.ISSUER, signing.ROOT)
    assert (found.hash, found.signed_at, len(found.identities)) == ("sha256", "", 3)


@pytest.mark.parametrize("options", [("-h", "sha1"), ("-h", "sha384"), ("-h", "sha512"), ("-h", "sha256", "-ph")])
def test_other_hashes_and_page_hashes_hold_too(options: tuple[str, ...], program: Path, vendor: signing.Identity,
                                               trust: Trust, tmp_path: Path) -> None:
    made = signing.sign(vendor, program, tmp_path / "a.exe", *options)

    assert signing.verdict(vendor, made)
    assert fault(made, trust) == ""


def test_a_32_bit_program_is_hashed_rightly_too(vendor: signing.Identity, trust: Trust, tmp_path: Path) -> None:
    plain = windows.program(tmp_path / "a.exe", machine="i386")
    made = signing.sign(vendor, plain, tmp_path / "b.exe", "-h", "sha256")

    assert fault(made, trust) == ""
    assert exe.inspect(Source.of(made.read_bytes()), trust).binary.machine == "i386"


def test_b3_a_flipped_byte_is_found_wherever_it_is(signed: Path, trust: Trust) -> None:
    """B3: in the header, in the code, in the resources; the fields that signing itself changes are the only exceptions."""
    data = signed.read_bytes()
    place = layout(Source.of(data))
    free = {*range(place.checksum, place.checksum + 4)}
    for position in [0x50, place.checksum - 10, *range(0x400, place.table, 97)]:
        assert position not in free
        changed = bytearray(data)
        changed[position] ^= 1
        assert "not the file's" in fault(bytes(changed), trust), position


def test_b3_cve_2026_85995_a_grafted_certificate_table_proves_nothing(signed: Path, vendor: signing.Identity, trust: Trust,
                                                                       tmp_path: Path) -> None:
    """B3, CVE-2026-85995: a certificate that is present is not a signature that holds."""
    data = signed.read_bytes()
    other = windows.program(tmp_path / "other.exe", mark="evil").read_bytes()
    place, target = layout(Source.of(data)), layout(Source.of(other))
    other += bytes(-len(other) % 8)
    grafted = bytearray(other + data[place.table :])
    grafted[target.certificate_entry : target.certificate_entry + 8] = pack("<II", len(other), place.table_size)
    (tmp_path / "grafted.exe").write_bytes(grafted)

    assert not signing.verdict(vendor, tmp_path / "grafted.exe")
    assert "another file's" in fault(bytes(grafted), trust)


def test_b3_cve_2013_3900_bytes_added_inside_the_certificate_table_are_found(signed: Path, vendor: signing.Identity,
                                                                             trust: Trust, tmp_path: Path) -> None:
    """B3, CVE-2013-3900: Windows and osslsigncode let them pass."""
    data = signed.read_bytes()
    place = layout(Source.of(data))
    length = unpack_from("<I", data, place.table)[0]
    padded = bytearray(data + b"#" * 32)
    padded[place.certificate_entry + 4 : place.certificate_entry + 8] = pack("<I", place.table_size + 32)
    padded[place.table : place.table + 4] = pack("<I", length + 32)
    (tmp_path / "padded.exe").write_bytes(padded)

    assert signing.verdict(vendor, tmp_path / "padded.exe")
    assert "bytes were added" in fault(bytes(padded), trust)


def test_b3_bytes_behind_the_certificate_table_are_refused(signed: Path, trust: Trust) -> None:
    with pytest.raises(Malformed, match="end of the file"):
        signature(signed.read_bytes() + b"#" * 8, trust)


def test_a_program_without_a_signature_has_none(program: Path, trust: Trust) -> None:
    assert exe.inspect(Source.of(program.read_bytes()), trust).binary.signature is None


def test_b2_a_signer_of_the_same_name_who_vouches_for_himself_is_no_one(program: Path, trust: Trust, tmp_path: Path) -> None:
    """B2: the name is the vendor's, letter for letter."""
    fake = signing.self_signed(tmp_path)
    found = signature(signing.sign(fake, program, tmp_path / "a.exe", "-h", "sha256"), trust)

    assert found.subject == signing.VENDOR
    assert "none of the roots" in found.fault


def test_b2_the_same_names_below_another_root_are_no_one(program: Path, trust: Trust, tmp_path: Path) -> None:
    """B2: subject, issuer and root are called the same; only the keys differ."""
    fake = signing.make(tmp_path)
    found = signature(signing.sign(fake, program, tmp_path / "a.exe", "-h", "sha256"), trust)

    assert (found.subject, found.issuer) == (signing.VENDOR, signing.ISSUER)
    assert found.fault


@pytest.mark.parametrize(("changes", "expected"), [
    ({"usages": (signing.TIME_STAMPING,)}, "not for this use"),
    ({"usages": ()}, "not for this use"),
    ({"valid": (-60, -30)}, "is valid from"),
    ({"valid": (30, 60)}, "is valid from"),
])
def test_a_signer_who_may_not_sign_now(changes: dict[str, object], expected: str, program: Path, vendor: signing.Identity,
                                       trust: Trust, tmp_path: Path) -> None:
    odd = signing.make(tmp_path, "odd", authority=vendor, **changes)  # type: ignore[arg-type]

    assert expected in fault(signing.sign(odd, program, tmp_path / "a.exe", "-h", "sha256"), trust)


def test_a_certificate_of_someone_who_may_not_issue_is_worth_nothing(program: Path, tmp_path: Path) -> None:
    odd = signing.make(tmp_path, intermediate_is_authority=False)
    trust = Trust(Roots(odd.root.read_bytes()), datetime.now(UTC))

    assert "may not issue" in fault(signing.sign(odd, program, tmp_path / "a.exe", "-h", "sha256"), trust)


def test_without_roots_nothing_holds(signed: Path) -> None:
    """Fail closed: an empty list of roots trusts no one."""
    assert "none of the roots" in fault(signed, Trust(Roots(b""), datetime.now(UTC)))


def test_a_time_stamp_keeps_a_signature_good_after_the_certificate_has_ended(program: Path, vendor: signing.Identity,
                                                                             stamp: Stamp, trust: Trust, tmp_path: Path) -> None:
    ended = signing.make(tmp_path, "ended", authority=vendor, valid=(-60, -30))
    second = int(time.time()) - 45 * DAY_S
    made = signing.sign(ended, program, tmp_path / "a.exe", "-h", "sha256", *stamp(second))

    found = signature(made, trust)
    assert found.fault == ""
    assert found.signed_at == datetime.fromtimestamp(second, UTC).isoformat()


def test_a_time_stamp_after_the_end_does_not(program: Path, vendor: signing.Identity, stamp: Stamp, trust: Trust,
                                             tmp_path: Path) -> None:
    ended = signing.make(tmp_path, "ended", authority=vendor, valid=(-60, -30))
    made = signing.sign(ended, program, tmp_path / "a.exe", "-h", "sha256", *stamp(int(time.time()) - 10 * DAY_S))

    assert "is valid from" in fault(made, trust)


def test_a_time_stamp_of_tomorrow_is_refused(program: Path, vendor: signing.Identity, stamp: Stamp, trust: Trust,
                                             tmp_path: Path) -> None:
    made = signing.sign(vendor, program, tmp_path / "a.exe", "-h", "sha256", *stamp(int(time.time()) + 2 * DAY_S))

    assert "has not come yet" in fault(made, trust)
    assert fault(made, Trust(trust.roots, trust.now + timedelta(days=3))) == ""


def test_a_time_stamp_by_a_stranger_is_refused(program: Path, vendor: signing.Identity, trust: Trust,
                                               tmp_path: Path) -> None:
    """Otherwise anyone could date a signature back into the days when a stolen certificate still counted."""
    stranger = signing.make(tmp_path, "stranger", usages=(signing.TIME_STAMPING,))
    with signing.TimeStampAuthority(tmp_path / "authority", stranger) as authority:
        made = signing.sign(vendor, program, tmp_path / "a.exe", "-h", "sha256", *authority.options)
    found = signature(made, trust)

    assert "time-stamp's signer" in found.fault
    assert (found.subject, found.signed_at) == (signing.VENDOR, "")


def test_a_second_signature_inside_the_first_has_to_hold_too(signed: Path, vendor: signing.Identity, trust: Trust,
                                                             tmp_path: Path) -> None:
    good = signing.sign(vendor, signed, tmp_path / "good.exe", "-h", "sha1", "-nest")
    stranger = signing.make(tmp_path, "stranger", root="CN=Nobody")
    bad = signing.sign(stranger, signed, tmp_path / "bad.exe", "-h", "sha1", "-nest")

    assert fault(good, trust) == ""
    assert "inside the first" in fault(bad, trust)


def test_machine_and_version_are_told(program: Path, trust: Trust, tmp_path: Path) -> None:
    binary = exe.inspect(Source.of(program.read_bytes()), trust).binary

    assert (binary.machine, binary.kernel, binary.versions) == ("amd64", False, ("1.2.3.0",))
    assert (binary.original_name, binary.product, binary.company) == ("acme.exe", "Acme Token", "Acme Ltd.")


def test_a_driver_is_no_installer(trust: Trust, tmp_path: Path) -> None:
    driver = windows.program(tmp_path / "acme.sys", driver=True)
    report = exe.inspect(Source.of(driver.read_bytes()), trust)

    assert report.binary.kernel
    assert any("driver" in text for text in report.problems)
