"""The plug is pulled, and the program is killed, at random moments of real installs, upgrades and uninstalls (security D7).

The packaged program, real apt and dpkg with maintainer scripts, a real file system on a disk that forgets what was not
flushed. Afterwards one `keyfit recover` has to leave the machine as it was before, or as it is after the change: packages,
configuration and the package database; a second one has nothing to do. What somebody else put there is the same, always.

Every kill has a random moment; the test prints where each one struck and what came of it.
"""

from __future__ import annotations

import json
import random
import secrets
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from keyfit.model.catalog import Brand, CcidListEntry, KernelModuleBlacklist, UdevRule
from tests.sim import debs
from tests.sim.brands import LINUX, SOURCES, a_brand, a_match, a_module, a_package
from tests.sim.plans import tar
from tests.sim.repository import SignedRepository
from tests.vm.bench.machine import Entry, Machine, State
from tests.vm.installed import BOOKKEEPING, PROGRAM, with_package

BRAND, DRIVER, TOOLS = "acme", "keyfit-try", "keyfit-try-tools"
TREES = ("/etc", "/var/lib", "/opt/keyfit/brands", "/usr/lib/pcsc", "/usr/share/keyfit-try")
KILLER = Path(__file__).with_name("guest_kill.py")
FOREIGN = {
    "/etc/udev/rules.d/50-other.rules": b"# somebody's\n",
    "/etc/modprobe.d/other.conf": b"# somebody's\n",
    "/etc/pkcs11/modules/other.module": b"# somebody's\nmodule: other.so\n",
    "/etc/firefox/policies/policies.json": b'{\n    "policies": {\n        "DisableTelemetry": true\n    }\n}\n',
    "/var/lib/somebody/file": b"somebody's\n",
}
"""Files of others, beside those that Keyfit writes, or to be changed by it and given back."""
SCRIPTS = {"postinst": "#!/bin/sh\nset -e\nmkdir -p /var/lib/keyfit-try\ndate > /dev/null\necho 1 > /var/lib/keyfit-try/made\n",
           "postrm": "#!/bin/sh\nset -e\n[ \"$1\" != purge ] || rm -rf /var/lib/keyfit-try\n"}
COMMANDS = {"install": ("install", BRAND, "--silent", "--repository", "/srv/v1"),
            "upgrade": ("install", BRAND, "--silent", "--repository", "/srv/v2"),
            "uninstall": ("uninstall", BRAND, "--yes"),
            "recover": ("recover",)}


class Kill(NamedTuple):
    """What is cut off, how, and from which program's start on the moment is drawn ("-": from the command's own)."""

    verb: str
    mode: str
    mark: str


KILLS = (
    Kill("install", "cut", "-"), Kill("install", "cut", "apt-get"), Kill("install", "cut", "dpkg"),
    Kill("upgrade", "cut", "-"), Kill("upgrade", "cut", "dpkg"),
    Kill("uninstall", "cut", "-"), Kill("uninstall", "cut", "dpkg"),
    Kill("recover", "cut", "-"),
    Kill("install", "tree", "-"), Kill("install", "tree", "apt-get"), Kill("install", "tree", "dpkg"),
    Kill("install", "tree", "dpkg-deb"),
    Kill("upgrade", "tree", "-"), Kill("upgrade", "tree", "dpkg"), Kill("upgrade", "tree", "dpkg-deb"),
    Kill("uninstall", "tree", "-"), Kill("uninstall", "tree", "apt-get"), Kill("uninstall", "tree", "dpkg"),
    Kill("recover", "tree", "-"), Kill("recover", "tree", "-"),
    Kill("install", "alone", "apt-get"), Kill("upgrade", "alone", "dpkg"), Kill("uninstall", "alone", "apt-get"),
)
SPAN = {"-": (0.2, 1.0), "apt-get": (0.0, 0.25), "dpkg": (0.0, 0.08), "dpkg-deb": (0.0, 0.02)}
"""From when until when after the mark the moment may lie, in shares of the whole run's time: in the first fifth of it the program
has not begun to change anything."""
WANTED = 20
"""So many kills have to strike while the command is running."""


@dataclass(frozen=True)
class Case:
    """A verb's machine before it, and what it looks like before and after."""

    start: State
    seconds: float
    before: dict[str, Any]
    after: dict[str, Any]


def publish(folder: Path) -> SignedRepository:
    """A repository, and its copies v1 and v2 of two releases of one brand."""
    repository = SignedRepository(folder / "publisher")
    files = {f"usr/share/keyfit-try/{n}.dat": secrets.token_hex(4_000) for n in range(40)}
    packages = []
    for name, content in ((DRIVER, files), (TOOLS, {"usr/share/keyfit-try-tools/readme": "here\n"})):
        deb = debs.build(folder, name, files=content, scripts=SCRIPTS if name == DRIVER else None)
        payload = repository.add_payload(deb.name, deb.read_bytes())
        packages.append(a_package(name, "deb", version="1.0", payload=payload))
    archive = tar(module__so="elf", readme="text")
    module = a_package("acme-module", "archive", component="module", files=("module.so", "readme"),
                       payload=repository.add_payload("module.tar.gz", archive))
    for name, chosen, ids in (("v1", (packages[0],), (1,)), ("v2", tuple(packages), (1, 2))):
        repository.release(_brand(len(ids), ids, (a_package("libacsccid1"), *chosen, module)))
        repository.keep(folder / name)
    (folder / "root.json").write_bytes(repository.trusted_root)
    return repository


