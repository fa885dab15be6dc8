"""100 000 device manifests: what a client fetches and computes, and what publishing costs, with the real nginx between.

    python bench/repository.py [--rounds 15] [--fresh] [--no-install] [--wait SECONDS] [--json FILE]

Clients are processes of their own; python-tuf's own Updater is asked for the same in the same run. See bench/README.md for
what the columns mean.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(CHECKOUT), str(CHECKOUT / "installer")]

from bench import large  # noqa: E402
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
from tests.sim.nginx import Nginx  # noqa: E402

CLIENT = CHECKOUT / "bench" / "client.py"


class Clients:
    """Clients of one repository, counted by its server."""

    def __init__(self, nginx: Nginx, publisher: Path, scratch: Path) -> None:
        self.nginx = nginx
        self.root = publisher / "repository" / "metadata" / "1.root.json"
        self.seed = scratch / "seed"
        self._scratch = scratch
        self.seed.mkdir()
        for role in ("targets", "drivers"):
            newest = max((publisher / "repository" / "metadata").glob(f"*.{role}.json"), key=lambda p: int(p.name.split(".")[0]))
            shutil.copy(newest, self.seed / f"{role}.json")

    def run(self, who: str, work: str, target: str, folder: Path | None = None) -> dict[str, float]:
        """One client's work; in a new folder, if none is given. `who` may be "seeded"."""
        own = Path(tempfile.mkdtemp(dir=self._scratch)) if folder is None else folder
        seed = [self.seed] if who == "seeded" else []
        began = os.times()
        done = subprocess.run([sys.executable, CLIENT, "keyfit" if seed else who, work, self.nginx.url, self.root, own, target,
                               *seed], capture_output=True, text=True, check=False)
        ended = os.times()
        if done.returncode != 0:
            raise SystemExit(f"{who} {work} failed: {done.stderr[-2000:]}")
        if folder is None:
            shutil.rmtree(own)
        process = (ended.children_user - began.children_user + ended.children_system - began.children_system) * 1000
        return {**json.loads(done.stdout), "process_ms": process}

    def counted(self, event: str, client: str, work: Callable[[], object]) -> Row:
        """What goes over the wire for a piece of work."""
        self.nginx.forget()
        work()
        answers = self.nginx.answers()
        return {"event": event, "client": client, "requests": len(answers),
                "body B": sum(a.body_bytes for a in answers), "with headers B": sum(a.sent_bytes for a in answers),
                "asked B": sum(a.request_bytes for a in answers)}


