"""Good inputs to begin from, made of the project's own data, and the found cases that are kept in `corpus`."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import msgspec

from keyfit.core import ccidlist
from keyfit.model.catalog import Grant, Manifest
from tests.fuzz.targets import GRANT, MANIFEST
from tests.sim import archivetable
from tests.sim.brands import a_brand, a_match
from tests.sim.usbrecords import descriptors, load_records

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CORPUS = HERE / "corpus"
"""Folder of a target's name -> inputs that once failed, or that lead far into the code."""
MAX_SEED_BYTES = 16_384

_REQUESTS = (
    {"type": "install", "brand": "acme", "sequence": 7, "plan": "0" * 64, "part": "all", "model": "", "device":
     {"id_vendor": 0x96E, "id_product": 0x807, "bcd_device": 1, "smart_card": True}, "by_device": True, "source": "repository"},
    {"type": "uninstall", "brand": "acme"}, {"type": "repair", "brand": None, "source": "kit"}, {"type": "recover"})
_INF = b'''; made up
[Version]
Signature="$Windows NT$"
Class=SmartCardReader
ClassGuid={50DD5230-BA8A-11D1-BF5D-0000F805F530}
Provider=%Maker%
CatalogFile=one.cat
DriverVer=11/25/2026,1.0.0.0
[Manufacturer]
%Maker%=Models,NTamd64
[Models.NTamd64]
"A ""quoted"" name" = Install, \\
  USB\\VID_1234&PID_0001
[Strings]
Maker="Maker; with a semicolon"
'''
_PAGES = ("https://bank.example/", "https://e-bank.bank.example/token/activate?step=1&lang=zh_CN#top",
          "https://xn--bcher-kva.example/", "https://bank.example\\@evil.example/", "https://bank.example:443/")
_STRINGS = ("ePass2003", "Schlu\u0308ssel", "\u9374" * 20, "a\u202egnp", "\x1b]0;x\x07", "e" + "\u0301" * 40, "a\ud800b")


def seeds(target: str) -> Iterator[bytes]:
    """Inputs for a target, small ones only."""
    for data in _MADE.get(target, _nothing)():
        if len(data) <= MAX_SEED_BYTES:
            yield data
    for path in sorted((CORPUS / target).glob("*")):
        yield path.read_bytes()


def _nothing() -> Iterator[bytes]:
    return iter(())


def _json_requests() -> Iterator[bytes]:
    yield from (json.dumps(each).encode() for each in _REQUESTS)


def _framed() -> Iterator[bytes]:
    yield from (struct.pack(">cI", b"M", len(data)) + data for data in _json_requests())


def _manifests() -> Iterator[bytes]:
    yield msgspec.json.encode(Manifest(keyfit=1, path=MANIFEST, system="linux", architecture="amd64",
                                       brands=(a_brand("acme", a_match(id_vendor=0x1234, id_product=1)),)))


def _grants() -> Iterator[bytes]:
    yield msgspec.json.encode(Grant(keyfit=1, path=GRANT, brand="acme"))


def _archives() -> Iterator[bytes]:
    yield from archivetable.good_archives().values()
    yield from (data for name, (data, _) in archivetable.table().items() if "name:" not in name)


def _tars() -> Iterator[bytes]:
    yield from (data for data in _archives() if data[257:262] == b"ustar")


def _descriptors() -> Iterator[bytes]:
    yield from (descriptors(record, serial=True) for record in load_records()[:20])


def _ccid_lists() -> Iterator[bytes]:
    arrays = "".join(f"\n\t<key>{key}</key>\n\t<array>\n" + "".join(f"\t\t<string>{value}</string>\n" for value in values)
                     + "\t</array>" for key, values in zip(ccidlist.KEYS, (("0x08E6", "0x096E"), ("0x3437", "0x0807"),
                                                                              ("Gem &amp; Co", "Feitian ePass")), strict=True))
    plist = f'<?xml version="1.0"?>\n<!-- x -->\n<plist version="1.0">\n<dict>{arrays}\n</dict>\n</plist>\n'.encode()
    yield plist
    yield plist.replace(b"\n", b"\r\n")
    yield plist.replace(b"</array>", b"")
    yield b"".join(b"<key>%s</key><string>0x1</string>\n" % key.encode() for key in ccidlist.KEYS)


def _brands() -> Iterator[bytes]:
    yield from sorted((path.read_bytes() for path in (ROOT / "drivers").glob("*/driver.toml")), key=len)[:12]


def _infs() -> Iterator[bytes]:
    yield _INF
    yield b"\xff\xfe" + _INF.decode().encode("utf-16-le")


def _reports() -> Iterator[bytes]:
    """Those of the recordings."""
    for data in _recordings():
        for device in json.loads(data)["devices"]:
            yield from (json.dumps(report).encode() for report in device.get("modules", {}).values())


def _recordings() -> Iterator[bytes]:
    yield from (path.read_bytes() for path in sorted((ROOT / "tests/data/recordings").glob("*.json")))


def _texts() -> Iterator[bytes]:
    yield from (each.encode("utf-16-le", "surrogatepass") for each in _STRINGS)


def _pages() -> Iterator[bytes]:
    yield from (each.encode() for each in _PAGES)


_MADE = {
    "request": _framed, "json_request": _json_requests, "manifest": _manifests, "grant": _grants, "archive": _archives,
    "archive_names": _archives, "archive_repaired": _tars, "usb_descriptors": _descriptors, "ccid_list": _ccid_lists,
    "driver_toml": _brands, "inf": _infs, "module_report": _reports, "recording": _recordings, "text": _texts, "page": _pages}
