"""Offline kits: pressed from a released repository, read with the tools that people have, and installed from with no network."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from keyfit.errors import EXIT_CODES, Outcome
from keyfit.model.catalog import Manifest
from keyfit.publisher.bundle_program import platform_of
from keyfit.publisher.bundle_readme import OUTCOME_WORDS
from keyfit.trust.repository import TufRepository
from tests.flow.test_first_commands import CHECKOUT, RECORDINGS, document
from tests.sim import debs
from tests.sim.publisher import DEB, TARGET, Publisher
from tests.sim.repository import IMPATIENT, HostileServer
from tests.sim.syscalls import calls, killed

RECORDING = RECORDINGS / "acs-cryptomate-t1.json"
DRIVER = "usr/lib/pcsc/drivers/ifd-acsccid.bundle"
DEB_CACHE = Path(os.environ.get("KEYFIT_TEST_CACHE", CHECKOUT / "build" / "debs"))
FEW_KEYS = [part for owner in ("root", "targets", "app", "drivers", "media-root", "media")
            for part in ("--threshold", f"{owner}=1/1")]


@pytest.fixture
def publisher(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Publisher:
    """One brand with a driver file, released."""
    publisher = Publisher(tmp_path, capsys)
    publisher.init(*FEW_KEYS)
    publisher.add()
    publisher.release()
    return publisher


def bundle(publisher: Publisher, out: Path, *options: object, expect: int = 0) -> dict[str, Any]:
    """Press a kit; the command's data, or its first message if it fails."""
    made = publisher("bundle", publisher.folder, out, *options, expect=expect)
    return made["data"] if expect == 0 else made["messages"][0]  # type: ignore[no-any-return]


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def media_root(publisher: Publisher) -> bytes:
    return (publisher.folder / "media" / "repository" / "metadata" / "1.root.json").read_bytes()


def client(publisher: Publisher, kit: Path, folder: Path) -> TufRepository:
    """What a computer with this publisher's root of kits makes of one."""
    return TufRepository(urls=[(kit / "keyfit").as_uri()], trusted_root=media_root(publisher), kind="media", limits=IMPATIENT,
                         metadata_dir=folder / "metadata", cache_dir=folder / "payloads")


def works(repository: TufRepository, target: str = TARGET) -> int:
    """It gives a manifest and its driver file; returns the brand's sequence."""
    manifest = repository.manifest(target)
    assert manifest is not None
    payload = manifest.brands[0].package[0].payload
    assert payload is not None
    assert hashlib.sha256(repository.payload(payload).read_bytes()).hexdigest() == payload.sha256
    return manifest.brands[0].sequence


# -- what is in it ------------------------------------------------------------------------------------------------------


def test_a_kit_is_a_signed_repository_with_a_start_menu(publisher: Publisher, tmp_path: Path) -> None:
    made = bundle(publisher, tmp_path / "kit")

    kit = tmp_path / "kit"
    assert {path.name for path in kit.iterdir()} == {
        "keyfit", "README.txt", "README.zh_CN.txt", "CHECKSUMS.sha256", "media-root.json", "start.sh", "start.cmd",
        "autorun.inf", "start.html"}
    assert {path.name for path in (kit / "keyfit").iterdir()} == {"metadata", "targets", "payloads"}
    assert works(client(publisher, kit, tmp_path / "client")) == 1
    assert (made["complete"], made["signed_anew"], made["manifests"]) == (True, True, 16)
    (driver,) = made["drivers"]
    assert driver["sha256"] == hashlib.sha256(DEB).hexdigest()
    assert (kit / "media-root.json").read_bytes() == media_root(publisher)


def test_an_administrator_is_told_what_is_in_it(publisher: Publisher, tmp_path: Path) -> None:
    made = bundle(publisher, tmp_path / "kit")

    for name in ("README.txt", "README.zh_CN.txt"):
        text = (tmp_path / "kit" / name).read_text("utf-8")
        assert hashlib.sha256(DEB).hexdigest() in text
        assert hashlib.sha256(media_root(publisher)).hexdigest() in text
        assert made["expires"][:10] in text
        assert "--silent" in text
        for posix, windows in EXIT_CODES.values():
            assert any(line.split()[:2] == [str(posix), str(windows)] for line in text.splitlines())
    assert OUTCOME_WORDS.keys() == set(Outcome)


