"""Nobody's change is overwritten: files are swapped, what came out is looked at, and what a kill leaves is put right (D7)."""

import hashlib
import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from keyfit.errors import HostError
from keyfit.platforms.linux.files import RootedFiles
from tests.sim import syscalls

CHECKOUT = Path(__file__).resolve().parents[3]
OLD, NEW, THEIRS = b"old\n", b"new\n", b"theirs\n"
DO = f"""
import sys
from keyfit.errors import KeyfitError
from keyfit.platforms.linux.files import RootedFiles
files = RootedFiles(sys.argv[1])
try:
    match sys.argv[2]:
        case "replace": files.write_bytes("/etc/list", {NEW!r}, 0o644, expected={OLD!r})
        case "make": files.write_bytes("/etc/list", {NEW!r}, 0o644, expected=None)
        case "remove": files.remove_file("/etc/list", expected={OLD!r})
except KeyfitError as error:
    sys.exit(error.code)
"""
WHAT = ("replace", "make", "remove")


class Place:
    """A directory in which one file is replaced, made or removed by a process of its own."""

    def __init__(self, root: Path, what: str) -> None:
        self.root, self.what = root, what
        self.path = root / "etc/list"
        self.files = RootedFiles(str(root))

    def begin(self) -> None:
        for path in (self.root / "etc").glob("*") if self.path.parent.exists() else ():
            path.unlink()
        self.path.parent.mkdir(exist_ok=True)
        (self.root / "etc/.list.theirs").write_bytes(THEIRS)
        if self.what != "make":
            self.path.write_bytes(OLD)

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-c", DO, str(self.root), self.what]

    def calls(self) -> list[str]:
        self.begin()
        return syscalls.calls(self.command, cwd=CHECKOUT)

    def now(self) -> bytes | None:
        return self.path.read_bytes() if self.path.exists() else None

    def names(self) -> set[str]:
        return {p.name for p in self.path.parent.iterdir()} - {"list"}

    @property
    def old_and_new(self) -> tuple[bytes | None, bytes | None]:
        return {"replace": (OLD, NEW), "make": (None, NEW), "remove": (OLD, None)}[self.what]


@pytest.fixture(params=WHAT)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(tmp_path, request.param)


def test_d7_killed_at_any_call_and_settled_leaves_old_or_new_and_nothing_else(place: Place) -> None:
    calls, seen = place.calls(), set()
    assert any(call.startswith("renameat2") for call in calls)
    for number in range(1, len(calls) + 1):
        place.begin()
        done = syscalls.killed(place.command, number, cwd=CHECKOUT)
        assert done.returncode == -signal.SIGKILL
        assert place.files.settle("/etc/list") == ""
        seen.add(place.now())
        assert place.names() == {".list.theirs"}, f"after a kill at {calls[number - 1]}"
        assert (place.root / "etc/.list.theirs").read_bytes() == THEIRS
    assert seen == set(place.old_and_new)


def test_d7_a_signal_that_cuts_off_any_call_changes_nothing_about_it(place: Place) -> None:
    """EINTR once, at each call that a file system may answer so."""
    for number, call in enumerate(place.calls(), 1):
        place.begin()
        done = syscalls.failing(place.command, number, "EINTR", cwd=CHECKOUT)
        assert done.returncode == 0, f"{call}: {done.stderr.decode()}"
        assert (place.now(), place.names()) == (place.old_and_new[1], {".list.theirs"}), call


@pytest.mark.parametrize("error", ["EINVAL", "ENOSYS"])
def test_a_file_system_without_exchange_and_noreplace_is_served_too(place: Place, error: str) -> None:
    tried = 0
    for number, call in enumerate(place.calls(), 1):
        if call.startswith(("renameat2", "link")):
            place.begin()
            done = syscalls.failing(place.command, number, error, cwd=CHECKOUT)
            assert done.returncode == 0, done.stderr.decode()
            assert (place.now(), place.names()) == (place.old_and_new[1], {".list.theirs"}), call
            tried += 1
    assert tried


