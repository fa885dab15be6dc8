"""Branding, logos, programs, colours and drawings of the download site."""

import hashlib
import re
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from keyfit.errors import DataError, KeyfitError, UserError
from keyfit.model.catalog import Model
from keyfit.publisher.site.branding import Branding, load_branding, site_address, titled
from keyfit.publisher.site.build import ASSETS
from keyfit.publisher.site.colours import AA_SHAPE, AA_TEXT, DARK, LIGHT, Scheme, contrast, style_sheet
from keyfit.publisher.site.logo import read_logo
from keyfit.publisher.site.pictures import FORMS, form_of
from keyfit.publisher.site.programs import parse_programs, sums, take_program
from tests.sim.brands import a_brand

WHOLE = """
colour = "#006644"
colour_dark = "#66ddaa"
logo = "logo.svg"
contact = "https://help.example.com/"
repository = "https://keyfit.example.com/"
[name]
en = "Example Bank"
zh_CN = "示例银行"
[forms]
acme = "stick-display"
"acme/mini" = "nano"
"""


# -- branding


def test_a_branding_file_with_every_field(tmp_path: Path) -> None:
    file = tmp_path / "branding.toml"
    file.write_text(WHOLE, "utf-8")

    branding = load_branding(file)

    assert branding.name == {"en": "Example Bank", "zh_CN": "示例银行"}
    assert branding.forms == {"acme": "stick-display", "acme/mini": "nano"}
    assert titled(branding, None) is branding
    assert titled(branding, "Other").name == {"en": "Other"}


@pytest.mark.parametrize(("old", "new"), [
    ('en = "Example Bank"', 'zh_TW = "Example Bank"'), ("Example Bank", "Exa\\u202emple"), ("Example Bank", "Two\\nlines"),
    ("Example Bank", "x" * 81), ("#006644", "#ffee00"), ("#66ddaa", "#003311"), ("#006644", "red"), ("#006644", "#0064"),
    ("https://help", "http://help"), ("https://keyfit", "javascript:keyfit"), ("logo.svg", "../logo.svg"),
    ('"nano"', '"photo"'), ('"acme/mini"', '"Acme Mini"'), ("colour =", "color ="),
    ("[name]", "[name"), ("[forms]", "[pictures]"),
])
def test_an_unsound_branding_file_is_refused(tmp_path: Path, old: str, new: str) -> None:
    assert old in WHOLE
    file = tmp_path / "branding.toml"
    file.write_text(WHOLE.replace(old, new, 1), "utf-8")

    with pytest.raises(DataError) as caught:
        load_branding(file)

    assert caught.value.code == "branding-invalid"
    assert all(problem.startswith("branding.toml: ") for problem in caught.value.problems)


def test_all_faults_of_a_branding_file_are_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "branding.toml"
    file.write_text(WHOLE.replace("#006644", "#ffee00").replace("#66ddaa", "#003311").replace("Example Bank", "A  B"), "utf-8")

    with pytest.raises(DataError) as caught:
        load_branding(file)

    assert len(caught.value.problems) == 3


@pytest.mark.parametrize("content", [b"\xff\xfe", b"x" * 70_000, b"a = " + b"[" * 60_000])
def test_a_branding_file_that_is_no_toml_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "branding.toml"
    file.write_bytes(content)
    for path in (file, tmp_path / "missing.toml"):
        with pytest.raises(DataError):
            load_branding(path)


def test_a_title_has_to_be_visible() -> None:
    for title in ("", " ", "a\u202eb", "x" * 81):
        with pytest.raises(DataError):
            titled(Branding(), title)


@pytest.mark.parametrize("address", ["http://example.com/", "https://", "https://example.com/?q", "https://example.com/#a",
                                     "https://user@example.com/", "https://example.com/../x y", "ftp://example.com/"])
def test_the_address_of_the_site_is_https_and_plain(address: str) -> None:
    with pytest.raises(UserError):
        site_address(address)


def test_the_address_of_the_site_ends_with_a_slash() -> None:
    assert [site_address(a) for a in ("", "https://example.com", "https://example.com/a/")] == [
        "", "https://example.com/", "https://example.com/a/"]


