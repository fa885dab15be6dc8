"""The pages of the download site: whole, linked, escaped, in two languages, and the same every time."""

import json
import posixpath
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from keyfit.model.catalog import (
    Brand,
    Condition,
    Conflict,
    HandOff,
    Match,
    Model,
    Package,
    Payload,
    PinRules,
    ReturnCode,
    Revocation,
)
from keyfit.publisher.brandfile import load_brands
from keyfit.publisher.site.branding import Branding
from keyfit.publisher.site.build import build
from keyfit.publisher.site.model import TONGUES, Program, Site, claims, id_slug
from keyfit.publisher.site.texts import catalogue
from tests.sim.brands import LINUX, SOURCES, a_brand, a_match, a_module, a_package
from tests.site.htmlpage import Html

DRIVERS = Path(__file__).parents[3] / "drivers"
HOSTILE = """<script>alert(1)</script>"'&amp;\u202egpj.exe\x1b[31m"""
SETUP = Program(file="keyfit-setup.exe", system="windows", address="download/keyfit-setup.exe", sha256="ab" * 32,
                length_bytes=12_345_678)
ELSEWHERE = Program(file="keyfit.deb", system="linux", address="https://cdn.example.com/keyfit.deb", sha256="cd" * 32,
                    length_bytes=999)


def a_site(*brands: Brand, **fields: Any) -> Site:
    return Site(brands=brands, payloads=fields.pop("payloads", {}), programs=fields.pop("programs", ()),
                branding=fields.pop("branding", Branding()), **fields)


def made(site: Site) -> dict[str, str]:
    """path -> text of every page."""
    return {name: data.decode() for name, data in build(site) if name.endswith(".html")}


@cache
def real() -> Mapping[str, bytes]:
    """Every file of the site made from the real brand data."""
    branding = Branding(name={"en": "Example Bank", "zh_CN": "示例银行"}, contact="https://help.example.com/",
                        repository="https://keyfit.example.com/")
    payload = Payload(file="libacsccid1_1.1.8-1_amd64.deb", sha256="a1" * 32, length_bytes=91_234)
    return dict(build(Site(brands=load_brands(DRIVERS), payloads={("acs-cryptomate", "libacsccid1-deb"): payload},
                           programs=(SETUP, ELSEWHERE), branding=branding, base_url="https://www.example.com/keyfit/")))


@cache
def parsed() -> Mapping[str, Html]:
    return {name: Html(data.decode()) for name, data in real().items() if name.endswith(".html")}


def test_every_page_is_whole() -> None:
    """One title, one main heading, a language, landmarks, a skip link, headings in order, labels, names for pictures."""
    for name, page in parsed().items():
        own_language = {"en": "en", "zh": "zh-CN"}.get(name.split("/")[0], "en")
        assert page.one("html").attributes["lang"] == own_language, name
        assert page.one("title").text.strip(), name
        assert len(page.all("h1")) == 1, name
        assert page.one("main").attributes["id"] == "main", name
        levels = [int(e.tag[1]) for e in page.elements if re.fullmatch("h[1-6]", e.tag)]
        assert all(after <= before + 1 for before, after in zip([0, *levels], levels, strict=False)), (name, levels)
        assert all("alt" in image.attributes for image in page.all("img")), name
        labelled = {label.attributes["for"] for label in page.all("label")}
        assert {field.attributes["id"] for field in page.all("input")} <= labelled, name
        ids = page.values("id")
        assert len(ids) == len(set(ids)), name
        for attribute in ("aria-labelledby", "aria-describedby", "for"):
            assert {part for value in page.values(attribute) for part in value.split()} <= set(ids), name
        if "/" in name:
            assert page.all("a")[0].attributes["href"] == "#main", name
            assert [len(page.all(tag)) for tag in ("header", "footer")] == [1, 1], name
            assert all(nav.attributes["aria-label"] for nav in page.all("nav")), name


def test_titles_tell_the_pages_apart() -> None:
    for tongue in TONGUES:
        titles = [page.one("title").text for name, page in parsed().items() if name.startswith(tongue.folder + "/")]
        assert len(titles) == len(set(titles)) > 250


def test_every_link_leads_somewhere() -> None:
    files = set(real()) | {SETUP.address}
    for name, page in parsed().items():
        for target in [*page.values("href"), *page.values("src")]:
            if target.startswith("https://"):
                continue
            path, _, anchor = target.partition("#")
            full = posixpath.normpath(posixpath.join(posixpath.dirname(name), path)) if path else name
            assert full in files, (name, target)
            assert not anchor or anchor in parsed()[full].values("id"), (name, target)


