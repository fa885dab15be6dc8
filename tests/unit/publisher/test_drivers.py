"""The brands that Keyfit ships: sound, linted, and naming recorded devices rightly or not at all."""

import json
from functools import cache
from pathlib import Path

import pytest

from keyfit.core.match import MatchIndex
from keyfit.core.text import clean
from keyfit.model.catalog import Brand
from keyfit.model.usb import CLASS_MASS_STORAGE, CLASS_SMART_CARD, UsbDevice, UsbInterface
from keyfit.publisher.brandfile import load_brands
from keyfit.publisher.compile import claimed_ids
from keyfit.publisher.lint import lint
from tests.sim.usbrecords import corpus_path

DRIVERS = Path(__file__).parents[3] / "drivers"
ICBC_SUPPLIERS = ("minghua", "huahong", "tendyron", "goldpac", "icbc-giesecke-devrient", "icbc-feitian")
SHARED_VENDORS = {0x04B4, 0x05E3, 0x055C, 0x03EB, 0x0403, 0x0483}
"""Vendor ids of chip makers or of companies whose ids others use."""


@cache
def brands() -> dict[str, Brand]:
    return {brand.brand: brand for brand in load_brands(DRIVERS)}


@cache
def index() -> MatchIndex:
    return MatchIndex(brands().values())


def device(ids: str, manufacturer: str = "", product: str = "",
           classes: tuple[int, ...] = (CLASS_SMART_CARD,)) -> UsbDevice:
    vendor, product_id = ids.split(":")
    return UsbDevice(id_vendor=int(vendor, 16), id_product=int(product_id, 16), bcd_device=0x0100,
                     manufacturer=manufacturer, product=product, interfaces=tuple(
                         UsbInterface(b_interface_number=n, b_interface_class=c, b_interface_sub_class=0,
                                      b_interface_protocol=0) for n, c in enumerate(classes)))


def named(what: UsbDevice) -> str | None:
    decision = index().decide(what)
    assert not decision.tied
    return decision.brand.brand if decision.brand else None


def test_b1_the_linter_has_nothing_to_say_but_that_signers_are_not_known_yet() -> None:
    """B1: no package for Windows or macOS is shipped, and none could be added before its signer is named."""
    said = [str(problem) for problem in lint(tuple(brands().values()), DRIVERS)]
    files = [package for brand in brands().values() for package in brand.package
             if package.on.system != "linux" and package.signature is None]

    assert [text for text in said if "warning" not in text or "expected a signature that names who signs" not in text] == []
    assert len(said) == len(files)
    assert all(package.payload is None for package in files)


@pytest.mark.parametrize(("ids", "manufacturer", "product", "brand"), [
    ("096e:0807", "FS", "USB Token", "feitian-epass2003"),
    ("096e:0807", "HYPERSECU", "USB TOKEN", "hyperpki"),
    ("096e:080a", "FT", "ePass2003Auto", "feitian-epass2003"),
    ("096e:080a", "HYPERSECU", "USB TOKEN", "hyperpki"),
    ("096e:0608", "~Avtor", "SC Reader KP382", None),
    ("096e:060d", "Feitian", "R502", None),
    ("2ccf:080a", "", "", "hyperpki"),
    ("163c:0407", "Watchdata", "USB Key", "watchdata"),
    ("1ea8:8013", "Excelsecu", "Card reader", "excelsecu"),
    ("1ea8:800f", "TOKEN2", "Molto2", "token2"),
    ("0a89:0030", "Aktiv", "Rutoken ECP", "rutoken"),
    ("0a89:0069", "Aktiv", "Rutoken SCR 3001 Reader", None),
    ("0529:0620", "Aladdin", "Token JC", "safenet-etoken"),
    ("0529:0620", "SafeNet", "Token JC", "safenet-etoken"),
    ("072f:b200", "", "", "acs-cryptomate"),
    ("072f:9006", "", "", "acs-cryptomate"),
    ("072f:2200", "ACS", "ACR122U PICC Interface", None),
    ("0c4b:0580", "REINER SCT", "cyberJack one", "reiner-sct-cyberjack"),
    ("1050:0407", "Yubico", "YubiKey OTP+FIDO+CCID", "yubikey"),
    ("1050:0407", "Yubico", "Yubikey 4 OTP+U2F+CCID", "yubikey"),
    ("20a0:4109", "Nitrokey", "Nitrokey Storage", "nitrokey"),
    ("20a0:42d4", "Canokeys", "Canokey", "canokeys"),
    ("08e6:3437", "Gemalto", "USB SmartCard Reader", None),
    ("04b4:1234", "", "", None),
    ("055c:0223", "Longmai", "mToken CryptoIDA", "longmai"),
    ("055c:0223", "Proton", "Dongle", None),
    ("0483:a389", "Dexon Tecnologias Digitais LTDA", "DXToken", "dexon"),
    ("0483:a389", "STMicroelectronics", "Virtual COM Port", None),
])
def test_a_device_is_named_rightly_or_not_at_all(ids: str, manufacturer: str, product: str, brand: str | None) -> None:
    assert named(device(ids, manufacturer, product)) == brand


