"""An ordinary user installs a driver: the packaged program, real polkit, a real password typed at pkexec's own question.

`alice` may nothing, `boss` is an administrator. Alice sits at the screen (a local session of systemd-logind), or has no
session, or one that is in the background.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sim.vtoken import Ccid, CcidFunction, PivCard, UsbDevice
from tests.vm.bank import Authority, Bank
from tests.vm.bench.host import digest
from tests.vm.bench.machine import Entry, Machine, Process, State
from tests.vm.bench.redir import RedirToken
from tests.vm.bench.states import derive
from tests.vm.installed import BOOKKEEPING, DATA, HELPER, PROGRAM, desktop

HERE = Path(__file__).parent
PASSWORD = "correct-horse"
QUESTION = "Password: "
OPENER = """#!/bin/sh
echo "$(id -u) $*" >> /home/alice/opened
"""
ACCOUNTS = f"""
set -e
useradd --create-home --shell /bin/bash alice
useradd --create-home --shell /bin/bash --groups sudo boss
printf 'alice:alices-own\\nboss:{PASSWORD}\\n' | chpasswd
update-ca-certificates
systemctl restart polkit
"""
ACTION = "==== AUTHENTICATING FOR {} ===="


class Desk:
    """Alice's machine, with a token in it."""

    def __init__(self, machine: Machine, bank: Bank) -> None:
        self.machine = machine
        machine.put(f"{DATA}/root.json", bank.trusted_root)
        machine.put(f"{DATA}/repositories.txt", f"{bank.url}\n".encode())
        for name in ("guest_pty.py", "guest_watch.py"):
            machine.put(f"/srv/{name}", (HERE / name).read_bytes())
        self._runs = 0
        self._out = ""

    def start(self, *arguments: str, answers: tuple[str, ...] = (), terminal: str = "1", env: dict[str, str] | None = None,
              hold: str = "") -> Process:
        """Alice types a command.

        Args:
            arguments: After the program's name.
            answers: What is typed at the questions for a password, in turn.
            terminal: The virtual terminal of her session; the one on the screen is 1. "" for no session.
            env: Variables of hers.
            hold: A file that has to appear before an answer is typed.
        """
        self._runs += 1
        self._out = f"/home/alice/out{self._runs}"
        dialog = json.dumps([[QUESTION, answer, hold] for answer in answers])
        command = ["/usr/bin/python3", "/srv/guest_pty.py", dialog, self._out, PROGRAM, *arguments, "--json"]
        variables = {"LANG": "C.UTF-8", "TERM": "dumb", **({"DISPLAY": ":0"} if terminal else {}), **(env or {})}
        hers = ["/usr/bin/env", *(f"{name}={value}" for name, value in variables.items()), *command]
        if not terminal:
            return self.machine.start(hers, user="alice")
        place = ["--setenv=XDG_SEAT=seat0", f"--setenv=XDG_VTNR={terminal}", "--setenv=XDG_SESSION_TYPE=tty",
                 "--setenv=XDG_SESSION_CLASS=user"]
        return self.machine.start(["systemd-run", "--quiet", "--pipe", "--wait", "--collect", "-p", "User=alice", "-p",
                                   "PAMName=login", *place, *hers])

    def finish(self, process: Process) -> tuple[int, str, dict[str, Any]]:
        """Exit code, what was on the terminal, and the document."""
        done = process.wait(300)
        match = re.search(r"^exit (-?\d+)$", done.stdout, re.MULTILINE)
        assert match is not None, done
        text = self.machine.get(self._out).decode()
        return int(match[1]), done.stdout, json.loads(text) if text.startswith("{") else {}

    def type(self, *arguments: str, **how: Any) -> tuple[int, str, dict[str, Any]]:
        """A command to its end."""
        return self.finish(self.start(*arguments, **how))

    def look(self) -> dict[str, Any]:
        """Packages and every file in /etc and /var/lib but the bookkeeping."""
        files = self.machine.snapshot(["/etc", "/var/lib"])
        kept: dict[str, Entry] = {p: e for p, e in files.items() if not p.startswith(BOOKKEEPING)}
        return {**self.machine.packages(), **kept}

    def same_as(self, before: dict[str, Any]) -> None:
        """Fail with what differs, if anything does."""
        now = self.look()
        assert {k: (before.get(k), now.get(k)) for k in before.keys() | now.keys() if before.get(k) != now.get(k)} == {}

    def untouched(self, before: dict[str, Any]) -> None:
        """The same, and no change was even begun."""
        self.same_as(before)
        history = json.loads(self.machine.run([PROGRAM, "history", "--json"]).check().stdout)
        assert history["data"]["history"] == []

    def quiet(self) -> None:
        """C1: nothing of Keyfit's runs, and nothing listens for the network."""
        assert self.machine.run("pgrep -a keyfit").stdout == ""
        assert self.machine.run(["ss", "-Hlntup"]).check().stdout == ""
        units = self.machine.run("systemctl list-unit-files --no-legend '*keyfit*'; busctl list --no-legend | grep -i keyfit")
        assert units.stdout == ""