def test_every_page_can_be_reached_from_the_first_one() -> None:
    seen: set[str] = set()
    waiting = ["index.html"]
    while waiting:
        name = waiting.pop()
        if name in seen or not name.endswith(".html"):
            continue
        seen.add(name)
        waiting += [posixpath.normpath(posixpath.join(posixpath.dirname(name), target.partition("#")[0]))
                    for target in parsed()[name].values("href") if "://" not in target and not target.startswith("#")]
    assert seen == set(parsed()) - {"404.html"}


def test_every_id_has_a_page_and_a_row_and_an_entry_in_the_index() -> None:
    ids = claims(load_brands(DRIVERS))
    assert len(ids) > 150
    index = json.loads(real()["ids.json"])["ids"]
    assert list(index) == [id_slug(key) for key in ids]
    for tongue in TONGUES:
        links = set(parsed()[f"{tongue.folder}/numbers.html"].values("href"))
        for key, row in ids.items():
            assert f"id/{id_slug(key)}.html" in links
            page = parsed()[f"{tongue.folder}/id/{id_slug(key)}.html"]
            assert {f"../brand/{claim.brand.brand}.html" for claim in row} <= set(page.values("href"))
            assert index[id_slug(key)] == list(dict.fromkeys(claim.brand.brand for claim in row))


def test_the_index_names_the_class_driver() -> None:
    assert json.loads(real()["ids.json"])["classes"] == {"0b": ["generic-ccid"]}


def test_a_match_of_a_whole_vendor_has_a_page_of_its_own() -> None:
    site = a_site(a_brand("acme", a_match(id_vendor=0x1234), a_match(id_vendor=0x1234, id_product=0x00AB)))
    pages = made(site)

    assert {"en/id/1234.html", "en/id/1234-00ab.html"} <= set(pages)
    assert "All devices whose number begins like this" in Html(pages["en/id/1234.html"]).text
    assert list(json.loads(dict(build(site))["ids.json"])["ids"]) == ["1234", "1234-00ab"]


def test_nothing_comes_from_elsewhere_and_nothing_is_inline() -> None:
    """The policy forbids it; the pages do not try."""
    for name, page in parsed().items():
        policy = next(e.attributes["content"] for e in page.all("meta")
                      if e.attributes.get("http-equiv") == "Content-Security-Policy")
        assert policy.startswith("default-src 'none';"), name
        assert "unsafe" not in policy, name
        assert page.values("style") == [], name
        assert page.all("style") == [], name
        assert not [key for e in page.elements for key in e.attributes if key.startswith("on")], name
        for element in page.elements:
            if element.tag == "script":
                assert element.attributes["src"], name
                assert element.text == "", name
            if element.tag in ("script", "img") or (element.tag == "link" and element.attributes["rel"] in (
                    "stylesheet", "icon")):
                address = element.attributes.get("src") or element.attributes["href"]
                assert "://" not in address or name == "404.html", (name, address)
        assert all(a.attributes.get("rel") == "noopener noreferrer" for a in page.all("a")
                   if a.attributes["href"].startswith("https://") and name != "404.html"), name


def test_links_outside_are_https_only() -> None:
    for name, page in parsed().items():
        for target in [*page.values("href"), *page.values("src")]:
            assert re.match(r"https://|[a-z0-9._/#-]+\Z", target, re.IGNORECASE), (name, target)
            assert not re.match(r"[a-z]+:(?!//)|//|http:", target), (name, target)


def test_the_same_input_gives_the_same_bytes() -> None:
    brands = load_brands(DRIVERS)
    once, again = dict(build(a_site(*brands))), dict(build(a_site(*load_brands(DRIVERS))))

    assert list(once) == list(again)
    assert once == again


def test_both_languages_say_everything_in_their_own() -> None:
    """What the data has in English only is marked as English, and nothing else is English on a Chinese page."""
    page = parsed()["zh/brand/acs-cryptomate.html"]
    assert "接下来怎么做" in page.text
    assert next(e.text for e in page.all("bdi") if e.attributes.get("lang") == "en") == "ACS CryptoMate"
    english = parsed()["en/brand/icbc-feitian.html"]
    assert [e.text for e in english.all("bdi") if e.attributes.get("lang") == "zh-CN"] == ["飞天诚信（工行U盾）"]
    assert "en" not in {e.attributes.get("lang") for e in english.all("bdi")}