def test_check_sums_cover_every_file(publisher: Publisher, tmp_path: Path) -> None:
    """Read by the tool that administrators have."""
    kit = tmp_path / "kit"
    bundle(publisher, kit)

    def check() -> "subprocess.CompletedProcess[str]":
        return subprocess.run(["sha256sum", "--strict", "--quiet", "-c", "CHECKSUMS.sha256"], cwd=kit, text=True,
                              capture_output=True, check=False)

    listed = {line.split("  ", 1)[1] for line in (kit / "CHECKSUMS.sha256").read_text().splitlines()}
    assert listed == files(kit).keys() - {"CHECKSUMS.sha256"}
    assert check().returncode == 0
    (kit / "start.html").write_text("other")
    assert "start.html: FAILED" in check().stdout


def test_chosen_brands_and_systems(publisher: Publisher, tmp_path: Path) -> None:
    publisher.write_brand(brand="bolt", product="0x0002")
    publisher.release()

    made = bundle(publisher, tmp_path / "kit", "--brand", "acme", "--system", "linux", "--architecture", "amd64")

    assert (made["manifests"], len(made["drivers"])) == (2, 1)
    assert works(client(publisher, tmp_path / "kit", tmp_path / "client")) == 1
    assert not [name for name in files(tmp_path / "kit") if "0002" in name or "bolt" in name]
    assert bundle(publisher, tmp_path / "none", "--brand", "nobody", expect=2)["code"] == "no-such-brand"
    assert not (tmp_path / "none").exists()


def test_a4_what_a_brand_signed_itself_is_in_it_within_its_grant(publisher: Publisher, tmp_path: Path) -> None:
    """A kit has no keys of brands: the kit's keys vouch for what a client would have made of them."""
    publisher("delegate", publisher.folder, "acme", "--make", 1)

    bundle(publisher, tmp_path / "kit")

    assert works(client(publisher, tmp_path / "kit", tmp_path / "client")) == 1
    assert not [name for name in files(tmp_path / "kit") if "brand-acme" in name or "grant" in name]


def test_a5_a_withdrawn_file_is_not_in_it(publisher: Publisher, tmp_path: Path) -> None:
    publisher("revoke", publisher.folder, "acme", "--sha256", hashlib.sha256(DEB).hexdigest(), "--reason", "en=It is bad.")

    made = bundle(publisher, tmp_path / "kit")

    assert made["drivers"] == []
    assert not [name for name, data in files(tmp_path / "kit").items() if data == DEB]
    manifest = client(publisher, tmp_path / "kit", tmp_path / "client").offer(TARGET)
    assert manifest is not None
    assert manifest.refused[0].error.code == "revoked"


def test_a_released_driver_file_that_was_changed_is_not_pressed(publisher: Publisher, tmp_path: Path) -> None:
    driver = next((publisher.folder / "repository" / "payloads").rglob("*.deb"))
    driver.write_bytes(driver.read_bytes()[:-1] + b"X")

    assert bundle(publisher, tmp_path / "kit", expect=76)["code"] == "payload-hash"
    assert list(tmp_path.glob("*kit*")) == []


# -- as one file --------------------------------------------------------------------------------------------------------


@pytest.fixture
def same_kit(publisher: Publisher, tmp_path: Path) -> dict[str, Path]:
    """The same kit in all three formats, with an executable in it."""
    program = a_program(tmp_path / "dist")
    kits = {"folder": tmp_path / "kit", "zip": tmp_path / "kit.zip", "iso": tmp_path / "kit.iso"}
    for form, out in kits.items():
        bundle(publisher, out, "--format", form, "--program", program)
    return kits


def a_program(folder: Path) -> Path:
    """A frozen client's folder, with a real executable that says how it was called."""
    deep = folder / "_internal/a/b/c/d/e/f"
    deep.mkdir(parents=True)
    (deep / "library.so").write_bytes(b"library")
    (folder / "_internal" / "link.so").symlink_to("a/b/c/d/e/f/library.so")
    shutil.copy("/usr/bin/printf", folder / "keyfit")
    (folder / "keyfit").chmod(0o755)
    return folder


