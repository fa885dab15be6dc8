"""Children that read what others wrote, against the real kernel: what a module or a file that took one over could still do."""

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from keyfit.confinement import filters
from keyfit.confinement.calls import AARCH64, NUMBERS, PRIVILEGED, PROGRAMS, SOCKETS, WRITES, X86_64
from keyfit.invoker import invoking_user
from keyfit.model.certificate import ModuleReport
from keyfit.token.protocol import MAX_ANSWER_BYTES
from keyfit.token.reader import ChildTokenReader

HERE = Path(__file__).parent
HEADERS = {X86_64: Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), AARCH64: Path("/usr/include/asm-generic/unistd.h")}
"""linux-libc-dev, which gcc brings; arm64 takes the generic numbers."""
SOFTHSM = "/usr/lib/softhsm/libsofthsm2.so"


def module(folder: Path, behaviour: str, calls: tuple[str, ...] = ()) -> Path:
    """`fake_module.c` for one behaviour; `calls` are tried when it is initialised."""
    path = folder / f"lib{behaviour}.so"
    defines = {"BEHAVIOUR": f'"{behaviour}"', "NOTES": f'"{folder / "notes"}"', "FIFO": f'"{folder / "fifo"}"'}
    if calls:
        defines["CALLS"] = " ".join(f"X({name})" for name in calls)
    subprocess.run(["gcc", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-Wno-cast-function-type", "-o", path,
                    HERE / "fake_module.c", *(f"-D{name}={value}" for name, value in defines.items())], check=True, timeout=60)
    return path


def load(path: Path, **limits: float) -> ModuleReport:
    return ChildTokenReader(**limits).load_module(str(path))


def notes(folder: Path) -> dict[str, int]:
    """errno by call; 0 if it was allowed."""
    return {name: int(value) for name, value in re.findall(r"(\S+)=(\d+) ", (folder / "notes").read_text())}


@pytest.mark.parametrize("machine", NUMBERS)
def test_h2_the_numbers_of_the_calls_are_those_of_the_kernels_headers(machine: str) -> None:
    known = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", HEADERS[machine].read_text()))
    wrong = {name: number for name, number in NUMBERS[machine].items()
             if name in known and int(known[name]) != number}
    newer = {"fchmodat2", "quotactl_fd"} | {"process_madvise", "mount_setattr"}

    assert wrong == {}
    assert set(NUMBERS[machine]) - set(known) <= newer, "a name that no header has"
    missing = set(PRIVILEGED + SOCKETS + PROGRAMS + WRITES) & set(known) - set(NUMBERS[machine])
    assert missing == set(), "the machine has the call and the table does not"


def test_h2_a_loaded_module_cannot_make_a_single_forbidden_call(tmp_path: Path) -> None:
    calls = tuple(name for name in PRIVILEGED if name in NUMBERS[X86_64])
    report = load(module(tmp_path, "works", calls))
    found = notes(tmp_path)

    assert report.loaded, report.error
    assert {name: found[name] for name in calls} == dict.fromkeys(calls, errno.EPERM)
    assert (found["new-user-namespace"], found["clone3"]) == (errno.EPERM, errno.ENOSYS)


def test_h2_without_the_confinement_the_same_calls_are_not_refused(tmp_path: Path) -> None:
    """So that the test above cannot pass because of something else."""
    calls = ("unshare", "personality", "adjtimex", "userfaultfd", "keyctl", "setuid", "io_uring_setup", "bpf", "setgroups")
    path = module(tmp_path, "works", calls)
    subprocess.run([sys.executable, "-c", "import sys; from keyfit.token import pkcs11\n"
                    "with pkcs11.Module(sys.argv[1]): pass", path], check=True, timeout=60)
    found = notes(tmp_path)

    assert len([name for name in calls if found[name] != errno.EPERM]) >= 6
    assert found["new-user-namespace"] != errno.EPERM or os.geteuid() != 0


@pytest.mark.parametrize("behaviour", ["old-call-table", "x32-call-table"])
def test_h2_a_call_by_another_table_ends_the_child_and_not_the_program(tmp_path: Path, behaviour: str) -> None:
    assert load(module(tmp_path, behaviour)).error == "it crashed (SIGSYS)"