def test_catalogues_are_complete_and_nothing_in_them_is_idle() -> None:
    """Every key in both languages with the same values, and every one of them is on some page."""
    texts = [catalogue(tongue.key) for tongue in TONGUES]
    assert texts[0].known() == texts[1].known()
    for key in texts[0].known():
        assert texts[0].placeholders(key) == texts[1].placeholders(key), key
        assert all(words.text(key, **dict.fromkeys(words.placeholders(key), "x")) for words in texts), key
    for words in texts:
        words.used.clear()
    real.cache_clear()
    parsed.cache_clear()
    assert real()
    made(a_site(everything(), one_of_each(), a_brand("listed", status="listed", model=()), shared(), withdrawn_whole(),
                a_brand("none", status="supported", model=()), withdrawn=WITHDRAWN,
                branding=Branding(forms={"shared": "stick-display"})))
    made(a_site())
    for words in texts:
        assert words.known() - words.used == set()


WITHDRAWN = {"everything": (Revocation(brand="everything", reason={"en": "bad"}, version="1.0", sha256="0" * 64),
                            Revocation(brand="everything", reason={"en": "worse"}, sha256="1" * 64)),
             "withdrawn": (Revocation(brand="withdrawn", reason={"en": "worst"}, sequence=1),)}


def shared() -> Brand:
    return a_brand("shared", a_match(id_vendor=0x1111, id_product=0x0001), a_match(id_vendor=0x1112),
                   package=(a_package("pcscd"),))


def one_of_each() -> Brand:
    """A brand with but one change of each kind."""
    whole = everything()
    return structs.replace(whole, brand="single", patch=whole.patch[::2], module=whole.module[:1], insert_order="any",
                           package=(*whole.package[:1], *(p for p in whole.package if p.name in ("acme3", "acme4"))))


def withdrawn_whole() -> Brand:
    return a_brand("withdrawn", a_match(id_vendor=0x1113, id_product=0x0001), package=(a_package("pcscd"),))


def everything(**fields: Any) -> Brand:
    """A brand that has every kind of entry, several of each kind where texts differ."""
    from keyfit.model.catalog import CcidListEntry, KernelModuleBlacklist, Service, UdevRule

    windows = Condition(system="windows", architecture=("amd64",))
    patch = {"on": LINUX, "reason": {"en": "because", "zh_CN": "原因"}, "sources": SOURCES}
    return a_brand(
        "everything", insert_order="unplug-before-install", note={"en": "a note"},
        model=(Model(id="one", name="One", note="a model's note", match=(
            Match(sources=SOURCES, id_vendor=0x1111, id_product=0x0001, manufacturer="M", product="P", bcd_device_min=1,
                  b_interface_class=8, cd_rom="switch", inferred=True, atr=("3B00",)),
            Match(sources=SOURCES, id_vendor=0x1111, id_product=0x0002, cd_rom="permanent"),
            Match(sources=SOURCES, id_vendor=0x1111, id_product=0x0003, cd_rom="eject", bcd_device_max=2),
            Match(sources=SOURCES, b_interface_class=0x0B))), Model(id="two", name="Two Nano"),
               Model(id="three", name="Three Reader", packages=("pcscd",), match=(Match(sources=SOURCES, b_interface_class=1),))),
        package=(a_package("pcscd", id="pcscd"), a_package("libccid"), a_package("tool", component="certificate-tool"),
                 a_package("acme", "deb", component="module", on=Condition(system="linux", architecture=("amd64",))),
                 a_package("acme2", "deb", component="module", on=Condition(system="linux", architecture=("i386",))),
                 a_package("acme3", "deb", component="module"), a_package("acme4", "archive", component="browser-control"),
                 a_package("acme5", "archive", component="browser-control"),
                 Package(id="setup", component="driver", kind="exe", on=windows, name="setup", sources=SOURCES,
                         version="2.0", file="setup.exe", note="asks", return_codes=(
                             ReturnCode(code=3010, meaning="restart-required", sources=SOURCES),)),
                 a_package("arm", "deb", on=Condition(system="linux", architecture=("arm64",)))),
        module=(a_module(), structs.replace(a_module("/usr/lib/b.so"), id="b", name="B")),
        patch=(CcidListEntry(id="a", id_vendor=1, id_product=2, friendly_name="A", **patch),
               CcidListEntry(id="b", id_vendor=1, id_product=3, friendly_name="B", **patch),
               UdevRule(id="c", subsystem="usb", id_vendor=1, id_product=2, **patch),
               UdevRule(id="d", subsystem="usb", id_vendor=1, id_product=4, **patch),
               KernelModuleBlacklist(id="e", modules=("pn533", "nfc"), **patch),
               KernelModuleBlacklist(id="f", modules=("pn533_usb",), **patch),
               Service(id="g", unit="pcscd.socket", **patch), Service(id="h", unit="pcscd.service", **patch)),
        conflict=(Conflict(package="rival", reason={"en": "takes the device"}, sources=SOURCES),),
        pin=PinRules(min_length=6, max_length=8, advice={"en": "mix"}, sources=SOURCES),
        hand_off=HandOff(bank={"en": "Bank"}, page="https://bank.example/c", steps={"en": "Click"}, sources=SOURCES,
                         forgotten={"en": "Go there"}, lost={"en": "Call"}, replacement={"en": "Ask"}), **fields)