@pytest.mark.parametrize("names", ["rock-ridge", "joliet"])
def test_an_image_has_the_same_files_for_every_system(same_kit: dict[str, Path], tmp_path: Path, names: str) -> None:
    """Rock Ridge is what Linux and macOS read, Joliet what Windows reads; read here by libarchive."""
    out = tmp_path / "out"
    out.mkdir()
    options = ["--options", "iso9660:!rockridge"] if names == "joliet" else []
    subprocess.run(["bsdtar", *options, "-x", "-f", same_kit["iso"], "-C", out], check=True, timeout=60)

    assert files(out) == files(same_kit["folder"])
    if names == "rock-ridge":
        executable = {path.name for path in out.rglob("*") if path.is_file() and path.stat().st_mode & 0o100}
        assert executable == {"start.sh", "keyfit"}


def test_the_volume_is_labelled_and_dated(publisher: Publisher, same_kit: dict[str, Path]) -> None:
    image = same_kit["iso"].read_bytes()
    timestamp = json.loads((publisher.folder / "media" / "repository" / "metadata" / "timestamp.json").read_bytes())
    signed_at = timestamp["signed"]["x-keyfit-signed-at"]

    assert image[16 * 2048 + 40:16 * 2048 + 72].decode().strip() == "KEYFIT_" + signed_at[:10].replace("-", "")
    shown = subprocess.run(["bsdtar", "-t", "-v", "-f", same_kit["iso"]], check=True, capture_output=True, text=True,
                           env=os.environ | {"TZ": "UTC"}).stdout
    assert all(signed_at[11:16] in line for line in shown.splitlines())


def test_a_zip_file_has_the_same_files_and_permissions(same_kit: dict[str, Path], tmp_path: Path) -> None:
    subprocess.run(["unzip", "-q", same_kit["zip"], "-d", tmp_path / "out"], check=True)

    assert files(tmp_path / "out") == files(same_kit["folder"])
    assert (tmp_path / "out" / "start.sh").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "out" / "README.txt").stat().st_mode & 0o777 == 0o644
    with zipfile.ZipFile(same_kit["zip"]) as archive:
        assert archive.testzip() is None


@pytest.mark.parametrize("form", ["zip", "iso"])
def test_the_same_kit_is_the_same_bytes(publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                        form: str) -> None:
    """Whenever, wherever and under whatever name it is pressed."""
    program = a_program(tmp_path / "dist")
    first, second, dated = tmp_path / "first", tmp_path / "second", tmp_path / "dated"
    bundle(publisher, first, "--format", form, "--program", program)
    other = Path(shutil.copytree(program, tmp_path / "other" / "place", symlinks=True))
    elsewhere = subprocess.run(
        ["faketime", "+5 hours", sys.executable, "-m", "keyfit.publisher", "--json", "bundle", publisher.folder, second,
         "--format", form, "--program", other], env=os.environ | {"TZ": "Asia/Tokyo"}, capture_output=True, check=True)
    again = json.loads(elsewhere.stdout)["data"]
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    bundle(publisher, dated, "--format", form, "--program", program)

    assert again["signed_anew"] is False
    assert second.read_bytes() == first.read_bytes()
    assert dated.read_bytes() != first.read_bytes()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    assert bundle(publisher, tmp_path / "x", "--format", form, expect=2)["code"] == "bad-source-date"


def test_a_name_that_a_disc_cannot_hold_is_told(publisher: Publisher, tmp_path: Path) -> None:
    program = a_program(tmp_path / "dist")
    (program / ("x" * 104)).write_text("")

    message = bundle(publisher, tmp_path / "kit.iso", "--format", "iso", "--program", program, expect=2)

    assert message["code"] == "name-too-long"
    assert "x" * 104 in message["text"]
    bundle(publisher, tmp_path / "kit.zip", "--format", "zip", "--program", program)


