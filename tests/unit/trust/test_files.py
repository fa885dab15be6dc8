"""Private files: locks that end with their process, links that are not followed, errors with the right name."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from keyfit.errors import BusyError, StorageError
from keyfit.privatefiles import (
    FileLock,
    open_private,
    private_directory,
    read_private,
    storage_error,
    write_private,
)


@pytest.mark.parametrize(("number", "code"), [
    (errno.ENOSPC, "disk-full"), (errno.EDQUOT, "disk-full"), (errno.EROFS, "cannot-write"),
    (errno.EACCES, "cannot-write"), (errno.ELOOP, "unsafe-file"),
])
def test_system_errors_have_stable_codes(number: int, code: str) -> None:
    error = storage_error(OSError(number, os.strerror(number)), Path("/x"), "write")

    assert error.code == code
    assert error.hint


def test_a_file_is_replaced_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    write_private(tmp_path / "a", b"old")
    write_private(tmp_path / "a", b"new")

    assert read_private(tmp_path / "a", 100) == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()

    with pytest.raises(StorageError):
        write_private(tmp_path / "a", b"new")

    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_missing_file_is_none_and_a_large_one_an_error(tmp_path: Path) -> None:
    write_private(tmp_path / "a", b"12345")

    assert read_private(tmp_path / "b", 100) is None
    with pytest.raises(StorageError, match="more than 4 bytes"):
        read_private(tmp_path / "a", 4)


@pytest.mark.parametrize("kind", ["symlink", "dangling", "hard-link", "fifo", "directory"])
def test_d3_only_plain_files_are_opened(tmp_path: Path, kind: str) -> None:
    """D3."""
    victim, path = tmp_path / "victim", tmp_path / "a"
    victim.write_bytes(b"precious")
    if kind == "symlink":
        path.symlink_to(victim)
    elif kind == "dangling":
        path.symlink_to(tmp_path / "nowhere")
    elif kind == "hard-link":
        os.link(victim, path)
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()

    with pytest.raises((StorageError, OSError)):
        os.close(open_private(path, os.O_RDWR | os.O_CREAT))

    assert victim.read_bytes() == b"precious"
    assert not (tmp_path / "nowhere").exists()


def test_d3_a_directory_behind_a_link_is_not_ours(tmp_path: Path) -> None:
    """D3."""
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")

    with pytest.raises(StorageError, match="no directory"):
        private_directory(tmp_path / "link")


def test_the_lock_ends_with_its_process(tmp_path: Path) -> None:
    program = ("import sys; from pathlib import Path; from keyfit.privatefiles import FileLock\n"
               f"with FileLock(Path({str(tmp_path / 'lock')!r}), 5): print('held', flush=True); sys.stdin.read()")
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"

    with pytest.raises(BusyError), FileLock(tmp_path / "lock", 0.1):
        pass
    child.kill()
    child.communicate()
    with FileLock(tmp_path / "lock", 5):
        assert (tmp_path / "lock").exists()
