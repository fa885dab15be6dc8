"""Undo, repair and verify from the record, after the machine has been started again; and what a step expected beforehand (D7)."""

import shutil
import sqlite3
from pathlib import Path

import msgspec
import pytest

from keyfit.engine import steps, transaction
from keyfit.engine.journal import SCHEMA_VERSION, SCHEMAS, Journal
from keyfit.errors import HostError, InterruptedChangeError, Outcome, TrustError
from keyfit.model.catalog import Payload
from keyfit.model.plan import Change, KernelModuleBlacklistFile, Plan, UdevRuleFile
from tests.sim.host import SimHost, differences
from tests.sim.plans import CCID_LIST, POLICIES, changes, fetcher, machine, plan
from tests.sim.power import Power, PowerCut, PoweredJournal
from tests.sim.world import SimReporter

KINDS = {type(change).__name__: change for change in changes()}
RULE = changes()[3]
assert isinstance(RULE, UdevRuleFile)


class Machine:
    """A machine with its record; every call is a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.power = Power()
        self.host = machine(SimHost(folder / "machine", power=self.power))
        self.host.real_path("/home/user").mkdir(parents=True)

    @property
    def journal(self) -> Journal:
        return PoweredJournal(self.folder / "state", self.power)

    def carry_out(self, wanted: Plan) -> Outcome:
        return transaction.carry_out(wanted, host=self.host, journal=self.journal, fetch=fetcher(self.folder),
                                     reporter=SimReporter(), wait=lambda wait: None).outcome

    def uninstall(self) -> tuple[str, ...]:
        return transaction.uninstall("acme", host=self.host, journal=self.journal, reporter=SimReporter()).kept

    def repair(self) -> tuple[str, ...]:
        return transaction.repair("acme", host=self.host, journal=self.journal, reporter=SimReporter(),
                                  fetch=fetcher(self.folder)).repaired

    def recover(self) -> transaction.Result:
        return transaction.recover(host=self.host, journal=self.journal, reporter=SimReporter())

    def pending(self) -> tuple[str, ...]:
        return transaction.restart_pending(self.host, self.journal)


@pytest.fixture
def pc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(Path, "home", lambda: Path("/home/user"))
    for name in ("SUDO_UID", "PKEXEC_UID"):
        monkeypatch.delenv(name, raising=False)
    return Machine(tmp_path)


def restarting(*wanted: Change) -> Plan:
    return msgspec.structs.replace(plan(*wanted), restart=True)


# ---- a restart


@pytest.mark.parametrize("change", KINDS.values(), ids=list(KINDS))
def test_d7_each_kind_of_step_is_undone_after_the_restart_that_it_asked_for(pc: Machine, change: Change) -> None:
    old = pc.host.snapshot()
    assert pc.carry_out(restarting(change)) is Outcome.RESTART_REQUIRED
    assert pc.pending() == ("acme",)
    pc.host.boot = "boot-2"
    assert pc.pending() == ()
    assert steps.detect(change, pc.host).satisfied
    assert pc.repair() == ()
    assert pc.uninstall() == ()
    assert differences(old, pc.host.snapshot()) == []


@pytest.mark.parametrize("change", KINDS.values(), ids=list(KINDS))
def test_d7_each_kind_of_step_is_undone_before_the_restart_too(pc: Machine, change: Change) -> None:
    old = pc.host.snapshot()
    pc.carry_out(restarting(change))
    assert pc.uninstall() == ()
    assert differences(old, pc.host.snapshot()) == []
    assert pc.pending() == ()


def test_what_is_gone_after_the_restart_is_repaired_from_the_record(pc: Machine) -> None:
    pc.carry_out(restarting(*changes()))
    new = pc.host.snapshot()
    pc.host.boot = "boot-2"
    del pc.host.files[RULE.path]
    pc.host.packages.apt_get(["apt-get", "purge", "libccid"])
    assert pc.repair() == ("step-0", "step-3")
    assert differences(new, pc.host.snapshot()) == []


def test_a_plan_without_a_restart_asks_for_none(pc: Machine) -> None:
    assert pc.carry_out(plan(*changes())) is Outcome.DONE
    assert pc.pending() == ()


def test_a_kernel_module_that_is_in_use_goes_with_a_restart(pc: Machine) -> None:
    blacklist = next(c for c in changes() if isinstance(c, KernelModuleBlacklistFile))
    pc.host.put("/proc/modules", b"pn533 16384 0 - Live 0x0\nnfc 131072 1 pn533, Live 0x0\n")
    pc.host.failing["modprobe"] = "modprobe: FATAL: Module nfc is in use."
    assert pc.carry_out(plan(blacklist)) is Outcome.RESTART_REQUIRED
    assert pc.journal.history()[0].as_data()["restart"] is True


def test_nothing_waits_for_a_restart_in_a_tree_that_does_not_run(tmp_path: Path) -> None:
    host = machine(SimHost(tmp_path / "machine", root="/tree"))
    journal = Journal(tmp_path / "state")
    done = transaction.carry_out(restarting(RULE), host=host, journal=journal, fetch=fetcher(tmp_path), reporter=SimReporter(),
                                 wait=lambda wait: None)
    assert (done.outcome, transaction.restart_pending(host, journal)) == (Outcome.DONE, ())


def test_d7_a_restart_that_came_as_a_power_cut_is_remembered_by_recover(pc: Machine) -> None:
    """All steps were done, the end was not written down: the install is finished, and only the boot that it ran in counts."""
    measured = Machine(pc.folder / "measured")
    measured.carry_out(restarting(RULE))
    for boot, outcome in (("boot-1", Outcome.RESTART_REQUIRED), ("boot-2", Outcome.DONE)):
        one = Machine(pc.folder / boot)
        one.power.cut_at = measured.power.moments - 1
        with pytest.raises(PowerCut):
            one.carry_out(restarting(RULE))
        one.power.restore()
        one.host.boot = boot
        assert (one.recover().outcome, len(one.journal.records("acme"))) == (outcome, 1)


# ---- a repair


def test_d7_a_repair_that_is_cut_off_is_taken_back_and_can_be_done_again(pc: Machine) -> None:
    pc.carry_out(plan(*changes()))
    new = pc.host.snapshot()
    del pc.host.files[RULE.path]
    broken = pc.host.snapshot()
    pc.power.restore()
    pc.power.cut_at = 6
    with pytest.raises(PowerCut):
        pc.repair()
    pc.power.restore()
    with pytest.raises(InterruptedChangeError):
        pc.repair()
    assert "repair it again" in pc.recover().notes[0]
    assert differences(broken, pc.host.snapshot()) == []
    assert pc.repair() == ("step-3",)
    assert differences(new, pc.host.snapshot()) == []
    assert [(e.verb, e.state) for e in pc.journal.history()] == [
        ("install", "done"), ("repair", "undone"), ("repair", "repaired")]


def test_d7_uninstalling_over_an_interrupted_repair_is_refused(pc: Machine) -> None:
    pc.carry_out(plan(RULE))
    del pc.host.files[RULE.path]
    pc.power.restore()
    pc.power.cut_at = 6
    with pytest.raises(PowerCut):
        pc.repair()
    pc.power.restore()
    with pytest.raises(InterruptedChangeError) as caught:
        pc.uninstall()
    assert (caught.value.outcome, "recover" in caught.value.hint) == (Outcome.INTERRUPTED, True)


def test_j4_a_file_that_was_revoked_is_not_used_for_a_repair_and_nothing_is_changed(pc: Machine) -> None:
    pc.carry_out(plan(*changes()[:4]))
    del pc.host.files[RULE.path]
    pc.host.packages.apt_get(["apt-get", "purge", "libdriver1"])
    broken, entries = pc.host.snapshot(), len(pc.journal.history())

    def revoked(payload: Payload) -> Path:
        raise TrustError("revoked", "withdrawn by its publisher", hint="Wait for a new one.")

    with pytest.raises(TrustError):
        transaction.repair("acme", host=pc.host, journal=pc.journal, reporter=SimReporter(), fetch=revoked)
    assert differences(broken, pc.host.snapshot()) == []
    assert len(pc.journal.history()) == entries


# ---- what others do meanwhile


@pytest.mark.parametrize(("change", "path"), [
    (RULE, RULE.path), (KINDS["CcidListLine"], CCID_LIST), (KINDS["FirefoxPolicy"], POLICIES)],
    ids=["file", "ccid-list", "firefox"])
def test_d7_what_somebody_writes_between_the_look_and_the_step_stays(pc: Machine, change: Change, path: str) -> None:
    old = pc.host.snapshot()
    theirs = pc.host.files.get(path, b"") + b"\n# theirs\n"
    pc.host.meanwhile = lambda now: pc.host.put(now, theirs)
    with pytest.raises(HostError) as caught:
        pc.carry_out(plan(change))
    assert caught.value.code == "changed-meanwhile"
    assert pc.host.files[path] == theirs
    assert not pc.journal.open_transactions()
    del old["files"], old["directories"]
    assert differences(old, pc.host.snapshot()) == []


def test_d7_what_somebody_writes_while_it_is_uninstalled_stays(pc: Machine) -> None:
    pc.carry_out(plan(RULE))
    pc.host.meanwhile = lambda path: pc.host.put(path, b"# theirs\n")
    (kept,) = pc.uninstall()
    assert RULE.path in kept
    assert pc.host.files[RULE.path] == b"# theirs\n"


# ---- what is written down beforehand


@pytest.mark.parametrize("change", KINDS.values(), ids=list(KINDS))
def test_d7_before_a_step_acts_the_record_says_what_was_there_and_what_will_be(pc: Machine, change: Change) -> None:
    seen = []
    act = type(steps.kind_of(change)).apply

    def looking(*arguments: object) -> dict[str, object]:
        (record,) = Journal(pc.folder / "state").open_transactions()
        seen.append(record.steps[0])
        return act(*arguments)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(steps.kind_of(change)), "apply", looking)
        pc.carry_out(plan(change))
    assert seen[0].state == "intended"
    assert seen[0].before
    done = pc.journal.records("acme")[0].steps[0].after
    common = {key: value for key, value in seen[0].after.items() if key in done}
    assert common == {key: done[key] for key in common}
    assert seen[0].after


def version_1(folder: Path) -> None:
    """Turn a record into one that the first version wrote: no expectations, and none of the newer columns."""
    with sqlite3.connect(folder / "journal.sqlite") as db:
        db.execute("UPDATE step SET after = '{}' WHERE state = 'intended'")
        for column in ("boot", "restart"):
            db.execute(f"ALTER TABLE txn DROP COLUMN {column}")
        db.execute("PRAGMA user_version = 1")


@pytest.mark.parametrize("change", KINDS.values(), ids=list(KINDS))
def test_a_record_of_version_1_is_read_and_taken_back(pc: Machine, change: Change) -> None:
    old = pc.host.snapshot()
    pc.carry_out(plan(change))
    version_1(pc.folder / "state")
    assert pc.uninstall() == ()
    assert differences(old, pc.host.snapshot()) == []


def test_an_install_that_version_1_was_interrupted_in_is_taken_back(pc: Machine) -> None:
    measured = Machine(pc.folder / "measured")
    wanted = plan(*(c for c in changes() if type(c).__name__ != "Archive"))
    measured.carry_out(wanted)
    for moment in range(9, measured.power.moments, 7):
        one = Machine(pc.folder / str(moment))
        old = one.host.snapshot()
        one.power.cut_at = moment
        with pytest.raises(PowerCut):
            one.carry_out(wanted)
        one.power.restore()
        version_1(one.folder / "state")
        one.recover()
        if not one.journal.records("acme"):
            assert differences(old, one.host.snapshot()) == [], f"cut at {moment}"
    assert len(SCHEMAS) == SCHEMA_VERSION


def test_a_damaged_upgrade_of_the_record_leaves_version_1(pc: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    pc.carry_out(plan(RULE))
    version_1(pc.folder / "state")
    shutil.copyfile(pc.folder / "state/journal.sqlite", pc.folder / "copy")
    monkeypatch.setattr("keyfit.engine.journal.SCHEMAS", (SCHEMAS[0], (SCHEMAS[1][0], "ALTER TABLE nowhere ADD COLUMN x")))
    with pytest.raises(HostError):
        pc.journal.records()
    with sqlite3.connect(pc.folder / "state/journal.sqlite") as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
        assert "boot" not in [row[1] for row in db.execute("PRAGMA table_info(txn)")]