# -- its place ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["folder", "zip", "iso"])
def test_what_is_there_is_replaced_only_when_asked(publisher: Publisher, tmp_path: Path, form: str) -> None:
    out = tmp_path / "kit"
    out.mkdir()
    (out / "mine").write_text("mine")

    assert bundle(publisher, out, "--format", form, expect=2)["code"] == "kit-exists"
    assert files(out) == {"mine": b"mine"}
    bundle(publisher, out, "--format", form, "--force")
    assert out.is_dir() == (form == "folder")
    bundle(publisher, out, "--format", form, "--force")
    assert [path.name for path in tmp_path.iterdir() if "kit" in path.name] == ["kit"]
    assert bundle(publisher, tmp_path / "no" / "kit", "--format", form, expect=2)["code"] == "no-such-folder"


@pytest.mark.parametrize("form", ["folder", "zip", "iso"])
def test_killed_at_any_moment_there_is_a_whole_kit_or_none(publisher: Publisher, tmp_path: Path, form: str) -> None:
    """The old kit stays until the new one is whole; a run after that is not hindered by what was left."""
    out = tmp_path / "kit"
    command = [sys.executable, "-m", "keyfit.publisher", "--quiet", "bundle", str(publisher.folder), str(out), "--format", form,
               "--force"]
    bundle(publisher, out, "--format", form)
    whole = files(out) if form == "folder" else {"": out.read_bytes()}
    number_of_calls = len(calls(command, cwd=CHECKOUT))
    for part in range(12):
        number = 1 + part * number_of_calls // 12
        assert killed(command, number, cwd=CHECKOUT).returncode == -signal.SIGKILL, number
        if out.exists():
            assert (files(out) if form == "folder" else {"": out.read_bytes()}) == whole
        else:  # a folder cannot be exchanged at one stroke: it lies beside
            assert form == "folder"
            assert files(tmp_path / ".kit.pressing" / "before") == whole

    bundle(publisher, out, "--format", form, "--force")
    assert (files(out) if form == "folder" else {"": out.read_bytes()}) == whole
    assert [path.name for path in tmp_path.iterdir() if "kit" in path.name] == ["kit"]


