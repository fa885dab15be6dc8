"""The download site in a real Chromium: what customers see and press, with scripts and without, in light and dark."""

import json
from pathlib import Path
from typing import Any

import pytest

from .browser import Browser

PAGES = ("index.html", *(f"{language}/{name}.html" for language in ("zh", "en") for name in (
    "index", "brands", "pictures", "numbers", "changes", "check", "brand/acs-cryptomate", "brand/icbc-feitian",
    "brand/token2", "id/096e-080a")))
HOSTILE = "<img src=x onerror=document.title='owned'>\u202e\x1b[31m" + "x" * 300
TAB, ENTER = "\ue004", "\ue007"


def usb(answer: str) -> str:
    """A browser with WebUSB that gives this answer; what it was asked for lies in `asked`."""
    return ("Object.defineProperty(navigator, 'usb', {value: {requestDevice: async (wanted) => {"
            f" globalThis.asked = wanted; {answer} }}}}, configurable: true}});")


def device(vendor: int, product: int, name: str = "Token", b_interface_class: int = 0xFF) -> str:
    """JavaScript that answers with a device."""
    shape = {"vendorId": vendor, "productId": product, "productName": name, "manufacturerName": name, "deviceClass": 0,
             "configurations": [{"interfaces": [{"alternates": [{"interfaceClass": b_interface_class}]}]}]}
    return f"return {json.dumps(shape)};"


NO_USB = "Object.defineProperty(navigator, 'usb', {value: undefined});"

# For every text that can be seen: its contrast with what lies behind it (WCAG 2.2, 1.4.3), where that is too low.
LOW_CONTRAST = """
const part = (value) => (value /= 255, value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
const colour = (text) => text.match(/[\\d.]+/g).map(Number);
const ground = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const [r, g, b, a = 1] = colour(getComputedStyle(at).backgroundColor);
    if (a === 1) return [r, g, b];
  }
  return [255, 255, 255];
};
const low = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
let texts = 0;
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || !element.checkVisibility() || element.closest('.skip')) continue;
  texts += 1;
  const [a, b] = [light(colour(getComputedStyle(element).color)), light(ground(element))].sort((x, y) => y - x);
  const ratio = (a + 0.05) / (b + 0.05);
  if (ratio < 4.5) low.push(`${ratio.toFixed(2)} ${walker.currentNode.data.trim()}`);
}
return {low, texts};
"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_page_can_be_read_and_nothing_is_refused(browser: Browser, site: str, dark: bool) -> None:
    """Contrast of every text, no sideways scrolling at 320 px, nothing for the console to complain about, nothing fetched
    from elsewhere."""
    grounds = set()
    for name in PAGES:
        for width in (1100, 320):
            browser.screen(width, dark=dark)
            browser.go(site + name)
            seen = browser.js(LOW_CONTRAST)
            assert seen["low"] == [], (name, width)
            assert seen["texts"] >= 5, name
            assert browser.js("return document.scrollingElement.scrollWidth") <= width, (name, width)
        fetched = browser.js("return performance.getEntriesByType('resource').map((entry) => entry.name)")
        assert fetched, name
        assert all(address.startswith(site) for address in fetched), fetched
        assert browser.js("return [...document.images].filter((image) => !image.naturalWidth).length") == 0, name
        assert browser.complaints() == [], name
        grounds.add(browser.js("return getComputedStyle(document.body).backgroundColor"))
    assert grounds == {"rgb(18, 22, 28)" if dark else "rgb(255, 255, 255)"}


def test_at_twice_the_size_nothing_is_lost(browser: Browser, site: str) -> None:
    """200 % zoom on a 1280 px screen leaves 640 px (WCAG 2.2, 1.4.4)."""
    for name in PAGES:
        browser.screen(640)
        browser.go(site + name)
        assert browser.js("return document.scrollingElement.scrollWidth") <= 640, name
        cut = browser.js("return [...document.querySelectorAll('h1, h2, h3, a, button, p, dd, li')].filter((e) =>"
                         " e.checkVisibility() && !e.closest('.skip') && getComputedStyle(e).overflowX !== 'visible'"
                         " && e.scrollWidth > e.clientWidth + 1).map((e) => e.textContent)")
        assert cut == [], name


def test_chinese_is_drawn_with_a_font_that_has_it(browser: Browser, site: str) -> None:
    """No boxes: a Chinese character is as wide as it is high, and two different ones look different."""
    browser.go(site + "zh/index.html")
    drawn = browser.js("""