def _at_each_rename(place: Place, meanwhile: Callable[[], None]) -> list["subprocess.CompletedProcess[bytes]"]:
    """Somebody acts just before each rename in turn, and what they wrote is there in the end."""
    results = []
    for number, call in enumerate(place.calls(), 1):
        if call.startswith("renameat2"):
            place.begin()
            done, reached = syscalls.held_up(place.command, number, meanwhile, cwd=CHECKOUT)
            assert reached
            results.append(done)
            assert place.names() == {".list.theirs"}, call
            assert place.now() == THEIRS, call
    return results


def test_d7_what_somebody_else_writes_at_the_last_moment_stays(place: Place) -> None:
    """Written in place, so that even the file's identity is the same, just before the names are swapped."""

    def meanwhile() -> None:
        place.path.write_bytes(THEIRS)

    assert all(b"changed-meanwhile" in done.stderr for done in _at_each_rename(place, meanwhile))


def test_d7_what_somebody_else_puts_there_at_the_last_moment_stays(place: Place) -> None:
    def meanwhile() -> None:
        beside = place.root / "theirs"
        beside.write_bytes(THEIRS)
        beside.replace(place.path)

    assert all(b"changed-meanwhile" in done.stderr for done in _at_each_rename(place, meanwhile))


def test_d7_a_mode_that_somebody_else_sets_at_the_last_moment_stays(tmp_path: Path) -> None:
    place = Place(tmp_path, "replace")
    number = 1 + max(n for n, call in enumerate(place.calls()) if call.startswith("renameat2"))
    place.begin()
    done, reached = syscalls.held_up(place.command, number, lambda: place.path.chmod(0o600), cwd=CHECKOUT)
    assert reached
    assert b"changed-meanwhile" in done.stderr
    assert (place.now(), stat.S_IMODE(place.path.stat().st_mode), place.names()) == (OLD, 0o600, {".list.theirs"})


def test_a_file_that_vanished_is_not_made_anew(tmp_path: Path) -> None:
    place = Place(tmp_path, "replace")
    number = 1 + max(n for n, call in enumerate(place.calls()) if call.startswith("renameat2"))
    place.begin()
    done, _ = syscalls.held_up(place.command, number, place.path.unlink, cwd=CHECKOUT)
    assert b"changed-meanwhile" in done.stderr
    assert (place.now(), place.names()) == (None, {".list.theirs"})


@pytest.mark.parametrize(("there", "expected"), [(None, OLD), (OLD, None), (THEIRS, OLD), (THEIRS, None)])
def test_what_is_not_as_expected_is_left_alone(tmp_path: Path, there: bytes | None, expected: bytes | None) -> None:
    place = Place(tmp_path, "make")
    place.begin()
    if there is not None:
        place.path.write_bytes(there)
    with pytest.raises(HostError) as caught:
        place.files.write_bytes("/etc/list", NEW, 0o644, expected=expected)
    assert (caught.value.code, bool(caught.value.hint)) == ("changed-meanwhile", True)
    if there is not None and expected is not None:
        with pytest.raises(HostError):
            place.files.remove_file("/etc/list", expected=expected)
    assert (place.now(), place.names()) == (there, {".list.theirs"})


def _name(old: bytes, new: bytes | None) -> str:
    return f".list.keyfit-{hashlib.sha256(old).hexdigest()[:32]}-{hashlib.sha256(new).hexdigest()[:32] if new else 'gone'}"


@pytest.mark.parametrize(("beside", "there", "leftover", "after"), [
    (_name(OLD, NEW), NEW, OLD, NEW),  # swapped
    (_name(OLD, NEW), OLD, NEW, OLD),  # not swapped yet
    (_name(OLD, NEW), NEW, THEIRS, THEIRS),  # swapped, and theirs came out
    (_name(OLD, None), None, OLD, None),  # taken away
    (_name(OLD, None), None, THEIRS, THEIRS),  # taken away, and it was theirs
    (".list.keyfit-new", OLD, b"ne", OLD),  # half written
])
def test_d7_what_a_kill_leaves_is_told_by_its_name(tmp_path: Path, beside: str, there: bytes | None, leftover: bytes,
                                                   after: bytes | None) -> None:
    place = Place(tmp_path, "make")
    place.begin()
    (tmp_path / "etc" / beside).write_bytes(leftover)
    if there is not None:
        place.path.write_bytes(there)
    assert place.files.settle("/etc/list") == ""
    assert (place.now(), place.names()) == (after, {".list.theirs"})


