"""Security I2, F3, F5: canary values through every input at once, and then no trace of them but where they belong.

They are put into the environment, the proxy's address, names of user, home and machine, serial numbers, certificates, answers,
options, and into what package scripts and PKCS#11 modules print. Every command is then run as a program of its own, in text, as
JSON and with every detail, and made to fail with a fault of Keyfit's own; everything that it wrote or started is searched.
"""

import base64
import dataclasses
import io
import json
import os
import pty
import shlex
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.flow.test_first_commands import CHECKOUT
from tests.flow.test_publish_bundle import FEW_KEYS
from tests.sim import debs
from tests.sim.brands import a_brand, a_match, a_module, a_package
from tests.sim.livecopy import LiveCopy
from tests.sim.plans import CCID_LIST
from tests.sim.publisher import Publisher
from tests.sim.repository import HostileServer, SignedRepository
from tests.sim.sysfstree import TreeDevice, write_tree
from tests.sim.usbrecords import find_record

BRAND = "feitian-epass2003"
MODULE = "/usr/lib/x86_64-linux-gnu/opensc-pkcs11.so"
NOBODY = 65534
OWN_MODULE = f"/opt/keyfit/brands/{BRAND}/acme-module-archive/module.so"

SECRETS = {
    "pin": "cnrypin-4711", "keyfit-pin": "cnrykfpin-4712", "password": "cnrypass-4713", "proxy-user": "cnryproxyuser",
    "proxy-password": "cnry@proxypass", "url-user": "cnryurluser", "url-password": "cnryurlpass", "typed": "cnrytyped-0815",
    "script": "cnryscript-1", "module": "cnrymodule-1", "fault": "cnryfault-1", "ignored-url": "cnryignored-1",
}
SERIALS = {"usb-serial": "CNRYUSB00123", "reader-serial": "CNRYREADER77", "certificate-serial": "CNRYCERT55",
           "script-serial": "CNRYSCR99"}
NAMES = {"user": "cnryuser", "machine": "cnrymachine", "real-name": "Cnryfirst Cnrylast"}
CERTIFICATE = {"subject": "Cnrysubject Cnryperson", "label": "cnrycertlabel", "issuer": "Cnryissuer Bank"}
TOKEN = {"token-label": "cnrytokenlabel"}
ALL = SECRETS | SERIALS | NAMES | CERTIFICATE | TOKEN

FAULT = f"""
import sys
import keyfit.app.maintain, keyfit.app.install, keyfit.app.devices, keyfit.ui.commands.devices

def broken(*given, **named):
    secret = "{SECRETS["fault"]} {CERTIFICATE["subject"]}"
    try:
        raise KeyError(secret)
    except KeyError as first:
        raise RuntimeError("working on " + secret + " of {NAMES["user"]}") from first

for module, name in ((keyfit.app.maintain, "recover"), (keyfit.app.install, "make_plan"),
                     (keyfit.ui.commands.devices, "list_devices")):
    assert hasattr(module, name)
    setattr(module, name, broken)
from keyfit.__main__ import main
main()
"""
"""Runs the program with a fault of its own in the middle of three use cases."""


def forms(value: str) -> set[bytes]:
    """How a value may be written: as it is, decoded and encoded in the ways that addresses, headers and databases use."""
    texts = {value, quote(value, safe=""), value.lower(), value.upper(), json.dumps(value)[1:-1]}
    found = {text.encode(form) for text in texts for form in ("utf-8", "utf-16-le")}
    return found | {base64.b64encode(value.encode()).rstrip(b"="), value.encode().hex().encode()}


def hits(data: bytes, values: Mapping[str, str] = ALL) -> list[str]:
    """Names of the canaries that are in some bytes."""
    return sorted(name for name, value in values.items() if any(form in data for form in forms(value)))