def _brand(sequence: int, ids: Sequence[int], packages: Sequence[Any]) -> Brand:
    patches = [UdevRule(id=f"usb-{i}", subsystem="usb", id_vendor=0x1234, id_product=i, on=LINUX, reason={"en": "why"},
                        sources=SOURCES) for i in ids]
    patches += [CcidListEntry(id="reader", id_vendor=0x1234, id_product=1, friendly_name="ACME Token", on=LINUX,
                              reason={"en": "why"}, sources=SOURCES),
                KernelModuleBlacklist(id="nfc", modules=("nfc", "pn533"), on=LINUX, reason={"en": "why"}, sources=SOURCES)]
    made = a_brand(BRAND, a_match(id_vendor=0x1234, id_product=1), patch=tuple(patches), package=tuple(packages),
                   module=(a_module(f"/opt/keyfit/brands/{BRAND}/acme-module-archive/module.so",
                                    register=("p11-kit", "firefox")),))
    return msgspec.structs.replace(made, sequence=sequence)


def keyfit(machine: Machine, *arguments: str, code: int | None = 0) -> tuple[int, dict[str, Any]]:
    """A command to its end: exit code and document."""
    done = machine.run([PROGRAM, *arguments, "--json", *options(arguments)], timeout_s=200)
    assert code is None or done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.returncode, json.loads(done.stdout)


def options(arguments: Sequence[str]) -> tuple[str, ...]:
    return ("--trust-root", "/srv/root.json") if "--repository" in arguments else ()


def look(machine: Machine) -> dict[str, Any]:
    """Packages with their state, and every file that the verbs may touch."""
    files = machine.snapshot(TREES)
    kept: dict[str, Entry] = {p: e for p, e in files.items() if not p.startswith(BOOKKEEPING)}
    return {**machine.packages(), **kept}


