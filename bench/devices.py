"""How long it takes to say what is plugged in: `keyfit devices` beside programs that answer a similar question.

    python bench/devices.py [--rounds 15] [--no-install] [--json FILE]

A fake USB bus is mounted over /sys and /dev/bus/usb in a mount namespace of its own, so nothing of the machine's own bus
is read and no preload slows anything down. All programs run in one go, one after the other in every round, each as a
fresh process. See bench/README.md for what the columns mean.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))

from tests.sim.sysfstree import tree_folder, write_tree  # noqa: E402
from tests.sim.usbrecords import find_record, load_records  # noqa: E402

PACKAGES = ("usbutils", "isenkram-cli", "fwupd", "dbus", "libglib2.0-bin", "time", "util-linux")
"""Debian packages of the programs compared with, of the bus that fwupd needs, and of the tools that measure."""
TOKEN = find_record("0A89:0030")
TOKEN_ALIAS = "usb:v0A89p0030d0100dc00dsc00dp00ic0Bisc00ip00in00"
"""The modalias of that token's interface, for the program that is asked by modalias."""
MANY = 1000
FWUPD = "/usr/libexec/fwupd/fwupd"
FWUPD_PATIENCE_S = 30.0
GNU_TIME = "/usr/bin/time"
IDS = re.compile(r"\b[0-9a-fA-F]{4}:[0-9a-fA-F]{4}\b")
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/root", "TERM": "dumb",
               # libudev otherwise refuses a /sys that is not of the type sysfs (systemd, docs/ENVIRONMENT.md)
               "SYSTEMD_DEVICE_VERIFY_SYSFS": "0"}
BUS_CONFIGURATION = """<busconfig><type>system</type><listen>unix:path={socket}</listen><policy context="default">
<allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/><allow user="*"/></policy></busconfig>
"""
Row = dict[str, Any]


def programs(count: int) -> list[tuple[str, list[str]]]:
    """Name and argument vector of everything that is measured on a bus with `count` devices."""
    commands = [
        ("keyfit devices", [str(CHECKOUT / ".venv/bin/keyfit"), "devices"]),
        ("keyfit devices (frozen)", [str(CHECKOUT / "dist/keyfit/keyfit"), "devices"]),
        ("lsusb", ["lsusb"]),
        ("python -c pass", [str(CHECKOUT / ".venv/bin/python"), "-c", "pass"]),
    ]
    if count == 1:
        commands += [
            ("isenkram-lookup", ["isenkram-lookup", TOKEN_ALIAS]),
            ("fwupdmgr get-devices", ["fwupdmgr", "get-devices", "--show-all", "--no-unreported-check",
                                      "--no-metadata-check", "--no-remote-check"]),
        ]
    return commands


# ---- outside: packages, trees, namespace, table


def main() -> int:
    """Measure and print two tables."""
    options = parse_arguments()
    if options.inside:
        print(json.dumps(measure(Path(options.inside), options.count, options.rounds)))
        return 0
    if not options.no_install:
        install_missing()
    tables = {}
    for count in (1, MANY):
        with tree_folder() as tree:
            write_tree(tree, islice(cycle(load_records()), count) if count > 1 else [TOKEN])
            tables[count] = in_namespace(tree, count, options.rounds)
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, Linux {platform.release()}, "
          f"Python {platform.python_version()}, {options.rounds} rounds")
    for count, rows in tables.items():
        print(f"\n{'One token' if count == 1 else f'{count} devices'} on the bus\n")
        print(table(rows))
    if options.json:
        options.json.write_text(json.dumps(tables, indent=1) + "\n")
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="how often each program runs")
    parser.add_argument("--no-install", action="store_true", help="leave out programs that are not installed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to a file as well")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, default=1, help=argparse.SUPPRESS)
    return parser.parse_args()


def install_missing() -> None:
    """Install what is compared with, if this is Debian or Ubuntu and the caller may."""
    states = subprocess.run(["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n", *PACKAGES],
                            capture_output=True, text=True, check=False).stdout
    missing = [name for name in PACKAGES if f"{name} installed" not in states.splitlines()]
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        print(f"Not installed, so left out: {' '.join(missing)}", file=sys.stderr)
        return
    subprocess.run(["apt-get", "update", "--quiet"], check=True, stdout=sys.stderr)
    subprocess.run(["apt-get", "install", "--yes", "--no-install-recommends", *missing], check=True, stdout=sys.stderr,
                   env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})


def in_namespace(tree: Path, count: int, rounds: int) -> list[Row]:
    """Measure with the tree over /sys and /dev/bus; without root rights in a user namespace."""
    mapped = [] if os.geteuid() == 0 else ["--map-root-user"]
    done = subprocess.run(
        ["unshare", *mapped, "--mount", "--propagation", "private", sys.executable, __file__, "--inside", str(tree),
         "--count", str(count), "--rounds", str(rounds)], check=True, stdout=subprocess.PIPE, text=True)
    rows: list[Row] = json.loads(done.stdout)
    return rows


def table(rows: list[Row]) -> str:
    lines = [("program", "min ms", "median ms", "peak MB", "devices named")]
    for row in rows:
        if "missing" in row:
            lines.append((row["name"], row["missing"], "", "", ""))
        else:
            lines.append((row["name"], f"{row['min_ms']:.1f}", f"{row['median_ms']:.1f}", f"{row['peak_mb']:.1f}",
                          str(row["named"])))
    widths = [max(len(line[column]) for line in lines) for column in range(5)]
    return "\n".join(
        "  ".join(cell.ljust(width) if column == 0 else cell.rjust(width)
                  for column, (cell, width) in enumerate(zip(line, widths, strict=True))).rstrip()
        for line in lines)