@pytest.mark.parametrize("size_kb", [200, 330])
def test_a_full_disk_leaves_nothing_half_done(publisher: Publisher, tmp_path: Path, size_kb: int) -> None:
    """On a real small file system: the folder does not fit, or the image beside it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    script = ('mount -t tmpfs -o "size=$2k" none "$1" && "$3" -m keyfit.publisher --json bundle "$4" "$1/kit.iso" --format iso;'
              ' code=$?; ls -A "$1" >&2; exit $code')
    done = subprocess.run(["unshare", "--mount", "sh", "-c", script, "sh", disk, str(size_kb), sys.executable, publisher.folder],
                          capture_output=True, text=True, cwd=CHECKOUT, check=False)

    assert (done.returncode, json.loads(done.stdout)["messages"][0]["code"]) == (73, "disk-full")
    assert done.stderr == ""


# -- its signatures -----------------------------------------------------------------------------------------------------


def test_k1_without_enough_keys_a_request_is_left_and_no_kit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """K1: two of three people sign kits, each on a machine of their own."""
    publisher = Publisher(tmp_path, capsys)
    publisher.init(*FEW_KEYS[:-2], "--threshold", "media=2/3")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for number in (2, 3):
        shutil.move(publisher.folder / "keys" / f"media-{number}.pem", elsewhere)
    publisher.add()
    publisher.release()

    asked = bundle(publisher, tmp_path / "kit", "--days", 90)
    assert (asked["complete"], asked["kit"]) == (False, None)
    assert not (tmp_path / "kit").exists()
    assert bundle(publisher, tmp_path / "kit", "--days", 90, expect=2)["code"] == "request-pending"
    request = Path(shutil.copy(asked["request"], elsewhere / "request.json"))
    while not publisher("sign", publisher.folder, "--request", request)["data"]["complete"]:
        shutil.copy(asked["request"], request)  # the snapshot and the timestamp follow when what they name is signed
        publisher("sign", request, "--key", elsewhere / "media-3.pem")

    made = bundle(publisher, tmp_path / "kit", "--days", 90)
    assert (made["complete"], made["signed_anew"]) == (True, False)
    assert 88 * 86_400 < expires_in(made) <= 90 * 86_400
    assert works(client(publisher, tmp_path / "kit", tmp_path / "client")) == 1


def expires_in(made: dict[str, Any]) -> float:
    from datetime import datetime

    return datetime.fromisoformat(made["expires"]).timestamp() - time.time()


def test_two_kits_of_one_release_can_be_used_in_any_order(publisher: Publisher, tmp_path: Path) -> None:
    publisher.write_brand(brand="bolt", product="0x0002")
    publisher.release()
    for name in ("acme", "bolt"):
        bundle(publisher, tmp_path / f"kit of {name}", "--brand", name)
    both = [client(publisher, tmp_path / f"kit of {name}", tmp_path / "client") for name in ("bolt", "acme")]

    for repository in (*both, *reversed(both)):
        repository.refresh()
    assert works(both[1]) == 1


@pytest.mark.parametrize(("first", "then"), [(730, 90), (90, 730)])
def test_a_kit_lasts_as_long_as_was_asked(publisher: Publisher, tmp_path: Path, first: int, then: int) -> None:
    bundle(publisher, tmp_path / "first", "--days", first)
    made = bundle(publisher, tmp_path / "second", "--days", then)

    assert made["signed_anew"] is True
    assert abs(expires_in(made) - then * 86_400) < 86_400
    lasting = [json.loads(data)["signed"]["expires"] for name, data in files(tmp_path / "second" / "keyfit").items()
               if name.startswith("metadata/") and not name.endswith(".root.json")]
    assert {text[:10] for text in lasting} == {made["expires"][:10]}


def test_a_kit_may_not_outlive_its_root(publisher: Publisher, tmp_path: Path) -> None:
    assert bundle(publisher, tmp_path / "kit", "--days", 3650, expect=76)["code"] == "root-expires-first"


def test_nothing_to_press(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    publisher = Publisher(tmp_path, capsys)
    assert bundle(publisher, tmp_path / "kit", expect=2)["code"] == "no-repository-here"
    publisher.init(*FEW_KEYS)
    assert bundle(publisher, tmp_path / "kit", expect=1)["code"] == "nothing-released"


# -- its start menu -----------------------------------------------------------------------------------------------------


@pytest.fixture
def disc(publisher: Publisher, tmp_path: Path) -> Path:
    """A kit under a name with blanks and other characters that a shell minds, with a program in it."""
    kit = tmp_path / "My CD (1) $HOME 'x'"
    bundle(publisher, kit, "--program", a_program(tmp_path / "dist"))
    return kit


def start(kit: Path, *arguments: str, text: str = "", **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["sh", kit / "start.sh", *arguments], input=text, capture_output=True, text=True, check=False,
                          env={"PATH": "/usr/bin:/bin"} | environment)


def called(kit: Path, part: str, *more: str) -> list[str]:
    return ["install", "--source", str(kit), "--part", part, *more]


def tell_arguments(kit: Path, code: int = 0) -> None:
    """Put a program into the kit that says how it was called: one argument a line."""
    program = next((kit / "program").glob("*/keyfit"))
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@"\nexit {code}\n')


def test_the_menu_has_the_system_first_and_the_driver_second(disc: Path) -> None:
    tell_arguments(disc)
    shown = start(disc, text="1\n2\nq\n")

    assert shown.returncode == 0
    text = shown.stdout.replace("> ", "")
    assert text.index("1) System Upgrade") < text.index("2) Driver Installation")
    assert [line for line in text.splitlines() if line in called(disc, "system") or line == "driver"] == [
        *called(disc, "system"), *called(disc, "driver")]
    assert "1) 系统升级" in start(disc, text="q\n", LANG="zh_CN.UTF-8").stdout


def test_the_menu_can_be_left_out(disc: Path) -> None:
    tell_arguments(disc, code=66)
    for part in ("system", "driver"):
        shown = start(disc, part, "acme", "--silent", "--lang", "zh CN")
        assert (shown.returncode, shown.stdout.splitlines()) == (66, called(disc, part, "acme", "--silent", "--lang", "zh CN"))
    chinese = start(disc, "driver", "acme", LC_ALL="zh_CN.UTF-8")
    assert chinese.stdout.splitlines() == called(disc, "driver", "--lang", "zh_CN", "acme")
    assert start(disc, "other").returncode == 2


def test_the_menu_says_what_to_do_when_rights_are_missing(disc: Path) -> None:
    tell_arguments(disc, code=77)
    shown = start(disc, "system")

    assert shown.returncode == 77
    assert f'sudo sh "{disc}/start.sh" system' in shown.stdout


def test_without_a_program_in_it_the_installed_one_is_used(disc: Path, tmp_path: Path) -> None:
    shutil.rmtree(disc / "program")
    assert start(disc, "system").returncode == 79
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "keyfit"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)

    shown = start(disc, "system", PATH=f"{tmp_path / 'bin'}:/usr/bin:/bin")
    assert shown.stdout.splitlines() == called(disc, "system")


def test_the_menus_are_sound_scripts(disc: Path) -> None:
    """shellcheck reads the one for POSIX shells. The one for Windows cannot be run here: only its form is looked at."""
    subprocess.run(["shellcheck", "--shell=sh", disc / "start.sh"], check=True)
    for name in ("start.cmd", "autorun.inf"):
        data = (disc / name).read_bytes()
        assert data.count(b"\r\n") == data.count(b"\n") >= 3
        data.decode("ascii")
    script = (disc / "start.cmd").read_text()
    labels = {line[1:] for line in script.splitlines() if line.startswith(":")}
    jumps = {line.split("goto ")[1].strip() for line in script.splitlines() if "goto " in line}
    assert jumps <= labels
    page = (disc / "start.html").read_text("utf-8")
    assert page.index("System Upgrade") < page.index("Driver Installation") < page.index("系统升级") < page.index("驱动安装")
    assert "<script" not in page
    assert "://" not in page


@pytest.mark.parametrize(("name", "head", "platform"), [
    ("keyfit", b"\x7fELF\x02\x01" + bytes(12) + b"\xb7\0", "linux-arm64"),
    ("keyfit", b"\x7fELF\x01\x01" + bytes(12) + b"\x03\0", "linux-i386"),
    ("keyfit.exe", b"MZ" + bytes(58) + b"\x80\0\0\0" + bytes(64) + b"PE\0\0\x64\x86", "windows-amd64"),
    ("keyfit.exe", b"MZ" + bytes(58) + b"\x80\0\0\0" + bytes(64) + b"PE\0\0\x64\xaa", "windows-arm64"),
    ("keyfit", b"\xcf\xfa\xed\xfe\x0c\0\0\x01", "macos-arm64"),
    ("keyfit", b"\xca\xfe\xba\xbe\0\0\0\x02", "macos-universal"),
])
def test_a_program_is_known_by_its_head(tmp_path: Path, name: str, head: bytes, platform: str) -> None:
    (tmp_path / name).write_bytes(head + bytes(100))

    assert platform_of(tmp_path) == platform


@pytest.mark.parametrize("fault", ["empty", "text", "truncated", "twice", "link out"])
def test_what_is_no_program_is_not_brought_along(publisher: Publisher, tmp_path: Path, fault: str) -> None:
    program = a_program(tmp_path / "dist")
    options: list[object] = ["--program", program]
    if fault == "empty":
        (program / "keyfit").unlink()
    elif fault == "text":
        (program / "keyfit").write_text("#!/bin/sh\n")
    elif fault == "truncated":
        (program / "keyfit").write_bytes(b"MZ")
    elif fault == "twice":
        options *= 2
    else:
        (program / "passwords").symlink_to("/etc/passwd")

    assert bundle(publisher, tmp_path / "kit", *options, expect=2)["code"] == "not-a-program"
    assert list(tmp_path.glob("*kit*")) == []


# -- installed from it, with no network ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A publisher of the real ACS driver, and two kits: of a first and of a second release."""
    folder = tmp_path_factory.mktemp("kits")
    drivers = folder / "drivers"
    shutil.copytree(CHECKOUT / "drivers" / "acs-cryptomate", drivers / "acs-cryptomate")

    def publish(*arguments: object) -> None:
        subprocess.run([sys.executable, "-m", "keyfit.publisher", *map(str, arguments)], check=True, capture_output=True)

    publish("init", folder / "publisher", *FEW_KEYS)
    publish("add", folder / "publisher", "acs-cryptomate", debs.fetch("libacsccid1", DEB_CACHE), "--drivers", drivers)
    publish("release", folder / "publisher", "--drivers", drivers)
    publish("bundle", folder / "publisher", folder / "first", "--days", 30)
    toml = drivers / "acs-cryptomate" / "driver.toml"
    toml.write_text(toml.read_text().replace("\nsequence = 1\n", "\nsequence = 2\n"))
    publish("release", folder / "publisher", "--drivers", drivers)
    publish("bundle", folder / "publisher", folder / "second", "--days", 30)
    return folder


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    """A tree that takes the package: its libraries count as installed."""
    debs.tree_with_package_database(tmp_path / "tree")
    if "Package: libusb-1.0-0\n" not in (tmp_path / "tree/var/lib/dpkg/status").read_text():
        library = debs.fetch("libusb-1.0-0", DEB_CACHE)
        subprocess.run(["dpkg", f"--root={tmp_path / 'tree'}", "--force-not-root", "--force-script-chrootless", "-i", library],
                       check=True, capture_output=True)
    return tmp_path / "tree"


