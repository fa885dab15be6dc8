"""The idle poll: what a machine pays for it, and how many one core of nginx answers.

    python bench/poll.py [--rounds 40] [--seconds 5] [--frozen FILE] [--no-install] [--wait SECONDS] [--json FILE]

`keyfit update --check` runs as a process beside a bare Python script that makes the same conditional request. Then wrk asks
the same of one nginx worker that is pinned to one core. See bench/README.md for what the columns mean.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.request import Request, urlopen

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
from tests.sim.nginx import REPOSITORY, Nginx  # noqa: E402
from tests.sim.repository import CertificateAuthority  # noqa: E402

PYTHON = CHECKOUT / ".venv" / "bin" / "python"
BARE = CHECKOUT / "bench" / "bare_poll.py"
TIMESTAMP = "metadata/timestamp.json"
GNU_TIME = "/usr/bin/time"
SERVER_CPU, CLIENT_CPU = "0", "1"
_TLS = "ssl_protocols TLSv1.3; ssl_session_tickets off; ssl_session_cache off;"
"""As each machine comes: it remembers nothing of the time before, while wrk would."""
_SUMMARY = """
done = function(summary, latency, requests)
  io.stderr:write(string.format('{"requests":%d,"us":%d,"bytes":%d,"status":%d,"socket":%d,"p50_us":%d,"p99_us":%d}',
    summary.requests, summary.duration, summary.bytes, summary.errors.status,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""


# -- the process ----------------------------------------------------------------------------------------------------------


class Processes:
    """The programs that poll, and what each run costs."""

    def __init__(self, nginx: Nginx, publisher: Path, scratch: Path, frozen: Path) -> None:
        (scratch / "tree").mkdir()
        etag = etag_of(nginx.url + TIMESTAMP)
        options = ["update", "--check", "--root", scratch / "tree", "--cache-dir", scratch / "cache", "--trust-root",
                   publisher / "repository" / "metadata" / "1.root.json", "--repository", nginx.url]
        frozen_options = [*options[:3], scratch / "frozen", *options[4:]]
        (scratch / "frozen").mkdir()
        self.commands: dict[str, list[str]] = {
            "python -c pass": [str(PYTHON), "-c", "pass"],
            "bare script with http.client": [str(PYTHON), str(BARE), "127.0.0.1", str(nginx.port), "/" + TIMESTAMP, etag],
            "keyfit update --check": list(map(str, [CHECKOUT / ".venv" / "bin" / "keyfit", *options])),
        }
        if frozen.exists():
            self.commands["keyfit update --check, frozen"] = list(map(str, [frozen, *frozen_options]))
        self._cpu: dict[str, list[float]] = {}
        for command in self.commands.values():
            run(command)  # the first one is the whole workflow

    def measure(self, nginx: Nginx, rounds: int) -> list[Row]:
        """All in turn; memory afterwards, through GNU time, since a child's figure else begins with its parent's."""
        nginx.forget()
        walls = interleaved(rounds, **{name: self._timed(name) for name in self.commands})
        answers = nginx.answers()
        polls = rounds * (len(self.commands) - 1)
        if len(answers) != polls or any((a.status, a.body_bytes) != (304, 0) for a in answers):
            raise SystemExit(f"expected {polls} answers with 304 and no body, came {answers[:5]}")
        bare = "bare script with http.client"
        rows = []
        for name, command in self.commands.items():
            wall, cpu = median(walls[name]), median(self._cpu[name])
            rows.append({"program": name, "wall ms": wall, "least": min(walls[name]), "CPU ms": cpu,
                         "x bare, wall": wall / median(walls[bare]), "x bare, CPU": cpu / median(self._cpu[bare]),
                         "memory MB": median(memory_mb(command) for _ in range(5))})
        return rows

    def _timed(self, name: str) -> Callable[[], float]:
        command = self.commands[name]

        def once() -> float:
            quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
            began = time.perf_counter()
            child = os.posix_spawn(command[0], command, os.environ, file_actions=quiet)
            _, status, usage = os.wait4(child, 0)
            seconds = time.perf_counter() - began
            if os.waitstatus_to_exitcode(status) != 0:
                raise SystemExit(f"{name} failed")
            self._cpu.setdefault(name, []).append((usage.ru_utime + usage.ru_stime) * 1000)
            return seconds * 1000
        return once


def run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{command[0]} failed: {done.stdout}{done.stderr}")


def memory_mb(command: Sequence[str]) -> float:
    done = subprocess.run([GNU_TIME, "-f", "%M", *command], capture_output=True, text=True, check=True)
    return int(done.stderr.split()[-1]) * 1024 / 1e6


def etag_of(url: str) -> str:
    with urlopen(Request(url, headers={"Accept-Encoding": "gzip"})) as answer:
        return str(answer.headers["ETag"])


# -- the server -----------------------------------------------------------------------------------------------------------


class Wrk:
    """wrk on one core against nginx on another."""

    def __init__(self, scratch: Path, seconds: int) -> None:
        self._script = scratch / "summary.lua"
        self._script.write_text(_SUMMARY)
        self._seconds = seconds
        self.results: dict[str, list[dict[str, int]]] = {}

    def asking(self, name: str, url: str, *headers: str) -> Callable[[], float]:
        """Answers per second."""
        command = ["taskset", "-c", CLIENT_CPU, "wrk", "--threads", "1", "--connections", "32", "--duration",
                   f"{self._seconds}s", "--script", self._script, *(part for h in headers for part in ("--header", h)), url]

        def once() -> float:
            done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
            result: dict[str, int] = json.loads(done.stderr)
            self.results.setdefault(name, []).append(result)
            return result["requests"] / result["us"] * 1e6
        return once

    def rows(self, rates: dict[str, list[float]], base: str) -> list[Row]:
        """A table, with the rate of `base` as 1."""
        rows = []
        for name, found in rates.items():
            results = self.results[name]
            count = sum(r["requests"] for r in results)
            rows.append({"asked for": name, "per second": median(found), "x plain": median(found) / median(rates[base]),
                         "answers": count, "errors": sum(r["status"] + r["socket"] for r in results),
                         "B each": round(sum(r["bytes"] for r in results) / count),
                         "p50 ms": median(r["p50_us"] for r in results) / 1000,
                         "p99 ms": median(r["p99_us"] for r in results) / 1000})
        return rows


def server_rows(publisher: Path, scratch: Path, rounds: int, seconds: int) -> list[Row]:
    """One worker on one core."""
    authority = CertificateAuthority(scratch / "authority")
    folder = publisher / "repository"
    snapshot = max((folder / "metadata").glob("*.snapshot.json"), key=lambda p: int(p.name.split(".")[0]))
    bin_file = max((folder / "metadata").glob("*.b-264.json"), key=lambda p: int(p.name.split(".")[0]))
    packed = "Accept-Encoding: gzip"
    ready = scratch / "ready" / "metadata"
    ready.mkdir(parents=True)
    (ready / snapshot.name).write_bytes(snapshot.read_bytes())
    (ready / f"{snapshot.name}.gz").write_bytes(gzip.compress(snapshot.read_bytes()))
    pinned = {"workers": 1, "log": False, "before": ("taskset", "-c", SERVER_CPU)}
    forever = "keepalive_requests 100000000; "  # wrk would count each closing as an error
    wrk = Wrk(scratch, seconds)
    with Nginx(folder, scratch / "plain", http=forever, **pinned) as plain, \
            Nginx(folder, scratch / "tls", http=forever, tls=authority, server=REPOSITORY + _TLS, **pinned) as tls, \
            Nginx(ready.parent, scratch / "packed", http=forever, **pinned) as packed_before:
        url = plain.url + TIMESTAMP
        same = f"If-None-Match: {etag_of(url)}"
        works = {name: wrk.asking(name, *asked) for name, asked in {
            "timestamp, plainly": (url,),
            "timestamp, packed": (url, packed),
            "poll, 304": (url, packed, same),
            "poll, 304, a connection each": (url, packed, same, "Connection: close"),
            "poll, 304, a TLS handshake each": (tls.url + TIMESTAMP, packed, same, "Connection: close"),
            "snapshot, packed on the fly": (plain.url + "metadata/" + snapshot.name, packed),
            "snapshot, if it had a packed copy": (packed_before.url + "metadata/" + snapshot.name, packed),
            "hash bin, packed on the fly": (plain.url + "metadata/" + bin_file.name, packed),
            "next root, 404": (plain.url + "metadata/999.root.json", packed),
        }.items()}
        rates = interleaved(rounds, **works)
    for result in wrk.results["next root, 404"]:
        result["status"] = 0  # that it is not there is the answer
    return wrk.rows(rates, "timestamp, plainly")


def bars(processes: list[Row], server: list[Row]) -> list[Row]:
    """The bars, and whether they are kept."""
    rows = []
    for row in processes[2:]:
        rows.append({"bar": f"{row['program']}: wall, times bare script", "measured": row["x bare, wall"], "limit": "<= 1.3",
                     "": verdict(row["x bare, wall"], 1.3)})
    poll = next(row for row in server if row["asked for"] == "poll, 304")
    rows.append({"bar": "polls per second, times the same file plainly", "measured": poll["x plain"], "limit": ">= 0.9",
                 "": verdict(poll["x plain"], 0.9, least=True)})
    rows.append({"bar": "errors in at least 10 000 polls", "measured": float(poll["errors"]), "limit": "0",
                 "": verdict(poll["errors"], 0) if poll["answers"] >= 10_000 else "too few polls"})
    return rows


def main() -> int:
    """Measure and print the tables."""
    options = parser(__doc__, rounds=40)
    options.add_argument("--seconds", type=int, default=5, help="how long wrk asks each time")
    options.add_argument("--frozen", type=Path, default=CHECKOUT / "dist" / "keyfit" / "keyfit", help="the frozen program")
    given = options.parse_args()
    if not given.no_install:
        install_missing("nginx-light", "wrk", "time", "util-linux")
    CACHE.mkdir(parents=True, exist_ok=True)
    folder, _ = large.build()
    wait_until_quiet(given.wait)
    where = machine()
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        with Nginx(folder / "repository", Path(scratch) / "nginx") as nginx:
            processes = Processes(nginx, folder, Path(scratch), given.frozen).measure(nginx, given.rounds)
        server = server_rows(folder, Path(scratch), 3, given.seconds)
    tables: dict[str, list[Row]] = {f"The process, {given.rounds} rounds": processes,
                                    "One nginx worker on one core, wrk on another": server, "Bars": bars(processes, server)}
    for title, rows in tables.items():
        print_table(title, rows)
    print()
    print_machine(where)
    write_json(given.json, {"machine": where, **tables})
    return 0


if __name__ == "__main__":
    sys.exit(main())
