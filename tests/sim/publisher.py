"""A publisher's directory in a test: brand data of one brand, and `keyfit-publish` commands run in this process."""

import json
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

from keyfit.publisher.cli import run
from keyfit.publisher.readme import HEADINGS
from keyfit.trust.repository import TufRepository
from tests.sim.debfile import deb_file
from tests.sim.repository import IMPATIENT

BRAND_TOML = """
schema = 1
brand = "acme"
vendor = "Acme Ltd."
sequence = {sequence}
status = "supported"

[names]
en = "Acme"

[sources]
page = "https://www.example.com/, read 2026-11-23"

[[model]]
id = "one"
name = "Acme One"
[[model.match]]
id_vendor = 0x1234
id_product = 0x0001
sources = ["page"]
"""
"""A brand with one model, before its packages."""
PACKAGE_TOML = """
[[package]]
id = "acme-deb"
component = "driver"
kind = "deb"
name = "acme"
file = "acme_1.0_amd64.deb"
sources = ["page"]
on = {{ system = "linux", architecture = ["amd64"] }}
"""
README = "# Acme\n\n" + "\n".join(f"## {heading}\n\n| `1234:0001` | One |\n" for heading in HEADINGS)
HAND_OFF = """
[[hand_off]]
brands = ["acme"]
page = "https://www.example.com/certificate"
bank = { en = "Example Bank" }
steps = { en = "Log in and choose certificate." }
"""
DEB = deb_file("acme", files={"./usr/lib/acme.so": random.Random(1).randbytes(100_000)})
TARGET = "usb/1234/0001-linux-amd64.json"

_TEMPLATES = tempfile.TemporaryDirectory(prefix="keyfit-publisher-")
_MADE: dict[tuple[str, ...], tuple[Path, dict[str, Any]]] = {}


class Publisher:
    """A directory, brand data beside it, and the commands on them."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.folder = folder / "publisher"
        self.drivers = folder / "drivers"
        self.package = folder / "acme_1.0_amd64.deb"
        self.package.write_bytes(DEB)
        self.hand_off = folder / "hand-off.toml"
        self.hand_off.write_text(HAND_OFF)
        self._capture = capture
        self.write_brand()

    def write_brand(self, sequence: int = 1, brand: str = "acme", product: str = "0x0001", **changes: str) -> None:
        text = (BRAND_TOML + PACKAGE_TOML).format(sequence=sequence).replace("acme", brand).replace("0x0001", product)
        for old, new in changes.items():
            text = text.replace(old, new)
        (self.drivers / brand).mkdir(parents=True, exist_ok=True)
        (self.drivers / brand / "driver.toml").write_text(text)
        (self.drivers / brand / "README.md").write_text(README.replace("1234:0001", f"1234:{product[2:]}"))

    def __call__(self, *arguments: object, expect: int = 0) -> dict[str, Any]:
        """Run a command with --json; its document."""
        self._capture.readouterr()
        code = run(["--json", *map(str, arguments)])
        output = self._capture.readouterr()
        document: dict[str, Any] = json.loads(output.out)
        assert (code, document["exit_code"], output.err) == (expect, expect, ""), document
        assert document["keyfit"] == 1
        return document

    def init(self, *options: str) -> dict[str, Any]:
        """Make the directory. Two thousand signatures take a second, so equal ones are made once and copied: the keys are
        throw-away anyway."""
        if any(option.startswith(("--key", "--encrypt", "--pass", "--hybrid")) for option in options):
            return self("init", self.folder, *options)
        if options not in _MADE:
            template = Path(_TEMPLATES.name) / str(len(_MADE))
            _MADE[options] = template, self("init", template, *options)
        template, document = _MADE[options]
        shutil.copytree(template, self.folder)
        return document

    def add(self, file: Path | None = None, expect: int = 0) -> dict[str, Any]:
        return self("add", self.folder, "acme", file or self.package, "--drivers", self.drivers, expect=expect)

    def release(self, *options: object, expect: int = 0) -> dict[str, Any]:
        return self("release", self.folder, "--drivers", self.drivers, *options, expect=expect)

    def client(self, folder: Path, url: str = "") -> TufRepository:
        repository = self.folder / "repository"
        root = (repository / "metadata" / "1.root.json").read_bytes()
        return TufRepository(urls=[url or repository.as_uri()], trusted_root=root, metadata_dir=folder / "metadata",
                             cache_dir=folder / "payloads", limits=IMPATIENT)

    def root(self, version: int = 1) -> bytes:
        """A root of the served repository."""
        return (self.folder / "repository" / "metadata" / f"{version}.root.json").read_bytes()

    def metadata(self) -> dict[str, bytes]:
        folder = self.folder / "repository" / "metadata"
        return {path.name: path.read_bytes() for path in folder.iterdir()}
