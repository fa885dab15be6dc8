"""A driver file of 500 MB: fetched and verified by Keyfit, and by curl piped into a hash, from the same nginx.

    python bench/payload.py [--rounds 7] [--no-install] [--wait SECONDS] [--json FILE]

See bench/README.md for what the columns mean.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(CHECKOUT), str(CHECKOUT / "installer")]

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
from keyfit.model.catalog import Payload  # noqa: E402
from tests.sim.brands import a_brand, a_match, a_package  # noqa: E402
from tests.sim.nginx import Nginx  # noqa: E402
from tests.sim.repository import SignedRepository  # noqa: E402

MEGABYTES = 500
KILL_AT = 200_000_000
FETCH = CHECKOUT / "bench" / "fetch_payload.py"
GNU_TIME = "/usr/bin/time"
SAMPLE_S = 0.01


class Bench:
    """A repository with the file, its server, and who fetches it."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.repository = SignedRepository(scratch / "publisher")
        self.payload = self._payload()
        brand = a_brand("acme", a_match(id_vendor=0x1234, id_product=1),
                        package=(a_package("acme", "deb", payload=self.payload),))
        self.target = self.repository.release(brand)
        self.root = scratch / "root.json"
        self.root.write_bytes(self.repository.trusted_root)
        self.nginx = Nginx(self.repository.folder, scratch / "nginx")
        self.cpu: dict[str, list[float]] = {}

    def _payload(self) -> Payload:
        """The file, which cannot be compressed; linked from where it is kept between runs."""
        kept = CACHE / f"{MEGABYTES}.bin"
        if not kept.exists() or kept.stat().st_size != MEGABYTES * 1_000_000:
            chance = random.Random(1)
            with kept.open("wb") as file:
                for _ in range(MEGABYTES):
                    file.write(chance.randbytes(1_000_000))
        with kept.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        payload = Payload(file="driver_1.0_amd64.deb", sha256=digest, length_bytes=kept.stat().st_size)
        path = self.repository.folder / "payloads" / payload.path
        path.parent.mkdir(parents=True)
        os.link(kept, path)
        return payload

    def whole(self, folder: Path) -> list[str]:
        return [sys.executable, str(FETCH), self.nginx.url, str(self.root), str(folder), self.target]

    def file_only(self, folder: Path) -> list[str]:
        return [*self.whole(folder)[:-1], self.payload.path, str(self.payload.length_bytes)]

    def shell(self, command: str) -> list[str]:
        url = f"{self.nginx.url}payloads/{self.payload.path}"
        return ["sh", "-c", command.replace("URL", url).replace("OUT", str(self.scratch / "out"))]

    def timed(self, name: str, command: Callable[[Path], Sequence[str]]) -> Callable[[], float]:
        """Seconds of a run in an empty folder."""
        def once() -> float:
            folder = self.scratch / "client"
            shutil.rmtree(folder, ignore_errors=True)
            os.sync()
            words = command(folder)
            before = os.times()
            began = time.perf_counter()
            subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
            seconds = time.perf_counter() - began
            after = os.times()
            self.cpu.setdefault(name, []).append(after.children_user + after.children_system - before.children_user
                                                 - before.children_system)
            return seconds
        return once


def times(bench: Bench, rounds: int) -> list[Row]:
    """All in turn."""
    works: dict[str, Callable[[Path], Sequence[str]]] = {
        "curl -s URL | sha256sum": lambda _: bench.shell("curl -s URL | sha256sum"),
        "curl -s URL | openssl sha256": lambda _: bench.shell("curl -s URL | openssl sha256"),
        "curl -o FILE URL, then sha256sum": lambda _: bench.shell("curl -s -o OUT URL && sha256sum OUT"),
        "Keyfit, manifest and file": bench.whole,
        "Keyfit, the file alone": bench.file_only,
    }
    found = interleaved(rounds, **{name: bench.timed(name, work) for name, work in works.items()})
    base = median(found["curl -s URL | sha256sum"])
    memory = {name: median(memory_mb(bench, work) for _ in range(3)) for name, work in works.items() if "Keyfit" in name}
    return [{"who": name, "seconds": median(found[name]), "least": min(found[name]), "x curl | sha256sum":
             median(found[name]) / base, "CPU s": median(bench.cpu[name]), "memory MB": memory.get(name)} for name in works]