@pytest.mark.parametrize("beside", [_name(OLD, NEW), _name(OLD, None)])
def test_d7_two_changes_of_others_are_both_kept_and_one_is_named(tmp_path: Path, beside: str) -> None:
    place = Place(tmp_path, "make")
    place.begin()
    (tmp_path / "etc" / beside).write_bytes(THEIRS)
    place.path.write_bytes(b"theirs too\n")
    assert beside in place.files.settle("/etc/list")
    assert (place.now(), (tmp_path / "etc" / beside).read_bytes()) == (b"theirs too\n", THEIRS)


@pytest.mark.parametrize("beside", [".list.keyfit-new", _name(OLD, NEW), _name(OLD, None)])
def test_d4_links_planted_beside_are_removed_or_left_and_never_followed(tmp_path: Path, beside: str) -> None:
    place, victim = Place(tmp_path, "replace"), tmp_path / "victim"
    place.begin()
    victim.write_bytes(OLD)
    (tmp_path / "etc" / beside).symlink_to(victim)
    place.files.settle("/etc/list")
    try:
        place.files.write_bytes("/etc/list", NEW, 0o644, expected=OLD)
    except HostError as error:
        assert error.code == "changed-meanwhile"  # noqa: PT017 - either way
    assert victim.read_bytes() == OLD
    assert place.now() in (OLD, NEW)


def test_owner_mode_labels_and_access_lists_are_those_of_the_old_file(tmp_path: Path) -> None:
    place = Place(tmp_path, "replace")
    place.begin()
    os.chown(place.path, 12, 34)
    place.path.chmod(0o2640)
    labels = {"user.note": b"kept", "security.keyfit": b"label", "trusted.note": b"root only",
              "system.posix_acl_access": bytes.fromhex("0200000001000600ffffffff02000400e803000004000400ffffffff10000600ffffffff"
                                                       "20000000ffffffff")}
    for name, value in labels.items():
        os.setxattr(place.path, name, value)
    before = place.path.stat()
    place.files.write_bytes("/etc/list", NEW, 0o644, expected=OLD)
    now = place.path.stat()
    assert (now.st_mode, now.st_uid, now.st_gid) == (before.st_mode, 12, 34)
    assert {name: os.getxattr(place.path, name) for name in os.listxattr(place.path)} == labels
    assert place.now() == NEW


def test_d7_a_write_that_the_system_cuts_short_leaves_the_old_file(tmp_path: Path) -> None:
    """The limit of a file's size makes write(2) take less than it is given, and then nothing."""
    place = Place(tmp_path, "replace")
    place.begin()
    command = [sys.executable, "-c", DO.replace(repr(NEW), repr(NEW * 3_000)), str(tmp_path), "replace"]

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 5_000))

    done = subprocess.run(command, preexec_fn=limit, capture_output=True, timeout=60, check=False, cwd=CHECKOUT,
                          env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    assert b"cannot-write" in done.stderr
    assert (place.now(), place.names()) == (OLD, {".list.theirs"})


def test_files_of_ones_own_get_folders_of_ones_own(tmp_path: Path) -> None:
    files = RootedFiles(str(tmp_path))
    files.write_bytes("/home/.pki/nssdb/pkcs11.txt", NEW, 0o600, expected=None)
    files.write_bytes("/etc/pkcs11/x.module", NEW, 0o644, expected=None)
    modes = {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("home/.pki", "home/.pki/nssdb", "etc/pkcs11")}
    assert modes == {"home/.pki": 0o700, "home/.pki/nssdb": 0o700, "etc/pkcs11": 0o755}