def test_a_brand_page_tells_everything_about_the_brand() -> None:
    payload = Payload(file="acme.deb", sha256="5" * 64, length_bytes=1_500)
    page = Html(made(a_site(everything(), payloads={("everything", "acme-deb"): payload}, branding=Branding(
        repository="https://keyfit.example.com")))["en/brand/everything.html"])

    for said in ("Leave the token unplugged", "a note", "6 to 8 characters. mix", "Bank", "the host has to be bank.example",
                 "Click", "Go there", "Call", "Ask", "rival", "takes the device", "a model's note", "1111:0001",
                 "no number is known from a source", "any device of its class", "setup.exe (Windows, version 2.0)",
                 "The maker's installer may ask for a restart", "sudo keyfit uninstall everything", "(sources: 1)",
                 "5" * 64, "1.5 kB (1500 bytes)", "pn533, nfc", "Reason: because", "pcscd.socket", "becomes a token when"):
        assert said in page.text, said
    assert f"https://keyfit.example.com/payloads/55/{'5' * 64}/acme.deb" in page.values("href")
    assert "https://bank.example/c" in page.values("href")


def test_a_listed_brand_is_known_but_has_nothing_to_install() -> None:
    page = parsed()["en/brand/hengbao.html"]

    assert "Known, but nothing to install" in page.text
    assert "Nothing. Keyfit has nothing to install for this brand." in page.text
    assert "CMBC_HB_UranuSafe_Install.exe" in page.text
    assert "sudo keyfit install" not in page.text


def test_a_file_that_is_served_by_mirrors_is_offered_from_there() -> None:
    payload = Payload(file="acme.deb", sha256="5" * 64, length_bytes=9, mirrors=("https://mirror.example/acme.deb",))
    page = Html(made(a_site(a_brand("acme", package=(a_package("acme", "deb", payload=payload),))))["en/check.html"])

    assert "https://mirror.example/acme.deb" in page.values("href")
    assert "5" * 64 in page.text


def test_a5_what_was_revoked_is_said_and_not_offered_for_installation() -> None:
    """A5: with the reason in the reader's language."""
    reason = {"en": "It stops the computer", "zh_CN": "会导致死机"}
    brand = a_brand("acme", a_match(id_vendor=0x1234, id_product=1), package=(a_package("pcscd"),))
    site = a_site(brand, withdrawn={"acme": (Revocation(brand="acme", sequence=1, reason=reason),)})
    pages = made(site)

    assert "version 1 of the brand's data: It stops the computer" in Html(pages["en/brand/acme.html"]).text
    assert "会导致死机" in Html(pages["zh/brand/acme.html"]).text
    for name in ("en/brand/acme.html", "en/id/1234-0001.html"):
        assert "Withdrawn for now" in Html(pages[name]).text
        assert "sudo keyfit install acme" not in pages[name]
    old = made(a_site(brand, minimum={"acme": 2}))
    assert "Withdrawn for now" in Html(old["en/brand/acme.html"]).text
    later = a_site(structs.replace(brand, sequence=2), withdrawn=site.withdrawn)
    assert "sudo keyfit install acme" in made(later)["en/brand/acme.html"]


