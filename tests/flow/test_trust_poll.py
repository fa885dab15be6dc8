"""`keyfit update --check`, run as a program: one request while nothing changes, and the strict workflow whenever in doubt."""

import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from keyfit.engine.journal import Journal
from keyfit.model.catalog import Manifest, Revocation, brand_target
from tests.flow.test_first_commands import document
from tests.sim import plans
from tests.sim.brands import a_brand, a_match
from tests.sim.repository import (
    Behaviour,
    CertificateAuthority,
    HostileServer,
    SignedRepository,
    redirect,
    sign_in_page,
    status,
)

ACME = a_brand("acme", a_match(id_vendor=0x1234, id_product=1))
STRICT = ["2.root.json", "timestamp.json"]
"""What every strict workflow asks for, whatever it has already."""
IDLE = ["timestamp.json"]


class Machine:
    """A tree with its record, a repository and a server for it."""

    def __init__(self, folder: Path, repository: SignedRepository, server: HostileServer) -> None:
        self.tree = folder / "tree"
        self.tree.mkdir()
        self.state = self.tree / "var/lib/keyfit"
        self.poll = self.state / "metadata/poll.json"
        self.server = server
        self.repository = repository
        self.trust_root = folder / "root.json"
        self.trust_root.write_bytes(repository.trusted_root)
        self._cache = folder / "cache"

    def install(self, brand: str, sequence: int = 1) -> None:
        """A line in the record, as an installation leaves it."""
        journal = Journal(self.state)
        plan = msgspec.structs.replace(plans.plan(brand=brand), sequence=sequence)
        with journal.locked():
            journal.finish(journal.begin("install", plan), "done")
        end(journal)

    def check(self, *arguments: str, at: str = "", **environment: str) -> "subprocess.CompletedProcess[str]":
        self.server.requests.clear()
        given = {k: v for k, v in os.environ.items() if not k.startswith("KEYFIT_")} | environment
        command = [sys.executable, "-m", "keyfit", "update", "--check", "--root", str(self.tree), "--cache-dir",
                   str(self._cache), "--repository", self.server.url, "--trust-root", str(self.trust_root), *arguments]
        return subprocess.run([*(["faketime", at] if at else []), *command], capture_output=True, text=True, env=given,
                              timeout=60, stdin=subprocess.DEVNULL, check=False)

    def asked(self) -> list[str]:
        return [path.removeprefix("/metadata/") for path, _ in self.server.requests]

    def was_strict(self) -> bool:
        """After the conditional request, or without one."""
        return all(name in self.asked() for name in STRICT)

    def change(self, **fields: Any) -> None:
        """Change what is remembered."""
        self.poll.write_text(json.dumps(json.loads(self.poll.read_text()) | fields))


def end(journal: Journal) -> None:
    """Close its database now, as the end of a process does, not when the interpreter gets to it: that changes the file."""
    assert journal._connection is not None
    journal._connection.close()


@pytest.fixture
def repository(tmp_path: Path) -> SignedRepository:
    repository = SignedRepository(tmp_path / "publisher")
    repository.release(ACME)
    return repository


@pytest.fixture
def machine(tmp_path: Path, repository: SignedRepository) -> Iterator[Machine]:
    """A machine with a driver, checked once."""
    with HostileServer(repository.folder) as server:
        machine = Machine(tmp_path, repository, server)
        machine.install("acme")
        first = machine.check()
        assert (first.returncode, first.stderr) == (0, "")
        assert first.stdout.startswith("Nothing new since the full check of 20")
        assert machine.was_strict()
        yield machine


def test_nothing_new_is_one_request_with_an_empty_answer(machine: Machine) -> None:
    done = machine.check()

    assert done.returncode == 0
    assert done.stdout.startswith("Nothing new since the full check of 20")
    assert machine.asked() == IDLE
    assert machine.server.answers[-1] == (304, 0)


def test_the_cheap_request_carries_nothing_but_the_programs_name_and_the_tag(machine: Machine) -> None:
    """F5."""
    machine.check()

    (headers,) = machine.server.asked("timestamp.json")
    assert headers == {"Host": machine.server.url.split("/")[2], "User-Agent": headers["User-Agent"], "Accept": "*/*",
                       "Accept-Encoding": "gzip", "If-None-Match": headers["If-None-Match"], "Connection": "close"}
    assert headers["User-Agent"].startswith("keyfit/")


