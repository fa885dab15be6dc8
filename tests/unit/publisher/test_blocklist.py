"""The list of vulnerable drivers in its three forms (security B6)."""

import json
from pathlib import Path

import pytest

from keyfit.errors import DataError, UserError
from keyfit.publisher.blocklist import Blocklist, load_blocklist, numbers
from keyfit.publisher.inspection.reports import BinaryReport, SignatureReport

OWN = Path(__file__).parents[3] / "drivers" / "blocklist.toml"
A, B, C = "a" * 64, "b" * 40, "c" * 64
SIGNER = "d" * 64
MICROSOFT = f"""<?xml version="1.0" encoding="utf-8"?>
<SiPolicy xmlns="urn:schemas-microsoft-com:sipolicy">
  <FileRules>
    <Allow ID="ID_ALLOW_ALL_1" FriendlyName="" FileName="*" />
    <Deny ID="ID_DENY_1" FriendlyName="bad.sys Hash Sha256" Hash="{A.upper()}" />
    <Deny ID="ID_DENY_2" FriendlyName="named driver" FileName="Named.sys" MinimumFileVersion="1.0.0.0"
          MaximumFileVersion="2.5.65535.65535" />
    <FileAttrib ID="ID_FILE_1" FriendlyName="signed file" FileName="signed.sys" MinimumFileVersion="0.0.0.0"
          MaximumFileVersion="65535.65535.65535.65535" />
  </FileRules>
  <Signers>
    <Signer ID="ID_SIGNER_1" Name="A signer of bad drivers"><CertRoot Type="TBS" Value="{SIGNER.upper()}" />
      <FileAttribRef RuleID="ID_FILE_1" /></Signer>
    <Signer ID="ID_SIGNER_2" Name="A stolen certificate"><CertRoot Type="TBS" Value="{C.upper()}" /></Signer>
    <Signer ID="ID_SIGNER_3" Name="Not denied"><CertRoot Type="TBS" Value="{'e' * 64}" /></Signer>
  </Signers>
  <SigningScenarios><SigningScenario><ProductSigners><DeniedSigners>
    <DeniedSigner SignerId="ID_SIGNER_1" /><DeniedSigner SignerId="ID_SIGNER_2" />
  </DeniedSigners></ProductSigners></SigningScenario></SigningScenarios>
</SiPolicy>"""
LOLDRIVERS = [{"Id": "1", "Tags": ["bad.sys"], "Category": "vulnerable driver", "KnownVulnerableSamples": [
    {"Filename": "bad.sys", "SHA256": A.upper(), "SHA1": B, "Authentihash": {"MD5": "1", "SHA1": "", "SHA256": C}},
    {"Filename": None, "SHA256": "-", "Signatures": [{"x": []}]}]}]


def write(folder: Path, text: str) -> Path:
    path = folder / "list"
    path.write_text(text, encoding="utf-8")
    return path


def binary(name: str = "x.sys", *, sha256: str = "", image: str = "", version: str = "", signer: str = "",
           original: str = "") -> BinaryReport:
    signature = SignatureReport(subject="CN=x", identities=(signer,)) if signer else None
    return BinaryReport(name=name, sha256=sha256, image_hashes=(image,) if image else (), original_name=original,
                        versions=(version,) if version else (), signature=signature)


def test_b6_the_list_that_is_shipped_names_the_drivers_of_the_survey() -> None:
    known = load_blocklist(OWN)

    assert "CVE-2021-21551" in known.match(binary("drivers/dbutil_2_3.sys", version="1.0.0.0"))
    assert "CVE-2021-21551" in known.match(binary(sha256="0296e2ce999e67c76352613a718e11516fe1b0efc3ffdb8918fc999dd76a73a5"))
    assert "gdrv.sys" in known.match(binary("renamed.sys", original="GDRV.SYS", version="5.2.3790.1830 built by: WinDDK"))
    assert known.match(binary(image="14e6f0d5f93dc52471af549de1c91c1fc1d9dbd175d5932c17e58e6b186694c9"))
    assert known.match(binary("acme.sys", sha256=A, image=B, version="1.0")) == ""