def install(kits: Path, tree: Path, *options: object, root: Path | None = None, before: tuple[str, ...] = (),
            verb: str = "install") -> "subprocess.CompletedProcess[str]":
    """Run `keyfit` in a network namespace that has not even a loopback device that is up."""
    trusted = root or kits / "publisher" / "media" / "repository" / "metadata" / "1.root.json"
    command = ["unshare", "--net", *before, sys.executable, "-m", "keyfit", verb, *options, "--json", "--root", tree,
               "--emulate", RECORDING, "--trust-root", trusted, "--cache-dir", tree.parent / "cache"]
    given = {name: value for name, value in os.environ.items() if not name.startswith("KEYFIT_")}
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60, check=False, env=given)


def refused(done: "subprocess.CompletedProcess[str]", tree: Path, *codes: str) -> None:
    said = document(done)["messages"]
    assert (done.returncode, said[0]["code"] in codes) == (76, True), said
    assert said[0]["hint"]
    assert not (tree / DRIVER).exists()


def test_a_driver_is_installed_from_a_kit_with_no_network(kits: Path, tree: Path) -> None:
    done = install(kits, tree, "--yes", "--source", kits / "first")

    assert document(done)["data"]["verdict"]["works"] is True
    assert (tree / DRIVER).is_dir()


