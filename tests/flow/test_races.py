"""Somebody else at the same files: swapped while they are read, linked before they are written, exchanged while they are cleaned
up (security C4, D1 to D5)."""

import base64
import hashlib
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from keyfit.engine.staging import Staging, chunks_of
from keyfit.errors import KeyfitError
from tests.faults import spoken_problems
from tests.sim import debs, syscalls
from tests.sim.changedpaths import changed_paths
from tests.sim.plans import payload, tar
from tests.sim.racer import KINDS, Racer
from tests.sim.wholejob import PACKAGE, Job, Publisher

SWAPS = 10_000
RACED_INSTALLS = 15
HOLDS = 20


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    return Publisher(tmp_path_factory.mktemp("publisher"), size=1_000_000)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory, publisher: Publisher) -> Job:
    return Job(tmp_path_factory.mktemp("machine"), publisher.repository.folder)


def test_c4_d2_ten_thousand_swaps_of_the_source_and_what_is_installed_is_always_what_was_signed(tmp_path: Path) -> None:
    good, evil = (random.Random(seed).randbytes(1_500_000) for seed in (1, 2))
    (tmp_path / "cache").mkdir(mode=0o700)
    source, other = tmp_path / "cache" / "file", tmp_path / "cache" / "evil"
    source.write_bytes(good)
    other.write_bytes(evil)
    signed = payload("driver.deb", good)
    came: Counter[str] = Counter()

    with Racer(tmp_path / "racer", {source: other}) as racer:
        while racer.count < SWAPS:
            came[taken(tmp_path / "state", source, signed, good)] += 1

    assert set(racer.swaps) == set(KINDS), racer.swaps
    assert came["other bytes"] == 0, came
    assert min(came["signed bytes"], came["payload-hash"] + came["payload-too-long"], came["unsafe-file"]) > 0, came


def taken(state: Path, source: Path, signed: object, good: bytes) -> str:
    """What one attempt to install brings."""
    try:
        with Staging(state) as staging:
            staging.take(signed, chunks_of(source))  # type: ignore[arg-type]
            path = staging.holds(signed)  # type: ignore[arg-type]
            assert path is not None
            return "signed bytes" if path.read_bytes() == good else "other bytes"
    except KeyfitError as error:
        return error.code


