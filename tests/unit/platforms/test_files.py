"""Files below a root: nothing leads out of it, and a file is there whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keyfit.errors import HostError, Outcome, StorageError
from keyfit.platforms.linux import files as module
from keyfit.platforms.linux.files import RootedFiles
from tests.sim.sysfstree import tree_folder

LIMIT = 1_000_000


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret").write_bytes(b"secret")
    return folder


@pytest.fixture
def tree(tmp_path: Path, outside: Path) -> Path:
    folder = tmp_path / "tree"
    (folder / "usr/lib").mkdir(parents=True)
    (folder / "etc").mkdir()
    (folder / "lib").symlink_to("usr/lib")
    return folder


@pytest.fixture
def files(tree: Path) -> RootedFiles:
    return RootedFiles(str(tree))


@pytest.fixture(params=["absolute", "relative", "link-in-a-link"])
def escape(request: pytest.FixtureRequest, tree: Path, outside: Path) -> str:
    """A directory link in the tree that would lead outside if the kernel followed it."""
    target = str(outside) if request.param == "absolute" else "../" * 20 + str(outside).lstrip("/")
    (tree / "etc/way").symlink_to(target)
    if request.param == "link-in-a-link":
        (tree / "etc/far").symlink_to("way")
        return "/etc/far"
    return "/etc/way"


# ---- inside the root


def test_what_was_written_is_read(files: RootedFiles, tree: Path) -> None:
    files.write_bytes("/etc/udev/rules.d/70-token.rules", b"rule\n", 0o644, expected=None)

    assert files.read_bytes("/etc/udev/rules.d/70-token.rules", LIMIT) == b"rule\n"
    assert (tree / "etc/udev/rules.d/70-token.rules").read_bytes() == b"rule\n"
    assert [p.name for p in (tree / "etc/udev/rules.d").iterdir()] == ["70-token.rules"], "no temporary file stays"


def test_a_link_that_stays_inside_is_followed(files: RootedFiles, tree: Path) -> None:
    files.write_bytes("/lib/modprobe.d/token.conf", b"blacklist x\n", 0o644, expected=None)

    assert (tree / "usr/lib/modprobe.d/token.conf").exists()
    assert (tree / "lib").is_symlink()
    assert files.exists("/lib/modprobe.d/token.conf")
    assert files.glob("/lib/modprobe.d", "*.conf") == ("/lib/modprobe.d/token.conf",)
    assert files.real_path("/lib/modprobe.d") == tree / "usr/lib/modprobe.d"


def test_an_absolute_link_starts_at_the_root_of_the_tree(files: RootedFiles, tree: Path) -> None:
    (tree / "etc/os-release").symlink_to("/usr/lib/os-release")
    (tree / "usr/lib/os-release").write_bytes(b"ID=debian\n")

    assert files.read_bytes("/etc/os-release", LIMIT) == b"ID=debian\n"


def test_the_target_of_a_file_link_is_replaced_and_the_link_stays(files: RootedFiles, tree: Path) -> None:
    (tree / "etc/list").symlink_to("../usr/lib/list")
    (tree / "usr/lib/list").write_bytes(b"old")

    files.write_bytes("/etc/list", b"new", 0o644, expected=b"old")

    assert (tree / "etc/list").is_symlink()
    assert (tree / "usr/lib/list").read_bytes() == b"new"


def test_dots_stop_at_the_root(files: RootedFiles, outside: Path) -> None:
    assert files.read_bytes("/../outside/secret", LIMIT) is None
    assert files.read_bytes("/etc/../../outside/secret", LIMIT) is None


def test_links_that_lead_in_a_circle_are_named(files: RootedFiles, tree: Path) -> None:
    (tree / "etc/a").symlink_to("b")
    (tree / "etc/b").symlink_to("a")

    for operation in (lambda: files.read_bytes("/etc/a/x", LIMIT),
                      lambda: files.write_bytes("/etc/a", b"", 0o644, expected=None)):
        with pytest.raises(HostError) as caught:
            operation()
        assert caught.value.code == "link-loop"


# ---- out of the root


def test_d3_nothing_is_read_through_a_link_out_of_the_root(files: RootedFiles, escape: str) -> None:
    assert files.read_bytes(f"{escape}/secret", LIMIT) is None
    assert not files.exists(f"{escape}/secret")
    assert files.glob(escape, "*") == ()


def test_d3_nothing_is_written_through_a_link_out_of_the_root(files: RootedFiles, escape: str, outside: Path) -> None:
    files.write_bytes(f"{escape}/new", b"x", 0o644, expected=None)

    assert sorted(p.name for p in outside.iterdir()) == ["secret"]
    assert files.read_bytes(f"{escape}/new", LIMIT) == b"x", "it lies where the link leads as seen from the tree"


def test_d4_nothing_is_removed_through_a_link_out_of_the_root(files: RootedFiles, escape: str, outside: Path) -> None:
    files.remove_file(f"{escape}/secret", expected=b"secret")
    files.remove_empty_directories(escape, [escape])

    assert (outside / "secret").read_bytes() == b"secret"


def test_d4_a_link_is_removed_and_not_what_it_points_to(files: RootedFiles, tree: Path, outside: Path) -> None:
    (tree / "etc/link").symlink_to(outside / "secret")
    (tree / "etc/near").symlink_to("../usr/lib")

    files.remove_file("/etc/link", expected=b"")
    files.remove_file("/etc/near", expected=b"")

    assert not (tree / "etc/link").is_symlink()
    assert (outside / "secret").exists()
    assert (tree / "usr/lib").is_dir()


SWAPPER = """
import ctypes, os, select, sys
os.chdir(sys.argv[1])
exchange = ctypes.CDLL(None, use_errno=True).renameat2
swaps = 0
print("swapping", flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    for _ in range(100):
        swaps += exchange(-100, b"place", -100, b"link", 2) == 0  # AT_FDCWD, RENAME_EXCHANGE
print(swaps)
"""


def test_d3_a_directory_that_is_swapped_for_a_link_all_the_time_never_leads_out() -> None:
    """Somebody who owns a directory of the tree swaps it for a link while files are written, read and removed in it."""
    with tree_folder() as base:
        outside, place = base / "outside", base / "tree/place"
        outside.mkdir()
        (outside / "secret").write_bytes(b"secret")
        place.mkdir(parents=True)
        (base / "tree/link").symlink_to(outside)
        files = RootedFiles(f"{base}/tree")
        swapper = subprocess.Popen([sys.executable, "-c", SWAPPER, base / "tree"], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, text=True)
        assert swapper.stdout is not None
        assert swapper.stdout.readline() == "swapping\n"

        answers, codes, written = set(), set(), 0
        for _ in range(5_000):
            answers.add(files.read_bytes("/place/secret", LIMIT))
            try:
                files.write_bytes("/place/secret", b"mine", 0o644, expected=None)
                written += 1
                files.remove_file("/place/secret", expected=b"mine")
            except HostError as error:  # what was written before lies where the name leads this time
                codes.add(error.code)
                files.remove_file("/place/secret", expected=b"mine")
        swaps = int(swapper.communicate("stop")[0])

        assert swaps > 1_000
        assert written > 1_000
        assert codes == {"changed-meanwhile"}
        assert b"secret" not in answers
        assert {p.name: p.read_bytes() for p in outside.iterdir()} == {"secret": b"secret"}


def test_d5_a_hard_link_of_a_file_keeps_its_content(files: RootedFiles, tree: Path, outside: Path) -> None:
    os.link(outside / "secret", tree / "etc/log")

    files.write_bytes("/etc/log", b"new", 0o644, expected=b"secret")

    assert (outside / "secret").read_bytes() == b"secret"


# ---- whole or not at all


def test_owner_mode_and_attributes_of_an_existing_file_stay(files: RootedFiles, tree: Path) -> None:
    path = tree / "etc/kept"
    path.write_bytes(b"old")
    path.chmod(0o4710)
    if os.geteuid() == 0:
        os.chown(path, 12, 34)
        path.chmod(0o4710)
    os.setxattr(path, "user.note", b"kept")

    files.write_bytes("/etc/kept", b"new", 0o644, expected=b"old")

    now = path.stat()
    assert stat.S_IMODE(now.st_mode) == 0o4710
    assert (now.st_uid, now.st_gid) == ((12, 34) if os.geteuid() == 0 else (os.geteuid(), os.getegid()))
    assert os.getxattr(path, "user.note") == b"kept"


def test_new_files_and_directories_have_their_mode_whatever_the_umask(files: RootedFiles, tree: Path) -> None:
    before = os.umask(0o077)
    try:
        files.write_bytes("/opt/keyfit/brands/x", b"", 0o644, expected=None)
    finally:
        os.umask(before)

    assert stat.S_IMODE((tree / "opt/keyfit/brands/x").stat().st_mode) == 0o644
    assert {stat.S_IMODE((tree / p).stat().st_mode) for p in ("opt", "opt/keyfit", "opt/keyfit/brands")} == {0o755}


@pytest.fixture(params=[errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO],
                ids=lambda number: errno.errorcode[number])
def failing_sync(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The file cannot be brought to the disk."""
    number: int = request.param

    def fail(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "fsync", fail)
        yield number


def test_d7_a_write_that_fails_leaves_the_old_file_and_says_what_to_do(
    files: RootedFiles, tree: Path, failing_sync: int
) -> None:
    (tree / "etc/list").write_bytes(b"old")

    with pytest.raises(StorageError) as caught:
        files.write_bytes("/etc/list", b"new", 0o644, expected=b"old")

    assert (tree / "etc/list").read_bytes() == b"old"
    assert [p.name for p in (tree / "etc").iterdir()] == ["list"], "no temporary file stays"
    assert caught.value.outcome is Outcome.CANNOT_WRITE
    assert "/etc/list" in caught.value.message
    assert caught.value.hint
    assert (caught.value.code == "disk-full") == (failing_sync in (errno.ENOSPC, errno.EDQUOT))


WRITE_TO_A_FULL_DISK = """
import os, sys
from keyfit.errors import StorageError
from keyfit.platforms.linux.files import RootedFiles
from tests.sim.sysfstree import tree_folder
files = RootedFiles(sys.argv[1])
files.write_bytes("/list", b"old", 0o644, expected=None)
try:
    files.write_bytes("/list", b"x" * 2_000_000, 0o644, expected=b"old")
except StorageError as error:
    print(error.code, files.read_bytes("/list", 100), os.listdir(sys.argv[1]))
"""


def test_d7_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """On a file system of one megabyte, in a mount namespace of its own."""
    script = 'mount -t tmpfs -o size=1m none "$1" && exec "$2" -c "$3" "$1"'
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", tmp_path, sys.executable,
         WRITE_TO_A_FULL_DISK], capture_output=True, text=True, check=False)

    assert (done.stdout, done.stderr) == ("disk-full b'old' ['list']\n", "")


