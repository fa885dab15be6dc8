"""What the benchmarks share: packages, tables, a quiet machine, and the line that says where it was measured."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent
CACHE = CHECKOUT / "build" / "bench"
QUIET_LOAD = 1.0
Row = dict[str, Any]


def parser(documentation: str | None, rounds: int) -> argparse.ArgumentParser:
    """Options that every benchmark has."""
    made = argparse.ArgumentParser(description=(documentation or "").splitlines()[0])
    made.add_argument("--rounds", type=int, default=rounds, help=f"how often each is measured ({rounds})")
    made.add_argument("--no-install", action="store_true", help="install no Debian packages")
    made.add_argument("--wait", type=float, default=0, metavar="SECONDS",
                      help=f"wait at most so long for a load below {QUIET_LOAD:g}")
    made.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to a file as well")
    return made


def install_missing(*packages: str) -> None:
    """Install Debian packages, if this is Debian or Ubuntu and the caller may; no service that came with them stays on.

    Raises:
        SystemExit: they are missing and cannot be installed.
    """
    states = subprocess.run(["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n", *packages],
                            capture_output=True, text=True, check=False).stdout.splitlines()
    missing = [name for name in packages if f"{name} installed" not in states]
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise SystemExit(f"Not installed: {' '.join(missing)}. As root on Debian or Ubuntu they would be installed.")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "--quiet"], check=True, stdout=sys.stderr)
    subprocess.run(["apt-get", "install", "--yes", "--no-install-recommends", *missing], check=True, stdout=sys.stderr,
                   env=environment)
    if any(name.startswith("nginx") for name in missing) and shutil.which("systemctl"):
        now = ["--now"] if Path("/run/systemd/system").is_dir() else []
        subprocess.run(["systemctl", "disable", *now, "nginx"], check=True, stdout=sys.stderr, stderr=sys.stderr)


def wait_until_quiet(seconds: float) -> None:
    """Wait for the machine's other work to end, at most so long."""
    until = time.monotonic() + seconds
    while os.getloadavg()[0] >= QUIET_LOAD and time.monotonic() < until:
        time.sleep(5)


def machine() -> Row:
    """Where and when this is measured, and what else the machine does."""
    model = next((line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), platform.machine())
    return {"date": datetime.now(UTC).strftime("%Y-%m-%d"), "processor": model, "cpus": os.cpu_count(),
            "load_before": round(os.getloadavg()[0], 2), "system": f"Linux {platform.release()}",
            "python": platform.python_version()}


def print_machine(row: Row) -> None:
    """That, in a line."""
    print(f"{row['date']}, {row['processor']}, {row['cpus']} CPUs, load {row['load_before']:.2f} before,"
          f" {os.getloadavg()[0]:.2f} after, {row['system']}, Python {row['python']}")


def print_table(title: str, rows: Sequence[Row]) -> None:
    """Rows with the same keys; numbers to the right."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    texts = [[_text(row.get(name)) for name in names] for row in rows]
    widths = [max(len(names[i]), *(len(line[i]) for line in texts)) for i in range(len(names))]
    numeric = [all(isinstance(row.get(name), int | float | None) for row in rows) for name in names]
    print(f"\n{title}\n")
    for line in (names, ["-" * width for width in widths], *texts):
        print("| " + " | ".join(cell.rjust(width) if right else cell.ljust(width)
                                for cell, width, right in zip(line, widths, numeric, strict=True)) + " |")


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def write_json(path: Path | None, content: Row) -> None:
    """The numbers, for machines."""
    if path is not None:
        path.write_text(json.dumps(content, indent=1) + "\n")


def interleaved(rounds: int, **works: Callable[[], float]) -> dict[str, list[float]]:
    """Do each work once per round, in turn, so that a busy moment hits all alike."""
    found: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds):
        names = list(works) if number % 2 == 0 else list(reversed(works))
        for name in names:
            found[name].append(works[name]())
    return found


def verdict(value: float, bar: float, *, least: bool = False) -> str:
    """Whether a bar is kept."""
    return "kept" if (value >= bar if least else value <= bar) else "MISSED"


median = statistics.median