class Publisher:
    """Changes of the large repository."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._chance = random.Random()

    def change_one(self, target: str) -> float:
        """A manifest gets other content of the same length; seconds from opening the directory to the end of publishing."""
        from keyfit.publisher.release import Workplace

        began = time.perf_counter()
        work = Workplace(self.folder)
        with work.lock():
            data = work.repository.target(target)
            if data is None:
                raise SystemExit(f"there is no {target}")
            manifest = json.loads(data)
            for brand in manifest["brands"]:
                brand["vendor"] = f"{brand['vendor'][:-6]}{self._chance.randrange(10**5, 10**6)}"
            draft = work.begin()
            draft.change_targets({target: json.dumps(manifest, separators=(",", ":"), ensure_ascii=False).encode()})
            if work.finish(draft, ["one manifest"]).published is None:
                raise SystemExit("it was not published")
        return time.perf_counter() - began

    def refresh(self) -> float:
        """A new timestamp."""
        from keyfit.publisher.draft import Draft
        from keyfit.publisher.release import Workplace

        began = time.perf_counter()
        work = Workplace(self.folder)
        with work.lock():
            work.refresh(Draft(work.repository))
        return time.perf_counter() - began

    def files(self) -> dict[str, tuple[int, int]]:
        """Every file but locks, with its time and size."""
        found: dict[str, tuple[int, int]] = {}
        waiting = [str(self.folder)]
        while waiting:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    elif entry.name != "lock":
                        status = entry.stat()
                        found[entry.path] = (status.st_mtime_ns, status.st_size)
        return found

    def measured(self, change: str, way: str, work: Callable[[], tuple[float, int]]) -> Row:
        """Seconds, and what was written for a change: files that are new or other than before."""
        before = self.files()
        seconds, manifests = work()
        written = {path: size for path, (moment, size) in self.files().items() if before.get(path) != (moment, size)}
        served = {path: size for path, size in written.items() if "/repository/" in path}
        return {"change": change, "by": way, "manifests": manifests, "seconds": seconds, "files": len(written),
                "written B": sum(written.values()), "of it served B": sum(served.values())}


def client_bytes(clients: Clients, publisher: Publisher, chance: random.Random) -> list[Row]:
    """What each event costs on the wire. Publishes."""
    from keyfit import __version__
    from keyfit.trust import poll

    target = large.some_target(chance, "linux-amd64")
    rows = []
    for who, name in (("keyfit", "Keyfit"), ("seeded", "Keyfit, seeded by its build"), ("stock", "python-tuf's Updater")):
        rows.append(clients.counted("first contact, look-up", name, lambda who=who: clients.run(who, "lookup", target)))
        rows.append(clients.counted("first contact, manifest", name, lambda who=who: clients.run(who, "manifest", target)))
    known = Path(tempfile.mkdtemp(dir=clients.seed.parent))
    clients.run("keyfit", "manifest", target, known)
    url = clients.nginx.url + "metadata/timestamp.json"
    etag = _etag(url)

    def idle() -> None:
        if not poll.is_unchanged(url, etag, f"keyfit/{__version__}"):
            raise SystemExit("the idle poll was not answered with 304")

    def again(work: str) -> Callable[[], object]:
        return lambda: clients.run("keyfit", work, target, known)

    rows.append(clients.counted("nothing new, idle poll", "Keyfit", idle))
    rows.append(clients.counted("nothing new, daily workflow", "Keyfit", again("refresh")))
    publisher.refresh()
    rows.append(clients.counted("timestamp renewed", "Keyfit", again("refresh")))
    publisher.change_one(_elsewhere(publisher, target, chance))
    rows.append(clients.counted("another manifest published", "Keyfit", again("lookup")))
    publisher.change_one(target)
    rows.append(clients.counted("this manifest published", "Keyfit", again("manifest")))
    return rows


def _elsewhere(publisher: Publisher, target: str, chance: random.Random) -> str:
    from keyfit.publisher.release import Workplace

    repository = Workplace(publisher.folder).repository
    while repository.role_of(other := large.some_target(chance)) == repository.role_of(target):
        pass
    return other


def _etag(url: str) -> str:
    from urllib.request import Request, urlopen

    with urlopen(Request(url, headers={"Accept-Encoding": "gzip"})) as answer:
        return str(answer.headers["ETag"])


def client_times(clients: Clients, target: str, rounds: int) -> list[Row]:
    """CPU of a first contact, all clients in turn."""
    detail: dict[tuple[str, str], list[dict[str, float]]] = {}

    def one(who: str, work: str) -> Callable[[], float]:
        def run() -> float:
            result = clients.run(who, work, target)
            detail.setdefault((who, work), []).append(result)
            return result["cpu_ms"]
        return run

    interleaved(rounds, **{f"{who} {work}": one(who, work) for work in ("lookup", "manifest")
                           for who in ("keyfit", "seeded", "stock")})
    rows = []
    for (who, work), results in sorted(detail.items(), key=lambda item: (item[0][1], item[0][0])):
        stock = median(r["cpu_ms"] for r in detail["stock", work])
        mine = median(r["cpu_ms"] for r in results)
        least, stock_least = (min(r["cpu_ms"] for r in found) for found in (results, detail["stock", work]))
        rows.append({"client": who, "work": work, "CPU ms, median": mine, "least": least, "x stock": mine / stock,
                     "x stock, least": least / stock_least, "wall ms": median(r["wall_ms"] for r in results),
                     "CPU ms, whole process": median(r["process_ms"] for r in results)})
    return rows


def publisher_rows(publisher: Publisher, times: dict[str, float], rounds: int, chance: random.Random) -> list[Row]:
    """What changes cost."""
    rows: list[Row] = [
        {"change": "everything, first release", "by": "keyfit-publish release", "manifests": 100_000,
         "seconds": times["release"]},
        {"change": "every role signed and written anew", "by": "Python", "manifests": 100_000, "seconds": times["sign"]}]
    rows.append(full_sign(publisher))
    ones = [publisher.measured("one manifest", "Python", lambda: (
        publisher.change_one(large.some_target(chance)), 1)) for _ in range(rounds)]
    rows.append({**_middle(ones), "by": f"Python, median of {rounds}"})
    sequence = 1
    with suppress(OSError, ValueError, KeyError):
        state = json.loads((publisher.folder / "state" / f"{large.ONE_DEVICE}.json").read_text())
        sequence = state["highest"]
    release = ("release", publisher.folder, "--drivers", large.DRIVERS, "--brand", large.ONE_DEVICE)

    def by_command(expected: int, *arguments: object) -> Callable[[], tuple[float, int]]:
        def run() -> tuple[float, int]:
            seconds, data = large.publish(*arguments)
            if data["changed_targets"] != expected:
                raise SystemExit(f"expected {expected} changed manifests, came {data['changed_targets']}")
            return seconds, data["changed_targets"]
        return run

    def texts() -> None:
        # the module is only where the package that brings it is: on one platform
        large.write_brand(large.DRIVERS, 0, sequence, **{"libpkcs11.so": f"libpkcs11-{random.randrange(10**9)}.so"})

    texts()
    rows.append(publisher.measured("one device on one platform", "keyfit-publish release --brand", by_command(2, *release)))
    large.write_brand(large.DRIVERS, 0, sequence + 1)
    rows.append(publisher.measured("one device, new version for 8 platforms", "keyfit-publish release --brand",
                                   by_command(16, *release)))
    rows.append(publisher.measured("timestamp", "keyfit-publish refresh",
                                   by_command(0, "refresh", publisher.folder)))
    return rows


def _middle(rows: list[Row]) -> Row:
    return {**rows[0], **{name: median(row[name] for row in rows) for name in ("seconds", "files", "written B",
                                                                              "of it served B")}}


def full_sign(publisher: Publisher) -> Row:
    """All manifests into an empty repository with keys of its own: hashed, signed and written."""
    from keyfit.publisher.release import Workplace

    work = Workplace(publisher.folder)
    contents = {path: work.repository.target(path) for path in work.repository.targets()}
    wanted = {path: data for path, data in contents.items() if data is not None}
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        large.publish("init", Path(scratch) / "publisher")
        began = time.perf_counter()
        fresh = Workplace(Path(scratch) / "publisher")
        draft = fresh.begin()
        draft.set_targets(wanted)
        if fresh.finish(draft, ["everything"]).published is None:
            raise SystemExit("it was not published")
        seconds = time.perf_counter() - began
    return {"change": "all manifests hashed, signed and written", "by": "Python", "manifests": len(wanted), "seconds": seconds}


def hybrid_rows(rounds: int) -> list[Row]:
    """What post-quantum partners of the root's keys cost: an empty repository with and without."""
    rows = []
    for name, options in (("ed25519, 3 of 5", ()), ("ed25519 and ML-DSA-65, 3 of 5 each", ("--hybrid-root",))):
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            publisher, scratch = Path(folder) / "publisher", Path(folder) / "scratch"
            scratch.mkdir()
            large.publish("init", publisher, *options)
            with Nginx(publisher / "repository", Path(folder) / "nginx") as nginx:
                clients = Clients(nginx, publisher, scratch)
                first = clients.counted("", "", lambda c=clients: c.run("keyfit", "refresh", ""))
                cpu = median(clients.run("keyfit", "refresh", "")["cpu_ms"] for _ in range(rounds))
            packed = clients.root.with_name("1.root.json.gz").stat().st_size
            rows.append({"root": name, "root.json B": clients.root.stat().st_size, "packed B": packed,
                         "first contact B": first["body B"], "CPU ms of a refresh": cpu})
    return rows


