"""`keyfit-publish site` from an empty directory to files that a web server can serve, and everything that can go wrong."""

import hashlib
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from keyfit.publisher.site.folder import MARKER
from tests.sim.publisher import DEB, HAND_OFF, Publisher
from tests.site.htmlpage import Html

BRANDING = """
contact = "https://help.example.com/"
repository = "https://keyfit.example.com/"
logo = "logo.svg"
[name]
en = "Example Bank"
zh_CN = "示例银行"
"""
SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><rect width="9" height="9"/></svg>'


@pytest.fixture
def publisher(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Publisher:
    publisher = Publisher(tmp_path, capsys)
    publisher.init()
    return publisher


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "www"


def make(publisher: Publisher, out: Path, *options: object, expect: int = 0) -> dict[str, Any]:
    return publisher("site", publisher.folder, "--drivers", publisher.drivers, "--out", out, *options, expect=expect)


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def page(out: Path, name: str) -> Html:
    return Html((out / name).read_text("utf-8"))


def test_from_empty_directory_to_a_site(publisher: Publisher, out: Path, tmp_path: Path) -> None:
    """All options at once; the document says what the files say."""
    publisher.add()
    publisher.release()
    (tmp_path / "branding.toml").write_text(BRANDING, "utf-8")
    (tmp_path / "logo.svg").write_text(SVG)
    (tmp_path / "keyfit-setup.exe").write_bytes(b"MZ" + b"x" * 5000)
    (tmp_path / "keyfit.deb").write_bytes(b"!<arch>")

    document = make(publisher, out, "--branding", tmp_path / "branding.toml", "--program", tmp_path / "keyfit-setup.exe",
                    "--program", f"{tmp_path}/keyfit.deb=https://cdn.example.com/keyfit.deb", "--base-url",
                    "https://www.example.com", "--hand-off", publisher.hand_off)

    data, made = document["data"], files(out)
    assert document["messages"][0]["text"] == f"Made {data['pages']} pages about 1 brands in {out}."
    assert data["pages"] == sum(name.endswith(".html") for name in made)
    assert data["files"] == len(made) - len([MARKER])
    assert data["size_bytes"] == sum(len(content) for name, content in made.items() if name != MARKER)
    setup, deb = data["programs"]
    assert setup["sha256"] == hashlib.sha256(made["download/keyfit-setup.exe"]).hexdigest()
    assert deb["address"] == "https://cdn.example.com/keyfit.deb"
    assert "download/keyfit.deb" not in made
    brand = page(out, "en/brand/acme.html")
    assert hashlib.sha256(DEB).hexdigest() in brand.text
    assert "https://www.example.com/certificate" in brand.values("href")
    assert made["assets/logo.svg"].decode() == SVG
    assert "示例银行" in page(out, "zh/index.html").one("title").text
    assert "https://www.example.com/en/check.html" in made["sitemap.xml"].decode()


def test_the_plan_on_the_page_follows_the_files_that_were_added(publisher: Publisher, out: Path) -> None:
    make(publisher, out)
    before = page(out, "en/id/1234-0001.html").text
    publisher.add()
    make(publisher, out)
    after = page(out, "en/id/1234-0001.html").text

    assert "Nothing to install here" in before
    assert "Installs the package acme from this publisher's signed repository." in after


def test_a5_a_revoked_file_is_named_and_no_longer_offered(publisher: Publisher, out: Path) -> None:
    """A5."""
    added = publisher.add()["data"]["payload"]
    publisher.release()
    publisher("revoke", publisher.folder, "acme", "--sha256", added["sha256"], "--reason", "en=It stops the computer",
              "--reason", "zh_CN=会导致死机")

    make(publisher, out)

    brand = page(out, "en/brand/acme.html").text
    assert f"the file with the SHA-256 {added['sha256']}: It stops the computer" in brand
    assert "会导致死机" in page(out, "zh/brand/acme.html").text
    assert "Nothing to install here" in brand
    assert added["sha256"] not in page(out, "en/check.html").text


def test_a5_a_revoked_version_says_so_until_a_newer_one_is_there(publisher: Publisher, out: Path) -> None:
    """A5."""
    publisher.add()
    publisher.release()
    publisher("revoke", publisher.folder, "acme", "--sequence", 1, "--reason", "en=It stops the computer")

    make(publisher, out)
    assert "Withdrawn for now" in page(out, "en/brand/acme.html").text

    publisher.write_brand(sequence=2)
    make(publisher, out)
    assert "Withdrawn for now" not in page(out, "en/brand/acme.html").text


def test_the_same_input_gives_the_same_files(publisher: Publisher, out: Path, tmp_path: Path) -> None:
    """In another process with another hash seed, so that no order of a set shows."""
    make(publisher, out)
    other = tmp_path / "other"
    subprocess.run([sys.executable, "-m", "keyfit.publisher", "site", str(publisher.folder), "--drivers",
                    str(publisher.drivers), "--out", str(other)], check=True, capture_output=True,
                   env=os.environ | {"PYTHONHASHSEED": "12345"})

    assert files(out) == files(other)


def test_a_site_without_a_program_is_made_with_a_warning(publisher: Publisher, out: Path) -> None:
    document = make(publisher, out)

    assert document["messages"][0]["code"] == "no-program"
    assert document["messages"][0]["level"] == "warning"


def test_title_names_the_site(publisher: Publisher, out: Path) -> None:
    make(publisher, out, "--title", "<b>Bank & Sons</b>")

    assert page(out, "en/index.html").one("title").text == "Find your token – <b>Bank & Sons</b>"


@pytest.mark.parametrize(("options", "code"), [
    (["--title", "a\u202eb"], "branding-invalid"), (["--branding", "missing.toml"], "branding-invalid"),
    (["--program", "missing.exe"], "no-such-file"), (["--program", "x.exe=http://cdn.example.com/x.exe"], "bad-program"),
    (["--base-url", "http://www.example.com/"], "bad-address")])
def test_bad_options_make_nothing(publisher: Publisher, out: Path, options: list[str], code: str) -> None:
    make(publisher, out)
    before = files(out)

    document = make(publisher, out, *options, expect=2)

    assert document["messages"][0]["code"] == code
    assert files(out) == before
    assert [p.name for p in out.parent.iterdir() if p.name.startswith(".")] == []


def test_a_logo_that_runs_is_refused(publisher: Publisher, out: Path, tmp_path: Path) -> None:
    (tmp_path / "branding.toml").write_text(BRANDING, "utf-8")
    (tmp_path / "logo.svg").write_text(SVG.replace("<rect", "<script/><rect"))

    assert make(publisher, out, "--branding", tmp_path / "branding.toml", expect=2)["messages"][0]["code"] == "logo-refused"
    assert not out.exists()


def test_unsound_brand_data_makes_no_site(publisher: Publisher, out: Path) -> None:
    publisher.write_brand(**{"id_vendor = 0x1234": 'id_vendor = "x"'})

    document = make(publisher, out, expect=2)

    assert document["messages"][0]["code"] == "brand-file-invalid"
    assert "driver.toml" in document["messages"][1]["text"]
    assert not out.exists()


def test_g2_an_unsound_hand_off_makes_no_site(publisher: Publisher, out: Path) -> None:
    """G2."""
    publisher.hand_off.write_text(HAND_OFF.replace("https://", "http://"))

    assert make(publisher, out, "--hand-off", publisher.hand_off, expect=2)["messages"][0]["code"] == "hand-off-invalid"


def test_no_repository_no_site(publisher: Publisher, out: Path, tmp_path: Path) -> None:
    document = publisher("site", tmp_path / "nowhere", "--drivers", publisher.drivers, "--out", out, expect=2)

    assert document["messages"][0]["code"] == "no-repository-here"
    assert document["command"] == "site"


def test_a_package_that_is_gone_stops_it(publisher: Publisher, out: Path) -> None:
    added = publisher.add()["data"]["payload"]
    next((publisher.folder / "repository" / "payloads").rglob(added["file"])).unlink()

    assert make(publisher, out, expect=1)["messages"][0]["code"] == "package-missing"
    assert not out.exists()


def test_a_folder_that_is_not_ours_is_left_alone(publisher: Publisher, out: Path) -> None:
    out.mkdir()
    (out / "letter.txt").write_text("mine")

    assert make(publisher, out, expect=1)["messages"][0]["code"] == "out-not-ours"
    assert files(out) == {"letter.txt": b"mine"}
    for precious in (publisher.folder, publisher.drivers):
        assert make(publisher, precious, expect=1)["messages"][0]["code"] == "out-not-ours"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 kB, if we may mount one; else a folder like any other."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = os.geteuid() == 0
    if mounted:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(place)], check=True)
    yield place
    if mounted:
        subprocess.run(["umount", str(place)], check=True)


@contextmanager
def no_room() -> Iterator[None]:
    """Where no small disk can be mounted, files that may not grow beyond 4 kB do as well."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    if os.geteuid() != 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_the_old_site(publisher: Publisher, small_disk: Path, tmp_path: Path) -> None:
    out = small_disk / "www"
    (tmp_path / "keyfit-setup.exe").write_bytes(b"MZ" * 200_000)
    make(publisher, out)
    before = files(out)

    with no_room():
        document = make(publisher, out, "--program", tmp_path / "keyfit-setup.exe", expect=73)

    assert document["messages"][0]["code"] == "cannot-write"
    assert document["outcome"] == "cannot-write"
    assert files(out) == before
    assert [p.name for p in small_disk.iterdir() if p.name != "www"] == []


def test_help_shows_an_example(capfd: pytest.CaptureFixture[str]) -> None:
    from keyfit.publisher.cli import run

    assert run(["site", "--help"]) == 0
    assert "Example: keyfit-publish site /srv/keyfit --out" in " ".join(capfd.readouterr().out.split())
