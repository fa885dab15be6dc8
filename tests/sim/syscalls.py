"""A program's calls that change files: numbered, cut short, or made to fail, by a small preloaded library (`syscalls.c`).

Every run meets the same call, as far as the program itself does the same. Children of the program are left alone.
"""

import atexit
import errno
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("syscalls.c")


@cache
def library() -> Path:
    """The library, built once a process."""
    folder = Path(tempfile.mkdtemp(prefix="keyfit-syscalls-"))
    atexit.register(shutil.rmtree, folder)
    built = folder / "syscalls.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Wno-nonnull-compare", "-o", str(built), str(SOURCE), "-ldl",
                    "-lpthread"], check=True)
    return built


def calls(command: Sequence[str], *, environment: Mapping[str, str] | None = None, expect: int = 0, **given: Any) -> list[str]:
    """Names of the calls of a whole run, in order; the n-th is number n + 1 for the other functions here."""
    with tempfile.NamedTemporaryFile() as log:
        done = _run(command, {"SYSCALLS_LOG": log.name}, environment, **given)
        assert done.returncode == expect, done
        return Path(log.name).read_text().split()


def killed(command: Sequence[str], number: int, *, environment: Mapping[str, str] | None = None,
           **given: Any) -> "subprocess.CompletedProcess[bytes]":
    """Run it and end it with SIGKILL just before a call; the return code is then -9."""
    return _run(command, {"SYSCALLS_AT": str(number), "SYSCALLS_DO": "kill"}, environment, **given)


def failing(command: Sequence[str], number: int, error: str, *, for_good: bool = False,
            environment: Mapping[str, str] | None = None, **given: Any) -> "subprocess.CompletedProcess[bytes]":
    """Run it with a call failing.

    Args:
        error: name of the error, "ENOSPC" for example.
        for_good: every later call fails too.
    """
    settings = {"SYSCALLS_AT": str(number), "SYSCALLS_DO": str(getattr(errno, error))}
    return _run(command, settings | ({"SYSCALLS_FOR_GOOD": "1"} if for_good else {}), environment, **given)


def _run(command: Sequence[str], settings: dict[str, str], environment: Mapping[str, str] | None,
         **given: Any) -> "subprocess.CompletedProcess[bytes]":
    base = os.environ if environment is None else environment
    return subprocess.run(command, capture_output=True, timeout=100, check=False,
                          env={**base, **settings, "LD_PRELOAD": str(library()), "PYTHONDONTWRITEBYTECODE": "1"}, **given)
