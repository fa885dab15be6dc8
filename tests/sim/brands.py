"""Made-up brands and devices for tests. The ids are of no real product."""

from typing import Any

from keyfit.model.catalog import Brand, Condition, HandOff, Match, Model, Package, Payload, Pkcs11Module
from keyfit.model.host import HostFacts
from keyfit.model.usb import UsbDevice, UsbInterface

LINUX = Condition(system="linux")
SOURCES = ("made-up",)


def a_match(**fields: Any) -> Match:
    """A match with a source; ids are given by the test."""
    return Match(sources=SOURCES, **fields)


def a_brand(name: str = "acme", *matches: Match, **fields: Any) -> Brand:
    """A brand with one model that has the given matches."""
    fields.setdefault("model", (Model(id="one", name=f"{name} One", match=matches),))
    return Brand(schema=1, brand=name, names={"en": name.title()}, vendor=f"{name.title()} Ltd.", sequence=1,
                 status=fields.pop("status", "supported"), sources={"made-up": "a test"}, **fields)


def a_package(name: str, kind: str = "distribution", **fields: Any) -> Package:
    """A driver package; file kinds get a payload."""
    if kind != "distribution":
        fields.setdefault("payload", Payload(file=f"{name}.{kind}", sha256="0" * 64, length_bytes=10))
    return Package(id=fields.pop("id", f"{name}-{kind}"), component=fields.pop("component", "driver"), kind=kind,  # type: ignore[arg-type]
                   on=fields.pop("on", LINUX), name=name, sources=SOURCES, **fields)


def a_module(path: str = "/usr/lib/acme.so", **fields: Any) -> Pkcs11Module:
    """A PKCS#11 module registered everywhere."""
    fields.setdefault("register", ("p11-kit", "firefox", "chromium"))
    return Pkcs11Module(id="acme", name="Acme", path=path, on=LINUX, sources=SOURCES, **fields)


def a_hand_off(page: str = "https://www.example.com/certificate") -> HandOff:
    """A bank's page."""
    return HandOff(bank={"en": "Example Bank"}, page=page, steps={"en": "Services, then certificate"}, sources=SOURCES)


def facts(**fields: Any) -> HostFacts:
    """A Debian 12 machine that runs, as root."""
    given: dict[str, Any] = {
        "machine": "m", "root": "/", "system": "linux", "architecture": "amd64", "distribution": "debian",
        "version": "12", "package_managers": ("apt", "dpkg"), "elevated": True, "running_services": True, **fields}
    return HostFacts(**given)


def a_device(id_vendor: int = 0x1234, id_product: int = 0x0001, *, classes: tuple[int, ...] = (0x0B,),
             **fields: Any) -> UsbDevice:
    """A device with one interface per class."""
    interfaces = tuple(
        UsbInterface(b_interface_number=n, b_interface_class=c, b_interface_sub_class=0, b_interface_protocol=0)
        for n, c in enumerate(classes))
    return UsbDevice(id_vendor=id_vendor, id_product=id_product, bcd_device=fields.pop("bcd_device", 0x0100),
                     bus_path=fields.pop("bus_path", "1-1"), interfaces=interfaces, **fields)