# -- colours


@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
def test_text_and_controls_can_be_told_from_their_ground(scheme: Scheme) -> None:
    """WCAG 2.2 AA: 1.4.3 for text, 1.4.11 for borders of controls."""
    for ground in (scheme.ground, scheme.surface):
        for text in (scheme.text, scheme.muted, scheme.accent, scheme.good, scheme.warn):
            assert contrast(text, ground) >= AA_TEXT, (text, ground)
        assert contrast(scheme.border, ground) >= AA_SHAPE, (scheme.border, ground)
    assert contrast(scheme.on_accent, scheme.accent) >= AA_TEXT


def test_contrast_is_as_wcag_defines_it() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    assert contrast("#123456", "#123456") == 1


def test_the_style_sheet_gets_only_colours_that_are_defined() -> None:
    used = set(re.findall(r"var\(--([a-z-]+)\)", (ASSETS / "site.css").read_text()))
    sheet = style_sheet("#AABBCC", "#ddeeff")
    assert used == {name.strip("-:") for name in re.findall(r"--[a-z-]+:", sheet)}
    assert "--accent: #aabbcc;" in sheet
    assert re.findall(r"#[0-9a-f]{3,8}\b", (ASSETS / "site.css").read_text()) == ["#ffffff"], "the plate behind a logo"


# -- drawings


def test_every_shape_has_a_drawing_that_is_only_a_drawing(tmp_path: Path) -> None:
    for form in (*FORMS, "icon"):
        read_logo(ASSETS / "pictures" / f"{form}.svg")  # as strict as for a publisher's logo
        root = ElementTree.parse(ASSETS / "pictures" / f"{form}.svg").getroot()  # our own files
        assert root.get("viewBox")
    assert {path.stem for path in (ASSETS / "pictures").iterdir()} == {*FORMS, "icon"}


def test_drawings_can_be_seen_in_both_modes() -> None:
    for form in FORMS:
        colours = set(re.findall(r"#[0-9a-f]{6}", (ASSETS / "pictures" / f"{form}.svg").read_text()))
        assert colours
        for colour in colours:
            assert min(contrast(colour, LIGHT.surface), contrast(colour, DARK.surface)) >= AA_SHAPE


@pytest.mark.parametrize(("name", "form"), [
    ("Token Nano", "nano"), ("NANO 2", "nano"), ("Card Reader 3", "reader"), ("Nanotoken", "stick"), ("ReaderX", "stick"),
    ("Card Token", "stick"), ("Token", "stick"), ("PINPad 2", "stick")])
def test_a_shape_is_drawn_only_where_the_data_says_it(name: str, form: str) -> None:
    assert form_of(a_brand("acme"), Model(id="one", name=name), {}) == form


def test_the_publisher_can_say_the_shape() -> None:
    nano, plain = Model(id="mini", name="Acme Nano"), Model(id="one", name="Acme")
    brand = a_brand("acme", model=(nano, plain))

    assert [form_of(brand, model, {}) for model in (nano, plain, None)] == ["nano", "stick", "stick"]
    told: dict[str, object] = {"acme": "stick-display", "acme/mini": "reader"}
    assert [form_of(brand, model, told) for model in (nano, plain, None)] == [  # type: ignore[arg-type]
        "reader", "stick-display", "stick-display"]
    assert form_of(a_brand("acme", model=(nano,)), None, {}) == "nano"
    assert form_of(a_brand("any", class_driver=True), Model(id="one", name="x"), {}) == "card"


# -- logos

SVG = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 9 9">{}</svg>'


@pytest.mark.parametrize("inside", [
    "<script>alert(1)</script>", "<SCRIPT/>", '<g onload="x()"/>', '<g ONCLICK="x()"/>', "<foreignObject/>",
    '<image href="https://tracker.example/x.png"/>', '<use xlink:href="https://evil.example/#x"/>', '<a href="#x"/>',
    '<image href="data:image/svg+xml;base64,AAAA"/>', '<g style="fill:url(https://evil.example/)"/>',
    "<style>@import 'x'</style>",
    '<g style="@import \'x\'"/>', '<set attributeName="onload" to="x" onbegin="y"/>', "<g>", "<?xml-stylesheet href='x'?>",
    '<x:script xmlns:x="http://www.w3.org/2000/svg"/>', '<g fill="URL( \'https://evil.example/\')"/>'])