def test_the_start_menu_installs(kits: Path, tree: Path) -> None:
    """The kit's own script, the program from PATH, both parts in order."""
    given = {"PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(tree.parent)}
    options = ["--yes", "--json", "--root", tree, "--emulate", RECORDING, "--cache-dir", tree.parent / "cache", "--trust-root",
               kits / "publisher" / "media" / "repository" / "metadata" / "1.root.json"]
    for part in ("system", "driver"):
        done = subprocess.run(["unshare", "--net", "sh", kits / "first" / "start.sh", part, *options], capture_output=True,
                              text=True, check=False, env=given)
        assert document(done)["outcome"] == "done", done.stdout + done.stderr
    assert (tree / DRIVER).is_dir()


def test_a5_an_older_kit_after_a_newer_one_is_refused(kits: Path, tree: Path) -> None:
    assert document(install(kits, tree, "--source", kits / "second", verb="plan"))["data"]["plan"]["sequence"] == 2

    refused(install(kits, tree, "--yes", "--source", kits / "first"), tree, "metadata-rollback")
    assert document(install(kits, tree, "--yes", "--source", kits / "second"))["outcome"] == "done"


def test_a6_an_expired_kit_is_refused(kits: Path, tree: Path) -> None:
    still = install(kits, tree, "--source", kits / "first", before=("faketime", "+29 days"), verb="plan")
    assert document(still)["outcome"] == "done"

    refused(install(kits, tree, "--yes", "--source", kits / "first", before=("faketime", "+31 days")), tree, "kit-expired")


SPOILED = {
    "timestamp": ("keyfit/metadata/timestamp.json", "metadata-signature", "metadata-invalid"),
    "snapshot": ("keyfit/metadata/*.snapshot.json", "metadata-hash"),
    "targets": ("keyfit/metadata/*.targets.json", "metadata-signature", "metadata-invalid"),
    "manifest": ("keyfit/targets/usb/072f/*b200-linux-amd64.json", "target-hash"),
    "driver": ("keyfit/payloads/*/*/*.deb", "payload-hash"),
}


@pytest.mark.parametrize("what", SPOILED)
def test_a2_a_kit_that_was_changed_is_refused(kits: Path, tree: Path, tmp_path: Path, what: str) -> None:
    pattern, *codes = SPOILED[what]
    kit = Path(shutil.copytree(kits / "first", tmp_path / "kit"))
    (path,) = kit.glob(pattern)
    data = path.read_bytes()
    at = data.index(b'"expires":"20') + 13 if b'"expires":"20' in data else len(data) // 2
    path.write_bytes(data[:at] + (b"9" if data[at:at + 1] != b"9" else b"8") + data[at + 1:])

    refused(install(kits, tree, "--yes", "--source", kit), tree, *codes)


def test_a_kit_of_the_newer_release_with_older_manifests_is_refused(kits: Path, tree: Path, tmp_path: Path) -> None:
    """Mix and match: every file is signed, but not together."""
    kit = Path(shutil.copytree(kits / "first", tmp_path / "kit"))
    shutil.copy(kits / "second" / "keyfit" / "metadata" / "timestamp.json", kit / "keyfit" / "metadata")

    done = install(kits, tree, "--yes", "--source", kit)

    assert (done.returncode, document(done)["messages"][0]["code"]) == (69, "repository-file-missing")
    assert not (tree / DRIVER).exists()


def test_what_is_for_kits_is_refused_from_the_network(kits: Path, tree: Path) -> None:
    """Each kind of repository has a root of its own, so neither can be passed off as the other."""
    online = kits / "publisher" / "repository" / "metadata" / "1.root.json"
    with HostileServer(kits / "first" / "keyfit") as server:
        command = [sys.executable, "-m", "keyfit", "install", "--yes", "--json", "--root", tree, "--emulate", RECORDING,
                   "--repository", server.url, "--trust-root", online, "--cache-dir", tree.parent / "cache"]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60, check=False)
    refused(done, tree, "metadata-signature")


