"""The site made from the real brand data, served on this machine, and a browser that looks at it."""

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyfit.model.catalog import Payload
from keyfit.publisher.brandfile import load_brands
from keyfit.publisher.site.branding import Branding
from keyfit.publisher.site.build import build
from keyfit.publisher.site.folder import fresh_folder, write
from keyfit.publisher.site.model import Program, Site

from .browser import Browser, started

DRIVERS = Path(__file__).parents[2] / "drivers"
PROGRAM = Program(file="keyfit-setup.exe", system="windows", address="download/keyfit-setup.exe", sha256="0f" * 32,
                  length_bytes=23_400_000)
PAYLOAD = Payload(file="libacsccid1_1.1.8-1_amd64.deb", sha256="a1" * 32, length_bytes=91_234)


@pytest.fixture(scope="session")
def site_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site") / "www"
    branding = Branding(name={"en": "Example Bank", "zh_CN": "示例银行"}, contact="https://help.example.com/",
                        repository="https://keyfit.example.com/",
                        forms={"icbc-feitian": "stick-display"})
    site = Site(brands=load_brands(DRIVERS), payloads={("acs-cryptomate", "libacsccid1-deb"): PAYLOAD},
                programs=(PROGRAM,), branding=branding)
    with fresh_folder(out) as folder:
        write(folder, PROGRAM.address, b"MZ")
        for name, data in build(site):
            write(folder, name, data)
    return out


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="session")
def site(site_folder: Path) -> Iterator[str]:
    """Address of the site, with a slash at the end."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(site_folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="session")
def _chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with started(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture
def browser(_chromium: Browser) -> Browser:
    """A desktop screen in light mode, on an empty page, with nothing in the console."""
    _chromium.go("about:blank")
    _chromium.screen()
    _chromium.complaints()
    return _chromium
