"""What an install by Keyfit adds to `dpkg -i` of the same package: from the answer to its question until it has ended.

    python bench/install.py [--rounds 9] [--no-install] [--wait SECONDS] [--json FILE]

See bench/README.md for what the columns mean.
"""

from __future__ import annotations

import os
import pty
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(CHECKOUT), str(CHECKOUT / "installer")]

import msgspec  # noqa: E402

from bench.common import (  # noqa: E402
    CACHE,
    Row,
    install_missing,
    interleaved,
    machine,
    median,
    parser,
    print_machine,
    print_table,
    verdict,
    wait_until_quiet,
    write_json,
)
from keyfit.model.catalog import Manifest, device_target  # noqa: E402
from tests.sim import debs  # noqa: E402
from tests.sim.brands import a_brand, a_match, a_package  # noqa: E402
from tests.sim.livecopy import LiveCopy  # noqa: E402
from tests.sim.repository import SignedRepository  # noqa: E402

PACKAGE = "libacsccid1"
ID_VENDOR, ID_PRODUCT = 0x072F, 0xB200
RECORDING = CHECKOUT / "tests" / "data" / "recordings" / "acs-cryptomate-t1.json"
MORE_MEGABYTES = 30
MOST_PROGRAMS = 40
QUESTION = b"Go on?"
MOST_S, MOST_SHARE = 1.0, 0.10
PROFILE = ("/usr/bin/strace", "-f", "-ttt", "-e", "trace=execve,exit_group", "-e", "signal=none", "-s", "300", "-o")
TIMED = 'TIMEFORMAT=%6R; time dpkg -i "$0" > /dev/null 2>&1'


class Machine:
    """A copy of this system (an overlay, see tests/sim/livecopy.py), a repository with one package, and a token."""

    def __init__(self, scratch: Path, copy: LiveCopy, deb: Path, version: str) -> None:
        self.scratch, self.copy, self.deb = scratch, copy, deb
        self.cache = scratch / "cache"
        self.repository = SignedRepository(scratch / "publisher")
        payload = self.repository.add_payload(f"{PACKAGE}_{version}_amd64.deb", deb.read_bytes())
        brand = a_brand("acme", a_match(id_vendor=ID_VENDOR, id_product=ID_PRODUCT),
                        package=(a_package(PACKAGE, "deb", version=version, payload=payload),))
        path = device_target(ID_VENDOR, ID_PRODUCT, "linux", "amd64")
        manifest = Manifest(keyfit=1, path=path, system="linux", architecture="amd64", brands=(brand,))
        self.repository.release_raw({path: msgspec.json.encode(manifest)})

    def fresh(self, *, fetched: bool) -> None:
        """Nothing installed; the package in the cache, or not."""
        self.copy.run(["dpkg", "--purge", PACKAGE])
        self.copy.run(["rm", "-rf", "/var/lib/keyfit", "/var/log/keyfit"])
        if not fetched:
            shutil.rmtree(self.cache, ignore_errors=True)
        os.sync()

    def command(self) -> list[str]:
        return [sys.executable, "-m", "keyfit", "install", "--no-handoff", "--emulate", str(RECORDING), "--cache-dir",
                str(self.cache), "--repository", str(self.repository.folder), "--trust-root",
                str(self.repository.folder / "metadata" / "1.root.json")]

    def bare(self) -> float:
        """Seconds of dpkg alone."""
        self.fresh(fetched=True)
        done = self.copy.run(["bash", "-c", TIMED, str(self.deb)])
        if done.returncode:
            raise SystemExit(f"dpkg -i ended with {done.returncode}")
        return float(done.stderr.split()[-1])

    def keyfit(self, *, fetched: bool = True, prefix: Iterable[str] = ()) -> float:
        """Seconds from the answer to the end."""
        self.fresh(fetched=fetched)
        seconds, said, code = answered(self.copy.command([*prefix, *self.command()]))
        if code or "install ok installed" not in self.copy.run(["dpkg-query", "-s", PACKAGE]).stdout:
            raise SystemExit(f"keyfit install ended with {code}: {said.decode(errors='replace')}")
        return seconds