def test_nothing_is_imported_for_it(machine: Machine) -> None:
    """The whole process is to cost no more than the request."""
    program = ("import atexit, sys\n"
               "atexit.register(lambda: print(*{m.partition('.')[0] for m in sys.modules}, file=sys.stderr))\n"
               "sys.argv[0] = 'keyfit'\n"
               "from keyfit.__main__ import main\n"
               "main()\n")
    machine.server.requests.clear()
    done = subprocess.run([sys.executable, "-c", program, "update", "--check", "--root", machine.tree, "--repository",
                           machine.server.url, "--trust-root", machine.trust_root], capture_output=True, text=True)

    assert machine.asked() == IDLE
    assert done.returncode == 0
    heavy = {"msgspec", "click", "tuf", "securesystemslib", "cryptography", "requests", "urllib3", "ssl", "http", "email",
             "urllib", "hashlib", "pathlib", "sqlite3", "subprocess", "tempfile", "logging", "dataclasses", "inspect"}
    assert not heavy & set(done.stderr.split())


@pytest.mark.parametrize("arguments", [(), ("--json",), ("--quiet",), ("--exit-code",), ("--exit-code", "--json")])
@pytest.mark.parametrize("newer", [False, True])
def test_both_ways_say_the_same(machine: Machine, arguments: tuple[str, ...], newer: bool) -> None:
    if newer:
        machine.repository.release(msgspec.structs.replace(ACME, sequence=2, names={"en": 'A "C"\n€'}))
    machine.poll.unlink()

    long = machine.check(*arguments)
    assert machine.was_strict()
    short = machine.check(*arguments)
    assert machine.asked() == IDLE

    assert (short.returncode, short.stdout, short.stderr) == (long.returncode, long.stdout, long.stderr)
    assert short.returncode == (100 if newer and "--exit-code" in arguments else 0)
    if "--json" in arguments:
        said = document(short)
        assert said["outcome"] == ("updates-available" if newer and "--exit-code" in arguments else "done")
        assert said["data"]["installed"] == [{"brand": "acme", "sequence": 1}]
        assert [u["available"] for u in said["data"]["updates"]] == ([2] if newer else [])
    elif "--quiet" in arguments:
        assert short.stdout == ""
    elif newer:
        assert "acme: number 2 is available, number 1 is installed." in short.stdout
        assert "sudo keyfit install acme" in short.stdout


def test_something_new_means_the_strict_workflow_and_then_peace_again(machine: Machine) -> None:
    machine.repository.release(msgspec.structs.replace(ACME, sequence=2))

    assert machine.check("--exit-code").returncode == 100
    assert machine.asked()[0] == "timestamp.json"
    assert machine.was_strict()
    assert machine.check("--exit-code").returncode == 100
    assert machine.asked() == IDLE


def test_a_new_timestamp_alone_changes_nothing_but_the_tag(machine: Machine) -> None:
    machine.repository.refresh()

    assert "Nothing new" in machine.check().stdout
    assert machine.was_strict()
    assert "Nothing new" in machine.check().stdout
    assert machine.asked() == IDLE


def test_an_installation_and_a_removal_are_noticed(machine: Machine) -> None:
    """The server says that nothing changed; what is installed did."""
    machine.repository.release(msgspec.structs.replace(ACME, sequence=2))
    assert machine.check("--exit-code").returncode == 100
    machine.install("acme", sequence=2)

    assert machine.check("--exit-code").returncode == 0
    assert machine.was_strict()
    journal = Journal(machine.state)
    for record in journal.records("acme"):
        journal.finish(record.id, "removed")
    end(journal)
    assert "has installed no driver here" in machine.check().stdout
    assert machine.was_strict()