def odd(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return {k: (one.get(k), other.get(k)) for k in one.keys() | other.keys() if one.get(k) != other.get(k)}


@pytest.fixture(scope="module")
def cases(durable_base: State, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    """Each verb once to its end, from frozen machines that the kills start from again."""
    folder = tmp_path_factory.mktemp("power")
    publish(folder)
    clean, used = folder / "clean", folder / "used"
    made: dict[str, Case] = {}
    with Machine.restore(with_package(durable_base, "pcscd", "libccid")) as machine:
        for name in ("v1", "v2"):
            machine.put_tree(folder / name, f"/srv/{name}")
        machine.put("/srv/root.json", (folder / "root.json").read_bytes())
        machine.put("/srv/kill.py", KILLER.read_bytes())
        machine.put("/usr/bin/firefox", b"\x7fELF", 0o755)
        for path, content in FOREIGN.items():
            machine.put(path, content)
        state = frozen(machine, clean)
    for verb, first, kept in (("install", state, used), ("upgrade", frozen_at(used, state), None),
                              ("uninstall", frozen_at(used, state), None)):
        with Machine.restore(first) as machine:
            before = look(machine)
            done = machine.run([PROGRAM, *COMMANDS[verb], "--json", *options(COMMANDS[verb])], timeout_s=200).check()
            made[verb] = Case(first, done.seconds, before, look(machine))
            assert odd(made[verb].before, made[verb].after) != {}
            if kept is not None:
                frozen(machine, kept)
    assert odd(made["uninstall"].after, made["install"].before) == {}
    made["recover"] = cut_off(made["install"], folder / "cut-off")
    return made


def cut_off(case: Case, folder: Path) -> Case:
    """Where `recover` starts: an install that was killed while dpkg unpacked its package."""
    with Machine.restore(case.start) as machine:
        machine.run(killing("tree", "dpkg-deb", 0.0, "install"), timeout_s=200).check()
        state = frozen(machine, folder)
    with Machine.restore(state) as machine:
        done = machine.run([PROGRAM, "recover", "--json"], timeout_s=200).check()
        assert json.loads(done.stdout)["data"]["recovered"] != []
        return Case(state, done.seconds, case.before, case.after)


def frozen(machine: Machine, folder: Path) -> State:
    folder.mkdir()
    machine.freeze(folder)
    return State(folder=folder, image=machine.image, hardware=machine.hardware, key="")


def frozen_at(folder: Path, like: State) -> State:
    return State(folder=folder, image=like.image, hardware=like.hardware, key="")


def killing(mode: str, mark: str, delay_s: float, verb: str) -> list[str]:
    """The command line in the guest; see guest_kill.py."""
    return ["python3", "/srv/kill.py", mode, mark, f"{delay_s:.4f}", PROGRAM, *COMMANDS[verb], *options(COMMANDS[verb])]


def strike(kill: Kill, case: Case, chance: random.Random, narrow: float) -> dict[str, Any]:
    """One kill, one recover, and what the machine is then. `narrow` shrinks the time from which the moment is drawn."""
    first, last = SPAN[kill.mark]
    delay_s = chance.uniform(first, first + narrow * (last - first)) * case.seconds
    mode = "report" if kill.mode == "cut" else kill.mode
    command = killing(mode, kill.mark, delay_s, kill.verb)
    with Machine.restore(case.start) as machine:
        if kill.mode == "cut":
            process = machine.start(command)
            process.read_until("now", timeout_s=120)
            there = machine.run("pgrep -x keyfit").returncode == 0
            seen: dict[str, Any] = {"ended": not there, "lost": machine.power_cut(chance)}
            machine.check_disk()
            machine.power_on()
            complaints = machine.run("dmesg | grep -E 'EXT4-fs.*(error|corrupt)'").stdout
            assert complaints == ""
        else:
            seen = json.loads(machine.run(command, timeout_s=200).check().stdout.splitlines()[-1])
        report = {**kill._asdict(), "delay_s": round(delay_s, 3), **seen}
        report["result"], report["notes"] = recover(machine, case, alone=kill.mode == "alone")
        return report


def recover(machine: Machine, case: Case, *, alone: bool) -> tuple[str, list[str]]:
    """Put it right in one run; "before" or "after"."""
    code, document = keyfit(machine, "recover", code=None)
    if alone and code == 75:  # apt-get, which nobody has killed, is still at work and holds its lock
        machine.run("while pgrep -x apt-get || pgrep -x dpkg; do sleep 0.1; done >/dev/null", timeout_s=120).check()
        code, document = keyfit(machine, "recover", code=None)
    assert code == 0, document
    again = keyfit(machine, "recover")[1]
    assert [m["code"] for m in again["messages"]] == ["nothing-to-do"], again
    audit = machine.run("dpkg --audit && apt-get -qq check")
    assert (audit.returncode, audit.stdout) == (0, ""), audit
    for path, content in FOREIGN.items():
        if not path.endswith("policies.json"):
            assert machine.get(path) == content, path
    now = look(machine)
    found = {name: odd(now, looks) for name, looks in (("before", case.before), ("after", case.after))}
    result = next((name for name, differences in found.items() if not differences), None)
    assert result is not None, min(found.values(), key=len)
    return result, document["data"]["recovered"]


class Tally:
    """What the kills did, told as they happen."""

    def __init__(self) -> None:
        self.reports: list[dict[str, Any]] = []
        self.failures: list[str] = []
        self._lock = threading.Lock()

    def add(self, report: dict[str, Any]) -> None:
        with self._lock:
            self.reports.append(report)
            where = report.get("killed") or f"{report.get('lost', 0)} bytes lost"
            print(f"{report['verb']:<10}{report['mode']:<6}{report['mark']:<9}{report['delay_s']:>7} s  "
                  f"{'ended' if report['ended'] else 'struck':<7}{report['result']:<7} {where}", flush=True)

    def struck(self) -> int:
        return sum(not report["ended"] for report in self.reports)


def rounds(kill: Kill, case: Case, seed: str, tally: Tally) -> None:
    """One kill; again, sooner, if the command was done before it."""
    chance, narrow = random.Random(seed), 1.0
    for _ in range(4):
        try:
            report = strike(kill, case, chance, narrow)
        except AssertionError as problem:
            tally.failures.append(f"{kill} {problem}")
            return
        tally.add(report)
        if not report["ended"]:
            return
        narrow /= 2


@pytest.mark.timeout(1200)
def test_d7_after_a_power_cut_or_a_kill_the_machine_is_as_before_or_as_after(
        cases: dict[str, Case], capsys: pytest.CaptureFixture[str]) -> None:
    seed, tally = secrets.randbits(32), Tally()
    with capsys.disabled():
        print(f"\nkills in a virtual machine, seed {seed}")
        with ThreadPoolExecutor(2) as workers:  # two machines at once; each QEMU ends with the thread that started it
            for future in [workers.submit(rounds, kill, cases[kill.verb], f"{seed} {number}", tally)
                           for number, kill in enumerate(KILLS)]:
                future.result()
        print(f"{tally.struck()} kills struck, {len(tally.reports)} in all, {len(tally.failures)} failed")
        counted = Counter((r["verb"], r["mode"], r["result"]) for r in tally.reports)
        for (verb, mode, result), number in sorted(counted.items()):
            print(f"  {verb:<10}{mode:<6}as {result:<7}{number}")
    assert tally.failures == []
    assert tally.struck() >= WANTED
