"""A device, reader or module that calls itself something harmful: what is shown is one harmless line, and nothing is named after
it (security H1). The texts come in as a recording, as files of sysfs, and as a module's labels; the program is the real one."""

import json
import os
import re
import subprocess
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from keyfit.core.text import MAX_DEVICE_TEXT, clean
from keyfit.errors import DataError
from keyfit.model.certificate import CertificateInfo, ModuleReport, Reader, SlotReport
from keyfit.platforms.linux.sysfs import SysfsUsbBus
from keyfit.token.protocol import MAX_READER_NAME, safe_readers, safe_report
from keyfit.token.recording import parse_recording
from tests.flow.test_first_commands import PROGRAM, tree  # noqa: F401 - a fixture
from tests.sim.hostilestrings import HOSTILE_STRINGS, MARK
from tests.sim.sysfstree import TreeDevice, write_tree
from tests.sim.usbrecords import find_record

IDS = {"id_vendor": 0x072F, "id_product": 0xB200, "bcd_device": 0x100}
"""Of a model that the catalogue has, so that something is planned for it."""
READER = {"b_interface_number": 0, "b_interface_class": 11, "b_interface_sub_class": 0, "b_interface_protocol": 0}
WHOLE = {name: text for name, text in HOSTILE_STRINGS.items() if not re.search("[\ud800-\udfff]", text)}
"""Without halves of surrogate pairs, which no UTF-8 file can hold."""


def assert_harmless(text: str, limit: int = MAX_DEVICE_TEXT) -> None:
    """One line, visible, of bounded length."""
    assert len(text) <= limit
    assert all(char == " " or unicodedata.category(char)[0] not in "CZ" for char in text), ascii(text)
    assert text == unicodedata.normalize("NFC", text)


def test_h1_the_table_is_long_enough() -> None:
    assert len(HOSTILE_STRINGS) >= 30
    assert all(MARK in text for text in HOSTILE_STRINGS.values())


@pytest.mark.parametrize("text", HOSTILE_STRINGS.values(), ids=HOSTILE_STRINGS)
def test_h1_a_text_is_cleaned_and_stays_clean(text: str) -> None:
    shown = clean(text)
    assert_harmless(shown)
    assert MARK in shown
    assert clean(shown) == shown


@pytest.mark.parametrize("text", HOSTILE_STRINGS.values(), ids=HOSTILE_STRINGS)
def test_h1_a_device_of_that_name_is_read_from_sysfs(text: str, tmp_path: Path) -> None:
    raw = text.encode("utf-8", "surrogatepass").replace(b"\0", b"") + b"\n"
    write_tree(tmp_path, [TreeDevice(record=find_record("0A89:0030"), files=tuple(
        (name, raw) for name in ("manufacturer", "product", "serial")))])
    [device] = SysfsUsbBus(str(tmp_path / "sys")).devices()

    for shown in (device.manufacturer, device.product):
        assert_harmless(shown)
    assert MARK in device.product


@pytest.mark.parametrize("text", HOSTILE_STRINGS.values(), ids=HOSTILE_STRINGS)
def test_h1_a_module_and_a_reader_of_that_name_are_reported(text: str) -> None:
    certificate = CertificateInfo(label=text, subject=text, issuer=text, not_before=text, not_after=text, sha256=text)
    slot = SlotReport(slot=text, label=text, model=text, manufacturer=text, initialised=True, login_required=True,
                      pin_initialised=True, pin_to_be_changed=False, pin_count_low=False, pin_final_try=False,
                      pin_locked=False, certificates=(certificate,))
    report = safe_report(ModuleReport(path=text, loaded=True, error=text, description=text, slots=(slot,)), "/m.so")
    [reader] = safe_readers((Reader(name=text, atr=text),))

    safe = report.slots[0]
    for shown in (report.description, safe.slot, safe.label, safe.model, safe.manufacturer, safe.certificates[0].label):
        assert_harmless(shown)
    assert_harmless(reader.name, MAX_READER_NAME)
    for shown in (report.error, safe.certificates[0].subject, safe.certificates[0].issuer):
        assert_harmless(shown, 400)
    assert (report.path, reader.atr, safe.certificates[0].sha256) == ("/m.so", "", "")


def test_h4_half_a_surrogate_pair_refuses_a_recording() -> None:
    for name in HOSTILE_STRINGS.keys() - WHOLE.keys():
        with pytest.raises(DataError):
            parse_recording(_recording({name: HOSTILE_STRINGS[name]}), "file")


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of them plugged in at once: as product, maker, reader, and as the labels of the module."""
    path = tmp_path_factory.mktemp("recording") / "hostile.json"
    path.write_bytes(_recording(WHOLE))
    return path


def _recording(texts: dict[str, str]) -> bytes:
    devices = []
    for number, text in enumerate(texts.values()):
        slot = {"slot": text, "label": text, "model": text, "manufacturer": text, "initialised": True, "login_required": True,
                "pin_initialised": True, "pin_to_be_changed": False, "pin_count_low": False, "pin_final_try": False,
                "pin_locked": False}
        device = {**IDS, "bus_path": f"1-{number + 1}", "manufacturer": text, "product": text, "interfaces": [READER]}
        report = {"path": "/usr/lib/x86_64-linux-gnu/opensc-pkcs11.so", "loaded": True, "description": text, "slots": [slot]}
        devices.append({"device": device, "reader": text, "atr": "3B00", "modules": {report["path"]: report}})
    return json.dumps({"keyfit": 1, "devices": devices[:64]}).encode()


COMMANDS = [("devices", "--all", "--explain"), ("verify",)]


@pytest.mark.parametrize("form", ["text", "JSON"])
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_h1_what_is_printed_is_harmless_and_no_path_or_program_is_named_so(
        command: tuple[str, ...], form: str, recording: Path, tree: Path, tmp_path: Path) -> None:  # noqa: F811
    traced = tmp_path / "trace"
    state = ["--state-dir", str(tmp_path / "state")] if "--state-dir" in _help(command[0]) else []
    given = {name: value for name, value in os.environ.items() if not name.startswith("KEYFIT_")}
    done = subprocess.run(
        ["strace", "-f", "-qq", "-s", "4096", "-e", "trace=%file,%process,sethostname,bind,connect", "-o", traced,
         *PROGRAM, *command, "--emulate", recording, "--root", tree, *state, *(["--json"] if form == "JSON" else [])],
        capture_output=True, env=given, timeout=110, stdin=subprocess.DEVNULL, check=False)

    said = done.stdout.decode("utf-8") + done.stderr.decode("utf-8")
    assert "Traceback" not in said
    assert done.returncode in range(0, 100)
    for line in said.split("\n"):
        assert all(unicodedata.category(char)[0] != "C" and char not in "\u2028\u2029" for char in line), ascii(line)[:300]
    if form == "JSON":
        for text in _texts(json.loads(done.stdout)):
            assert all(unicodedata.category(char)[0] != "C" for char in text)
    if command[0] == "devices":
        assert said.count(MARK) >= len(WHOLE), "they are all shown"
    calls = traced.read_text(errors="replace")
    assert "execve(" in calls
    assert MARK not in calls


def _help(command: str) -> str:
    return subprocess.run([*PROGRAM, command, "--help"], capture_output=True, text=True, timeout=60, check=True).stdout


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [*(value if isinstance(value, dict) else ()), *(text for each in inner for text in _texts(each))]
