"""Fuzzes with atheris: `python -m tests.fuzz [--seconds N] [TARGET...]`, every target by default, one after the other.

Each target runs in a process of its own, because libFuzzer ends the process it runs in. What it learns is kept below
build/fuzz/<target>/corpus, an input that fails as build/fuzz/<target>/crash-...; such an input belongs into
tests/fuzz/corpus/<target> once the fault is corrected. The exit code is 1 if any target failed.
"""

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from tests.fuzz.seeds import CORPUS, ROOT, seeds
from tests.fuzz.targets import TARGETS

WORK = ROOT / "build" / "fuzz"
MAX_BYTES = 8_192
SLOW_S = 20
"""An input that takes longer counts as a failure; all limits of the code lie far below."""
MEMORY_MB = 2_048


def main() -> int:
    """Run the targets; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--seed", type=int, default=0, help="of chance; 0 for another one each time")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    asked = parser.parse_args()
    unknown = set(asked.targets) - TARGETS.keys()
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not there for this Python or system; the same targets run with hypothesis in tests/fuzz.")
        return 1
    failed = False
    print(f"{'target':16} {'seconds':>8} {'executions':>11} {'coverage':>9} {'corpus':>7}  result", flush=True)
    for name in asked.targets or TARGETS:
        failed |= _fuzz(name, asked.seconds, asked.seed)
    return int(failed)


def _fuzz(name: str, seconds: int, seed: int) -> bool:
    """One target; True if it failed."""
    folder = WORK / name
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(seeds(name)):
        (corpus / f"seed-{number:03}").write_bytes(data)
    known = set(folder.glob("*-*"))
    began = time.monotonic()
    child = [sys.executable, "-m", "tests.fuzz.one", name, f"-max_total_time={seconds}", f"-seed={seed}", f"-max_len={MAX_BYTES}",
             f"-timeout={SLOW_S}", f"-rss_limit_mb={MEMORY_MB}", "-print_final_stats=1", f"-artifact_prefix={folder}/",
             str(corpus)]
    done = subprocess.run(child, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
                          env={**os.environ, "PYTHONHASHSEED": "0"})
    text = done.stdout.decode("utf-8", "replace")
    (folder / "log").write_text(text)
    took = time.monotonic() - began
    found = sorted(path.name for path in set(folder.glob("*-*")) - known)
    result = "ok" if done.returncode == 0 and not found else f"FAILED ({', '.join(found) or f'exit code {done.returncode}'})"
    print(f"{name:16} {took:8.0f} {_number('stat::number_of_executed_units', text):>11} {_coverage(text):>9}"
          f" {sum(1 for _ in corpus.iterdir()):>7}  {result}", flush=True)
    if result != "ok":
        print("\n".join(text.splitlines()[-40:]))
        print(f"Keep the input: {folder} -> {CORPUS / name}", flush=True)
    return result != "ok"


def _number(name: str, text: str) -> str:
    found = re.search(rf"{name}:\s+(\d+)", text)
    return found.group(1) if found else "?"


def _coverage(text: str) -> str:
    found = re.findall(r" cov: (\d+)", text)
    return found[-1] if found else "?"


if __name__ == "__main__":
    Path(WORK).mkdir(parents=True, exist_ok=True)
    sys.exit(main())