@pytest.fixture(scope="module")
def swapped(publisher: Publisher, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Other files in place of the signed ones, by their SHA-256. The other package has the same name and version, so nothing
    but its hash tells."""
    folder = tmp_path_factory.mktemp("evil")
    other = debs.build(folder, PACKAGE, files={"usr/lib/acme/driver.so": "evil\n" + "x" * 1_000_000})
    archive = folder / "evil.tar.gz"
    archive.write_bytes(tar(module__so="evil", readme="text"))
    return {hashlib.sha256(publisher.deb.read_bytes()).hexdigest(): other,
            hashlib.sha256(publisher.archive).hexdigest(): archive}


def outcome(job: Job, done: "subprocess.CompletedProcess[bytes]") -> str:
    """What came of an install: all that was signed, or nothing and the error's code."""
    now = job.snapshot()
    if done.returncode == 0:
        assert now == job.after["install"], done
        return "installed"
    assert not [*spoken_problems(done.returncode, done.stdout, done.stderr)]
    assert now == job.before["install"], done
    return str(json.loads(done.stdout)["messages"][0]["code"])


def test_c4_d2_downloads_swapped_during_whole_installs(job: Job, swapped: dict[str, Path], tmp_path: Path) -> None:
    came: Counter[str] = Counter()
    for number in range(RACED_INSTALLS):
        downloaded = job.start_with_cache()
        with Racer(tmp_path / f"racer{number}", {downloaded[sha256]: evil for sha256, evil in swapped.items()}) as racer:
            done = job.run("install")
        assert racer.swaps
        came[outcome(job, done)] += 1
    assert came.total() == RACED_INSTALLS
    assert came["installed"] > 0, came


def test_d2_downloads_swapped_while_an_install_is_held_up_between_check_and_use(job: Job, swapped: dict[str, Path]) -> None:
    job.start_with_cache()
    number = len(syscalls.calls(job.command("install"), environment=job.environment(), cwd="/"))
    came: Counter[str] = Counter()
    for call in range(1, number, number // HOLDS):
        downloaded = job.start_with_cache()

        def swap(downloaded: dict[str, Path] = downloaded) -> None:
            for sha256, evil in swapped.items():
                beside = downloaded[sha256].with_name("beside")
                shutil.copyfile(evil, beside)
                beside.chmod(0o600)
                beside.rename(downloaded[sha256])

        done, reached = syscalls.held_up(job.command("install"), call, swap, environment=job.environment(), cwd="/")
        assert reached
        came[outcome(job, done)] += 1
    assert came.total() > HOLDS
    assert came["installed"] > 0, came


@pytest.fixture(scope="module")
def touched(job: Job) -> list[Path]:
    """Every path that an install changes itself and whose name is known beforehand, by strace; shortest first."""
    def once(verb: str) -> set[Path]:
        job.start(verb)
        return changed_paths(lambda prefix: job.run(verb, prefix))

    paths = once("install") & once("install")
    return sorted(path for path in paths if job.run_folder in path.parents and path not in (job.tree, job.tmp))


class Outside:
    """A folder that no run has any business in, with a file that is somebody's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.canary = folder / "canary"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o751)
        self.canary.write_bytes(b"somebody's own")
        self.canary.chmod(0o640)
        os.chown(self.canary, 65534, 65534)

    def state(self) -> dict[str, tuple[int, int, int, bytes]]:
        """Content, mode and owner of all that is in it; a link's own number of names is no concern."""
        return {str(path.relative_to(self.folder)): (status.st_mode, status.st_uid, status.st_gid,
                                                     path.read_bytes() if path.is_file() else b"")
                for path in (self.folder, *sorted(self.folder.rglob("*"))) if (status := path.lstat())}


def symlink(path: Path, outside: Outside) -> None:
    path.symlink_to(outside.canary)


def dangling_symlink(path: Path, outside: Outside) -> None:
    path.symlink_to(outside.folder / "new")


def hard_link(path: Path, outside: Outside) -> None:
    os.link(outside.canary, path)


def fifo(path: Path, outside: Outside) -> None:
    os.mkfifo(path)


def directory(path: Path, outside: Outside) -> None:
    path.mkdir()
    (path / "inner").write_text("theirs")


def linked_parent(path: Path, outside: Outside) -> None:
    """The directory lies outside, with a file of the name in it."""
    moved = outside.folder / "moved"
    path.parent.rename(moved)
    os.link(outside.canary, moved / path.name)
    path.parent.symlink_to(moved)


Plant = Callable[[Path, Outside], None]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("plant", [symlink, dangling_symlink, hard_link, fifo, directory, linked_parent],
                         ids=lambda f: f.__name__)
def test_d3_d5_links_planted_at_every_path_that_an_install_touches(job: Job, touched: list[Path], tmp_path: Path,
                                                                   plant: Plant) -> None:
    assert len(touched) > 30
    assert {"journal.sqlite", "lock", "timestamp.json", "keyfit-acme.module"} <= {path.name for path in touched}
    problems, ended = [], Counter[str]()
    for path in touched:
        if plant is linked_parent and path.parent in (job.run_folder, job.tree, job.tree / "var/log"):
            continue  # the machine itself; and dpkg, which follows a link that an administrator put in place of /var/log
        outside = Outside(tmp_path / "outside")
        job.start("install")
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        plant(path, outside)
        before = outside.state()
        wrong = [*install_problems(job, ended)]
        now = outside.state()
        if now != before:
            wrong.append(f"outside differs: {[(name, now.get(name)) for name in now if now.get(name) != before.get(name)]}"[:300])
        if wrong:
            problems.append(f"{path.relative_to(job.run_folder)}: {'; '.join(wrong)}")
    assert not problems, f"{plant.__name__}: {ended}\n" + "\n".join(problems)
    assert len(ended) > 1, ended


def install_problems(job: Job, ended: Counter[str]) -> Iterator[str]:
    """What is wrong with how an install ends, which is also counted."""
    try:
        done = job.run("install", timeout_s=20)
    except subprocess.TimeoutExpired:
        ended["hangs"] += 1
        yield "it hangs"
        return
    ended[str(done.returncode)] += 1
    yield from spoken_problems(done.returncode, done.stdout, done.stderr)


def test_d4_a_directory_exchanged_for_a_link_while_it_is_cleaned_up(job: Job, tmp_path: Path) -> None:
    """At every removal of an uninstall: held up between look and act, while somebody puts a link to a folder with files of the
    same names in the place of the directory."""
    archive = job.tree / "opt/keyfit/brands/acme/acme-module-archive"
    places = ("udev/rules.d", "modprobe.d", "pkcs11/modules")
    directories = [archive, archive.parent, *(job.tree / "etc" / name for name in places)]
    names = job.calls("uninstall")
    removals = [number for number, name in enumerate(names, 1) if name.startswith(("unlink", "rmdir", "rename"))]
    exchanged, ended = 0, Counter[int]()
    for number, place in zip(removals, itertools.cycle(directories), strict=False):
        outside = Outside(tmp_path / "outside")
        job.start("uninstall")
        (place / "theirs").write_text("theirs")
        shutil.copytree(place, outside.folder / "copy")
        before = outside.state()
        hit: list[bool] = []

        def exchange(place: Path = place, outside: Outside = outside, hit: list[bool] = hit) -> None:
            if place.is_dir():
                place.rename(place.with_name("moved-away"))
                place.symlink_to(outside.folder / "copy")
                hit.append(True)

        done, _ = syscalls.held_up(job.command("uninstall"), number, exchange, environment=job.environment(), cwd="/")
        exchanged += len(hit)
        ended[done.returncode] += 1
        assert not [*spoken_problems(done.returncode, done.stdout, done.stderr)], (names[number - 1], place, done)
        assert outside.state() == before, (names[number - 1], place)
    assert exchanged > len(removals) / 2, ended


def state_of(job: Job, state: Path) -> "subprocess.CompletedProcess[bytes]":
    """An install with its record elsewhere."""
    return subprocess.run([*job.command("install"), "--state-dir", state], env=job.environment(), capture_output=True, timeout=60,
                          check=False, cwd="/")


def nobodys(path: Path, mode: int = 0o755) -> Path:
    path.mkdir(mode=mode, parents=True)
    path.chmod(mode)
    os.chown(path, 65534, 65534)
    return path


def ours(path: Path, mode: int) -> Path:
    path.mkdir(parents=True)
    path.chmod(mode)
    return path


def linked_by_nobody(base: Path) -> Path:
    """What it leads to is ours, but whoever owns the link can have it lead elsewhere at any moment."""
    ours(base / "good", 0o755)
    (nobodys(base / "theirs") / "link").symlink_to(base / "good")
    return base / "theirs/link/state"


HOSTILE_STATES: dict[str, Callable[[Path], Path]] = {
    "everybody writes": lambda base: ours(base / "state", 0o777),
    "everybody writes, sticky": lambda base: ours(base / "state", 0o1777),
    "a group writes": lambda base: ours(base / "state", 0o775),
    "somebody else's": lambda base: nobodys(base / "state"),
    "everybody writes to its parent": lambda base: ours(ours(base / "parent", 0o777) / "state", 0o755),
    "a group writes to its parent": lambda base: ours(ours(base / "parent", 0o775) / "state", 0o700),
    "its parent is somebody else's": lambda base: ours(nobodys(base / "parent") / "state", 0o700),
    "everybody writes above its parent": lambda base: ours(ours(base / "above", 0o777) / "parent/state", 0o700),
    "a link in somebody else's directory leads there": linked_by_nobody,
    "a link itself": lambda base: linked(ours(base / "real", 0o700), base / "state"),
    "not there, below everybody's": lambda base: ours(base / "parent", 0o777) / "state",
    "a file": lambda base: written(base / "state"),
}


def linked(real: Path, path: Path) -> Path:
    path.symlink_to(real)
    return path


def written(path: Path) -> Path:
    path.write_text("theirs")
    return path


@pytest.mark.parametrize("what", HOSTILE_STATES)
def test_d1_a_state_directory_that_others_can_change_is_refused(job: Job, tmp_path: Path, what: str) -> None:
    job.start("install")
    state = HOSTILE_STATES[what](ours(tmp_path / "base", 0o755))
    done = state_of(job, state)
    assert done.returncode not in (0, 70), done
    assert not [*spoken_problems(done.returncode, done.stdout, done.stderr)], done
    assert job.snapshot() == job.before["install"]
    assert not [p for p in (tmp_path / "base").rglob("*") if p.suffix == ".deb" or p.name == "module.tar.gz"]


@pytest.mark.parametrize("make", [
    lambda base: ours(ours(base / "everybody", 0o1777) / "state", 0o700),
    lambda base: ours(base / "everybody", 0o1777) / "state",
    lambda base: linked(ours(base / "real", 0o755), base / "link") / "state",
], ids=["ours below a sticky directory", "made below a sticky directory", "behind a link of ours"])
def test_d1_a_state_directory_that_only_we_can_change_is_used(job: Job, tmp_path: Path, make: Callable[[Path], Path]) -> None:
    job.start("install")
    state = make(ours(tmp_path / "base", 0o755))
    done = state_of(job, state)
    assert done.returncode == 0, done
    assert job.snapshot() == job.after["install"]
    assert state.stat().st_mode & 0o022 == 0
    assert not [*(state / "staging").glob("*/*")]


@pytest.mark.parametrize("kind", ["everybody's", "somebody else's", "a link", "a fifo", "not there", "full of links"])
def test_d1_a_hostile_tmpdir_is_not_used(job: Job, tmp_path: Path, kind: str) -> None:
    job.start("install")
    outside = Outside(tmp_path / "outside")
    job.tmp.rmdir()
    if kind == "a link":
        job.tmp.symlink_to(outside.folder)
    elif kind == "a fifo":
        os.mkfifo(job.tmp)
    elif kind != "not there":
        (nobodys if kind == "somebody else's" else ours)(job.tmp, 0o777)
    if kind == "full of links":
        for name in ("keyfit", "staging", "lock", "keyfit.log"):
            (job.tmp / name).symlink_to(outside.canary)
    before, listed = outside.state(), sorted(job.tmp.iterdir()) if job.tmp.is_dir() else []
    changed = changed_paths(lambda prefix: finished(job.run("install", prefix)))
    assert job.snapshot() == job.after["install"]
    assert not {path for path in changed if job.tmp in (path, *path.parents) or outside.folder in (path, *path.parents)}
    assert outside.state() == before
    assert (sorted(job.tmp.iterdir()) if job.tmp.is_dir() else []) == listed


def finished(done: "subprocess.CompletedProcess[bytes]") -> None:
    assert done.returncode == 0, done


def replaced(path: Path) -> Path:
    path.rmdir()
    return path


USER, HOME = 33, "var/www"
"""Debian's www-data, who is on every such system (base-passwd)."""
HOME_PLANTS: dict[str, Callable[[Path, Outside], object]] = {
    "list is a link": lambda base, outside: symlink(ours(base / "nssdb", 0o700) / "pkcs11.txt", outside),
    "list is a hard link": lambda base, outside: os.link(outside.canary, ours(base / "nssdb", 0o700) / "pkcs11.txt"),
    "list is a fifo": lambda base, outside: os.mkfifo(ours(base / "nssdb", 0o700) / "pkcs11.txt"),
    "list is a directory": lambda base, outside: ours(base / "nssdb/pkcs11.txt", 0o700),
    "database is a link": lambda base, outside: (base / "nssdb").symlink_to(outside.folder),
    "its folder is a link": lambda base, outside: linked(outside.folder, replaced(base)),
}


@pytest.mark.parametrize("what", HOME_PLANTS)
def test_d3_d6_links_in_a_users_database_are_not_followed_as_root(job: Job, tmp_path: Path, what: str) -> None:
    """The administrator's file is outside of the tree, and only root can read it."""
    job.start("install")
    outside = Outside(tmp_path / "outside")
    for path in (outside.folder, outside.canary):
        os.chown(path, 0, 0)
        path.chmod(0o700 if path.is_dir() else 0o600)
    (outside.folder / "pkcs11.txt").write_bytes(outside.canary.read_bytes())
    home = ours(job.tree / HOME, 0o755)
    HOME_PLANTS[what](ours(home / ".pki", 0o700), outside)
    for path in (home, *home.rglob("*")):
        if not path.is_file() or path.is_symlink():
            os.chown(path, USER, USER, follow_symlinks=False)
    (job.tree / "usr/bin/chromium").write_bytes(b"\x7fELF")
    before = outside.state()
    command = [sys.executable, "-c", NSS_STEP, str(job.tree)]
    done = subprocess.run(command, env=job.environment() | {"SUDO_UID": str(USER)}, capture_output=True, text=True, timeout=20,
                          check=False)
    assert done.returncode == 0, done
    assert outside.state() == before
    assert "somebody's own" not in done.stdout
    assert base64.b64encode(b"somebody's own").decode()[:16] not in done.stdout


NSS_STEP = """
import sys
from keyfit.engine.steps.nss_module import Kind
from keyfit.errors import KeyfitError
from keyfit.model.plan import NssModule
from keyfit.platforms.linux.host import LinuxHost
host, change = LinuxHost(sys.argv[1]), NssModule(database=".pki/nssdb", name="ACME", module="/usr/lib/acme.so")
try:
    found = Kind().detect(change, host)
    print(found.before)
    after = Kind().apply(change, host, found.before, None)
    print("applied", after)
    print("undone", Kind().undo(change, host, found.before, after))
except KeyfitError as error:
    print("refused", error.code, error.message)
"""