def test_a_file_where_a_directory_is_needed_is_named(files: RootedFiles, tree: Path) -> None:
    (tree / "etc/udev").write_bytes(b"")

    with pytest.raises(StorageError) as caught:
        files.write_bytes("/etc/udev/rules.d/x", b"", 0o644, expected=None)
    assert caught.value.message == "/etc/udev/rules.d/x cannot be written: Not a directory."
    assert files.read_bytes("/etc/udev/rules.d/x", LIMIT) is None


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["directory", "fifo"])
def test_what_is_no_file_is_neither_read_nor_replaced(files: RootedFiles, tree: Path, make: Any) -> None:
    make(tree / "etc/odd")

    with pytest.raises(HostError) as reading:
        files.read_bytes("/etc/odd", LIMIT)
    with pytest.raises(StorageError) as writing:
        files.write_bytes("/etc/odd", b"x", 0o644, expected=None)
    assert (reading.value.code, writing.value.code) == ("not-a-file", "not-a-file")


def test_a_file_over_the_limit_is_not_read(files: RootedFiles, tree: Path) -> None:
    (tree / "etc/big").write_bytes(b"x" * 11)

    assert files.read_bytes("/etc/big", 11) == b"x" * 11
    with pytest.raises(HostError) as caught:
        files.read_bytes("/etc/big", 10)
    assert caught.value.code == "file-too-large"