@pytest.fixture(scope="module")
def ready(base: State, authority: Authority) -> State:
    """With the package and what apt takes along for it, both accounts, and a desktop's opener of pages."""
    def prepare(machine: Machine) -> None:
        machine.put("/usr/local/share/ca-certificates/test.crt", authority.pem)
        machine.put("/usr/bin/xdg-open", OPENER.encode(), 0o755)
        machine.run(ACCOUNTS, timeout_s=120).check()

    return derive(desktop(base), digest(ACCOUNTS, OPENER, authority.pem), prepare)


@pytest.fixture
def desk(ready: State, bank: Bank) -> Iterator[Desk]:
    with Machine.restore(ready) as machine:
        device = UsbDevice(0x072F, 0xB200, [CcidFunction(Ccid(PivCard()))], manufacturer="ACS", product="CryptoMate (T1)")
        with RedirToken(device, machine) as token:
            token.plug()
            yield Desk(machine, bank)


def test_c1_an_ordinary_user_makes_the_token_work_with_an_administrator_s_password(desk: Desk) -> None:
    """Install from the screen, hand-off as the user, uninstall without a session; afterwards nothing is left running."""
    before = desk.look()

    code, terminal, document = desk.type("install", "--yes", answers=(f"{PASSWORD}\n",))

    assert code == 0, (terminal, document)
    assert ACTION.format("org.keyfit.install") in terminal
    assert "to install the driver of your USB token" in terminal
    assert f"{HELPER} install acs-cryptomate" in terminal
    assert document["data"]["verdict"]["works"] is True
    assert "libacsccid1" in desk.machine.packages()
    alice = desk.machine.run(["id", "-u", "alice"]).stdout.strip()
    assert desk.machine.get("/home/alice/opened").decode() == f"{alice} https://www.example.com/certificate\n"
    desk.quiet()
    history = json.loads(desk.machine.run([PROGRAM, "history", "--json"]).stdout)["data"]["history"]
    assert [entry["result"] for entry in history] == ["done"]

    code, terminal, document = desk.type("uninstall", "acs-cryptomate", "--yes", answers=(f"{PASSWORD}\n",), terminal="")

    assert code == 0, (terminal, document)
    assert ACTION.format("org.keyfit.uninstall") in terminal
    desk.quiet()
    desk.same_as(before)


def test_c6_without_an_administrator_s_consent_nothing_is_changed(desk: Desk) -> None:
    """A wrong password, one's own, a session in the background, the key that cancels; each leaves all as it was."""
    before = desk.look()
    for wrong in ("wrong\n", "alices-own\n"):
        code, terminal, document = desk.type("install", "--yes", answers=(wrong,))
        assert (code, document["messages"][-1]["code"]) == (77, "elevation-refused"), terminal
        desk.untouched(before)

    code, terminal, document = desk.type("install", "--yes", terminal="2")
    assert (code, document["messages"][-1]["code"]) == (77, "elevation-refused"), terminal
    assert QUESTION not in terminal
    desk.untouched(before)

    code, terminal, document = desk.type("install", "--yes", answers=("\x03",))
    assert code == 130, (terminal, document)
    desk.untouched(before)
    desk.quiet()


GARBAGE = ([], ["format"], ["install", "../etc"], ["install", "acs-cryptomate", "more"], ["--help"], ["-c", "id"], ["INSTALL"],
           ["install\n"], ["install", "--root=/tmp"], ["install", "a" * 49])
NOISE = (b"", b"\0" * 64, b"\xff" * 10_000, b"{}", b"GET / HTTP/1.1\r\n\r\n")


BY_HAND = """
cd && mkfifo ready && pkttyagent --notify-fd 3 --process $$ 3>ready &
agent=$!
until [ -p ~/ready ]; do :; done
cat ~/ready
pkexec --disable-internal-agent {}
code=$?
kill $agent
exit $code
"""
"""Somebody starts the helper at a terminal without Keyfit; pkexec's own question does not work on Debian 12."""