def test_h2_a_flood_from_a_module_is_cut_off(tmp_path: Path) -> None:
    report = load(module(tmp_path, "floods"), grace_s=10.0)
    assert report.error == f"it answered with more than {MAX_ANSWER_BYTES} bytes"


def test_h2_what_a_module_started_holds_nobody_up(tmp_path: Path) -> None:
    """It has the pipe of the answer, and stays; it is under the same limits."""
    report = load(module(tmp_path, "forks"), timeout_s=20.0)
    [left] = [process for process in psutil.process_iter(["cmdline"])
              if str(tmp_path / "libforks.so") in (process.info["cmdline"] or [])]
    try:
        status = Path(f"/proc/{left.pid}/status").read_text()
        assert report.loaded
        assert "Seccomp:\t2" in status
        assert "NoNewPrivs:\t1" in status
    finally:
        left.kill()


def test_h2_a_real_module_works_under_the_filter() -> None:
    assert ChildTokenReader().load_module(SOFTHSM).loaded


CONFINED = """
import json, sys
from keyfit.token import child
status = open("/proc/self/status")
child._confine(int(sys.argv[1]) if sys.argv[1:] else None)
print(json.dumps(dict(line.split(":\\t", 1) for line in status.read().splitlines())))
"""


@pytest.mark.parametrize("uid", [None, 65_534] if os.geteuid() == 0 else [None])
def test_h2_the_token_child_is_confined_and_becomes_the_user(uid: int | None) -> None:
    said = _json([sys.executable, "-c", CONFINED, *([] if uid is None else [str(uid)])])

    assert (said["Seccomp"], said["NoNewPrivs"]) == ("2", "1")
    if uid is not None:
        assert said["Uid"].split() == [str(uid)] * 4
        assert said["Gid"].split() == [str(uid)] * 4
        assert said["Groups"].split() in ([], [str(uid)])
        assert int(said["CapEff"], 16) == int(said["CapPrm"], 16) == 0


READER = """
import ctypes, json, os, socket, subprocess, sys, threading
from keyfit.publisher.inspection import sandbox
from keyfit.confinement.calls import NUMBERS, PRIVILEGED, PROGRAMS, SOCKETS, WRITES
status = open("/proc/self/status")
target, readable = sys.argv[1:3]
kept = open(readable, "rb")
library = ctypes.CDLL(None, use_errno=True)
sandbox.restrict()
early = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
sandbox.close()
def tried(what):
    try:
        return str(what())
    except BaseException as error:
        return f"{type(error).__name__} {getattr(error, 'errno', '')}"
def number(name):
    ctypes.set_errno(0)
    return -library.syscall(NUMBERS["x86_64"][name], 0, 0, 0, 0, 0, 0) and ctypes.get_errno()
said = {name: number(name) for name in (*PRIVILEGED, *SOCKETS, *PROGRAMS, *WRITES) if name in NUMBERS["x86_64"]}
said["thread"] = []
worker = threading.Thread(target=lambda: said["thread"].append("ran"))
worker.start(); worker.join()
said["os.fork"] = tried(os.fork)
said["exec"] = tried(lambda: os.execv("/bin/true", ["true"]))
said["posix_spawn"] = tried(lambda: os.posix_spawn("/bin/true", ["true"], {}))
said["socket.socket"] = tried(socket.socket)
said["write"] = tried(lambda: os.open(target, os.O_WRONLY))
said["create"] = tried(lambda: os.open(target + "2", os.O_WRONLY | os.O_CREAT))
said["temporary"] = tried(lambda: os.open("/tmp", os.O_TMPFILE | os.O_RDWR))
said["read"] = tried(lambda: os.open("/etc/hostname", os.O_RDONLY))
said["list"] = tried(lambda: os.listdir("/"))
said["kept"] = kept.read(4).decode()
said["early"] = early.communicate(b"through", timeout=20)[0].decode()
said["status"] = dict(line.split(":\\t", 1) for line in status.read().splitlines())
print(json.dumps(said))
"""


