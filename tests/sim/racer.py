"""Somebody who swaps files under a program's hands, as fast as the machine can: `python -m tests.sim.racer FOLDER FILE=EVIL...`

Each FILE holds what was signed, each EVIL file other bytes. Again and again, in turn: EVIL takes the place of FILE by a rename,
by a symbolic link, by a hard link, and by writing into the same file; FILE itself gets a second name; and it is good again for a
moment. FOLDER, on the same file system, is for spare names. The program says "begun" after the first round, goes on until its
standard input ends, and then prints as JSON how often it did what.
"""

import ctypes
import json
import os
import random
import select
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import TracebackType

RENAME_EXCHANGE = 2
"""renameat2(2)."""
AT_FDCWD = -100
KINDS = ("renamed", "symbolic link", "hard link", "rewritten", "second name")
_libc = ctypes.CDLL(None, use_errno=True)


class Racer:
    """The program, for as long as the `with` lasts; then `swaps` says how often it did what."""

    def __init__(self, folder: Path, swapped: dict[Path, Path]) -> None:
        self.folder = folder
        self.swaps: dict[str, int] = {}
        self._pairs = [f"{file}={evil}" for file, evil in swapped.items()]
        self._process: subprocess.Popen[str] | None = None

    @property
    def count(self) -> int:
        """Swaps until now, about."""
        try:
            return int((self.folder / "count").read_text() or 0)
        except FileNotFoundError:
            return 0

    def __enter__(self) -> "Racer":
        self.folder.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen([sys.executable, "-m", "tests.sim.racer", str(self.folder), *self._pairs],
                                         cwd=Path(__file__).resolve().parents[2], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "begun\n"
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        assert self._process is not None
        said, _ = self._process.communicate(timeout=20)  # which ends its input
        self.swaps = json.loads(said)


class _Swapper:
    def __init__(self, folder: Path, file: Path, evil: Path) -> None:
        self.file, self.spare = str(file), str(folder / f"spare-{file.name}")
        self.good_bytes, self.evil_bytes = file.read_bytes(), evil.read_bytes()
        self.evil = str(folder / f"evil-{file.name}")
        Path(self.evil).write_bytes(self.evil_bytes)

    def swap(self, kind: str, dwell_s: float) -> None:
        if kind == "rewritten":
            self._rewrite(self.evil_bytes)
            is_over(dwell_s)
            self._rewrite(self.good_bytes)
        elif kind == "second name":
            os.link(self.file, self.spare)
            is_over(dwell_s)
            os.unlink(self.spare)
        elif kind == "renamed":
            _exchange(self.file, self.evil)
            is_over(dwell_s)
            _exchange(self.file, self.evil)
        else:
            (os.symlink if kind == "symbolic link" else os.link)(self.evil, self.spare)
            _exchange(self.file, self.spare)
            is_over(dwell_s)
            _exchange(self.file, self.spare)
            os.unlink(self.spare)

    def _rewrite(self, data: bytes) -> None:
        handle = os.open(self.file, os.O_WRONLY)
        try:
            if os.fstat(handle).st_nlink == 1 and not os.path.samefile(self.file, self.evil):
                os.pwrite(handle, data, 0)
                os.ftruncate(handle, len(data))
        finally:
            os.close(handle)

    def restore(self) -> None:
        """The good file, if the program has removed it meanwhile."""
        for path in (self.spare, self.file):
            Path(path).unlink(missing_ok=True)
        Path(self.spare).write_bytes(self.good_bytes)
        os.chmod(self.spare, 0o600)
        os.rename(self.spare, self.file)
        Path(self.evil).unlink(missing_ok=True)
        Path(self.evil).write_bytes(self.evil_bytes)


def is_over(within_s: float) -> bool:
    """True if the race ends within that time; this is how long it waits for that."""
    return bool(select.select([sys.stdin], [], [], within_s)[0])


def _exchange(one: str, other: str) -> None:
    if _libc.renameat2(AT_FDCWD, one.encode(), AT_FDCWD, other.encode(), RENAME_EXCHANGE):
        raise OSError(ctypes.get_errno(), "renameat2", one)


def main(folder: Path, pairs: list[str]) -> None:
    """See the module's text."""
    swappers = [_Swapper(folder, *map(Path, pair.split("="))) for pair in pairs]
    chance, done = random.Random(1), Counter[str]()
    begun = False
    while not is_over(chance.uniform(0, 0.004)):  # good for a moment
        for kind in KINDS:
            for swapper in swappers:
                try:
                    swapper.swap(kind, chance.choice((0, 0, 0.0005)))
                    done[kind] += 1
                except OSError:
                    swapper.restore()
        (folder / "count").write_text(str(done.total()))
        if not begun:
            print("begun", flush=True)
            begun = True
    for swapper in swappers:
        swapper.restore()
    print(json.dumps(done))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