class Machine:
    """A tree, an emulated token and a repository, all full of canaries."""

    def __init__(self, folder: Path, *, module: bytes = b"elf", scripts: bool = False) -> None:
        self.folder = folder
        self.tree, self.cache = folder / "tree", folder / "cache"
        self.home = folder / "home" / NAMES["user"]
        self.home.mkdir(parents=True)
        self.repository = SignedRepository(folder / "publisher")
        self._publish(module, scripts=scripts)
        self._prepare_tree()
        self.recording = folder / "recording.json"
        self.recording.write_text(json.dumps(self._recording()))
        self.faulty = folder / "faulty.py"
        self.faulty.write_text(FAULT)

    def environment(self, proxy: str = "http://127.0.0.1:9") -> dict[str, str]:
        login = f"{SECRETS['proxy-user']}:{quote(SECRETS['proxy-password'], safe='')}@"
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("KEYFIT_", "XDG_", "SUDO_"))}
        kept.pop("no_proxy", None)
        return kept | {
            "HOME": str(self.home), "USER": NAMES["user"], "LOGNAME": NAMES["user"], "SUDO_USER": NAMES["user"],
            "TOKEN_PIN": SECRETS["pin"], "KEYFIT_PIN": SECRETS["keyfit-pin"], "MY_PASSWORD": SECRETS["password"],
            "KEYFIT_REPOSITORY": f"https://x:{SECRETS['ignored-url']}@drivers.example/",
            "KEYFIT_ROOT": "/" + SECRETS["ignored-url"],
            "https_proxy": proxy.replace("://", f"://{login}"), "ALL_PROXY": proxy.replace("://", f"://{login}"),
        }

    def common(self, repository: str = "") -> list[str]:
        return ["--root", str(self.tree), "--emulate", str(self.recording), "--cache-dir", str(self.cache), "--repository",
                repository or str(self.repository.folder), "--trust-root", str(self.repository.folder / "metadata/1.root.json")]

    def run(self, *words: str, faulty: bool = False, trace: Path | None = None, repository: str = "", proxy: str = "",
            answers: bytes | None = None, common: list[str] | None = None, inside: LiveCopy | None = None,
            user_state: Path | None = None) -> "subprocess.CompletedProcess[bytes]":
        """One run on a machine of the canary's name.

        Args:
            answers: typed at a terminal.
            inside: where it runs, on "/".
            user_state: where an ordinary user keeps state; then it runs as one.
        """
        program = [sys.executable, "-P", *([str(self.faulty)] if faulty else ["-m", "keyfit"]), *words,
                   *(self.common(repository) if common is None else common)]
        if trace is not None:
            program = ["strace", "-f", "-v", "-qq", "-s", "8192", "-e", "trace=execve", "-o", str(trace), *program]
        environment = self.environment(proxy or "http://127.0.0.1:9")
        if user_state is not None:
            # who may read every file, so that the test's own folder need not be opened to everybody
            reads = [f"--{kind}-caps=+dac_read_search" for kind in ("inh", "ambient")]
            program = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *reads, *program]
            environment["XDG_STATE_HOME"] = str(user_state)
            del environment["KEYFIT_ROOT"]  # there is no such tree
        command = ["unshare", "--uts", "sh", "-c", f'hostname {NAMES["machine"]} && exec "$@"', "sh", *program]
        if inside is not None:
            command = inside.command(command)
        end = subprocess.DEVNULL
        if answers is not None:
            terminal, end = pty.openpty()
            os.write(terminal, answers)
        try:
            return subprocess.run(command, env=environment, capture_output=True, stdin=end, timeout=100, check=False)
        finally:
            if answers is not None:
                os.close(end)
                os.close(terminal)

    def logs(self) -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in sorted((self.tree / "var/log/keyfit").iterdir())}

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for data in self.logs().values() for line in data.splitlines()]
        return [event for event in lines if event["event"] == name]

    def _publish(self, module: bytes, *, scripts: bool) -> None:
        printed = " ".join([f"PIN={SECRETS['script']}", f"user {NAMES['user']}@{NAMES['machine']}", str(self.home),
                            f"serial number: {SERIALS['script-serial']}", f"CN={CERTIFICATE['subject']}",
                            f"http://u:{SECRETS['script']}@proxy/"])
        say = f"#!/bin/sh\necho {shlex.quote(printed)}\necho {shlex.quote(printed)} >&2\nenv\n"
        deb = debs.build(self.folder, "keyfit-try", files={"usr/lib/acme/driver.so": "elf\n"},
                         scripts={"postinst": say, "prerm": say} if scripts else {})
        payload = self.repository.add_payload(deb.name, deb.read_bytes())
        archive = self.repository.add_payload("module.tar.gz", _tar("module.so", module))
        self.repository.release(a_brand(
            BRAND, a_match(id_vendor=0x096E, id_product=0x0807),
            package=(a_package("keyfit-try", "deb", version="1.0", payload=payload),
                     a_package("acme-module", "archive", component="module", payload=archive, files=("module.so",))),
            module=(a_module(OWN_MODULE, register=("p11-kit", "firefox")),)))

    def _prepare_tree(self) -> None:
        debs.tree_with_package_database(self.tree)
        names = ("libc6", "pcscd", "libccid", "opensc-pkcs11")
        (self.tree / "var/lib/dpkg/status").write_text("".join(
            f"Package: {name}\nStatus: install ok installed\nMaintainer: Keyfit tests <tests@example.org>\nArchitecture: amd64\n"
            "Version: 2.36\nDescription: there already\n\n" for name in names))
        lists = {"ifdVendorID": "0x096E", "ifdProductID": "0x0807", "ifdFriendlyName": "Feitian ePass2003"}
        plist = "".join(f"<key>{k}</key>\n<array>\n<string>{v}</string>\n</array>\n" for k, v in lists.items())
        for path, data in ((CCID_LIST, f"<dict>\n{plist}</dict>\n"), (MODULE, "elf"), ("/usr/bin/firefox", "\x7fELF"),
                           ("/usr/lib/pcsc/drivers/ifd-ccid.bundle/Contents/Info.plist", f"<dict>\n{plist}</dict>\n")):
            target = self.tree / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(data)

    def _recording(self) -> dict[str, Any]:
        certificate = {"label": CERTIFICATE["label"], "sha256": "0" * 64, "ca": False, "not_before": "2025-01-01T00:00:00Z",
                       "subject": f"CN={CERTIFICATE['subject']},2.5.4.5={SERIALS['certificate-serial']}",
                       "issuer": f"CN={CERTIFICATE['issuer']}", "not_after": "2031-01-01T00:00:00Z"}
        reader = f"Feitian ePass2003 ({SERIALS['reader-serial']}) 00 00"
        slot = {"slot": reader, "label": TOKEN["token-label"], "model": "m", "manufacturer": "f", "initialised": True,
                "login_required": True, "pin_initialised": True, "pin_to_be_changed": False, "pin_count_low": False,
                "pin_final_try": False, "pin_locked": False, "certificates": [certificate]}
        report = {"loaded": True, "description": "made up", "slots": [slot]}
        interface = {"b_interface_number": 0, "b_interface_class": 11, "b_interface_sub_class": 0, "b_interface_protocol": 0}
        device = {"id_vendor": 0x096E, "id_product": 0x0807, "bcd_device": 256, "manufacturer": "Feitian", "product": "ePass2003",
                  "bus_path": "1-1", "interfaces": [interface]}
        return {"keyfit": 1, "devices": [{"device": device, "reader": reader, "atr": "3B00", "modules": {
            path: report | {"path": path} for path in (MODULE, OWN_MODULE)}}]}


