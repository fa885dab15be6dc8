"""A repository with 100 000 manifests as it would be after a year of publishing, made once and kept in build/bench.

500 brands with 12 000 devices in all are written as brand data and released by `keyfit-publish` itself; 8 platforms make
100 000 manifests of them. Then every hash bin gets one of the version numbers 1 to 1000 by chance, since sizes depend on
that: a snapshot in which all versions are 1 packs far better than a real one.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.common import CACHE, CHECKOUT

BRANDS = 500
DEVICES = 12_000
PLATFORMS = 8
ONE_DEVICE = "brand-0000"
"""A brand with a single device, whose change is the smallest that a release can have."""
DRIVERS = CACHE / "drivers"
AGE = 1000
SEED = 20_261_123
_WORDS = ("secure", "smart", "crypto", "pass", "key", "token", "sign", "cert", "guard", "safe", "trust", "vault")
_MAKERS = ("Shenzhen", "Beijing", "Chennai", "Milano", "Warszawa", "Istanbul", "Hong Kong", "Zürich")
_BRAND = """schema = 1
brand = "{brand}"
names = {{ en = "{name}", zh_CN = "{name} 数字证书" }}
vendor = "{vendor}"
sequence = {sequence}
status = "supported"

[sources]
page = "https://www.{brand}.example/drivers, read 23 November 2026"
usb-ids = "usb.ids, version of 26 July 2025 (linux-usb.org)"
debian12 = "Debian 12 packages pcscd 1.9.9-2 and libccid 1.5.2-1: file lists and Info.plist"

[[package]]
id = "pcscd"
component = "driver"
kind = "distribution"
name = "pcscd"
on = {{ system = "linux", distribution = ["debian", "ubuntu"] }}
sources = ["debian12"]

[[package]]
id = "{brand}-deb"
component = "module"
kind = "deb"
name = "{brand}"
version = "{version}"
file = "{brand}_{version}_amd64.deb"
payload = {{ file = "{brand}_{version}_amd64.deb", sha256 = "{deb}", length_bytes = {length} }}
on = {{ system = "linux", architecture = ["amd64"], distribution = ["debian", "ubuntu"] }}
sources = ["page"]

[[package]]
id = "{brand}-msi"
component = "module"
kind = "msi"
name = "{brand}"
version = "{version}"
file = "{brand}-{version}.msi"
payload = {{ file = "{brand}-{version}.msi", sha256 = "{msi}", length_bytes = {length} }}
on = {{ system = "windows" }}
sources = ["page"]
signature = {{ kind = "authenticode", subject = "CN={vendor},O={vendor},C=CN", issuer = "{issuer}", sources = ["page"] }}

[[package]]
id = "{brand}-pkg"
component = "module"
kind = "pkg"
name = "{brand}"
version = "{version}"
file = "{brand}-{version}.pkg"
payload = {{ file = "{brand}-{version}.pkg", sha256 = "{pkg}", length_bytes = {length} }}
on = {{ system = "macos" }}
sources = ["page"]
signature = {{ kind = "apple-developer", team_id = "{team}", sources = ["page"] }}

[[module]]
id = "{brand}"
name = "{name}"
path = "/usr/lib/{brand}/libpkcs11.so"
on = {{ system = "linux" }}
register = ["p11-kit", "firefox"]
sources = ["page"]
"""
_ISSUER = "CN=Example Trusted G4 Code Signing RSA4096 SHA384 2021 CA1,O=Example Inc.,C=US"
_MODEL = """
[[model]]
id = "model-{product:04x}"
name = "{name} {product:04X}"

