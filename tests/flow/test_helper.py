"""The elevated helper: a user's process that may not change anything, and a helper of its own process that does it on a tree."""

import contextlib
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from keyfit.app import install as use_case
from keyfit.app import maintain
from keyfit.app.context import Context
from keyfit.app.elevated import install_request
from keyfit.app.select import select
from keyfit.composition import compose
from keyfit.engine.helper.frames import DATA, MESSAGE, Channel, ChannelClosed
from keyfit.engine.helper.messages import Found, Install, NeedFile, NeedPayload, Recover
from keyfit.engine.journal import Journal
from keyfit.errors import KeyfitError, Outcome
from keyfit.model.catalog import Revocation
from keyfit.model.result import OperationResult
from keyfit.trust.floors import Floors
from keyfit.ui.options import Options
from tests.sim.helper import ProcessElevator
from tests.sim.wholejob import BRAND, CHECKOUT, STATE, Job, Publisher, Snapshot
from tests.sim.world import SimReporter


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    """A signed repository with one brand."""
    return Publisher(tmp_path_factory.mktemp("publisher"))


@pytest.fixture(scope="module")
def job(publisher: Publisher, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A machine in the states before each verb."""
    return Job(tmp_path_factory.mktemp("job"), publisher.repository.folder)


def but_the_log(snapshot: Snapshot) -> Snapshot:
    """The rehearsed helper keeps no log."""
    return {name: what for name, what in snapshot.items() if not name.startswith("var/log")}


def machine(job: Job) -> Snapshot:
    """Every file of the machine but Keyfit's, dpkg's and the log."""
    return but_the_log(job.snapshot())


class User:
    """An ordinary user's process on the job's machine, with a helper that it can start."""

    def __init__(self, job: Job, verb: str = "install") -> None:
        job.start(verb)
        self.job = job
        trusted = job.repository / "metadata" / "1.root.json"
        self.elevator = ProcessElevator(job.tree, trusted)
        self.reporter = SimReporter()
        self.context = self.new_context(trusted)

    def new_context(self, trusted: Path) -> Context:
        options = Options(root=self.job.tree, repository=(str(self.job.repository),), trust_root=trusted,
                          cache_dir=self.job.cache, state_dir=self.job.run_folder / "user")
        context = compose(options, self.reporter)
        context.elevator = self.elevator
        context.__dict__["facts"] = msgspec.structs.replace(context.host.facts(), elevated=False)
        context.__dict__["journal"] = Journal(self.job.tree / STATE)
        return context

    def install(self, **given: Any) -> OperationResult:
        return use_case.install(self.context, BRAND, hand_off=False, **given)

    def changed(self) -> bool:
        return machine(self.job) != but_the_log(self.job.before["install"])


@pytest.fixture
def user(job: Job) -> User:
    """Before an install."""
    return User(job)


def failure(work: Callable[[], object]) -> KeyfitError:
    with pytest.raises(KeyfitError) as caught:
        work()
    return caught.value


# -- the whole job ------------------------------------------------------------------------------------------------------

def test_an_ordinary_user_installs_repairs_and_uninstalls_through_the_helper(job: Job) -> None:
    """The same result as of a process that has the rights, and nobody but the helper changed anything."""
    user = User(job)
    made = user.install()
    assert made.outcome is Outcome.DONE
    assert machine(job) == but_the_log(job.after["install"])
    assert len(user.reporter.all("confirm")) == 1
    assert [state for _, _, state in user.reporter.all("step")].count("done") == 7

    (job.tree / "etc/pkcs11/modules/keyfit-acme.module").unlink()
    repaired = maintain.repair(user.context, BRAND)
    assert repaired.data["repaired"]
    assert machine(job) == but_the_log(job.after["install"])

    gone = maintain.uninstall(user.context, BRAND)
    assert gone.outcome is Outcome.DONE
    assert gone.data["kept"] == []
    assert machine(job) == but_the_log(job.after["uninstall"])
    assert user.elevator.started == [("install", BRAND), ("repair", BRAND), ("uninstall", BRAND)]
    assert list((job.tree / STATE / "staging").iterdir()) == [job.tree / STATE / "staging" / "lock"]


def test_an_interrupted_install_is_recovered_through_the_helper(job: Job) -> None:
    user = User(job, "recover")
    result = maintain.recover(user.context)
    assert result.data["recovered"]
    assert machine(job) == but_the_log(job.after["recover"])
    assert maintain.recover(user.context).messages[0].code == "nothing-to-do"


@pytest.mark.parametrize("allow", [(), ("acme=2",), ("acme=1",)])
def test_a5_repair_uses_what_was_withdrawn_only_if_the_policy_names_that_version(job: Job, allow: tuple[str, ...]) -> None:
    """A5. The helper decides by the administrator's policy; the caller's own opinion of the file does not count."""
    user = User(job, "repair")
    Floors(job.tree / STATE / "metadata").note({}, [
        Revocation(brand=BRAND, sha256=path.name, reason={"en": "Broken."})
        for path in (job.cache / "payloads").iterdir() if len(path.name) == 64])
    (job.tree / "etc/keyfit").mkdir()
    (job.tree / "etc/keyfit/policy.toml").write_text(f"allow = {json.dumps(allow)}\n")
    if allow == ("acme=1",):
        assert maintain.repair(user.context, BRAND).data["repaired"]
        return
    assert failure(lambda: maintain.repair(user.context, BRAND)).code == "revoked"


def test_what_does_not_work_is_taken_back_by_the_same_helper(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """The token does not answer: one consent is enough for doing and taking back."""
    monkeypatch.setattr(use_case._Proof, "__call__", lambda self: False)
    user.install()
    assert not user.changed()
    assert user.elevator.started == [("install", BRAND)]
    assert not Journal(user.job.tree / STATE).records(BRAND)


def test_nothing_is_asked_of_anybody_when_there_is_nothing_to_do(user: User) -> None:
    user.install()
    again = user.install()
    assert next(m.code for m in again.messages) == "nothing-to-do"
    assert len(user.elevator.started) == 1


def test_j2_silent_never_asks_for_consent(user: User) -> None:
    """J2. Without the rights it says so, before anything is fetched or asked."""
    assert failure(lambda: user.install(silent=True)).outcome is Outcome.ELEVATION_REQUIRED
    assert failure(lambda: maintain.uninstall(user.context, BRAND, silent=True)).outcome is Outcome.ELEVATION_REQUIRED
    assert user.elevator.started == []


@pytest.mark.parametrize(("code", "outcome", "name"), [
    (126, Outcome.ELEVATION_REQUIRED, "elevation-dismissed"),
    (127, Outcome.ELEVATION_REQUIRED, "elevation-refused"),
    (1, Outcome.INTERNAL, "helper-failed"),
])
def test_c6_without_consent_nothing_changes(user: User, code: int, outcome: Outcome, name: str) -> None:
    """C6."""
    user.elevator.refuse = code
    error = failure(user.install)
    assert (error.code, error.outcome) == (name, outcome)
    assert error.hint
    assert not user.changed()


def test_j1_who_says_no_is_not_asked_for_a_password(user: User) -> None:
    """J1. The plan is shown and agreed to before the helper starts."""
    user.reporter.answer = False
    assert failure(user.install).outcome is Outcome.CANCELLED
    assert user.elevator.started == []


# -- what a caller could try --------------------------------------------------------------------------------------------

class Attacker:
    """Speaks the protocol with a helper as it likes, with the real repository behind it where it wants one."""

    def __init__(self, user: User, verb: str = "install", brand: str = BRAND) -> None:
        self.user = user
        self.process = user.elevator.start(verb, brand)
        self.channel = Channel(self.process.incoming, self.process.outgoing, patience_s=30)

    def said(self, *, files: Callable[[str, bytes | None], bytes | None] = lambda path, data: data,
             payloads: Callable[[bytes], bytes] = lambda data: data) -> Any:
        """Serve it to its last word."""
        context = self.user.context
        while True:
            news = self.channel.receive(Any)
            kind = news["type"]
            if kind in ("done", "failed"):
                return news
            if kind == "need-file":
                data = files(news["path"], context.repository.relay(news["path"]))
                if data is None:
                    self.send({"type": "missing"})
                else:
                    self.file(data)
            elif kind == "need-payload":
                payload = msgspec.convert(news, NeedPayload).payload
                self.file(payloads(context.repository.payload(payload).read_bytes()))
            elif kind == "carried-out":
                self.send({"type": "proof", "keep": True})

    def file(self, data: bytes) -> None:
        with contextlib.suppress(ChannelClosed):  # it has had enough, and will say so
            self.channel.send(Found())
            self.channel.send_file((data,))

    def send(self, message: object) -> None:
        self.channel._write(MESSAGE, msgspec.json.encode(message))


def honest(user: User) -> Install:
    """The request that the user's own process would make."""
    selection = select(user.context, BRAND, unattended=True)
    return install_request(use_case.make_plan(user.context, selection), selection, offline=False)


def test_a3_the_helper_takes_no_word_of_the_caller_s(user: User) -> None:
    """A3. The same bytes with the right request go through; that is what the refusals below differ from."""
    attacker = Attacker(user)
    attacker.channel.send(honest(user))
    assert attacker.said()["type"] == "done"
    assert machine(user.job) == but_the_log(user.job.after["install"])


@pytest.mark.parametrize("change", [
    {"plan": "0" * 64}, {"sequence": 2}, {"model": "Another"}, {"part": "driver"}, {"source": "kit"},
    {"device": {"id_vendor": 0x1234, "id_product": 1, "bcd_device": 0, "smart_card": True}}, {"by_device": True},
], ids=lambda change: "-".join(change))
def test_c3_a_plan_that_was_not_shown_is_refused(user: User, change: dict[str, Any]) -> None:
    """C3, J1. Whatever is asked for, it has to come to the plan whose id was agreed to."""
    attacker = Attacker(user)
    attacker.send({"type": "install", **msgspec.to_builtins(honest(user)), **change})
    last = attacker.said()
    if change == {"by_device": True}:
        assert last["type"] == "done"  # without a device it makes no difference
        return
    assert last["type"] == "failed"
    assert last["code"] in ("plan-outdated", "no-driver", "no-trusted-root")
    assert not user.changed()


REQUESTS: dict[str, object] = {
    "nothing": {}, "list": [], "text": "install", "number": 1, "null": None, "another verb": {"type": "recover"},
    "a path": {"type": "uninstall", "brand": "../../etc"}, "an address": {"type": "uninstall", "brand": "https://x"},
    "a command": {"type": "uninstall", "brand": "acme; rm -rf /"}, "an option": {"type": "uninstall", "brand": "--root=/"},
    "upper case": {"type": "uninstall", "brand": "ACME"}, "a newline": {"type": "uninstall", "brand": "acme\n"},
    "another brand": {"type": "uninstall", "brand": "bolt"}, "no brand": {"type": "uninstall"},
    "an unknown field": {"type": "uninstall", "brand": BRAND, "root": "/"},
    "an environment": {"type": "uninstall", "brand": BRAND, "environment": {"LD_PRELOAD": "/tmp/x.so"}},
    "a repository": {"type": "uninstall", "brand": BRAND, "repository": "https://evil.example/"},
    "a verdict": {"type": "uninstall", "brand": BRAND, "verified": True},
    "a wrong type": {"type": "uninstall", "brand": 7},
}


@pytest.mark.parametrize("name", REQUESTS)
def test_c3_requests_are_a_closed_set(user: User, name: str) -> None:
    """C3. No path, address, command, environment or switch, and nothing that was not agreed to."""
    attacker = Attacker(user, "uninstall")
    attacker.send(REQUESTS[name])
    last = attacker.said()
    assert (last["type"], last["code"]) == ("failed", "helper-protocol")
    assert not user.changed()


@pytest.mark.parametrize("raw", [
    b"", b"M", b"\0" * 5, b"GET / HTTP/1.1\r\n\r\n", MESSAGE + b"\xff\xff\xff\xff", DATA + b"\0\0\0\4abcd",
    MESSAGE + b"\0\0\0\5{\"a\":", MESSAGE + b"\0\0\0\2\xff\xfe", MESSAGE + b"\0\1\0\0" + b"[" * 65536,
    MESSAGE + b"\0\0\0\x2d" + b'{"type":"uninstall","type":"x","brand":"acme"}'[:45],
], ids=range(10))
def test_c3_garbage_ends_the_helper(user: User, raw: bytes) -> None:
    """C3, H4. It ends at once and without a change, whatever comes in."""
    process = user.elevator.start("uninstall", BRAND)
    os.write(process.outgoing, raw)
    process.hang_up()
    heard = bytearray()
    while piece := os.read(process.incoming, 65_536):
        heard += piece
    assert process.wait() == 0
    assert heard == b"" or b'"failed"' in heard
    assert not user.changed()


def test_a3_bytes_that_are_not_the_signed_ones_are_refused(user: User) -> None:
    """A3, C4. A caller that downloaded well and hands over something else."""
    for spoil in (lambda data: data[:-1] + b"x", lambda data: data[:-1], lambda data: data + b"x", lambda data: b"",
                  lambda data: b"\0" * len(data)):
        attacker = Attacker(user)
        attacker.channel.send(honest(user))
        last = attacker.said(payloads=spoil)
        assert (last["type"], last["outcome"]) == ("failed", "trust")
        assert not user.changed()


def test_a3_metadata_that_the_caller_made_up_is_refused(user: User, tmp_path: Path) -> None:
    """A3. The trusted root is the helper's own; what another root has signed, however well, is nothing to it."""
    other = Publisher(tmp_path / "evil")
    attacker = Attacker(user)
    attacker.channel.send(honest(user))

    def evil(path: str, data: bytes | None) -> bytes | None:
        file = other.repository.folder / path
        return file.read_bytes() if file.is_file() and "root" not in path else None

    last = attacker.said(files=evil)
    assert (last["type"], last["outcome"]) == ("failed", "trust")
    assert not user.changed()


@pytest.mark.parametrize("part", ["timestamp", "snapshot", "targets"])
def test_a3_changed_metadata_is_refused(user: User, part: str) -> None:
    """A3. One byte."""
    attacker = Attacker(user)
    attacker.channel.send(honest(user))

    def spoil(path: str, data: bytes | None) -> bytes | None:
        if data is None or part not in path:
            return data
        at = data.index(b'"sig"') + 12
        return data[:at] + (b"0" if data[at:at + 1] != b"0" else b"1") + data[at + 1:]

    last = attacker.said(files=spoil)
    assert (last["type"], last["outcome"]) == ("failed", "trust")
    assert not user.changed()


def test_a7_a_caller_that_sends_without_end_is_stopped(user: User) -> None:
    """A7, H4. More than a file may have."""
    attacker = Attacker(user)
    attacker.channel.send(honest(user))
    last = attacker.said(files=lambda path, data: data and data + b" " * 6_000_000)
    assert last["type"] == "failed"
    assert not user.changed()


def test_d7_a_user_who_cancels_in_the_middle_sees_it_taken_back(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """D7. Ctrl-C reaches the caller alone; the helper notices, takes back, and has the last word."""
    told = SimReporter.step

    def interrupt(self: SimReporter, step_id: str, state: str, text: str) -> None:
        told(self, step_id, state, text)
        if len(self.all("step")) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(SimReporter, "step", interrupt)
    error = failure(user.install)
    assert (error.code, error.outcome) == ("cancelled", Outcome.CANCELLED)
    assert not user.changed()
    assert not Journal(user.job.tree / STATE).open_transactions()
    assert ("stage", "Cancelled: taking back what was done") in user.reporter.told


def test_d7_a_caller_that_is_gone_in_the_middle_leaves_nothing_half_done(user: User) -> None:
    """D7. It hangs up when the first step has begun; the helper takes back what it did and ends."""
    attacker = Attacker(user)
    attacker.channel.send(honest(user))
    while True:
        news = attacker.channel.receive(Any)
        if news["type"] == "step" and news["state"] == "start":
            break
        if news["type"] == "need-file":
            data = user.context.repository.relay(news["path"])
            if data is None:
                attacker.send({"type": "missing"})
            else:
                attacker.file(data)
        elif news["type"] == "need-payload":
            attacker.file(user.context.repository.payload(msgspec.convert(news, NeedPayload).payload).read_bytes())
    attacker.process.hang_up()
    assert attacker.process.wait() == 0
    journal = Journal(user.job.tree / STATE)
    assert not journal.open_transactions()
    assert user.changed() == bool(journal.records(BRAND))


def test_c4_what_the_helper_asks_for_is_never_a_path_of_the_machine() -> None:
    """C4: a caller that serves a hostile helper gives it nothing but files of the repository."""
    for path in ("/etc/shadow", "../../etc/shadow", "metadata/../../x", "metadata/a/../../x", "payloads/x", "metadata//etc",
                 "metadata/", "file:///etc/shadow", "metadata/x\n"):
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(msgspec.json.encode({"type": "need-file", "path": path}), type=NeedFile)


# -- the program itself -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("arguments", [
    [], ["install", "acme", "x"], ["erase"], ["install", "../x"], ["install", "--root=/tmp"], ["install", "ACME"],
    ["INSTALL", "acme"], ["", ""], ["install", "a" * 49], ["--help"], ["install", "acme\n"],
])
def test_c6_arguments_are_looked_at_again(arguments: list[str]) -> None:
    """C6. pkexec passes on whatever it was given."""
    done = subprocess.run([sys.executable, "-m", "keyfit.helpermain", *arguments], cwd=CHECKOUT, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "keyfit --help" in done.stderr
    assert "Traceback" not in done.stderr


def as_root(*arguments: str, environment: dict[str, str] | None = None, given: bytes = b"", cwd: Path | str = "/",
            prefix: tuple[str, ...] = ()) -> "subprocess.CompletedProcess[bytes]":
    """The real entry point, in a mount namespace of its own where /var/lib and /var/log are empty."""
    inner = ("mount -t tmpfs none /var/lib; mount -t tmpfs none /var/log; exec \"$@\"")
    command = [*prefix, sys.executable, "-m", "keyfit.helpermain", *arguments]
    return subprocess.run(["unshare", "-m", "sh", "-c", inner, "sh", *command], cwd=cwd, input=given, capture_output=True,
                          check=False, timeout=60, env={**os.environ, **(environment or {})})


def framed(request: msgspec.Struct) -> bytes:
    body = msgspec.json.encode(request)
    return MESSAGE + len(body).to_bytes(4, "big") + body


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mount namespaces need root")


@needs_root
def test_c1_c4_the_real_helper_has_no_network_and_does_not_stay(tmp_path: Path) -> None:
    """C1, C4. Not one socket of the internet's, nothing that listens, no process left."""
    trace = tmp_path / "trace"
    done = as_root("recover", given=framed(Recover()), prefix=("strace", "-f", "-qq", "-o", str(trace), "-e",
                                                               "trace=socket,bind,listen,connect,unshare"))
    assert done.returncode == 0, done.stderr
    assert b'"nothing-to-do"' in done.stdout
    calls = " ".join(trace.read_text().split())
    assert "unshare(CLONE_NEWNET) = 0" in calls
    assert "AF_INET" not in calls
    assert "listen(" not in calls


@needs_root
def test_c5_the_caller_s_environment_is_gone(tmp_path: Path) -> None:
    """C5. Hostile values of everything that could make a process load or believe other things."""
    hostile = {"LD_PRELOAD": "", "LD_LIBRARY_PATH": "/tmp/evil", "PYTHONINSPECT": "1", "_PYI_APPLICATION_HOME_DIR": "/tmp/evil",
               "KEYFIT_STATE_DIR": str(tmp_path / "evil"), "KEYFIT_ROOT": str(tmp_path / "evil"),
               "PATH": "/tmp/evil:/usr/bin:/bin",
               "HOME": "/tmp/evil", "PKEXEC_UID": "x", "SUDO_UID": "1000", "DISPLAY": ":0", "TMPDIR": "/tmp/evil"}
    trace = tmp_path / "trace"
    done = as_root("recover", given=framed(Recover()), environment=hostile,
                   prefix=("strace", "-f", "-qq", "-o", str(trace), "-e", "trace=openat,execve,mkdir"))
    assert b'"nothing-to-do"' in done.stdout, done.stderr
    after = trace.read_text().split("isolation.", 1)[1]
    assert "evil" not in after.split("/proc/self/fd", 1)[1]
    assert not (tmp_path / "evil").exists()


@needs_root
def test_d1_e1_the_helper_does_not_run_from_where_others_can_write(tmp_path: Path) -> None:
    """D1, E1. A copy of the package in a folder of another user's."""
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(CHECKOUT / "installer", copy, ignore=shutil.ignore_patterns("__pycache__"))
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from keyfit.helpermain import main; sys.exit(main())"
    for mode, owner in ((0o777, 0), (0o755, 65534)):
        copy.chmod(mode)
        os.chown(copy, owner, 0)
        done = subprocess.run([sys.executable, "-c", code, str(copy), "recover"], input=framed(Recover()), capture_output=True,
                              check=False, cwd="/")
        assert b'"program-unsafe"' in done.stdout, done


def test_c4_the_boundary_is_a_pipe_and_nothing_else(user: User) -> None:
    """C4, C7. No socket, no file of a known name: two pipes, which the helper was started with."""
    process = user.elevator.start("recover", "")
    open_files = {int(p.name): os.readlink(p) for p in Path(f"/proc/{process._process.pid}/fd").iterdir()}
    assert stat.S_ISFIFO(os.fstat(process.incoming).st_mode)
    assert not [name for name in open_files.values() if name.startswith("socket:")]
    process.hang_up()
    process.wait()