def test_no_descriptor_is_left_open(files: RootedFiles, tree: Path, escape: str) -> None:
    (tree / "etc/file").write_bytes(b"")
    before = set(os.listdir("/proc/self/fd"))

    for path in ("/etc/file", "/etc/file/below", "/lib/x/y", f"{escape}/x", "/", "/..", "/etc/way"):
        files.exists(path)
        files.missing_directories(path)
        files.glob(path, "*")
        files.remove_empty_directories(path, [])
    files.write_bytes("/a/b/c", b"", 0o644, expected=None)
    files.remove_file("/a/b/c", expected=b"")

    assert set(os.listdir("/proc/self/fd")) == before


# ---- directories


def test_directories_that_were_made_are_found_before_and_removed_after(files: RootedFiles, tree: Path) -> None:
    path = "/etc/udev/rules.d/x"
    made = files.missing_directories(path)
    files.write_bytes(path, b"", 0o644, expected=None)
    files.remove_file(path, expected=b"")
    files.remove_empty_directories(path, made)

    assert made == ("/etc/udev", "/etc/udev/rules.d")
    assert sorted(p.name for p in tree.iterdir()) == ["etc", "lib", "usr"]
    assert list((tree / "etc").iterdir()) == []


def test_d4_directories_that_are_not_ours_or_not_empty_stay(files: RootedFiles, tree: Path) -> None:
    files.write_bytes("/etc/foo/ours/x", b"", 0o644, expected=None)
    files.write_bytes("/etc/foo/other", b"", 0o644, expected=None)
    (tree / "etc/fo").mkdir()
    files.remove_file("/etc/foo/ours/x", expected=b"")

    files.remove_empty_directories("/etc/foo/ours/x", ["/etc/foo", "/etc/foo/ours", "/etc/fo"])

    assert not (tree / "etc/foo/ours").exists()
    assert (tree / "etc/foo/other").exists()
    assert (tree / "etc/fo").is_dir(), "a name that the path merely begins with is no parent of it"


def test_removing_what_is_not_there_is_nothing(files: RootedFiles) -> None:
    files.remove_file("/etc/none", expected=b"")
    files.remove_file("/none/none", expected=b"")


def test_glob_is_sorted_and_takes_names_only(files: RootedFiles, tree: Path) -> None:
    for name in ("b.bundle", "a.bundle", "c.txt"):
        (tree / "usr/lib" / name).mkdir()

    assert files.glob("/usr/lib", "*.bundle") == ("/usr/lib/a.bundle", "/usr/lib/b.bundle")
    assert files.glob("/", "us*") == ("/usr",)
    assert files.glob("/none", "*") == ()