def _tar(name: str, data: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


LOOKS = (("devices",), ("devices", "--explain", "--all"), ("plan", BRAND), ("verify", BRAND), ("certificate", BRAND),
         ("history",))
CHANGES = (("install", BRAND, "--yes"), ("repair", BRAND), ("recover",), ("uninstall", BRAND, "--yes"))
WAYS: tuple[tuple[str, ...], ...] = ((), ("--json",), ("--verbose",))


class Told:
    """What a run said, and where it says it."""

    def __init__(self, words: tuple[str, ...], done: "subprocess.CompletedProcess[bytes]") -> None:
        self.words = words
        self.code = done.returncode
        self.output = done.stdout + done.stderr

    def __repr__(self) -> str:
        return f"{' '.join(self.words)} -> {self.code}\n{self.output.decode(errors='replace')}"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(tmp_path_factory.mktemp("canary"))


@pytest.fixture(scope="module")
def told(machine: Machine) -> list[Told]:
    """Every command in every way, in this order: look, change, look again, take back."""
    runs = []
    for way in WAYS:
        for words in (*LOOKS, *CHANGES[:1], *LOOKS, *CHANGES[1:]):
            runs.append(Told((*words, *way), machine.run(*words, *way)))
    return runs


@pytest.fixture(scope="module")
def faults(machine: Machine) -> list[Told]:
    """The same fault in commands that change and in one that only looks."""
    return [Told((*words, *way), machine.run(*words, *way, faulty=True))
            for words in (("recover",), ("install", BRAND, "--yes"), ("devices",)) for way in WAYS]


def belongs(words: tuple[str, ...]) -> set[str]:
    """Canaries that a command is there to show."""
    if words[0] == "certificate":
        return {*CERTIFICATE, "certificate-serial"}  # the serial number here is an attribute of the subject's name
    if words[0] == "verify":
        return {*TOKEN}
    if words[0] == "install":
        return {*TOKEN, *CERTIFICATE, "certificate-serial"}  # ends with what `verify` and `certificate` say
    return set()


def test_the_canary_is_seen_where_it_belongs(told: list[Told]) -> None:
    """Otherwise the rest of this file would prove nothing."""
    wrong = [run for run in told if run.code != (1 if run.words[0] == "verify" else 0)]  # no browser knows OpenSC's module
    assert wrong == []
    shown = next(run for run in told if run.words == ("certificate", BRAND))
    assert {"subject", "issuer"} <= set(hits(shown.output))
    assert any("token-label" in hits(run.output) for run in told if run.words[0] == "verify")
    for name, value in ALL.items():
        assert hits(b"<" + value.encode() + b">") == [name]


def test_i2_f5_no_output_has_more_than_belongs_there(told: list[Told]) -> None:
    found = {" ".join(run.words): sorted(set(hits(run.output)) - belongs(run.words)) for run in told}

    assert {words: names for words, names in found.items() if names} == {}


def test_i2_no_log_has_any_of_it_at_any_level(machine: Machine, told: list[Told]) -> None:
    levels = {json.loads(line)["level"] for data in machine.logs().values() for line in data.splitlines()}
    outputs = machine.events("program-output")

    assert {"info", "traffic"} <= levels
    assert any("keyfit-try" in event["fields"]["stdout"] for event in outputs)
    assert {name: hits(data) for name, data in machine.logs().items() if hits(data)} == {}


def test_commands_that_only_look_leave_no_log(machine: Machine, told: list[Told]) -> None:
    assert {event["command"] for event in machine.events("run-begun")} <= {words[0] for words in CHANGES} | {"devices"}


def test_i2_the_record_and_the_downloads_have_none_of_it(machine: Machine, told: list[Told]) -> None:
    folders = (machine.tree / "var/lib/keyfit", machine.cache, machine.home)
    kept = [path for folder in folders for path in folder.rglob("*") if path.is_file()]

    assert any(path.name == "journal.sqlite" for path in kept)
    assert {str(p): hits(p.read_bytes()) for p in kept if hits(p.read_bytes())} == {}


def test_i2_a_fault_of_our_own_says_where_and_not_on_what(machine: Machine, faults: list[Told]) -> None:
    reports = machine.events("crash")

    assert {run.code for run in faults} == {70}
    assert {" ".join(run.words): hits(run.output) for run in faults if hits(run.output)} == {}
    assert all(b"faulty.py:" in run.output for run in faults)  # the place in the code
    assert all(b"/var/log/keyfit/keyfit.log" in run.output for run in faults)
    assert len(reports) == len(faults)
    for report in reports:
        said = report["fields"]["frames"]
        assert "builtins.RuntimeError" in said
        assert "builtins.KeyError" in said
        assert any(line.strip().startswith("keyfit/ui/cli.py:") for line in said)
    assert {name: hits(data) for name, data in machine.logs().items() if hits(data)} == {}


def test_i2_what_is_typed_is_not_kept(machine: Machine) -> None:
    done = machine.run("install", BRAND, "--verbose", answers=f"{SECRETS['typed']}\ny\n".encode())

    assert done.returncode == 0, done
    assert b"Go on?" in done.stdout
    assert hits(done.stdout + done.stderr, SECRETS) == []
    assert [event["fields"] for event in machine.events("answered")][-1] == {"yes": True}
    assert {name: hits(data) for name, data in machine.logs().items() if hits(data)} == {}
    assert machine.run("uninstall", BRAND, "--yes").returncode == 0


@pytest.mark.parametrize("words", [("install", BRAND, "--yes"), ("verify", BRAND), ("uninstall", BRAND, "--yes")],
                         ids=lambda words: words[0])
def test_i2_c5_no_child_is_given_any_of_it(machine: Machine, tmp_path: Path, words: tuple[str, ...]) -> None:
    """Arguments and environments of everything that is started, as the kernel sees them."""
    trace = tmp_path / "trace"

    done = machine.run(*words, trace=trace)

    assert done.returncode == (1 if words[0] == "verify" else 0), done
    first, *children = trace.read_bytes().splitlines()
    assert "pin" in hits(first)  # our own environment has it
    assert words[0] == "verify" or any(b"dpkg" in line for line in children)
    assert {line: hits(line) for line in children if hits(line)} == {}


@pytest.mark.parametrize("command", ["devices", "plan", "install"])
@pytest.mark.parametrize("way", WAYS, ids=["text", "json", "verbose"])
def test_f3_a_proxys_credentials_reach_the_proxy_and_nobody_else(machine: Machine, tmp_path: Path, command: str,
                                                                 way: tuple[str, ...]) -> None:
    with HostileServer(tmp_path) as proxy:
        words = (command, *([] if command == "devices" else [BRAND]), *(["--yes"] if command == "install" else []))
        done = machine.run(*words, *way, repository="https://drivers.example/", proxy=proxy.url.rstrip("/"))

    assert done.returncode == (0 if command == "devices" else 69), done
    assert hits(done.stdout + done.stderr) == []
    assert {name: hits(data) for name, data in machine.logs().items() if hits(data)} == {}


@pytest.mark.parametrize("way", WAYS, ids=["text", "json", "verbose"])
@pytest.mark.parametrize("address", ["https://{}:{}@drivers.example/", "https://{}:{}@[x/", "http://{}:{}@127.0.0.1:1/", "ftp://{}:{}@h/"])
def test_f3_an_address_with_a_password_is_refused_and_not_repeated(machine: Machine, address: str, way: tuple[str, ...]) -> None:
    url = address.format(SECRETS["url-user"], SECRETS["url-password"])

    done = machine.run("install", BRAND, "--yes", *way, repository=url)

    assert done.returncode == 2, done
    assert hits(done.stdout + done.stderr) == []
    assert {name: hits(data) for name, data in machine.logs().items() if hits(data)} == {}


def talking_module(folder: Path) -> bytes:
    """A PKCS#11 module that says more than it is asked, on both of its streams, from its start to its end."""
    text = " ".join(["PIN", SECRETS["module"], SERIALS["usb-serial"], CERTIFICATE["subject"]])
    (folder / "talk.c").write_text(
        '#include <stdio.h>\n#include <unistd.h>\nextern char **environ;\n'
        f'static void talk(void) {{ puts("{text}"); fputs("{text}\\n", stderr);\n'
        '  for (char **e = environ; *e; e++) { puts(*e); fputs(*e, stderr); }\n  fflush(stdout);\n'
        f'  if (write(1, "{text}", {len(text)}) < 0 || write(2, "{text}", {len(text)}) < 0) _exit(1); }}\n'
        '__attribute__((constructor)) static void begin(void) { talk(); }\n'
        '__attribute__((destructor)) static void end(void) { talk(); }\n')
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", folder / "module.so", '-DBEHAVIOUR="prints"', '-DNOTES="/tmp/notes"',
                    '-DFIFO="/tmp/fifo"', "-Wno-cast-function-type", CHECKOUT / "tests/platforms/fake_module.c",
                    folder / "talk.c"], check=True)
    return (folder / "module.so").read_bytes()