[[model.match]]
id_vendor = 0x{vendor:04x}
id_product = 0x{product:04x}
sources = ["usb-ids"]
"""


def brand_text(number: int, sequence: int = 1) -> str:
    """A brand file. Same number, same text."""
    chance = random.Random(SEED + number)
    name = " ".join(chance.sample(_WORDS, 2)).title() + f" {chance.randrange(1000, 9999)}"
    vendor = f"{chance.choice(_MAKERS)} {chance.choice(_WORDS).title()} Technology Co. Ltd."
    length = chance.randrange(500_000, 40_000_000)
    version = f"{chance.randrange(1, 9)}.{chance.randrange(0, 20)}.{sequence}"

    def digest(kind: str) -> str:
        return hashlib.sha256(f"{number} {kind} {sequence}".encode()).hexdigest()

    team = "".join(chance.choices("ABCDEFGHJKLMNPQRSTUVWXYZ23456789", k=10))
    text = _BRAND.format(brand=f"brand-{number:04d}", name=name, vendor=vendor, sequence=sequence, version=version,
                         length=length, deb=digest("deb"), msi=digest("msi"), pkg=digest("pkg"), team=team, issuer=_ISSUER)
    ids = [(0x1000 + number, product) for product in range(1, _products(number) + 1)]
    return text + "".join(_MODEL.format(name=name, vendor=vendor_id, product=product) for vendor_id, product in ids)


def write_brand(drivers: Path, number: int, sequence: int = 1, **changes: str) -> None:
    """A brand's folder, with parts of its text replaced."""
    from keyfit.publisher.readme import HEADINGS

    folder = drivers / f"brand-{number:04d}"
    folder.mkdir(parents=True, exist_ok=True)
    text = brand_text(number, sequence)
    for old, new in changes.items():
        text = text.replace(old, new)
    (folder / "driver.toml").write_text(text)
    rows = "".join(f"| `{0x1000 + number:04x}:{product:04x}` | |\n" for product in range(1, _products(number) + 1))
    (folder / "README.md").write_text("# Brand\n\n" + "\n".join(f"## {heading}\n\n{rows}" for heading in HEADINGS))


def publish(*arguments: object) -> tuple[float, dict[str, Any]]:
    """Run `keyfit-publish`; seconds and its document."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "keyfit.publisher", *map(str, arguments), "--json"], capture_output=True,
                          text=True, check=False, cwd=CHECKOUT)
    seconds = time.perf_counter() - began
    if done.returncode != 0:
        raise SystemExit(f"keyfit-publish {arguments[0]} failed: {done.stdout[:3000]}{done.stderr[-3000:]}")
    document: dict[str, Any] = json.loads(done.stdout)
    return seconds, document["data"]


def build(*, fresh: bool = False) -> tuple[Path, dict[str, float]]:
    """(publisher's directory, seconds of the steps when it was made). Made if it is not there yet."""
    folder = CACHE / "repository"
    times = folder / "times.json"
    if times.exists() and not fresh:
        found: dict[str, float] = json.loads(times.read_text())
        return folder, found
    shutil.rmtree(folder, ignore_errors=True)
    for number in range(BRANDS):
        write_brand(DRIVERS, number)
    folder.mkdir(parents=True)
    measured: dict[str, float] = {}
    measured["init"], _ = publish("init", folder)
    measured["release"], data = publish("release", folder, "--drivers", DRIVERS)
    if data["targets"] != PLATFORMS * (BRANDS + DEVICES):
        raise SystemExit(f"expected {PLATFORMS * (BRANDS + DEVICES)} manifests, came {data['targets']}")
    measured["sign"] = age(folder)
    times.write_text(json.dumps(measured))
    return folder, measured


def age(folder: Path) -> float:
    """Sign every role anew, with the version numbers of a repository that is in its second year; seconds of signing and
    writing."""
    from keyfit.publisher.release import Workplace
    from keyfit.publisher.roles import is_bin

    chance = random.Random(SEED)
    work = Workplace(folder)
    with work.lock():
        draft = work.begin()
        versions = {"targets": 5, "drivers": 5, "app": 12}
        for role in [*work.repository.bin_names(), *versions]:
            signed = draft.edit(role)
            signed.version = chance.randrange(2, AGE) if is_bin(role) else versions[role]
        began = time.perf_counter()
        outcome = work.finish(draft, ["a year later"])
        seconds = time.perf_counter() - began
    if outcome.published is None:
        raise SystemExit("the repository could not be signed")
    return seconds


def some_target(chance: random.Random, platform: str = "") -> str:
    """A device's manifest, for any platform unless one is named."""
    from keyfit.publisher.compile import platforms

    number = chance.randrange(1, BRANDS)
    product = chance.randrange(1, _products(number) + 1)
    return f"usb/{0x1000 + number:04x}/{product:04x}-{platform or '-'.join(chance.choice(list(platforms())))}.json"


def _products(number: int) -> int:
    """How many devices a brand has: 24 on average, one of them a single one."""
    usual = DEVICES // BRANDS
    return {0: 1, 1: 2 * usual - 1}.get(number, usual)
