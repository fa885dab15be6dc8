"""Every recorded device on a faked bus, seen by the program that users run: exact, and named right or not at all."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.sim.mockbus import MockBus
from tests.sim.usbrecords import UsbRecord, corpus_path, load_records

NAMED = Path(__file__).parents[1] / "data" / "usb" / "named.tsv"


@pytest.fixture(scope="module")
def records() -> tuple[UsbRecord, ...]:
    return load_records(corpus_path())


@pytest.fixture(scope="module")
def seen(records: tuple[UsbRecord, ...]) -> list[tuple[UsbRecord, dict[str, Any]]]:
    """Each record beside what `keyfit devices` says of it, all of them plugged in at once."""
    with MockBus() as bus:
        where = {bus.add(record, strings=False).name: record for record in records}
        done = bus.run([sys.executable, "-m", "keyfit", "devices", "--all", "--explain", "--json"], check=True)
    devices = {d["bus_path"]: d for d in json.loads(done.stdout)["data"]["devices"]}
    assert devices.keys() == where.keys()
    return [(record, devices[path]) for path, record in where.items()]


def test_every_device_is_seen_exactly(seen: list[tuple[UsbRecord, dict[str, Any]]]) -> None:
    for record, device in seen:
        assert (device["id_vendor"], device["id_product"], device["bcd_device"]) == (
            record.id_vendor, record.id_product, record.bcd_device)
        assert device["manufacturer"] == " ".join((record.manufacturer or "").split()), record.source
        assert device["product"] == " ".join((record.product or "").split()), record.source
        interfaces = [(i["b_interface_number"], i["b_interface_class"], i["b_interface_sub_class"],
                       i["b_interface_protocol"]) for i in device["interfaces"]]
        assert interfaces == sorted({(i.b_interface_number, i.b_interface_class, i.b_interface_sub_class,
                                      i.b_interface_protocol) for i in record.interfaces}), record.source


def test_every_device_is_named_right_or_not_at_all(seen: list[tuple[UsbRecord, dict[str, Any]]]) -> None:
    with NAMED.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    brands = {(r["ids"], r["manufacturer"], r["product"]): r["brand"] for r in rows}
    own = corpus_path().parent == NAMED.parent
    for record, device in seen:
        key = (record.ids, record.manufacturer or "", record.product or "")
        if own or key in brands:
            assert device["brand"] == brands.get(key), key


def test_every_choice_is_explained(seen: list[tuple[UsbRecord, dict[str, Any]]]) -> None:
    for _, device in seen:
        ranks = [c["rank"] for c in device["candidates"]]
        assert ranks == sorted(ranks, reverse=True)
        assert all(c["reason"] for c in device["candidates"])
        assert sum(c["chosen"] for c in device["candidates"]) <= 1