const draw = (text) => {
  const canvas = new OffscreenCanvas(40, 40).getContext('2d', {willReadFrequently: true});
  canvas.font = `30px ${getComputedStyle(document.body).fontFamily}`;
  canvas.fillText(text, 2, 32);
  return canvas.getImageData(0, 0, 40, 40).data.join();
};
return [...'查找银行'].map(draw);""")
    assert len(set(drawn)) == 4
    assert browser.js("return document.documentElement.lang") == "zh-CN"


def test_the_first_page_hints_at_the_language_and_stays_where_it_is(browser: Browser, site: str) -> None:
    for languages, tag in ((["zh-TW", "en"], "zh-CN"), (["en-GB"], "en"), (["fr", "en"], "en")):
        with browser.before_each_page(f"Object.defineProperty(navigator, 'languages', {{value: {json.dumps(languages)}}});"):
            browser.go(site)
            assert browser.js("return [...document.querySelectorAll('.suggested')].map((e) => e.lang)") == [tag]
            assert browser.address == site
    with browser.before_each_page("Object.defineProperty(navigator, 'languages', {value: ['fr']});"):
        browser.go(site)
        assert browser.js("return document.querySelectorAll('.suggested').length") == 0
    browser.click("a[data-tag=zh-CN]")
    browser.wait_until_at("/zh/index.html")


def test_without_scripts_everything_is_there(browser: Browser, site: str) -> None:
    """From the first page to a token's page by links alone; what needs scripts is not shown."""
    with browser.without_scripts():
        browser.go(site)
        browser.click("a[data-tag=en]")
        browser.click(".cards a[href='numbers.html']")
        assert not browser.seen("[data-number-form]")
        assert not browser.seen("[data-plugged]")
        browser.click("a[href='id/072f-b200.html']")
        assert browser.address == f"{site}en/id/072f-b200.html"
        assert "CryptoMate (T1)" in browser.text("main")
        assert "sudo keyfit install acs-cryptomate" in browser.text("main")
        browser.click(".languages a[lang=zh-CN]")
        assert browser.address == f"{site}zh/id/072f-b200.html"
        browser.go(f"{site}en/brands.html")
        assert not browser.seen("[data-filter]")
        assert browser.seen("#brand-list li:last-child a")


@pytest.mark.parametrize("typed", ["096e:0807", " 096E 0807 ", "USB\\VID_096E&PID_0807&REV_0100", "0x096e 0x0807", "096e0807",
                                   "ID 096e:0807", "096E-0807", "0x096e, 0x0807"])
def test_a_number_is_found_however_it_is_written(browser: Browser, site: str, typed: str) -> None:
    browser.go(f"{site}en/index.html")
    browser.type("#number", typed)
    browser.press(ENTER)
    browser.wait_until_at("/en/id/096e-0807.html")
    assert browser.address == f"{site}en/id/096e-0807.html"


@pytest.mark.parametrize("typed", ["hello", "096", "096g:0807", "096e:08071", "<b>x</b>", "'; drop", "096e:0807:0001", "，，"])
def test_nonsense_gets_a_clear_answer(browser: Browser, site: str, typed: str) -> None:
    browser.go(f"{site}en/index.html")
    browser.type("#number", typed)
    browser.press(ENTER)
    browser.wait_for("#number-answer:not(:empty)")

    assert browser.text("#number-answer").startswith(f"“{typed}” is not a USB number.")
    assert browser.js("return document.activeElement.id") == "number"
    assert browser.js("return document.querySelector('#number-answer').children.length") == 0
    assert browser.address == f"{site}en/index.html"