def memory_mb(bench: Bench, command: Callable[[Path], Sequence[str]]) -> float:
    folder = bench.scratch / "client"
    shutil.rmtree(folder, ignore_errors=True)
    done = subprocess.run([GNU_TIME, "-f", "%M", *command(folder)], capture_output=True, text=True, check=True)
    return int(done.stderr.split()[-1]) * 1024 / 1e6


def disk(bench: Bench) -> Row:
    """Most disk space that a fetch takes at any moment."""
    folder, most, over = bench.scratch / "client", [0], threading.Event()
    shutil.rmtree(folder, ignore_errors=True)

    def watch() -> None:
        while not over.wait(SAMPLE_S):
            most[0] = max(most[0], allocated(folder))

    watcher = threading.Thread(target=watch)
    watcher.start()
    subprocess.run(bench.whole(folder), check=True, stdout=subprocess.DEVNULL)
    over.set()
    watcher.join()
    most[0] = max(most[0], allocated(folder))
    return {"what": "most disk space during a fetch, times the file", "measured": most[0] / bench.payload.length_bytes}


def allocated(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            total += path.lstat().st_blocks * 512
    return total


def killed(bench: Bench) -> list[Row]:
    """Killed when 200 MB are on the disk, and started again."""
    folder = bench.scratch / "client"
    shutil.rmtree(folder, ignore_errors=True)
    part = folder / "files" / f"{bench.payload.sha256}.part"
    process = subprocess.Popen(bench.whole(folder), stdout=subprocess.DEVNULL)
    while process.poll() is None and not (part.exists() and part.stat().st_size >= KILL_AT):
        time.sleep(0.001)
    process.kill()
    process.wait()
    kept = part.stat().st_size
    bench.nginx.forget()
    done = subprocess.run(bench.whole(folder), check=True, capture_output=True, text=True)
    with Path(done.stdout.strip()).open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != bench.payload.sha256:
            raise SystemExit("the resumed file is another one")
    came = [a for a in bench.nginx.answers() if a.path.startswith("/payloads/")]
    return [{"what": "bytes on the disk when it was killed", "measured": kept},
            {"what": "bytes that came after it was started again", "measured": sum(a.body_bytes for a in came)},
            {"what": "of them fetched twice", "measured": sum(a.body_bytes for a in came) + kept - bench.payload.length_bytes}]


def bars(rows: list[Row], more: list[Row]) -> list[Row]:
    """The bars, and whether they are kept."""
    whole = next(row for row in rows if row["who"] == "Keyfit, manifest and file")
    alone = next(row for row in rows if row["who"] == "Keyfit, the file alone")
    twice = next(row for row in more if row["what"] == "of them fetched twice")
    checks = [("time, times curl | sha256sum", whole["x curl | sha256sum"], 1.1),
              ("memory for the file alone, MB", alone["memory MB"], 40), ("memory with the manifest, MB", whole["memory MB"], 40),
              ("disk, times the file", more[0]["measured"], 1.01), ("bytes fetched twice after a kill", twice["measured"], 0)]
    return [{"bar": name, "measured": float(value), "at most": float(bar), "": verdict(value, bar)}
            for name, value, bar in checks]


def main() -> int:
    """Measure and print the tables."""
    given = parser(__doc__, rounds=7).parse_args()
    if not given.no_install:
        install_missing("nginx-light", "curl", "openssl", "time")
    CACHE.mkdir(parents=True, exist_ok=True)
    wait_until_quiet(given.wait)
    where = machine()
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        bench = Bench(Path(scratch))
        with bench.nginx:
            rows = times(bench, given.rounds)
            more = [disk(bench), *killed(bench)]
    tables = {f"{MEGABYTES} MB, {given.rounds} rounds": rows, "Disk, and a killed download": more, "Bars": bars(rows, more)}
    for title, table in tables.items():
        print_table(title, table)
    print()
    print_machine(where)
    write_json(given.json, {"machine": where, **tables})
    return 0


if __name__ == "__main__":
    sys.exit(main())