def test_a5_an_installed_driver_that_is_withdrawn_is_named(machine: Machine) -> None:
    """A5."""
    target = brand_target("acme", "linux", "amd64")
    withdrawn = Revocation(brand="acme", sequence=1, reason={"en": "A key was stolen."})
    machine.repository.release_raw({target: msgspec.json.encode(Manifest(
        keyfit=1, path=target, system="linux", architecture="amd64", brands=(ACME,), revoked=(withdrawn,)))})

    for strict in (True, False):
        done = machine.check("--json")
        assert machine.was_strict() is strict
        assert "revoked" in [m["code"] for m in document(done)["messages"]]


def test_a_brand_that_the_repository_does_not_have_any_more(machine: Machine) -> None:
    machine.install("bygone")

    done = machine.check()
    assert done.returncode == 0
    assert "Warning: The repository has nothing for bygone any more." in done.stderr


@pytest.mark.parametrize(("strict_at", "expires"), [
    (-86_401.0, 3600.0), (60.0, 3600.0), (1e9, 3600.0), (-60.0, -1.0), (float("nan"), 3600.0), (-60.0, float("nan")),
], ids=["a-day-old", "clock-went-back", "far-ahead", "expired", "no-time", "no-expiry"])
def test_a6_time_calls_for_the_strict_workflow(machine: Machine, strict_at: float, expires: float) -> None:
    """A6: also a negative time since the last one, which a clock that was set back gives."""
    now = time.time()
    machine.change(strict_at=now + strict_at, expires=now + expires)

    assert machine.check().returncode == 0
    assert machine.was_strict()
    machine.check()
    assert machine.asked() == IDLE


@pytest.mark.parametrize(("hours", "code"), [(-2, 0), (25, 0)])
def test_a6_a_real_clock_that_moves(machine: Machine, hours: int, code: int) -> None:
    """A6: two hours back, a day ahead; both within what the strict workflow accepts."""
    moved = datetime.now(UTC) + timedelta(hours=hours)

    assert machine.check(at=f"{moved}").returncode == code
    assert machine.was_strict()


def test_a6_what_expired_is_not_told_again(machine: Machine) -> None:
    """A6: a server that withholds a newer timestamp gains nothing by saying that nothing changed."""
    later = datetime.now(UTC) + timedelta(days=30)

    done = machine.check("--json", at=f"{later}")
    assert done.returncode == 76
    assert document(done)["messages"][0]["code"] == "metadata-expired"


def link(machine: Machine) -> None:
    elsewhere = machine.tree / "elsewhere.json"
    machine.poll.rename(elsewhere)
    machine.poll.symlink_to(elsewhere)


def fifo(machine: Machine) -> None:
    machine.poll.unlink()
    os.mkfifo(machine.poll)


def damage(machine: Machine) -> None:
    machine.poll.write_bytes(b"{")


def open_to_all(machine: Machine) -> None:
    machine.poll.chmod(0o666)


@pytest.mark.parametrize("spoil", [damage, open_to_all])
def test_h4_d6_an_odd_memory_is_no_memory(machine: Machine, spoil: Callable[[Machine], None]) -> None:
    """H4, D6: whatever is wrong with the file, the answer is that of the strict workflow, which writes it anew."""
    spoil(machine)

    done = machine.check()
    assert (done.returncode, done.stderr) == (0, "")
    assert machine.was_strict()
    machine.check()
    assert machine.asked() == IDLE
    assert stat.S_IMODE(machine.poll.stat().st_mode) == 0o600


@pytest.mark.parametrize("spoil", [link, fifo])
def test_d3_nothing_is_read_over_a_link_or_from_a_pipe(machine: Machine, spoil: Callable[[Machine], None]) -> None:
    """D3: what was planted is replaced, not followed."""
    spoil(machine)

    assert machine.check().returncode == 0
    assert machine.was_strict()
    assert machine.poll.is_file()
    assert not machine.poll.is_symlink()


def test_a_memory_that_cannot_be_replaced_costs_the_speed_only(machine: Machine) -> None:
    machine.poll.unlink()
    machine.poll.mkdir()

    for _ in range(2):
        assert machine.check().returncode == 0
        assert machine.was_strict()