def test_h1_hostile_names_are_text_and_nothing_else() -> None:
    """H1: markup is escaped, control and direction characters are gone, wherever the data may hold text."""
    texts = {"en": HOSTILE, "zh_CN": HOSTILE}
    brand = everything()
    brand = structs.replace(
        brand, names=texts, vendor=HOSTILE, note=texts, sources={"made-up": HOSTILE},
        model=tuple(structs.replace(m, name=HOSTILE, note=HOSTILE, match=tuple(structs.replace(
            match, manufacturer=HOSTILE, product=HOSTILE) for match in m.match)) for m in brand.model),
        package=tuple(structs.replace(p, name=HOSTILE, note=HOSTILE, version=HOSTILE) for p in brand.package),
        module=tuple(structs.replace(m, name=HOSTILE) for m in brand.module),
        patch=tuple(structs.replace(p, reason=texts) for p in brand.patch),
        conflict=tuple(structs.replace(c, package=HOSTILE, reason=texts) for c in brand.conflict),
        pin=structs.replace(brand.pin, advice=texts) if brand.pin else None,
        hand_off=structs.replace(brand.hand_off, bank=texts, steps=texts, forgotten=texts, lost=texts, replacement=texts)
        if brand.hand_off else None)
    payload = Payload(file=HOSTILE, sha256="5" * 64, length_bytes=9)
    site = a_site(brand, payloads={("everything", p.id): payload for p in brand.package}, programs=(structs.replace(
        SETUP, file=HOSTILE),), branding=Branding(name=texts), withdrawn={"everything": (Revocation(
            brand="everything", reason=texts, version=HOSTILE),)})

    shown = 0
    for name, text in made(site).items():
        page = Html(text)
        assert all(script.attributes.get("src") for script in page.all("script")), name
        assert not [key for e in page.elements for key in e.attributes if key.startswith("on")], name
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u200e\u200f\u202a-\u202e\u2066-\u2069]", text), name
        shown += page.text.count("<script>alert(1)</script>")
    assert shown > 100


@pytest.mark.parametrize("address", ["http://bank.example/", "javascript:alert(1)", "//bank.example/", "data:text/html,x"])
def test_g2_a_page_that_is_not_https_stops_the_site(address: str) -> None:
    """G2: brand files are checked when they are read; should that ever fail, no such link is made."""
    from keyfit.errors import BugError

    brand = everything()
    assert brand.hand_off is not None
    with pytest.raises(BugError, match="https"):
        made(a_site(structs.replace(brand, hand_off=structs.replace(brand.hand_off, page=address))))


def test_a_missing_text_is_an_error() -> None:
    from keyfit.errors import BugError

    with pytest.raises(BugError, match="nobody"):
        catalogue("en").text("nobody.wrote.this")
    with pytest.raises(BugError, match="number"):
        catalogue("en").text("size.mb")


def test_programs_are_offered_with_size_and_checksum() -> None:
    for tongue in TONGUES:
        for name in ("index", "check"):
            page = parsed()[f"{tongue.folder}/{name}.html"]
            assert {"../download/keyfit-setup.exe", "https://cdn.example.com/keyfit.deb"} <= set(page.values("href"))
            assert SETUP.sha256 in page.text
            assert "12.3 MB" in page.text
    assert real()["download/SHA256SUMS"] == f"{SETUP.sha256}  keyfit-setup.exe\n".encode()
    assert "https://cdn.example.com" not in made(a_site(programs=(SETUP,)))["en/index.html"]
    assert "offers no program" in Html(made(a_site())["en/index.html"]).text


def test_the_known_address_makes_canonical_links_and_a_map() -> None:
    page = parsed()["zh/check.html"]
    links = {(e.attributes["rel"], e.attributes.get("hreflang")): e.attributes["href"] for e in page.all("link")}
    assert links["canonical", None] == "https://www.example.com/keyfit/zh/check.html"
    assert links["alternate", "en"] == "https://www.example.com/keyfit/en/check.html"
    assert real()["sitemap.xml"].count(b"<loc>") == len(parsed()) - 1
    without = dict(build(a_site()))
    assert "sitemap.xml" not in without
    assert "404.html" not in without
    assert b"canonical" not in without["en/index.html"]


def test_the_first_page_speaks_both_languages_and_sends_nobody_away() -> None:
    page = parsed()["index.html"]
    assert {"zh/index.html", "en/index.html"} <= set(page.values("href"))
    assert {"zh-CN", "en"} <= {e.attributes.get("lang") for e in page.all("li")}
    assert "refresh" not in {e.attributes.get("http-equiv", "").lower() for e in page.all("meta")}
    assert b"location" not in re.sub(rb"location\.assign\(`\$\{(folder|form\.dataset\.folder)\}id/", b"",
                                     real()["assets/site.js"])


def test_an_empty_folder_of_brands_still_makes_a_site() -> None:
    pages = made(a_site())
    assert "No USB numbers are listed." in Html(pages["en/numbers.html"]).text


def test_device_names_are_never_markup_in_the_script() -> None:
    """H1: the script has no way to turn text into markup or code."""
    script = real()["assets/site.js"].decode()
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "setTimeout"):
        assert word not in script