def test_c6_the_helper_serves_nobody_who_calls_it_otherwise(desk: Desk) -> None:
    """Without rights, with arguments that are none, with input that is none; also from a place that others can write (E1)."""
    before = desk.look()
    for arguments in GARBAGE:
        done = desk.machine.run([HELPER, *arguments], input=b"x" * 100)
        assert (done.returncode, done.stdout) == (2, ""), arguments
    direct = desk.machine.run([HELPER, "install", "acs-cryptomate"], user="alice", input=b"x" * 100)
    assert (direct.returncode, direct.stdout) == (77, "")

    dialog = json.dumps([[QUESTION, f"{PASSWORD}\n", ""]])
    asked = desk.machine.run(["/usr/bin/python3", "/srv/guest_pty.py", dialog, "/home/alice/out", "/bin/sh", "-c",
                              BY_HAND.format(f"{HELPER} format acs-cryptomate")], user="alice", timeout_s=60)
    assert ACTION.format("org.freedesktop.policykit.exec") in asked.stdout
    assert asked.stdout.splitlines()[-1] == "exit 2"

    for noise in NOISE:
        done = desk.machine.run([HELPER, "install", "acs-cryptomate"], input=noise, timeout_s=60)
        assert (done.stderr, "carried-out" in done.stdout) == ("", False)
    desk.untouched(before)

    desk.machine.run("cp -r /opt/keyfit /srv/copy && chmod 777 /srv/copy").check()
    done = desk.machine.run(["/srv/copy/keyfit-helper", "recover"])
    assert "program-unsafe" in done.stdout, done
    desk.untouched(before)
    desk.quiet()


EVIL = """
#include <stdio.h>
#include <unistd.h>
__attribute__((constructor)) static void loaded(void) {
  char name[64];
  snprintf(name, sizeof name, "/tmp/evil-%u", (unsigned) geteuid());
  FILE *file = fopen(name, "w");
  if (file) fclose(file);
}
"""
HOSTILE = {
    "PATH": "/home/alice/bin:/usr/bin:/bin", "LD_PRELOAD": "/home/alice/evil.so", "LD_AUDIT": "/home/alice/evil.so",
    "LD_LIBRARY_PATH": "/home/alice/lib", "LD_LIBRARY_PATH_ORIG": "/home/alice/lib", "PYTHONPATH": "/home/alice/lib",
    "PYTHONSTARTUP": "/home/alice/lib/sitecustomize.py", "TMPDIR": "/home/alice", "GCONV_PATH": "/home/alice/lib",
    "KEYFIT_CACHE_DIR": "/home/alice/cache", "BASH_ENV": "/home/alice/evil", "ENV": "/home/alice/evil", "IFS": "/",
    "DPKG_ROOT": "/home/alice", "DPKG_ADMINDIR": "/home/alice", "APT_CONFIG": "/home/alice/apt.conf", "CANARY": "hostile",
    "PERL5LIB": "/home/alice/lib", "SYSTEMD_PAGER": "/home/alice/bin/sh",
}
ALLOWED = {"PATH", "LC_ALL", "LANGUAGE", "LANG", "HOME", "SHELL", "TERM", "USER", "LOGNAME", "PKEXEC_UID", "DEBIAN_FRONTEND",
           "DEBCONF_NONINTERACTIVE_SEEN", "APT_LISTCHANGES_FRONTEND", "PWD", "OLDPWD", "SHLVL", "_"}
"""What the helper and the system's programs that it starts may see; apt and dpkg add names of their own to it, and PyInstaller's
start program LD_LIBRARY_PATH and _PYI_*."""
CALLS = "socket,connect,sendto,execve,unshare,setns"
OWN = ("DPKG_", "APT_", "DEBCONF_", "DEBIAN_", "_PYI_")


