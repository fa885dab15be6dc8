"""Plans with one step of every kind, and the machine that they are for."""

import hashlib
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

from keyfit.model.catalog import Payload
from keyfit.model.plan import (
    Archive,
    CcidListLine,
    Change,
    DistributionPackages,
    FirefoxPolicy,
    KernelModuleBlacklistFile,
    NssModule,
    P11KitModule,
    PackageFile,
    Plan,
    ServiceState,
    Step,
    UdevRuleFile,
)
from tests.sim.host import FACTS, SimHost
from tests.sim.packages import SimPackage

CCID_LIST = "/etc/libccid_Info.plist"
BUNDLE_LIST = "/usr/lib/pcsc/drivers/ifd-ccid.bundle/Contents/Info.plist"
POLICIES = "/etc/firefox/policies/policies.json"
LIST = b"""<dict>
\t<key>ifdVendorID</key>
\t<array>
\t\t<string>0x08E6</string>
\t</array>
\t<key>ifdProductID</key>
\t<array>
\t\t<string>0x3437</string>
\t</array>
\t<key>ifdFriendlyName</key>
\t<array>
\t\t<string>Gemalto PC Twin Reader</string>
\t</array>
</dict>
"""
DRIVER = SimPackage(name="libdriver1", version="2.0", files={"/usr/lib/driver.so": "elf"})
NEWER_DRIVER = SimPackage(name="libdriver1", version="3.0", files={"/usr/lib/driver.so": "newer elf", "/usr/lib/acme/new": "elf"})


def payload(file: str, data: bytes) -> Payload:
    """The signed description of some bytes."""
    return Payload(file=file, sha256=hashlib.sha256(data).hexdigest(), length_bytes=len(data))


def tar(**files: str) -> bytes:
    """A .tar.gz with these files; dots in names are written as `__`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(name.replace("__", "."))
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


ARCHIVE = tar(module__so="elf", readme="text")
PAYLOADS = {hashlib.sha256(data).hexdigest(): data for data in (DRIVER.deb(), NEWER_DRIVER.deb(), ARCHIVE)}


def changes(brand: str = "acme") -> tuple[Change, ...]:
    """One change of every kind."""
    module = f"/opt/keyfit/brands/{brand}/module/module.so"
    return (
        DistributionPackages(manager="apt", names=("pcscd", "libccid")),
        PackageFile(format="deb", name="libdriver1", version="2.0", payload=payload("d.deb", DRIVER.deb())),
        Archive(payload=payload("m.tar.gz", ARCHIVE), prefix=f"/opt/keyfit/brands/{brand}/module",
                files=("module.so", "readme")),
        UdevRuleFile(path=f"/etc/udev/rules.d/70-keyfit-{brand}-hid.rules", subsystem="hidraw", id_vendor=0x1EA8,
                     id_product=0x8013),
        CcidListLine(path=CCID_LIST, id_vendor=0x1EA8, id_product=0x8013, friendly_name="ACME Token"),
        KernelModuleBlacklistFile(path=f"/etc/modprobe.d/keyfit-{brand}-nfc.conf", modules=("nfc", "pn533")),
        ServiceState(unit="pcscd.socket"),
        P11KitModule(path=f"/etc/pkcs11/modules/keyfit-{brand}.module", module=module),
        FirefoxPolicy(path=POLICIES, name="ACME", module=module),
        NssModule(database=".pki/nssdb", name="ACME", module=module),
    )


def plan(*wanted: Change, brand: str = "acme", needs: tuple[str, ...] = ()) -> Plan:
    """A plan of these changes, in order."""
    steps = tuple(Step(id=f"step-{number}", action=f"do {number}", reason="why", undo=f"undo {number}", elevated=True,
                       size_bytes=0, change=change) for number, change in enumerate(wanted))
    return Plan(id="0" * 64, brand=brand, brand_name=brand.title(), vendor="Vendor", model="Model", device="",
                target=f"brand/{brand}/linux-amd64.json", sequence=1, host=FACTS, steps=steps, waits=(), restart=False,
                blocked=(), satisfied=(), needs=needs, modules=(), handoff=None)


def machine(host: SimHost) -> SimHost:
    """Fill a host: a list of readers, an administrator's Firefox policies, archives to install from, a stopped socket."""
    host.offer(SimPackage(name="libpcsclite1"), SimPackage(name="pcscd", depends=("libpcsclite1",)),
               SimPackage(name="libccid"))
    host.put(CCID_LIST, LIST)
    host.link(BUNDLE_LIST, CCID_LIST)
    host.put(POLICIES, b'{\n    "policies": {\n        "DisableTelemetry": true\n    }\n}\n')
    host.units["pcscd.socket"] = [False, False]
    host.units["pcscd.service"] = [True, False]
    return host


def fetcher(folder: Path) -> Callable[[Payload], Path]:
    """Gives the payloads of these plans as files."""

    def fetch(wanted: Payload) -> Path:
        path = folder / wanted.file
        path.write_bytes(PAYLOADS[wanted.sha256])
        return path

    return fetch
