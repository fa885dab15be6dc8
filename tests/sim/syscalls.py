"""A program's calls that change files: numbered, cut short, made to fail, or held up, by a small preloaded library
(`syscalls.c`).

Every run meets the same call, as far as the program itself does the same. Children of the program are left alone.
"""

import atexit
import errno
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("syscalls.c")


@cache
def preloaded() -> Path:
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


def held_up(command: Sequence[str], number: int, meanwhile: Callable[[], None], *, environment: Mapping[str, str] | None = None,
            **given: Any) -> "tuple[subprocess.CompletedProcess[bytes], bool]":
    """Run it, and call `meanwhile` while it waits just before a call; also whether it came to that call."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, **given, env=_environment(
            {"SYSCALLS_AT": str(number), "SYSCALLS_DO": folder}, environment))
        try:
            while not (reached := os.path.exists(f"{folder}/reached")) and process.poll() is None:
                time.sleep(0.001)
            if reached:
                meanwhile()
            Path(folder, "go").touch()
            process.wait(100)
        finally:
            process.kill()
            process.wait()
        for file in (out, err):
            file.seek(0)
        return subprocess.CompletedProcess(command, process.returncode, out.read(), err.read()), reached


def _environment(settings: Mapping[str, str], environment: Mapping[str, str] | None) -> dict[str, str]:
    base = os.environ if environment is None else environment
    return {**base, **settings, "LD_PRELOAD": str(preloaded()), "PYTHONDONTWRITEBYTECODE": "1"}


def _run(command: Sequence[str], settings: dict[str, str], environment: Mapping[str, str] | None,
         **given: Any) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(command, capture_output=True, timeout=100, check=False, env=_environment(settings, environment),
                          **given)