def test_c5_nothing_of_the_caller_s_environment_reaches_the_helper_which_has_no_network(desk: Desk, tmp_path: Path) -> None:
    """C4, C5: hostile variables, a look at every process of the helper, and a trace of every socket that any of them opens."""
    machine = desk.machine
    (tmp_path / "evil.c").write_text(EVIL)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", tmp_path / "evil.so", tmp_path / "evil.c"], check=True)
    machine.put("/home/alice/evil.so", (tmp_path / "evil.so").read_bytes())
    for name in ("dpkg", "apt-get", "systemctl", "pkexec", "keyfit-helper", "sh"):
        machine.put(f"/home/alice/bin/{name}", b"#!/bin/sh\ntouch /tmp/evil-planted\n", 0o755)
    machine.put("/home/alice/lib/sitecustomize.py", b"open('/tmp/evil-python', 'w')\n")

    watcher = machine.start(["python3", "/srv/guest_watch.py", "/srv/watched"])
    process = desk.start("install", "--yes", "--no-handoff", answers=(f"{PASSWORD}\n",), env=HOSTILE, hold="/srv/go")
    process.read_until(QUESTION, timeout_s=120)
    pid = machine.run(["pgrep", "-x", "pkexec"]).stdout.strip()
    tracer = machine.start(["strace", "-f", "-qq", "-e", f"trace={CALLS}", "-o", "/srv/trace", "-p", pid])
    machine.run(f"until grep -q 'TracerPid:.[1-9]' /proc/{pid}/status; do sleep 0.05; done", timeout_s=20).check()
    machine.put("/srv/go", b"")
    code, terminal, document = desk.finish(process)
    machine.put("/srv/watched.stop", b"")
    watcher.wait(30)
    tracer.wait(30)

    assert code == 0, (terminal, document)
    assert document["data"]["verdict"]["works"] is True
    alice = machine.run(["id", "-u", "alice"]).stdout.strip()
    planted = set(machine.run("ls /tmp | grep evil").stdout.split())
    assert f"evil-{alice}" in planted  # so it works where it is let in
    assert not planted & {"evil-0", "evil-planted"}
    watched = json.loads(machine.get("/srv/watched"))
    check_environments(watched)
    check_network(watched, machine.get("/srv/trace").decode(errors="replace"), int(pid))
    desk.quiet()


def check_environments(watched: list[dict[str, Any]]) -> None:
    """C5, of the helper and of every program that it ran."""
    programs = {Path(seen["exe"]).name for seen in watched}
    assert {"keyfit-helper", "apt-get", "dpkg"} <= programs, programs
    for seen in watched:
        helper = seen["exe"] == HELPER
        names = {variable.split("=", 1)[0] for variable in seen["environ"]}
        surplus = {name for name in names - ALLOWED if not name.startswith(OWN) and not (helper and name == "LD_LIBRARY_PATH")}
        assert surplus == set(), (seen["exe"], seen["environ"])
        everything = json.dumps([seen["environ"], seen["cwd"], seen["files"], seen["libraries"]])
        assert "/home/" not in everything, everything
        assert "hostile" not in everything, everything
        if helper:
            paths = [v for v in seen["environ"] if v.startswith("LD_LIBRARY_PATH=")]
            assert paths in ([], ["LD_LIBRARY_PATH=/opt/keyfit/_internal"])
        else:
            assert not any(path.startswith("/opt/keyfit") for path in seen["libraries"]), seen["exe"]
    # the first of these is the helper; the others are about to become the programs that it runs, with the umask of those
    serving = min((seen for seen in watched if seen["exe"] == HELPER and seen["net"] != seen["own_net"]),
                  key=lambda seen: int(seen["pid"]))
    assert (serving["cwd"], serving["umask"]) == ("/", "0077")


def check_network(watched: list[dict[str, Any]], trace: str, pid: int) -> None:
    """C4: the helper left the network before it opened any internet socket, and nobody of its tree ever used one. (One is opened:
    urllib3, which comes with the TUF client, tries at its import whether there is IPv6.)"""
    lines = trace[trace.index(f'execve("{HELPER}"'):].splitlines()
    assert any("unshare(CLONE_NEWNET" in line for line in lines)
    assert any("AF_UNIX" in line for line in lines)  # so sockets are on record
    left = next(number for number, line in enumerate(lines) if "unshare(CLONE_NEWNET" in line)
    internet = [(number, line) for number, line in enumerate(lines) if re.search(r"AF_INET6?\b|AF_PACKET", line)]
    assert [line for number, line in internet if number < left or not line.startswith(f"{pid} ")] == []
    assert [line for _, line in internet if " socket(" not in line] == []
    outside = [seen for seen in watched if seen["pid"] == pid and seen["exe"] == HELPER and seen["net"] != seen["own_net"]]
    assert outside != []
    assert {(tuple(seen["interfaces"]), seen["routes"]) for seen in outside} <= {(("lo",), 0), (("lo",), -1)}
