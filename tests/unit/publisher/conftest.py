"""A small brand on disk, sound in every respect, for stories that break one thing of it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from keyfit.model.catalog import Brand, Payload
from keyfit.publisher.compile import with_files
from keyfit.publisher.state import BrandState

DRIVER = '''schema = 1
brand = "acme"
names = { en = "Acme", zh_CN = "阿克米" }
vendor = "Acme Ltd"
sequence = 1
status = "supported"

[sources]
dump = "a recorded device"
archive = "a package's file list"

[[model]]
id = "one"
name = "Acme One"
packages = ["acme-deb", "pcscd"]
patches = ["one"]

[[model.match]]
id_vendor = 0x1234
id_product = 0x0001
b_interface_class = 0x0b
manufacturer = "Acme"
sources = ["dump"]

[[model]]
id = "two"
name = "Acme Two"
packages = ["pcscd"]

[[model.match]]
id_vendor = 0x1234
id_product = 0x0002
bcd_device_min = 0x0100
bcd_device_max = 0x0200
sources = ["dump"]

[[package]]
id = "pcscd"
component = "driver"
kind = "distribution"
name = "pcscd"
on = { system = "linux" }
sources = ["archive"]

[[package]]
id = "acme-deb"
component = "module"
kind = "deb"
name = "acme-module"
on = { system = "linux", architecture = ["amd64"] }
file = "acme_1_amd64.deb"
sources = ["archive"]

[[module]]
id = "acme-module"
name = "Acme"
path = "/usr/lib/acme.so"
on = { system = "linux", architecture = ["amd64"] }
sources = ["archive"]

[[patch]]
kind = "ccid-list-entry"
id = "one"
id_vendor = 0x1234
id_product = 0x0001
friendly_name = "Acme One"
on = { system = "linux" }
reason = { en = "not listed", zh_CN = "未列出" }
sources = ["dump"]

[hand_off]
page = "https://bank.example/certificates"
bank = { en = "Bank", zh_CN = "银行" }
steps = { en = "Click", zh_CN = "点击" }
sources = ["dump"]
'''
README = """# Acme

## Introduction

## USB IDs

| id | product |
| --- | --- |
| `1234:0001` | One |
| `1234:0002` | Two |

## Packages

## Privileges

## Known problems

## Sources
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a brand: write(old, new, ...) replaces text of the sound file; returns the folder of brands."""

    def write_brand(*changes: str, folder: str = "acme", readme: str = README, before: str = DRIVER) -> Path:
        text = before
        for old, new in zip(changes[::2], changes[1::2], strict=True):
            assert old in text, f"{old!r} is not in the sound file"
            text = text.replace(old, new)
        place = tmp_path / "drivers" / folder
        place.mkdir(parents=True, exist_ok=True)
        (place / "driver.toml").write_text(text, encoding="utf-8")
        (place / "README.md").write_text(readme, encoding="utf-8")
        return place.parent

    return write_brand


def as_new(brands: Sequence[Brand], payloads: Mapping[tuple[str, str], Payload]) -> list[BrandState]:
    """Brands as a first release has them."""
    return [BrandState(brand=brand.brand, main=brand, highest=brand.sequence) for brand in with_files(brands, payloads)]