def test_i2_c5_package_scripts_and_modules_that_talk(tmp_path: Path) -> None:
    """On "/" itself, in a copy of this system: dpkg runs the scripts, and the module is really loaded, with a real bus whose
    token has a serial number."""
    machine = Machine(tmp_path, module=talking_module(tmp_path), scripts=True)
    looks = (("devices", "--explain"), ("verify", BRAND), ("certificate", BRAND), ("history",))
    with LiveCopy(tmp_path) as copy:
        log = copy.root / "var/log/keyfit"
        shutil.rmtree(log, ignore_errors=True)
        record = dataclasses.replace(find_record("0A89:0030"), id_vendor=0x096E, id_product=0x0807)
        write_tree(copy.root, [TreeDevice(record=record, serial=SERIALS["usb-serial"])])
        for real_bus in (False, True):
            common = machine.common()[2 if not real_bus else 4:]
            for words in (("install", BRAND, "--yes"), *looks, ("uninstall", BRAND, "--yes")):
                for way in (("--verbose",), ("--json", "--verbose")) if words[0] != "uninstall" else WAYS[-1:]:
                    done = machine.run(*words, *way, common=common, inside=copy)
                    assert b"internal" not in done.stdout + done.stderr, done
                    assert real_bus or done.returncode == 0 or words[0] == "verify", done
                    assert set(hits(done.stdout + done.stderr)) <= (set() if real_bus else belongs(words)), (words, way, done)
            lines = [json.loads(line) for path in log.iterdir() for line in path.read_bytes().splitlines()]
            said = [str(event["fields"]) for event in lines if event["event"] == "program-output"]
            assert any("PIN=<hidden> user <user>@<host>" in text for text in said)
            assert {path.name: hits(path.read_bytes()) for path in log.iterdir() if hits(path.read_bytes())} == {}
        assert "initialize" in (copy.root / "tmp/notes").read_text()  # the module was really loaded
        kept = [path for path in (copy.root / "var/lib/keyfit").rglob("*") if path.is_file()]
        assert any(path.name == "journal.sqlite" for path in kept)
        assert {str(path): hits(path.read_bytes()) for path in kept if hits(path.read_bytes())} == {}