def test_a_number_that_is_not_listed_says_so_in_the_page_s_language(browser: Browser, site: str) -> None:
    browser.go(f"{site}zh/numbers.html")
    browser.type("#number", "1234:abcd")
    browser.press(ENTER)
    browser.wait_for("#number-answer:not(:empty)")

    assert browser.text("#number-answer").startswith("1234:ABCD 是 USB 编号，但不在此列表中")


def test_the_table_of_numbers_narrows_while_typing(browser: Browser, site: str) -> None:
    browser.go(f"{site}en/numbers.html")
    rows = "return [...document.querySelectorAll('#number-list tbody tr')].filter((r) => !r.hidden).map((r) => r.id)"
    everything = browser.js(rows)

    browser.type("#number", "072F:b")
    assert browser.js(rows) == ["n-072f-b106", "n-072f-b112", "n-072f-b200"]
    browser.type("#number", "0x072f 0xb200")
    assert browser.js(rows) == ["n-072f-b200"]
    browser.type("#number", "zzz")
    assert browser.js(rows) == everything


def test_the_list_of_brands_narrows_by_any_name(browser: Browser, site: str) -> None:
    browser.go(f"{site}en/brands.html")
    rows = ("return [...document.querySelectorAll('#brand-list > li')].filter((r) => !r.hidden)"
            ".map((r) => r.querySelector('a').textContent)")

    browser.type("#filter", "epass2003AUTO")
    assert browser.js(rows) == ["Feitian ePass"]
    assert browser.text("#filter-answer") == "Brands found: 1"
    browser.type("#filter", "工行 飞天")
    assert browser.js(rows) == ["Feitian (ICBC U-Shield)"]
    browser.type("#filter", "<b>nobody</b>")
    assert browser.js(rows) == []
    assert "“<b>nobody</b>”" in browser.text("#filter-answer")


def test_without_webusb_there_is_no_button(browser: Browser, site: str) -> None:
    with browser.before_each_page(NO_USB):
        browser.go(f"{site}en/index.html")
        assert not browser.seen("[data-plugged]")
    browser.go(f"{site}en/index.html")
    assert browser.seen("[data-plugged] button"), "this Chromium has WebUSB on 127.0.0.1"


def test_the_plugged_in_token_leads_to_its_page(browser: Browser, site: str) -> None:
    with browser.before_each_page(usb(device(0x072F, 0xB200, "CryptoMate"))):
        browser.go(f"{site}en/index.html")
        browser.click("[data-plugged] button")
        browser.wait_until_at("/en/id/072f-b200.html")
        assert browser.address == f"{site}en/id/072f-b200.html"


def test_the_browser_is_asked_for_known_vendors_and_smart_cards(browser: Browser, site: str, site_folder: Path) -> None:
    index = json.loads((site_folder / "ids.json").read_text())
    with browser.before_each_page(usb(device(0xFFFF, 1))):
        browser.go(f"{site}en/numbers.html")
        browser.click("[data-plugged] button")
        browser.wait_for("[data-plugged] .answer:not(:empty)")
        filters: list[dict[str, Any]] = browser.js("return globalThis.asked.filters")

    vendors = [one["vendorId"] for one in filters if "vendorId" in one]
    assert sorted(vendors) == sorted({int(slug[:4], 16) for slug in index["ids"]})
    assert [one for one in filters if "vendorId" not in one] == [{"classCode": 0x0B}]


def test_h1_a_hostile_device_name_is_text(browser: Browser, site: str) -> None:
    """H1: cleaned, cut, and set as text."""
    with browser.before_each_page(usb(device(0xFFFF, 0x0001, HOSTILE))):
        browser.go(f"{site}en/index.html")
        title = browser.js("return document.title")
        browser.click("[data-plugged] button")
        browser.wait_for("[data-plugged] .answer:not(:empty)")
        said = browser.js("return document.querySelector('[data-plugged] .answer').textContent")

        assert said.startswith("“<img src=x onerror=document.title='owned'>[31mxxx")
        assert "has the number FFFF:0001. It is not in the list." in said
        assert len(said.split("”")[0]) == 1 + 126
        assert browser.js("return document.querySelector('[data-plugged] .answer').children.length") == 0
        assert browser.js("return document.title") == title
        assert browser.address == f"{site}en/index.html"


