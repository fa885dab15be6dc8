"""The child that looks at files: it has no rights, and whatever becomes of it is an answer (security H2)."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from keyfit.errors import DataError, UserError
from keyfit.publisher.inspection import reports
from keyfit.publisher.inspection.run import CHILD, inspect
from tests.sim import signing
from tests.sim.debfile import deb_file
from tests.sim.driverpackage import zipped

from .conftest import Stamp

PROBE = """
import json, os, resource, socket, subprocess, sys
from keyfit.publisher.inspection import sandbox
sandbox.restrict()
said = {"uid": os.getuid(), "groups": os.getgroups()}
def tried(what):
    try:
        return str(what())
    except BaseException as error:
        return type(error).__name__
said["secret"] = tried(lambda: open(sys.argv[1]).read())
said["write"] = tried(lambda: os.write(os.open(sys.argv[2], os.O_CREAT | os.O_WRONLY), b"x"))
said["interfaces"] = [name for _, name in socket.if_nameindex()]
said["memory"] = tried(lambda: len(bytearray(3 * 1024 ** 3)))
said["core"], said["new_rights"] = resource.getrlimit(resource.RLIMIT_CORE), open("/proc/self/status").read()
print(json.dumps(said))
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    path = tmp_path / "acme.deb"
    path.write_bytes(deb_file())
    return path


def refused(kind: str, path: Path, *program: str, timeout_s: float = 20.0) -> str:
    """What is told when the child is another program."""
    with pytest.raises(DataError) as caught:
        inspect(kind, path, child=program or CHILD, timeout_s=timeout_s)
    assert caught.value.code == "package-content"
    (problem,) = caught.value.problems
    assert problem.startswith(f"{path.name}: ")
    return problem


def ended(pid: str) -> bool:
    """A process that was sent SIGKILL is gone as soon as the kernel comes to it; its parent may not have noticed yet."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state in "ZX":
            return True
        time.sleep(0.01)
    return False


def test_h2_every_kind_is_looked_at_in_a_child(package: Path, signed: Path, vendor: signing.Identity, stamp: Stamp,
                                               program: Path, tmp_path: Path) -> None:
    """With its own rights given up, the child still has all that a time-stamped signature takes."""
    stamped = signing.sign(vendor, program, tmp_path / "stamped.exe", "-h", "sha256", *stamp())
    archive = tmp_path / "a.zip"
    archive.write_bytes(zipped({"b/x.exe": signed.read_bytes(), "\u00e4": b""}))

    assert isinstance(inspect("deb", package), reports.DebReport)
    looked = inspect("exe", stamped, vendor.root)
    assert isinstance(looked, reports.ExeReport)
    assert looked.binary.signature is not None
    assert (looked.binary.signature.fault, looked.binary.signature.subject) == ("", signing.VENDOR)
    inside = inspect("archive", archive, vendor.root)
    assert isinstance(inside, reports.ArchiveReport)
    assert inside.binaries[0].signature is not None
    assert inside.binaries[0].signature.fault == ""


def test_h2_the_child_has_no_rights(tmp_path: Path) -> None:
    secret, target = tmp_path / "secret", tmp_path / "target"
    secret.write_text("key")
    secret.chmod(0o600)
    tmp_path.chmod(0o777)
    done = subprocess.run([sys.executable, "-c", PROBE, secret, target], capture_output=True, text=True, check=True, timeout=60)
    said = json.loads(done.stdout)

    assert not target.exists() or target.read_bytes() == b""
    assert said["write"] in ("OSError", "PermissionError")
    assert said["memory"] == "MemoryError"
    assert said["core"] == [0, 0]
    assert "NoNewPrivs:\t1" in said["new_rights"]
    if os.geteuid() == 0:
        assert (said["uid"], said["groups"]) == (65_534, [])
        assert said["secret"] == "PermissionError"
        may_part = subprocess.run(["/usr/bin/unshare", "--net", "true"], capture_output=True, timeout=60, check=False)
        assert may_part.returncode != 0 or said["interfaces"] == ["lo"]


@pytest.mark.parametrize(("program", "expected"), [
    ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "was ended by SIGSEGV"),
    ("import sys; sys.exit(3)", "failed with exit code 3"),
    ("print('{\"report\": {\"kind\": \"deb\"}}')", "no usable report"),
    ("print('not JSON')", "no usable report"),
    ("print('{}')", "the reader gave no report"),
    ("print('{\"malformed\": \"\\\\u001b[31mred\"}')", "red"),
    ("import sys; sys.stdout.write('x' * 20_000_000)", "more than"),
    ("import sys\nwhile True: sys.stdout.write('x' * 65_536)", "more than"),
    ("print('{\"report\": null, \"more\": 1}')", "no usable report"),
    ("import os, time; os.write(1, b'{}'); os.close(1); time.sleep(600)", "did not end"),
])
def test_h2_a_child_that_crashes_or_talks_nonsense_refuses_the_file(program: str, expected: str, package: Path) -> None:
    told = refused("deb", package, sys.executable, "-c", program)

    assert expected in told
    assert "\x1b" not in told


def test_h2_a_child_that_hangs_is_ended_with_all_that_it_started(package: Path, tmp_path: Path) -> None:
    program = (f"import os, subprocess; p = subprocess.Popen(['/bin/sleep', '600']);"
               f"open({str(tmp_path / 'pids')!r}, 'w').write(f'{{os.getpid()}} {{p.pid}}'); p.wait()")
    told = refused("deb", package, sys.executable, "-c", program, timeout_s=3.0)

    assert "within 3 seconds" in told
    for pid in (tmp_path / "pids").read_text().split():
        assert ended(pid)


def test_h2_what_a_child_left_behind_with_its_output_is_ended_too(package: Path, tmp_path: Path) -> None:
    program = (f"import subprocess; p = subprocess.Popen(['/bin/sleep', '600']);"
               f"open({str(tmp_path / 'pid')!r}, 'w').write(str(p.pid))")
    told = refused("deb", package, sys.executable, "-c", program, timeout_s=3.0)

    assert "within 3 seconds" in told
    assert ended((tmp_path / "pid").read_text())


def test_a_file_that_cannot_be_opened_is_the_users_matter(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        inspect("deb", tmp_path / "gone.deb")
    assert caught.value.code == "no-such-file"


def test_the_child_takes_known_kinds_only(package: Path) -> None:
    assert "exit code 2" in refused("dmg", package)