def test_d3_a_folder_that_others_may_write_is_not_trusted(machine: Machine) -> None:
    """D3: nor does the strict workflow take it."""
    machine.poll.parent.chmod(0o777)

    done = machine.check("--json")
    assert document(done)["messages"][0]["code"] == "unsafe-file"
    assert machine.asked() == []


@pytest.mark.parametrize("behaviour", [status(200), status(302, Location="/metadata/timestamp.json"), status(500),
                                       status(204), sign_in_page(), redirect("http://127.0.0.1:1/")],
                         ids=["other", "redirect", "500", "204", "page", "elsewhere"])
def test_any_other_answer_means_the_strict_workflow(machine: Machine, behaviour: Behaviour) -> None:
    """F3: the cheap request follows no redirect."""
    machine.server.misbehave("timestamp.json", behaviour, None)

    assert machine.check().returncode == 0
    assert machine.was_strict()
    assert len(machine.server.asked("timestamp.json")) == 2


def test_the_server_is_down(tmp_path: Path, repository: SignedRepository) -> None:
    with HostileServer(repository.folder) as server:
        machine = Machine(tmp_path, repository, server)
        machine.install("acme")
        machine.check()

    done = machine.check("--json")
    assert done.returncode == 69
    assert document(done)["messages"][0]["code"] == "repository-unreachable"
    assert document(done)["messages"][0]["hint"]


def test_f1_over_tls_with_the_systems_store(tmp_path: Path, repository: SignedRepository) -> None:
    """F1: the cheap request verifies like any other. SSL_CERT_FILE is where OpenSSL looks for the system's store."""
    authority = CertificateAuthority(tmp_path / "authority")
    with HostileServer(repository.folder, tls=authority) as server:
        machine = Machine(tmp_path, repository, server)
        machine.install("acme")
        assert machine.check(SSL_CERT_FILE=str(authority.path)).returncode == 0
        assert machine.was_strict()
        assert machine.check(SSL_CERT_FILE=str(authority.path)).returncode == 0
        assert machine.asked() == IDLE

        done = machine.check("--json", SSL_CERT_FILE=os.devnull)
        assert done.returncode == 69
        assert document(done)["messages"][0]["code"] == "tls-not-trusted"
        assert machine.asked() == []


def test_another_tree_trusted_root_or_policy_is_another_answer(machine: Machine, tmp_path: Path) -> None:
    other = tmp_path / "same-root.json"
    other.write_bytes(machine.trust_root.read_bytes())
    machine.check("--trust-root", str(other))
    assert machine.was_strict()

    machine.check()
    assert machine.was_strict()
    (machine.tree / "etc/keyfit").mkdir(parents=True)
    (machine.tree / "etc/keyfit/policy.toml").write_text('allow = ["acme=1"]\n')
    machine.check()
    if os.geteuid() == 0:
        assert machine.was_strict()
        machine.check()
        assert machine.asked() == IDLE
    else:  # the policy has to be root's
        assert machine.asked() == []

    machine.check("--root", str(tmp_path))
    assert machine.was_strict()


@pytest.mark.parametrize("arguments", [("--verbose",), ("--lang", "zh_CN"), ("--repository", "http://127.0.0.1:1/")])
def test_other_options_go_the_long_way(machine: Machine, arguments: tuple[str, ...]) -> None:
    machine.check(*arguments)

    assert machine.was_strict()


def test_another_language_is_not_remembered(machine: Machine) -> None:
    machine.poll.unlink()
    machine.check("--lang", "zh_CN")

    assert not machine.poll.exists()


def test_who_does_not_listen_to_the_end_is_no_fault(machine: Machine) -> None:
    command = (f"{sys.executable} -m keyfit update --check --root {machine.tree} --repository {machine.server.url}"
               f" --trust-root {machine.trust_root} | true; exit ${{PIPESTATUS[0]}}")
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")


def test_update_without_check_says_that_it_is_not_built(machine: Machine) -> None:
    machine.server.requests.clear()
    done = subprocess.run([sys.executable, "-m", "keyfit", "update", "--json"], capture_output=True, text=True)

    assert done.returncode == 79
    assert document(done)["messages"][0]["code"] == "update-not-built"
    assert "keyfit update --check" in document(done)["messages"][0]["hint"]
    assert machine.asked() == []