# ---- inside the namespace


def measure(tree: Path, count: int, rounds: int) -> list[Row]:
    """Check that every program runs, then time all of them in turn."""
    mount_tree(tree)
    environment = dict(ENVIRONMENT)
    rows: list[Row] = []
    runnable: list[tuple[Row, list[str]]] = []
    with ExitStack() as services:
        for name, argv in programs(count):
            row: Row = {"name": name}
            rows.append(row)
            if argv[0] == "fwupdmgr" and Path(FWUPD).exists():
                row["daemon_pid"], started = services.enter_context(fwupd_daemon(tree, environment))
                row["cold_ms"] = -started * 1000
            path = shutil.which(argv[0], path=environment["PATH"])
            if path is None:
                row["missing"] = "not there"
                continue
            argv = [path, *argv[1:]]
            done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
            if "cold_ms" in row:
                row["cold_ms"] += time.perf_counter() * 1000
            if done.returncode != 0:
                row["missing"] = f"failed with {done.returncode}: {done.stderr.strip()[-80:]}"
                continue
            row |= {"named": len(IDS.findall(done.stdout)), "peak_mb": peak_mb(tree, argv, environment)}
            runnable.append((row, argv))
        times: dict[str, list[float]] = {row["name"]: [] for row, _ in runnable}
        for _ in range(rounds):
            for row, argv in runnable:
                times[row["name"]].append(wall_ms(argv, environment))
        for row, _ in runnable:
            row |= {"min_ms": min(times[row["name"]]), "median_ms": statistics.median(times[row["name"]])}
            if "daemon_pid" in row:
                rows.append(with_daemon(row))
    return rows


def with_daemon(row: Row) -> Row:
    """Count the daemon's memory in, and give the row for the first answer after the daemon was started."""
    row["peak_mb"] += high_water_mb(row.pop("daemon_pid"))
    cold_ms = row.pop("cold_ms")
    cold = {**row, "name": f"{row['name']} (starts its daemon, once)", "min_ms": cold_ms, "median_ms": cold_ms}
    row["name"] += " (daemon running)"
    return cold


def mount_tree(tree: Path) -> None:
    """Put the tree over /sys and /dev/bus. /dev/bus may not be there, hence a /dev of our own around it."""
    device = tree / "dev-mount"
    device.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", device], check=True)
    for name in ("null", "zero", "full", "random", "urandom"):
        (device / name).touch()
        subprocess.run(["mount", "--bind", f"/dev/{name}", device / name], check=True)
    for name, source in (("shm", Path("/dev/shm")), ("bus", tree / "dev/bus")):
        (device / name).mkdir()
        subprocess.run(["mount", "--bind", source, device / name], check=True)
    subprocess.run(["mount", "--bind", tree / "sys", "/sys"], check=True)
    subprocess.run(["mount", "--rbind", device, "/dev"], check=True)


def wall_ms(argv: list[str], environment: dict[str, str]) -> float:
    """From before the start of a fresh process until it has ended."""
    nowhere = [(os.POSIX_SPAWN_OPEN, number, "/dev/null", os.O_RDWR, 0) for number in (0, 1, 2)]
    start = time.perf_counter()
    child = os.posix_spawn(argv[0], argv, environment, file_actions=nowhere)
    os.waitpid(child, 0)
    return (time.perf_counter() - start) * 1000


def peak_mb(tree: Path, argv: list[str], environment: dict[str, str]) -> float:
    """Peak resident memory. Started by GNU time: a process counts its parent's size before exec as its own, and a Python
    parent is larger than most of what is measured here."""
    answer = tree / "peak"
    subprocess.run([GNU_TIME, "--format=%M", f"--output={answer}", *argv], env=environment, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL, check=True)
    return int(answer.read_text()) / 1024


def high_water_mb(pid: int) -> float:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


@contextmanager
def fwupd_daemon(tree: Path, environment: dict[str, str]) -> Iterator[tuple[int, float]]:
    """A message bus and the fwupd daemon on it, just started. Only these two are ended afterwards."""
    configuration, socket = tree / "bus.conf", tree / "bus.sock"
    configuration.write_text(BUS_CONFIGURATION.format(socket=socket))
    environment["DBUS_SYSTEM_BUS_ADDRESS"] = f"unix:path={socket}"
    bus = subprocess.Popen(["dbus-daemon", f"--config-file={configuration}", "--nofork", "--nopidfile",
                            "--print-address"], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.DEVNULL)
    if bus.stdout is not None:
        bus.stdout.readline()  # it says its address when it listens
    started = time.perf_counter()
    daemon = subprocess.Popen([FWUPD], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)
    try:
        subprocess.run(["gdbus", "wait", "--system", f"--timeout={FWUPD_PATIENCE_S:.0f}", "org.freedesktop.fwupd"],
                       env=environment, check=False, capture_output=True)
        yield daemon.pid, started
    finally:
        for service in (daemon, bus):
            service.terminate()
            service.wait()


if __name__ == "__main__":
    sys.exit(main())
