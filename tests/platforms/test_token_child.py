"""The child process against the real things: SoftHSM, modules that misbehave, PC/SC libraries and the PC/SC daemon."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from keyfit.core import ccidlist
from keyfit.core.certificate import certificate_state, pin_state
from keyfit.errors import HostError
from keyfit.model.certificate import CertificateState, ModuleReport, PinState, Reader
from keyfit.strictjson import decode
from keyfit.token.protocol import MAX_ANSWER_BYTES, ReadersAnswer
from keyfit.token.reader import HINTS, ChildTokenReader
from tests.sim.ccidmodel import ATR_T0
from tests.sim.mockbus import MockBus
from tests.sim.pcscbox import PcscBox
from tests.sim.usbrecords import find_record

HERE = Path(__file__).parent
SOFTHSM = Path("/usr/lib/softhsm/libsofthsm2.so")
CCID_LIST = Path("/etc/libccid_Info.plist")


# ---- a real module with a real certificate


def a_certificate(subject: str, *, ca: bool = False, days: int = 400) -> bytes:
    """A self-made certificate in DER."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example Bank"),
                      x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    begin = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
    return (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(begin)
            .not_valid_after(begin + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca, None), critical=True).sign(key, SHA256()).public_bytes(Encoding.DER))


class SoftHsm:
    """A SoftHSM token in a folder, written to by the test with the tools that users have."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        tokens = folder / "tokens"
        tokens.mkdir()
        self.configuration = folder / "softhsm2.conf"
        self.configuration.write_text(f"directories.tokendir = {tokens}\nobjectstore.backend = file\n")
        self.reader = ChildTokenReader(extra_environment={"SOFTHSM2_CONF": str(self.configuration)})

    def run(self, *argv: str) -> None:
        subprocess.run(argv, check=True, capture_output=True, timeout=60,
                       env={**os.environ, "SOFTHSM2_CONF": str(self.configuration)})

    def initialise(self) -> None:
        self.run("softhsm2-util", "--init-token", "--free", "--label", "ada", "--so-pin", "12345678", "--pin", "1234")

    def write(self, der: bytes, label: str) -> None:
        path = self.folder / "certificate.der"
        path.write_bytes(der)
        self.run("pkcs11-tool", "--module", str(SOFTHSM), "--login", "--pin", "1234", "--token-label", "ada",
                 "--write-object", str(path), "--type", "cert", "--label", label)

    def report(self) -> ModuleReport:
        return self.reader.load_module(str(SOFTHSM))


@pytest.fixture
def softhsm(tmp_path: Path) -> SoftHsm:
    return SoftHsm(tmp_path)


def test_an_empty_token_then_one_with_a_certificate(softhsm: SoftHsm) -> None:
    now = datetime.now(UTC).timestamp()
    blank = softhsm.report()
    assert blank.loaded
    assert [pin_state(s) for s in blank.slots] == [PinState.NOT_SET]

    softhsm.initialise()
    empty = softhsm.report()
    assert certificate_state([empty], now) == (CertificateState.ABSENT, None)
    [slot] = [s for s in empty.slots if s.initialised]
    assert (slot.label, slot.model, slot.manufacturer) == ("ada", "SoftHSM v2", "SoftHSM project")
    assert slot.login_required
    assert pin_state(slot) == PinState.OK

    user = a_certificate("Ada <Lovelace>")
    softhsm.write(a_certificate("The CA", ca=True, days=9_000), "ca")
    softhsm.write(user, "signing")
    full = softhsm.report()
    state, info = certificate_state([full], now)
    assert state == CertificateState.VALID
    assert info is not None
    parsed = x509.load_der_x509_certificate(user)
    assert info.subject == parsed.subject.rfc4514_string()
    assert info.sha256 == parsed.fingerprint(SHA256()).hex()
    assert info.not_after == parsed.not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert (info.label, info.ca) == ("signing", False)
    assert sorted(c.ca for s in full.slots for c in s.certificates) == [False, True]


def test_h1_a_hostile_certificate_and_label_are_shown_harmless(softhsm: SoftHsm) -> None:
    softhsm.initialise()
    softhsm.write(a_certificate("\u202eevil\x1b[31m", days=10), "\x1b]0;x\x07label")
    _, info = certificate_state([softhsm.report()], datetime.now(UTC).timestamp())
    assert info is not None
    shown = info.subject + info.label
    assert shown.isprintable()
    assert "evil" in info.subject
    assert "\u202e" not in shown


def test_c5_without_the_constructors_word_the_module_gets_no_configuration(softhsm: SoftHsm,
                                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    softhsm.initialise()
    monkeypatch.setenv("SOFTHSM2_CONF", str(softhsm.configuration))
    assert not [s for s in ChildTokenReader().load_module(str(SOFTHSM)).slots if s.label == "ada"]
    assert [s for s in softhsm.report().slots if s.label == "ada"]


# ---- modules that misbehave


class FakeModule:
    """`fake_module.c` compiled for one behaviour."""

    def __init__(self, folder: Path, behaviour: str) -> None:
        self.path = folder / f"lib{behaviour}.so"
        self.notes_path, self.fifo = folder / "notes", folder / "fifo"
        os.mkfifo(self.fifo)
        define = {"BEHAVIOUR": behaviour, "NOTES": self.notes_path, "FIFO": self.fifo}
        subprocess.run(["gcc", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-Wno-cast-function-type", "-o",
                        self.path, HERE / "fake_module.c", *(f'-D{k}="{v}"' for k, v in define.items())],
                       check=True, timeout=60)

    def load(self, **limits: float) -> ModuleReport:
        return ChildTokenReader(**limits).load_module(str(self.path))

    @property
    def notes(self) -> list[str]:
        return self.notes_path.read_text().split() if self.notes_path.exists() else []


def test_i1_a_module_is_looked_at_without_a_login_and_left_in_order(tmp_path: Path) -> None:
    """Every function that is not needed notes its call and aborts the process."""
    module = FakeModule(tmp_path, "works")
    report = module.load()
    assert report.loaded
    assert report.description == "Acme module 3.7"
    [slot] = report.slots
    assert (slot.slot, slot.label, slot.model, slot.manufacturer) == ("Acme One 00 00", "Ada", "One", "Acme")
    assert pin_state(slot) == PinState.TO_BE_CHANGED
    assert "no readable certificates" in report.error
    assert module.notes == ["initialize", "close", "finalize"]


def test_i2_the_serial_number_is_nowhere_in_a_report(tmp_path: Path) -> None:
    assert "4711" not in repr(FakeModule(tmp_path, "works").load())


def test_the_pin_flags_come_from_the_token(tmp_path: Path) -> None:
    [slot] = FakeModule(tmp_path, "locked").load().slots
    assert pin_state(slot) == PinState.LOCKED


def test_a_module_that_wants_no_arguments_is_initialised_without(tmp_path: Path) -> None:
    """Some vendors' modules return CKR_ARGUMENTS_BAD to CKF_OS_LOCKING_OK."""
    module = FakeModule(tmp_path, "refuses-arguments")
    assert module.load().loaded
    assert module.notes[:2] == ["initialize", "initialize-null"]


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        ("fails", "C_Initialize: CKR_FUNCTION_FAILED"),
        ("crashes", "it crashed (SIGSEGV)"),
        ("aborts", "it crashed (SIGABRT)"),
        ("no-list", "C_GetFunctionList gave no list"),
        ("endless-slots", f"C_GetSlotList claims {2**64 - 1} slots"),
        ("eats-memory", "C_Initialize: CKR_HOST_MEMORY"),
    ],
)
def test_h2_a_module_that_cannot_be_used_is_a_report(tmp_path: Path, behaviour: str, error: str) -> None:
    report = FakeModule(tmp_path, behaviour).load()
    assert (report.loaded, report.error) == (False, error)


