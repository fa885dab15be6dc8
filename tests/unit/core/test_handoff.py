"""The page that is opened is a plain https address, or it is not opened."""

import json

import msgspec
import pytest

from keyfit.core.handoff import check_page
from keyfit.errors import Outcome, PolicyError, TrustError
from keyfit.model.catalog import HandOff, Manifest
from keyfit.platforms.linux.browser import open_page
from keyfit.publisher.lint import page_faults
from keyfit.trust.manifests import decode_manifest
from tests.sim.brands import a_brand, a_match
from tests.sim.hostilepages import HOSTILE_PAGES

TARGET = "usb/1234/0001-linux-amd64.json"


def test_g2_the_table_is_long_enough() -> None:
    assert len(set(HOSTILE_PAGES.values())) >= 40


@pytest.mark.parametrize("page", HOSTILE_PAGES.values(), ids=HOSTILE_PAGES)
def test_g2_a_hostile_page_is_refused(page: str) -> None:
    with pytest.raises(PolicyError) as refused:
        check_page(page)

    assert refused.value.code == "page-refused"
    assert refused.value.outcome is Outcome.FORBIDDEN
    assert refused.value.message.isprintable(), "the refusal itself is safe to show"


@pytest.mark.parametrize("page", [
    "https://bank.example", "https://bank.example/", "https://e-bank.bank.example/token/activate?step=1&lang=zh_CN#top",
    "https://xn--bcher-kva.example/", "https://95588.example/a%20b", "https://1.example/",
])
def test_a_plain_https_page_is_let_through(page: str) -> None:
    check_page(page)


@pytest.mark.parametrize("page", HOSTILE_PAGES.values(), ids=HOSTILE_PAGES)
def test_g2_a_hostile_page_is_no_page_for_a_publisher(page: str) -> None:
    assert list(page_faults(page))
    assert all(fault.isprintable() for fault in page_faults(page))


@pytest.mark.parametrize("page", HOSTILE_PAGES.values(), ids=HOSTILE_PAGES)
def test_g2_a_hostile_page_never_gets_to_a_browser(page: str) -> None:
    """The last check before the browser, whoever calls."""
    with pytest.raises(PolicyError):
        open_page(page)


@pytest.mark.parametrize("page", HOSTILE_PAGES.values(), ids=HOSTILE_PAGES)
def test_g2_a_hostile_page_in_signed_data_is_refused(page: str) -> None:
    """A signed manifest with such a page is refused as a whole, or the page when it is to be opened."""
    hand_off = HandOff(bank={"en": "Bank"}, page="https://page.example/", steps={"en": "Go"}, sources=("made-up",))
    brand = msgspec.structs.replace(a_brand("acme", a_match(id_vendor=0x1234, id_product=1)), hand_off=hand_off)
    good = msgspec.json.encode(Manifest(keyfit=1, path=TARGET, system="linux", architecture="amd64", brands=(brand,)))
    assert decode_manifest(good, TARGET).brands[0].hand_off == hand_off
    data = good.replace(b'"https://page.example/"', json.dumps(page).encode())
    with pytest.raises((TrustError, PolicyError)):
        check_page(_page(decode_manifest(data, TARGET)))


def _page(manifest: Manifest) -> str:
    hand_off = manifest.brands[0].hand_off
    assert hand_off is not None
    return hand_off.page