def bars(byte_rows: list[Row], time_rows: list[Row], changes: list[Row]) -> list[Row]:
    """The bars, and whether they are kept."""
    def of(rows: list[Row], **wanted: str) -> Row:
        return next(row for row in rows if all(row[key] == value for key, value in wanted.items()))

    fresh = of(byte_rows, event="first contact, look-up", client="Keyfit")
    idle = of(byte_rows, event="nothing new, idle poll")
    cpu = of(time_rows, client="keyfit", work="lookup")["x stock"]
    full = of(changes, change="all manifests hashed, signed and written")["seconds"]
    one = of(changes, change="one manifest")
    checks: list[tuple[str, float, float]] = [
        ("first contact: body, kB", fresh["body B"] / 1000, 13), ("first contact: requests", fresh["requests"], 6),
        ("first contact: CPU, times stock ngclient", cpu, 1.2), ("idle poll: requests", idle["requests"], 1),
        ("idle poll: body, B", idle["body B"], 0), ("full sign: s", full, 10), ("one manifest: s", one["seconds"], 1),
        ("one manifest: written, kB", one["written B"] / 1000, 50)]
    return [{"bar": name, "measured": float(value), "at most": float(bar), "": verdict(value, bar)}
            for name, value, bar in checks]


def main() -> int:
    """Measure and print the tables."""
    options = parser(__doc__, rounds=15)
    options.add_argument("--fresh", action="store_true", help="build the repository anew")
    given = options.parse_args()
    if not given.no_install:
        install_missing("nginx-light")
    CACHE.mkdir(parents=True, exist_ok=True)
    wait_until_quiet(given.wait)
    folder, times = large.build(fresh=given.fresh)
    wait_until_quiet(given.wait)
    where = machine()
    chance = random.Random(1)
    publisher = Publisher(folder)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch, \
            Nginx(folder / "repository", Path(scratch) / "nginx") as nginx:
        clients = Clients(nginx, folder, Path(scratch))
        target = large.some_target(chance, "linux-amd64")
        time_rows = client_times(clients, target, given.rounds)
        byte_rows = client_bytes(clients, publisher, chance)
    changes = publisher_rows(publisher, times, given.rounds, chance)
    tables: dict[str, list[Row]] = {
        "On the wire": byte_rows, f"A first contact's work, {given.rounds} rounds": time_rows, "Publishing": changes,
        "A hybrid root": hybrid_rows(given.rounds), "Bars": bars(byte_rows, time_rows, changes)}
    for title, rows in tables.items():
        print_table(title, rows)
    print()
    print_machine(where)
    write_json(given.json, {"machine": where, "build_s": times, **tables})
    return 0


if __name__ == "__main__":
    sys.exit(main())