def test_what_is_for_the_network_is_refused_as_a_kit(kits: Path, tree: Path) -> None:
    refused(install(kits, tree, "--yes", "--source", kits / "publisher" / "repository"), tree, "metadata-signature")


def test_a_kit_cannot_vouch_for_itself(kits: Path, tree: Path, tmp_path: Path) -> None:
    """A1: a stranger's kit brings a root of the stranger's; the one that the computer has decides."""
    stranger = tmp_path / "stranger"
    kit = Path(shutil.copytree(kits / "first", tmp_path / "kit"))
    subprocess.run([sys.executable, "-m", "keyfit.publisher", "init", stranger, *FEW_KEYS], check=True, capture_output=True)
    shutil.copy(stranger / "media" / "repository" / "metadata" / "1.root.json", kit / "media-root.json")
    for path in (stranger / "media" / "repository" / "metadata").iterdir():
        shutil.copy(path, kit / "keyfit" / "metadata")

    refused(install(kits, tree, "--yes", "--source", kit), tree, "metadata-signature")


def test_manifests_of_a_kit_are_those_of_the_release(kits: Path) -> None:
    """The same bytes under other signatures, so that a sequence or a revocation counts alike from both."""
    released = {path.name: path.read_bytes() for path in (kits / "publisher" / "repository" / "targets").rglob("*.json")}
    kit = {path.name: path.read_bytes() for path in (kits / "second" / "keyfit" / "targets").rglob("*.json")}

    assert kit
    assert all(released[name] == data for name, data in kit.items())
    assert {msgspec.json.decode(data, type=Manifest).brands[0].sequence for data in kit.values()} == {2}