def test_a_token_that_shows_a_disc_is_named_too() -> None:
    assert named(device("096e:080a", classes=(CLASS_MASS_STORAGE,))) == "feitian-epass2003"
    assert named(device("055c:db08", "Longmai Technologies", "Longmai mToken", (CLASS_MASS_STORAGE,))) == "longmai-gm3000"


def test_an_unknown_smart_card_device_gets_the_class_driver_and_no_brand() -> None:
    decision = index().decide(device("ffff:0001", "Nobody", "Reader"))

    assert decision.brand is None
    assert decision.chosen is not None
    assert decision.chosen.brand.class_driver


def test_no_brand_claims_a_vendor_as_a_whole_and_shared_vendors_need_strings() -> None:
    for brand in brands().values():
        for match in (match for model in brand.model for match in model.match):
            assert brand.class_driver or match.id_product is not None, brand.brand
            if match.id_vendor in SHARED_VENDORS:
                assert match.product is not None, f"{brand.brand}: {match.id_vendor:04x}:{match.id_product:04x}"


def test_a_brand_without_ids_is_listed_and_reached_by_its_name() -> None:
    for brand in brands().values():
        if not brand.class_driver and not list(claimed_ids(brand)):
            assert brand.status == "listed", brand.brand
            assert brand.model, brand.brand


@pytest.mark.parametrize("name", ICBC_SUPPLIERS)
def test_suppliers_of_icbc_speak_chinese_and_want_the_driver_before_the_token(name: str) -> None:
    brand = brands()[name]

    assert "zh_CN" in brand.names
    assert brand.insert_order == "unplug-before-install"
    assert brand.pin is not None
    assert (brand.pin.min_length, brand.pin.max_length) == (6, 8)
    assert brand.hand_off is not None
    assert set(brand.hand_off.lost) == {"en", "zh_CN"}


def test_acs_comes_from_the_archives_first_and_from_a_file_second() -> None:
    ways = [p for p in brands()["acs-cryptomate"].package if p.name == "libacsccid1"]

    assert [(p.kind, p.file) for p in ways] == [("distribution", None), ("deb", "libacsccid1_1.1.8-1_amd64.deb")]


def test_recorded_readers_and_keyboards_are_not_named_as_tokens_of_a_brand() -> None:
    lines = corpus_path().read_text(encoding="utf-8").splitlines()
    wrong = []
    for record in map(json.loads, lines):
        what = device(f"{record['vid']}:{record['pid']}", clean(record["manufacturer"] or ""),
                      clean(record["product"] or ""), tuple(i["class"] for i in record["interfaces"]))
        brand = named(what)
        # cyberJack devices are readers that need a driver of their own; the two others are tokens called readers
        if record["kind"] != "token" and brand not in (None, "reiner-sct-cyberjack", "excelsecu", "dexon"):
            wrong.append((what.ids, what.product, brand))
    assert wrong == []
    assert named(device("096e:0505", "Feitian Technologies", "FT SCR310")) is None