@pytest.mark.parametrize(
    ("behaviour", "slots", "error"),
    [
        ("unrecognised-token", 0, "slot 100: C_GetTokenInfo: CKR_TOKEN_NOT_RECOGNIZED"),
        ("missing-function", 1, "slot 100: C_FindObjects is missing"),
        ("too-many-found", 1, "slot 100: C_FindObjects gave 17 objects where 16 were asked for"),
        ("endless-objects", 1, "slot 100: 64 objects are no readable certificates"),
        ("huge-value", 1, f"slot 100: an object claims a value of {2**40} bytes; at most 65536 are read"),
        ("no-value", 1, "slot 100: 1 objects are no readable certificates"),
        ("lies-about-length", 1, "slot 100: 1 objects are no readable certificates"),
        ("many-slots", 16, ""),
    ],
)
def test_h2_absurd_answers_cost_only_what_they_are_about(tmp_path: Path, behaviour: str, slots: int,
                                                         error: str) -> None:
    report = FakeModule(tmp_path, behaviour).load()
    assert report.loaded
    assert len(report.slots) == slots
    assert report.error.startswith(error)


def test_h2_what_a_module_prints_does_not_get_into_the_answer(tmp_path: Path) -> None:
    report = FakeModule(tmp_path, "prints").load()
    assert (report.loaded, report.description) == (True, "Acme module 3.7")