def test_b6_microsofts_rules_block_by_hash_by_name_and_version_and_by_signer(tmp_path: Path) -> None:
    known = load_blocklist(write(tmp_path, MICROSOFT))

    assert "bad.sys" in known.match(binary(image=A))
    assert "named driver" in known.match(binary("named.SYS", version="2, 5, 1, 9"))
    assert "named driver" in known.match(binary("other.sys", original="Named.sys", version="1.0"))
    assert known.match(binary("named.sys", version="2.6")) == ""
    assert known.match(binary("named.sys", version="0.9")) == ""
    assert "named driver" in known.match(binary("named.sys")), "without a version it cannot be told apart"
    assert "A signer of bad drivers" in known.match(binary("signed.sys", signer=SIGNER, version="9.9"))
    assert known.match(binary("signed.sys", signer="f" * 64, version="9.9")) == ""
    assert known.match(binary("signed.sys", version="9.9")) == ""
    assert "A stolen certificate" in known.match(binary("anything.sys", signer=C, version="1.0"))
    assert known.match(binary("anything.sys", signer="e" * 64)) == ""


def test_b6_loldrivers_block_by_all_their_hashes(tmp_path: Path) -> None:
    known = load_blocklist(write(tmp_path, json.dumps(LOLDRIVERS)))

    assert all("loldrivers.io 1" in known.match(one) for one in (binary(sha256=A), binary(image=B), binary(image=C)))
    assert known.match(binary("bad.sys")) == ""
    assert len(known) == 3


def test_lists_are_joined(tmp_path: Path) -> None:
    both = load_blocklist(OWN).joined(load_blocklist(write(tmp_path, MICROSOFT)))

    assert both.match(binary("gdrv.sys"))
    assert both.match(binary("named.sys"))


@pytest.mark.parametrize(("text", "expected"), [
    ('<!DOCTYPE x [<!ENTITY a "b">]><SiPolicy/>', "document type"),
    ("<SiPolicy>", "expected XML"), ("<Other/>", "expected a SiPolicy"), ("<SiPolicy/>", "at least one driver"),
    ("<a>" * 100 + "</a>" * 100, "levels"),
    ('[{"X": ' + "[" * 5_000, "loldrivers.io"), ("x = " + "[" * 5_000, "levels of nesting"),
    ("[{\"KnownVulnerableSamples\": 1}]", "loldrivers.io"), ("[]", "at least one driver"),
    ("schema = 1\n[sources]\n", "at least one driver"), ("no toml", "list"), ("", "list"),
    ('schema = 1\nodd = 2\n[sources]\ns = "x"\n', "unknown field"),
    ('schema = 1\n[sources]\ns = "x"\n[[driver]]\nfile = "a.sys"\nsources = ["t"]\nmax_version = "*"\n', "expected a key"),
    ('schema = 1\n[sources]\ns = "x"\n[[driver]]\nfile = "a.sys"\nsources = ["s"]\n', "neither"),
    ('schema = 1\n[sources]\ns = "x"\n[[driver]]\nfile = "a.sys"\nsources = ["s"]\nmax_version = "new"\n', "max_version"),
    ('schema = 1\n[sources]\ns = "x"\n[[driver]]\nfile = "a.sys"\nsources = ["s"]\nimage_hashes = ["AB"]\n', "hash"),
    ('schema = 1\n[sources]\ns = "x"\nt = "y"\n[[driver]]\nfile = "a.sys"\nsources = ["s"]\nmax_version = "*"\n',
     "used nowhere"),
])
def test_h4_what_is_no_list_is_refused(text: str, expected: str, tmp_path: Path) -> None:
    """H4: no document type, no depth without end; an empty list would let everything through."""
    with pytest.raises(DataError) as caught:
        load_blocklist(write(tmp_path, text))

    assert caught.value.code == "blocklist-invalid"
    assert expected in caught.value.problems[0]


def test_a_list_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        load_blocklist(tmp_path / "gone")


@pytest.mark.parametrize(("text", "expected"), [
    ("1.2.3.4", (1, 2, 3, 4)), ("2, 5, 0, 11", (2, 5, 0, 11)), ("1.2", (1, 2, 0, 0)), ("6.1 built by: WinDDK", (6, 1, 0, 0)),
    ("v1", ()), ("", ()), ("1.2.3.4.5", (1, 2, 3, 4)),
])
def test_versions_are_read_as_vendors_write_them(text: str, expected: tuple[int, ...]) -> None:
    assert numbers(text) == expected


def test_an_empty_list_matches_nothing() -> None:
    assert Blocklist().match(binary("gdrv.sys", sha256=A)) == ""