def test_h2_the_child_that_looks_at_files_can_read_what_is_open_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("")
    (tmp_path / "readable").write_text("open")
    said = _json([sys.executable, "-c", READER, str(tmp_path / "target"), str(tmp_path / "readable")])

    calls = [name for name in (*PRIVILEGED, *SOCKETS, *PROGRAMS, *WRITES) if name in NUMBERS[X86_64]]
    assert {name: said[name] for name in calls} == dict.fromkeys(calls, errno.EPERM)
    for what in ("os.fork", "exec", "posix_spawn", "socket.socket", "write", "create", "temporary"):
        assert said[what] == f"PermissionError {errno.EPERM}", what
    for what in ("read", "list"):  # by Landlock, which says EACCES
        assert said[what] == f"PermissionError {errno.EACCES}", what
    assert (said["thread"], said["kept"], said["early"]) == (["ran"], "open", "through")
    assert (said["status"]["Seccomp"], said["status"]["NoNewPrivs"]) == ("2", "1")
    assert int(said["status"]["CapEff"], 16) == 0


def test_h2_a_machine_whose_numbers_are_not_known_gets_no_filter() -> None:
    assert filters.reader("riscv64") is None
    assert filters.token_child("riscv64") is None


@pytest.mark.parametrize("make", [filters.reader, filters.token_child])
@pytest.mark.parametrize("machine", NUMBERS)
def test_h2_every_filter_is_one_that_the_kernel_takes(make: object, machine: str) -> None:
    """Length and jumps; BPF_MAXINSNS is 4096 (linux/bpf_common.h)."""
    program = make(machine)  # type: ignore[operator]
    count, odd = divmod(len(program), 8)
    assert (odd, count < 4_096) == (0, True)


# ---- as whom the parent has the child run

SCRIPTED = """
import json, os, sys
from pathlib import Path
with open({calls!r}, "a") as file:
    file.write(json.dumps([sys.argv[1:], os.environ.get("HOME"), os.environ.get("USER")]) + "\\n")
refused = "--user" in sys.argv and {refuses}
if sys.argv[-1] == "readers":
    print(json.dumps({{"error": "no-access"}} if refused else {{"readers": [{{"name": "A", "atr": "3B00"}}]}}))
else:
    print(json.dumps({{"path": "/m.so", "loaded": True}}))
"""


class Noted:
    """A log that is kept."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    def event(self, level: str, name: str, **_: object) -> None:
        self.events.append((level, name))


def scripted(folder: Path, *, refuses: bool) -> tuple[ChildTokenReader, Path, Noted]:
    calls, log = folder / "calls", Noted()
    program = SCRIPTED.format(calls=str(calls), refuses=refuses)
    return ChildTokenReader(child_command=[sys.executable, "-c", program], log=log), calls, log


def _asked(calls: Path) -> list[tuple[list[str], str | None, str | None]]:
    return [tuple(json.loads(line)) for line in calls.read_text().splitlines()]


AS_USER = ["--user", "65534"] if os.geteuid() == 0 else []
"""Only root can be called on behalf of somebody."""


def test_h2_the_child_runs_as_the_user_who_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_UID", "65534")
    reader, calls, log = scripted(tmp_path, refuses=False)
    assert [one.name for one in reader.readers()] == ["A"]
    assert reader.load_module("/m.so").loaded
    assert [each[0] for each in _asked(calls)] == [[*AS_USER, "readers"], [*AS_USER, "module", "/m.so"]]
    assert not AS_USER or _asked(calls)[0][2] == "nobody"
    assert log.events == []


def test_h2_a_user_whom_pcscd_refuses_is_asked_for_as_administrator_and_that_is_noted(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PKEXEC_UID", "65534")
    reader, calls, log = scripted(tmp_path, refuses=True)
    assert reader.load_module("/m.so").loaded
    assert [each[0] for each in _asked(calls)] == [*([[*AS_USER, "readers"], ["readers"]] if AS_USER else []),
                                                   ["module", "/m.so"]]
    assert log.events == [("warning", "token-child-as-administrator")] * bool(AS_USER)


@pytest.mark.parametrize("value", ["0", "", "-1", "1e3", "\u0661", "99999999999", "4294967295", "65534 ", "root"])
def test_h2_what_is_no_user_is_nobody_to_become(value: str) -> None:
    assert invoking_user({"SUDO_UID": value}) is None
    assert invoking_user({"PKEXEC_UID": value}) is None


def _json(command: list[str]) -> dict[str, str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found