def test_h2_a_crash_at_the_end_does_not_lose_the_answer(tmp_path: Path) -> None:
    module = FakeModule(tmp_path, "crashes-at-the-end")
    assert module.load().loaded
    assert module.notes[-1] == "finalize"


def test_h1_text_of_a_module_is_made_safe(tmp_path: Path) -> None:
    assert FakeModule(tmp_path, "hostile-text").load().description.isprintable()


def test_h2_a_call_into_a_module_is_never_cut_short(tmp_path: Path) -> None:
    """The time is over in the middle of a call: the child is left alone, finishes the call, and only then ends."""
    module = FakeModule(tmp_path, "hangs")
    report = module.load(timeout_s=2.0, grace_s=0.5)
    assert report.error == "it did not answer within 2 seconds and was left alone"
    assert module.notes == ["initialize"]
    # by psutil, which does not mind if the interpreter collects the abandoned child first
    waiting = [psutil.Process(child) for child in _children_of_this_process(str(module.path))]
    module.fifo.write_text("x")
    _, alive = psutil.wait_procs(waiting, timeout=20)
    assert (len(waiting), alive) == (1, [])
    assert module.notes == ["initialize", "exchange-finished", "finalize"]


def _children_of_this_process(argument: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                status, words = (entry / "stat").read_text(), (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if int(status.rpartition(")")[2].split()[1]) == os.getpid() and argument.encode() in words:
                found.append(int(entry.name))
    return found


@pytest.mark.parametrize(("content", "error"), [(b"", "file too short"), (b"no library" * 100, "invalid ELF header"),
                                                (None, "No such file or directory")])
def test_what_is_no_library_is_a_report(tmp_path: Path, content: bytes | None, error: str) -> None:
    path = tmp_path / "libacme.so"
    if content is not None:
        path.write_bytes(content)
    report = ChildTokenReader().load_module(str(path))
    assert not report.loaded
    assert error in report.error


def test_a_library_that_is_no_pkcs11_module_is_a_report() -> None:
    report = ChildTokenReader().load_module("/lib/x86_64-linux-gnu/libc.so.6")
    assert "not a PKCS#11 module" in report.error


def test_h2_the_child_can_gain_no_rights_and_leaves_no_core_behind(tmp_path: Path) -> None:
    module = FakeModule(tmp_path, "hangs")
    thread = threading.Thread(target=module.load)
    thread.start()
    fd = os.open(module.fifo, os.O_WRONLY)  # returns when the module waits inside C_Initialize
    [child] = _children_of_this_process(str(module.path))
    status = Path(f"/proc/{child}/status").read_text()
    limits = Path(f"/proc/{child}/limits").read_text()
    os.write(fd, b"x")
    os.close(fd)
    thread.join()
    assert "NoNewPrivs:\t1" in status
    assert [line.split()[4:6] for line in limits.splitlines() if "core file" in line] == [["0", "0"]]


# ---- the command itself


@pytest.mark.parametrize("arguments", [[], ["module"], ["module", "relative.so"], ["readers", "more"], ["other"]])
def test_a_wrong_command_line_is_refused(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "keyfit.token.child", *arguments], capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, b"")


def test_h2_a_stop_between_two_calls_ends_the_child_in_order(tmp_path: Path) -> None:
    """The signal arrives during C_Initialize; no other call but C_Finalize follows it."""
    module = FakeModule(tmp_path, "hangs")
    child = subprocess.Popen([sys.executable, "-m", "keyfit.token.child", "module", module.path],
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    fd = os.open(module.fifo, os.O_WRONLY)  # returns when the module waits inside C_Initialize
    child.terminate()
    os.write(fd, b"x")
    os.close(fd)
    output, _ = child.communicate(timeout=30)
    assert (child.returncode, output) == (75, b"")
    assert module.notes == ["initialize", "exchange-finished", "finalize"]


# ---- PC/SC

FAKE_PCSC = r"""
#include <string.h>
typedef long LONG;
typedef unsigned long DWORD;
typedef struct {
    const char *szReader; void *pvUserData; DWORD dwCurrentState, dwEventState, cbAtr; unsigned char rgbAtr[33];
} State;
static const char names[] = "Acme One 00 00\0Empty\x1b[31m 01 00\0";
LONG SCardEstablishContext(DWORD scope, const void *a, const void *b, LONG *context) {
    if (scope != 2 || a || b) return 0x80100004;
    *context = 0x1234567812345678;
    return ESTABLISH;
}
LONG SCardReleaseContext(LONG context) { return context == 0x1234567812345678 ? 0 : 0x80100004; }
LONG SCardListReaders(LONG context, const char *groups, char *buffer, DWORD *length) {
    if (context != 0x1234567812345678 || groups || *length < sizeof names) return 0x80100004;
    memcpy(buffer, names, sizeof names);
    *length = sizeof names;
    return LIST;
}
LONG SCardGetStatusChange(LONG context, DWORD timeout, State *states, DWORD count) {
    if (context != 0x1234567812345678 || timeout != 0 || count != 2 || states[0].dwCurrentState != 0
        || strcmp(states[0].szReader, "Acme One 00 00") != 0) return 0x80100004;
    states[0].dwEventState = 0x22;
    states[0].cbAtr = 3;
    memcpy(states[0].rgbAtr, "\x3b\x01\xff", 3);
    states[1].dwEventState = 0x12;
    states[1].cbAtr = 33;
    return STATUS;
}
"""


def pcsc_library(folder: Path, *, establish: int = 0, listing: int = 0, status: int = 0) -> ChildTokenReader:
    """A reader whose child finds a PC/SC library of our own, with pcsclite.h's layout."""
    source = folder / "pcsc.c"
    source.write_text(FAKE_PCSC)
    subprocess.run(["gcc", "-shared", "-fPIC", "-Wall", "-Werror", "-o", folder / "libpcsclite.so.1", source,
                    f"-DESTABLISH={establish:#x}", f"-DLIST={listing:#x}", f"-DSTATUS={status:#x}"],
                   check=True, timeout=60)
    return ChildTokenReader(extra_environment={"LD_LIBRARY_PATH": str(folder)})


def test_readers_come_with_the_answer_of_the_card_in_them(tmp_path: Path) -> None:
    assert pcsc_library(tmp_path).readers() == (Reader(name="Acme One 00 00", atr="3B01FF"),
                                                Reader(name="Empty[31m 01 00", atr=""))


def test_no_reader_is_no_error(tmp_path: Path) -> None:
    assert pcsc_library(tmp_path, listing=0x8010002E).readers() == ()


@pytest.mark.parametrize(("codes", "kind", "name"), [
    ({"establish": 0x8010001D}, "no-daemon", "SCARD_E_NO_SERVICE"),
    ({"listing": 0x8010001E}, "no-daemon", "SCARD_E_SERVICE_STOPPED"),
    ({"establish": 0x8010006A}, "no-access", "SCARD_W_SECURITY_VIOLATION"),
    ({"status": 0x80100013}, "failed", "SCARD_F_COMM_ERROR"),
    ({"status": 0x80107777}, "failed", "0x80107777"),
])
def test_errors_of_pcsc_have_their_name_and_a_cure(tmp_path: Path, codes: dict[str, int], kind: str,
                                                   name: str) -> None:
    with pytest.raises(HostError) as caught:
        pcsc_library(tmp_path, **codes).readers()
    assert (caught.value.code, caught.value.hint) == ("pcsc-unavailable", HINTS[kind])
    assert name in caught.value.message


def test_a_missing_pcsc_library_is_told_from_a_missing_daemon(tmp_path: Path) -> None:
    (tmp_path / "libpcsclite.so.1").write_bytes(b"")
    with pytest.raises(HostError) as caught:
        ChildTokenReader(extra_environment={"LD_LIBRARY_PATH": str(tmp_path)}).readers()
    assert caught.value.hint == HINTS["no-library"]


def test_the_real_pcsc_library_without_a_daemon(tmp_path: Path) -> None:
    """libpcsclite takes the daemon's socket from PCSCLITE_CSOCK_NAME; there is nothing at the end of this one."""
    with pytest.raises(HostError) as caught:
        ChildTokenReader(extra_environment={"PCSCLITE_CSOCK_NAME": str(tmp_path / "none")}).readers()
    assert caught.value.hint == HINTS["no-daemon"]
    assert "SCARD_E_NO_SERVICE" in caught.value.message


# ---- the real daemon, on a fake USB bus

UNKNOWN = "1EA8:8013"
"""A CCID token that Debian 12's libccid does not list."""
LOOKED = "Looking for a driver for VID: 0x1EA8"
ENTRY = (0x1EA8, 0x8013, "Keyfit Test Token")


@pytest.fixture
def box() -> Iterator[PcscBox]:
    with MockBus() as bus, PcscBox(bus) as made:
        bus.add(find_record(UNKNOWN), ccid=True)
        yield made


def child_readers(box: PcscBox) -> tuple[Reader, ...]:
    """What our own child process lists inside the box."""
    done = box.run([sys.executable, "-P", "-m", "keyfit.token.child", "readers"], check=True)
    answer = decode(done.stdout.encode(), ReadersAnswer, max_bytes=MAX_ANSWER_BYTES)
    assert answer.error == "", answer.detail
    return answer.readers


def restart_with(box: PcscBox, data: bytes, said: str) -> None:
    """Restart the daemon with this list; wait until it has said something that shows that it has read it."""
    before = len(box.pcscd_log)
    box.run(["tee", str(CCID_LIST)], stdin=data.decode(), check=True)
    box.start_pcscd()
    pause, end = threading.Event(), time.monotonic() + 20
    while said not in box.pcscd_log[before:]:
        assert time.monotonic() < end, f"pcscd never said {said!r}: {box.pcscd_log[before:]}"
        pause.wait(0.01)


def test_the_daemon_knows_a_token_from_the_added_entry_to_its_removal(box: PcscBox) -> None:
    original = CCID_LIST.read_bytes()
    assert ccidlist.problems(original) == ()
    assert len(ccidlist.parse(original).entries()) > 500
    restart_with(box, original, LOOKED)
    assert child_readers(box) == ()

    added = ccidlist.add_entry(original, *ENTRY)
    restart_with(box, added, "Adding USB device: Keyfit Test Token")
    box.readers(count=1, cards=1)
    [reader] = child_readers(box)
    assert reader.name.startswith("Keyfit Test Token ")
    assert reader.atr == ATR_T0.hex().upper()

    removed = ccidlist.remove_entry(added, *ENTRY)
    assert removed == original
    restart_with(box, removed, LOOKED)
    assert child_readers(box) == ()


def a_daemon_list(lists: str) -> bytes:
    """libccid's own file with other lists in it."""
    head, _, rest = CCID_LIST.read_bytes().partition(b"\t<key>ifdVendorID</key>")
    return head + lists.encode() + b"\n\t<key>Copyright</key>" + rest.partition(b"<key>Copyright</key>")[2]


SOUND = ("<key>ifdVendorID</key>\n<string>0x1EA8</string>\n<key>ifdProductID</key>\n<string>0x8013</string>\n"
         "<key>ifdFriendlyName</key>\n<string>A &amp; B</string>\n")


@pytest.mark.parametrize("lists", [
    SOUND,
    SOUND.replace("<string>A", "\t<array>\r\n <string>A"),
    SOUND + "# <string>x</string>\n",
    SOUND + "<key>other key 1</key><string>x</string>\n",
])
def test_what_is_called_sound_is_what_the_daemon_reads(box: PcscBox, lists: str) -> None:
    """The daemon is the judge of the scanner: same list, same readers."""
    data = a_daemon_list(lists)
    assert ccidlist.problems(data) == ()
    restart_with(box, data, "Adding USB device: A & B")
    [entry] = ccidlist.parse(data).entries()
    assert entry.friendly_name == "A & B"
    box.readers(count=1)
    assert [r.name.startswith("A & B ") for r in child_readers(box)] == [True]


@pytest.mark.parametrize("lists", [
    SOUND + "<!-- <string>x</string> -->",
    SOUND + "<key>a_b</key><string>x</string>",
    SOUND.replace("<string>A", "#<string>A"),
    SOUND.replace("<string>A &amp; B</string>", "<STRING>A</STRING>"),
    SOUND.replace("<string>A &amp; B</string>", "<string></string>"),
    SOUND.replace("0x1EA8</string>\n", "0x1EA8</string>\n<string>0x1</string>\n"),
    SOUND + "<key>ifdVendorID</key>\n",
])
def test_what_is_called_broken_is_what_the_daemon_rejects(box: PcscBox, lists: str) -> None:
    data = a_daemon_list(lists)
    assert ccidlist.problems(data)
    assert ccidlist.parse(data).entries() == ()
    restart_with(box, data, "Error parsing /usr/lib/pcsc/drivers/ifd-ccid.bundle/Contents/Info.plist")
    assert child_readers(box) == ()