def test_an_unknown_smart_card_leads_to_the_class_driver(browser: Browser, site: str) -> None:
    with browser.before_each_page(usb(device(0xFFFF, 0x0001, "", b_interface_class=0x0B))):
        browser.go(f"{site}zh/index.html")
        browser.click("[data-plugged] button")
        browser.wait_for("[data-plugged] .answer:not(:empty)")
        assert browser.text("[data-plugged] .answer").startswith("“未命名设备”的编号是 FFFF:0001")
        assert browser.js("return document.activeElement.href") == f"{site}zh/brand/generic-ccid.html"
        browser.press(ENTER)
        browser.wait_until_at("/zh/brand/generic-ccid.html")
        assert browser.address == f"{site}zh/brand/generic-ccid.html"


@pytest.mark.parametrize(("name", "said"), [("NotFoundError", "Nothing was chosen."), ("SecurityError", "did not allow it")])
def test_a_choice_that_is_not_made_is_told(browser: Browser, site: str, name: str, said: str) -> None:
    with browser.before_each_page(usb(f"throw new DOMException('no', '{name}');")):
        browser.go(f"{site}en/index.html")
        browser.click("[data-plugged] button")
        browser.wait_for("[data-plugged] .answer:not(:empty)")
        assert said in browser.text("[data-plugged] .answer")


def test_opened_from_a_folder_it_still_works(browser: Browser, site_folder: Path) -> None:
    """As on an offline kit: pages, styles and the filter; the index cannot be fetched there, and the form says so."""
    browser.go(f"file://{site_folder}/en/numbers.html")
    assert browser.js("return getComputedStyle(document.querySelector('button')).backgroundColor") == "rgb(10, 88, 166)"
    browser.type("#number", "072F:B200")
    assert browser.js("return [...document.querySelectorAll('#number-list tbody tr')].filter((r) => !r.hidden).length") == 1
    browser.press(ENTER)
    browser.wait_for("#number-answer") or browser.address.endswith("/en/id/072f-b200.html:not(:empty)")
    browser.go(f"file://{site_folder}/en/brands.html")
    browser.type("#filter", "yubi")
    assert browser.js("return [...document.querySelectorAll('#brand-list > li')].filter((r) => !r.hidden).length") == 1


def test_the_keyboard_reaches_everything_and_shows_where_it_is(browser: Browser, site: str) -> None:
    """The skip link comes first and can be seen when it has the focus; every stop has an outline."""
    browser.go(f"{site}en/index.html")
    stops = []
    for _ in range(60):
        browser.press(TAB)
        stop = browser.js("const e = document.activeElement; const s = getComputedStyle(e);"
                          " return [e.tagName, e.getAttribute('href') ?? e.id, s.outlineStyle,"
                          " parseFloat(s.outlineWidth), e.getBoundingClientRect().bottom]")
        if stop[0] == "BODY":
            break
        stops.append(stop)
    assert stops[0][1] == "#main"
    assert all(outline == "solid" and width >= 2 for _, _, outline, width, _ in stops)
    assert all(bottom > 0 for *_, bottom in stops)
    reachable = browser.js("return [...document.querySelectorAll('a, button, input, summary')].filter((e) =>"
                           " e.checkVisibility()).length")
    assert len(stops) == reachable
    browser.go(f"{site}en/index.html")
    browser.press(TAB)
    browser.press(ENTER)
    assert browser.js("return document.activeElement.id") == "main"


def test_on_paper_there_is_text_and_no_navigation(browser: Browser, site: str) -> None:
    browser.screen(dark=True, media="print")
    browser.go(f"{site}en/brand/acs-cryptomate.html")

    assert browser.js("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not browser.seen("nav.pages")
    assert "What will be changed on the computer" in browser.text("main")