def test_i2_an_ordinary_users_log_is_his_own_and_has_none_of_it(machine: Machine, tmp_path: Path) -> None:
    """The log that a user is asked to send; also of a fault of our own, and where the report says it is."""
    place = tmp_path / "state" / NAMES["user"]
    place.mkdir(parents=True)
    os.chown(place, NOBODY, NOBODY)
    runs = [machine.run(*words, *way, common=[], user_state=place, faulty=faulty)
            for words, faulty in ((("install", BRAND, "--yes"), False), (("recover",), True)) for way in WAYS]

    files = [path for path in place.rglob("*") if path.is_file()]
    assert [run.returncode for run in runs] == [2] * len(WAYS) + [70] * len(WAYS), runs  # the repository's address is refused
    assert {path.name for path in files} == {"keyfit.log"}, runs
    assert {(path.stat().st_uid, path.stat().st_mode & 0o777) for path in files} == {(NOBODY, 0o600)}
    assert files[0].parent.stat().st_mode & 0o777 == 0o700
    assert {str(path): hits(path.read_bytes()) for path in files if hits(path.read_bytes())} == {}
    assert [hits(run.stdout + run.stderr) for run in runs] == [[]] * 2 * len(WAYS)
    assert b"keyfit/keyfit.log" in runs[len(WAYS)].stderr