def answered(command: list[str]) -> tuple[float, bytes, int]:
    """Run a command on a terminal and say yes to its question; seconds since then, what it said, its exit code."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("KEYFIT_")} | {"TERM": "dumb"}
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir("/")
        os.execvpe(command[0], command, environment)
    said, began = b"", 0.0
    while True:
        try:
            came = os.read(terminal, 65_536)
        except OSError:
            came = b""  # Linux: the other side of the terminal is closed
        if not came:
            break
        said += came
        if not began and QUESTION in said:
            began = time.perf_counter()
            os.write(terminal, b"y\n")
    status = os.waitpid(pid, 0)[1]
    ended = time.perf_counter()
    os.close(terminal)
    return ended - began, said, os.waitstatus_to_exitcode(status)


def large(deb: Path, target: Path) -> None:
    """The same package with more in it: 30 MB in 300 files that cannot be compressed, as big middleware has it."""
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        subprocess.run(["dpkg-deb", "-R", deb, folder], check=True)
        more, chance = Path(folder, "usr/share/doc", PACKAGE, "more"), random.Random(1)
        more.mkdir(parents=True)
        for number in range(300):
            (more / f"{number}.bin").write_bytes(chance.randbytes(MORE_MEGABYTES * 1_000_000 // 300))
        subprocess.run(["dpkg-deb", "--root-owner-group", "-b", folder, target], check=True, capture_output=True)


def times(title: str, place: Machine, rounds: int) -> tuple[Row, Row]:
    """All in turn; the row of the table, and that of the bar."""
    works: dict[str, Callable[[], float]] = {
        "bare": place.bare, "keyfit": place.keyfit, "fetching": lambda: place.keyfit(fetched=False)}
    for work in reversed(works.values()):
        work()  # once unmeasured: files in memory, the package in the cache
    found = interleaved(rounds, **works)
    bare, keyfit, fetching = (median(found[name]) for name in works)
    least, least_keyfit = min(found["bare"]), min(found["keyfit"])
    more = least_keyfit - least
    return ({"package": title, "dpkg -i, s": bare, "keyfit, s": keyfit, "with fetching, s": fetching, "least: dpkg -i": least,
             "keyfit": least_keyfit, "with fetching": min(found["fetching"])},
            {"bar, on the least": f"{title}: at most {MOST_S:g} s and {MOST_SHARE:.0%} more", "measured":
             f"{more:.3f} s, {more / least:.0%}", "seconds": verdict(more, MOST_S), "share": verdict(more / least, MOST_SHARE)})


def where_it_goes(place: Machine) -> list[Row]:
    """The programs that one install starts, by strace, which makes all of it slower."""
    log = place.scratch / "strace"
    place.keyfit(prefix=[*PROFILE, str(log)])
    started: dict[str, tuple[float, str]] = {}
    rows: list[Row] = []
    for line in log.read_text(errors="replace").splitlines():
        pid, stamp, rest = line.split(maxsplit=2)
        program = re.match(r'execve\("(/[^"]+)", \[(.*)\]', rest)
        if program and pid not in started and len(started) < MOST_PROGRAMS:
            words = re.findall(r'"((?:[^"\\]|\\.)*)"', program[2])
            started[pid] = float(stamp), " ".join([Path(program[1]).name, *(Path(word).name for word in words[1:4])])[:60]
        if "+++ exited" in rest and pid in started:
            began, name = started[pid]
            rows.append({"program": name, "began at, s": began, "took, ms": (float(stamp) - began) * 1000})
    first = min(row["began at, s"] for row in rows)
    return sorted(({**row, "began at, s": row["began at, s"] - first} for row in rows), key=lambda row: row["began at, s"])


def main() -> int:
    """Measure and print the tables."""
    given = parser(__doc__, rounds=9).parse_args()
    if not given.no_install:
        install_missing("strace", "libusb-1.0-0")
    CACHE.mkdir(parents=True, exist_ok=True)
    driver = debs.fetch(PACKAGE, CHECKOUT / "build" / "debs")
    version = subprocess.run(["dpkg-deb", "-f", driver, "Version"], capture_output=True, text=True, check=True).stdout.strip()
    big = CACHE / f"{PACKAGE}-{MORE_MEGABYTES}.deb"
    if not big.exists():
        large(driver, big)
    wait_until_quiet(given.wait)
    where = machine()
    rows, bars, programs = [], [], []
    for title, deb in (("ACS driver, 0.1 MB", driver), (f"the same with {MORE_MEGABYTES} MB more", big)):
        with tempfile.TemporaryDirectory(dir=CACHE) as folder, LiveCopy(Path(folder)) as copy:
            place = Machine(Path(folder), copy, deb, version)
            row, bar = times(title, place, given.rounds)
            rows.append(row)
            bars.append(bar)
            programs = programs or where_it_goes(place)
    tables = {f"From the answer to the end, {given.rounds} rounds": rows, "Programs that an install starts": programs,
              "Bars": bars}
    for title, table in tables.items():
        print_table(title, table)
    print()
    print_machine(where)
    write_json(given.json, {"machine": where, **tables})
    return 0


if __name__ == "__main__":
    sys.exit(main())