def test_a_logo_that_runs_or_fetches_is_refused(tmp_path: Path, inside: str) -> None:
    logo = tmp_path / "logo.svg"
    logo.write_text(SVG.format(inside))

    with pytest.raises(DataError) as caught:
        read_logo(logo)

    assert caught.value.code == "logo-refused"


def test_a_logo_with_a_document_type_is_refused(tmp_path: Path) -> None:
    logo = tmp_path / "logo.svg"
    logo.write_text('<!DOCTYPE svg [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;">]>' + SVG.format("<text>&b;</text>"))
    with pytest.raises(DataError, match="only a picture"):
        read_logo(logo)


def test_plain_logos_are_taken_as_they_are(tmp_path: Path) -> None:
    svg, png = tmp_path / "bank.SVG", tmp_path / "bank.png"
    svg.write_text(SVG.format('<defs><linearGradient id="g"/></defs><rect fill="url(#g)"/><use xlink:href="#g"/>'))
    png.write_bytes(b"\x89PNG\r\n\x1a\n" + b"x" * 100)

    assert read_logo(svg) == ("logo.svg", svg.read_bytes())
    assert read_logo(png) == ("logo.png", png.read_bytes())


@pytest.mark.parametrize(("name", "content"), [("logo.png", b"GIF89a"), ("logo.gif", b"GIF89a"), ("logo.svg", b"<html/>"),
                                               ("logo.png", b"\x89PNG\r\n\x1a\n" + b"x" * 600_000), ("logo.svg", b"")])
def test_what_is_no_logo_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError):
        read_logo(tmp_path / name)
    with pytest.raises(UserError):
        read_logo(tmp_path / "missing.svg")


# -- programs


def test_a_program_is_copied_with_its_checksum(tmp_path: Path) -> None:
    content = b"MZ" + bytes(3_000_000)
    (tmp_path / "keyfit-setup.exe").write_bytes(content)
    out = tmp_path / "out"
    out.mkdir()

    (wanted,) = parse_programs([str(tmp_path / "keyfit-setup.exe")])
    program = take_program(wanted, out)

    assert (program.system, program.address, program.length_bytes) == ("windows", "download/keyfit-setup.exe", 3_000_002)
    assert program.sha256 == hashlib.sha256(content).hexdigest()
    assert (out / program.address).read_bytes() == content
    (out / "download" / "SHA256SUMS").write_bytes(sums([program]))
    assert "keyfit-setup.exe: OK" in subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=out / "download",
                                                    check=True, capture_output=True, text=True).stdout


def test_a_program_that_is_served_elsewhere_is_only_hashed(tmp_path: Path) -> None:
    (tmp_path / "keyfit.pkg").write_bytes(b"xar!")
    (wanted,) = parse_programs([f"{tmp_path}/keyfit.pkg=https://cdn.example.com/a=b/keyfit.pkg"])

    program = take_program(wanted, tmp_path / "out")

    assert (program.system, program.address) == ("macos", "https://cdn.example.com/a=b/keyfit.pkg")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [
    ["a.exe=http://cdn.example.com/a.exe"], ["a.exe=https://"], ["a.exe=https://exa mple.com/"], ["-a.exe"], ["a b.exe"],
    ["a.exe", "x/a.exe"], [""], ["a\u202e.exe"], ["a.exe=https://cdn.example.com/\"onclick"]])
def test_a_program_with_a_bad_name_or_address_is_refused(arguments: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        parse_programs(arguments)
    assert caught.value.code == "bad-program"


def test_a_program_that_is_not_there_or_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.exe").write_bytes(b"")
    for name, code in (("missing.exe", "no-such-file"), ("empty.exe", "bad-program")):
        (wanted,) = parse_programs([str(tmp_path / name)])
        with pytest.raises(KeyfitError) as caught:
            take_program(wanted, tmp_path)
        assert caught.value.code == code