@pytest.fixture
def publisher(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Publisher:
    for name, value in {"TOKEN_PIN": SECRETS["pin"], "MY_PASSWORD": SECRETS["password"], "USER": NAMES["user"],
                        "LOGNAME": NAMES["user"], "HOME": str(tmp_path / NAMES["user"])}.items():
        monkeypatch.setenv(name, value)
    made = Publisher(tmp_path, capsys)
    made.init(*FEW_KEYS)
    made.add()
    made.release()
    return made


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_i2_an_offline_kit_says_nothing_of_who_pressed_it(publisher: Publisher, tmp_path: Path, form: str) -> None:
    out = tmp_path / "kit"

    press = [sys.executable, "-m", "keyfit.publisher", "bundle", publisher.folder, out, "--format", form]
    subprocess.run(["unshare", "--uts", "sh", "-c", f'hostname {NAMES["machine"]} && exec "$@"', "sh", *press], check=True,
                   capture_output=True)

    if form == "zip":
        with zipfile.ZipFile(out) as archive:
            archive.extractall(tmp_path / "unpacked")
    files = [out] if form == "zip" else []
    files += [p for p in (tmp_path / "unpacked" if form == "zip" else out).rglob("*") if p.is_file()]
    assert len(files) > 10
    for path in files:
        assert hits(path.read_bytes()) == [], path
        assert str(tmp_path).encode() not in path.read_bytes(), path
