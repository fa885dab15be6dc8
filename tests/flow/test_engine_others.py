"""Keyfit is not alone: what others changed, or what another brand needs, stays; everything else goes back (D7, E5)."""

from pathlib import Path

import pytest

from keyfit.engine import transaction
from keyfit.engine.journal import Journal
from keyfit.model.plan import CcidListLine, DistributionPackages, PackageFile, Plan, ServiceState
from tests.sim.host import SimHost, differences
from tests.sim.packages import SimPackage
from tests.sim.plans import BUNDLE_LIST, CCID_LIST, POLICIES, changes, fetcher, machine, payload, plan
from tests.sim.world import SimReporter


class Machine:
    """A machine with its journal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.host = machine(SimHost(folder / "machine"))
        self.host.real_path("/home/user").mkdir(parents=True)
        self.journal = Journal(folder / "state")

    def install(self, wanted: Plan) -> None:
        transaction.carry_out(wanted, host=self.host, journal=self.journal, fetch=fetcher(self.folder),
                              reporter=SimReporter(), wait=lambda wait: None)

    def uninstall(self, brand: str = "acme") -> tuple[str, ...]:
        return transaction.uninstall(brand, host=self.host, journal=self.journal, reporter=SimReporter()).kept

    def repair(self) -> tuple[str, ...]:
        return transaction.repair("acme", host=self.host, journal=self.journal, reporter=SimReporter(),
                                  fetch=fetcher(self.folder)).repaired


@pytest.fixture
def pc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(Path, "home", lambda: Path("/home/user"))
    for name in ("SUDO_UID", "PKEXEC_UID"):
        monkeypatch.delenv(name, raising=False)
    return Machine(tmp_path)


def test_e5_install_and_uninstall_leave_no_trace(pc: Machine) -> None:
    pc.host.units["pcscd.socket"] = [False, True]
    old = pc.host.snapshot()
    pc.install(plan(*changes()))
    assert pc.host.snapshot() != old
    assert pc.uninstall() == ()
    assert differences(old, pc.host.snapshot()) == []
    assert not pc.journal.records()


def test_a_daemon_that_was_stopped_is_not_started_by_uninstalling(pc: Machine) -> None:
    old = pc.host.snapshot()
    pc.install(plan(changes()[4]))
    pc.uninstall()
    assert differences(old, pc.host.snapshot()) == []


def test_installing_twice_changes_nothing_the_second_time(pc: Machine) -> None:
    old = pc.host.snapshot()
    pc.install(plan(*changes()[:4]))
    new = pc.host.snapshot()
    pc.install(plan(*changes()[:4]))
    assert differences(new, pc.host.snapshot()) == []
    pc.uninstall()
    assert differences(old, pc.host.snapshot()) == []


def test_a_rule_that_the_administrator_changed_is_kept_and_named(pc: Machine) -> None:
    rule = changes()[3]
    pc.install(plan(rule))
    pc.host.put(rule.path, b"# mine now\n")  # type: ignore[union-attr]
    kept = pc.uninstall()
    assert len(kept) == 1
    assert rule.path in kept[0]  # type: ignore[union-attr]
    assert pc.host.read_bytes(rule.path) == b"# mine now\n"  # type: ignore[union-attr]


def test_readers_that_others_added_stay_in_the_list(pc: Machine) -> None:
    from keyfit.core import ccidlist

    pc.install(plan(changes()[4]))
    now = pc.host.files[CCID_LIST]
    pc.host.put(CCID_LIST, ccidlist.add_entry(now, 0x1234, 0x5678, "Their reader"))
    pc.uninstall()
    assert [(e.id_vendor, e.id_product) for e in ccidlist.parse(pc.host.files[CCID_LIST]).entries()] == [
        (0x08E6, 0x3437), (0x1234, 0x5678)]
    assert pc.host.read_bytes(BUNDLE_LIST) == pc.host.files[CCID_LIST]


def test_firefox_settings_that_others_made_stay(pc: Machine) -> None:
    pc.install(plan(changes()[8]))
    now = pc.host.files[POLICIES]
    pc.host.put(POLICIES, now.replace(b'"DisableTelemetry": true', b'"DisableTelemetry": false'))
    pc.uninstall()
    assert b'"DisableTelemetry": false' in pc.host.files[POLICIES]
    assert b"ACME" not in pc.host.files[POLICIES]


def test_a_firefox_module_of_the_same_name_comes_back(pc: Machine) -> None:
    pc.host.put(POLICIES, b'{"policies": {"SecurityDevices": {"Add": {"ACME": "/usr/lib/old.so"}}}}')
    pc.install(plan(changes()[8]))
    now = pc.host.files[POLICIES]
    pc.host.put(POLICIES, now.replace(b'"policies": {', b'"policies": {"DisableTelemetry": true,', 1))
    pc.uninstall()
    assert b"/usr/lib/old.so" in pc.host.files[POLICIES]


def test_packages_that_were_there_stay(pc: Machine) -> None:
    pc.host.install(SimPackage(name="libccid"))
    pc.install(plan(changes()[0]))
    pc.uninstall()
    assert pc.host.package_versions() == {"libccid": "1.0"}


def test_a_package_that_somebody_else_needs_by_now_stays_and_is_named(pc: Machine) -> None:
    pc.install(plan(changes()[0]))
    pc.host.install(SimPackage(name="theirs", depends=("pcscd",)))
    kept = pc.uninstall()
    assert pc.host.package_versions() == {"libpcsclite1": "1.0", "pcscd": "1.0", "theirs": "1.0"}
    assert "pcscd" in " ".join(kept)


def test_packages_of_two_brands_go_with_the_last_of_them(pc: Machine) -> None:
    """Both need pcscd; the first brought it. It goes when neither needs it any more."""
    old = pc.host.snapshot()
    pc.host.offer(SimPackage(name="other-module"))
    pc.install(plan(DistributionPackages(manager="apt", names=("pcscd",)), needs=("pcscd",)))
    pc.install(plan(DistributionPackages(manager="apt", names=("pcscd", "other-module")), brand="other",
                    needs=("pcscd", "other-module")))
    kept = pc.uninstall("acme")
    assert {"pcscd", "libpcsclite1", "other-module"} == set(pc.host.package_versions())
    assert "pcscd" in " ".join(kept)
    pc.uninstall("other")
    assert differences(old, pc.host.snapshot()) == []


def test_a_service_of_two_brands_is_put_back_by_the_last_of_them(pc: Machine) -> None:
    pc.install(plan(ServiceState(unit="pcscd.socket")))
    pc.install(plan(ServiceState(unit="pcscd.socket"), brand="other"))
    assert len(pc.uninstall("acme")) == 1
    assert pc.host.units["pcscd.socket"] == [True, True]
    pc.uninstall("other")
    assert pc.host.units["pcscd.socket"] == [False, False]


def test_a_reader_that_two_brands_need_goes_with_the_last_of_them(pc: Machine) -> None:
    pc.host.units["pcscd.socket"] = [True, True]
    old = pc.host.snapshot()
    entry = CcidListLine(path=CCID_LIST, id_vendor=0x1EA8, id_product=0x8013, friendly_name="ACME Token")
    pc.install(plan(entry))
    pc.install(plan(entry, brand="other"))
    assert len(pc.uninstall("acme")) == 1
    assert b"0x8013" in pc.host.files[CCID_LIST]
    pc.uninstall("other")
    assert differences(old, pc.host.snapshot()) == []


@pytest.mark.parametrize("first", ["acme", "other"])
def test_entries_of_two_brands_in_one_file_go_one_by_one(pc: Machine, first: str) -> None:
    pc.host.units["pcscd.socket"] = [True, True]
    old = pc.host.snapshot()
    pc.install(plan(changes()[4], changes()[8]))
    mine, policy = changes("other")[4], changes("other")[8]
    pc.install(plan(type(mine)(path=CCID_LIST, id_vendor=0x1EA8, id_product=0x9999, friendly_name="Other Token"),  # type: ignore[call-arg]
                    type(policy)(path=POLICIES, name="OTHER", module="/usr/lib/other.so"), brand="other"))  # type: ignore[call-arg]
    pc.uninstall(first)
    pc.uninstall("other" if first == "acme" else "acme")
    assert pc.host.files[CCID_LIST] == old["files"][CCID_LIST]
    assert b"SecurityDevices" not in pc.host.files[POLICIES]
    assert b'"DisableTelemetry": true' in pc.host.files[POLICIES]


def test_repair_does_again_only_what_is_gone(pc: Machine) -> None:
    pc.host.units["pcscd.socket"] = [True, True]
    old = pc.host.snapshot()
    pc.install(plan(*changes()))
    new = pc.host.snapshot()
    assert pc.repair() == ()
    del pc.host.files[changes()[3].path]  # type: ignore[union-attr]
    pc.host.packages.installed.pop("libccid")
    assert pc.repair() == ("step-0", "step-3")
    assert differences(new, pc.host.snapshot()) == []
    pc.uninstall()
    assert differences(old, pc.host.snapshot()) == []


def test_history_tells_everything_that_was_done(pc: Machine) -> None:
    pc.install(plan(changes()[3]))
    pc.uninstall()
    told = [entry.as_data() for entry in pc.journal.history()]
    assert [(t["brand"], t["result"], t["steps"]) for t in told] == [
        ("acme", "removed", [{"id": "step-0", "state": "undone"}])]


READER_DRIVER = {"/usr/lib/pcsc/drivers/ifd-acme.bundle/Contents/Info.plist": "<dict>\n</dict>\n"}
RESTART = ("systemctl", "try-restart", "pcscd.service")


@pytest.mark.parametrize("files", [READER_DRIVER, {"/usr/lib/acme.so": "elf"}], ids=["reader-driver", "library"])
def test_a_running_daemon_is_told_of_a_reader_driver_that_a_package_brings(pc: Machine, files: dict[str, str]) -> None:
    """pcscd looks for reader drivers when it starts; other packages are none of its business."""
    pc.host.offer(SimPackage(name="libacme", files=files))

    pc.install(plan(DistributionPackages(manager="apt", names=("libacme",))))

    assert (RESTART in pc.host.calls) is (files is READER_DRIVER)


@pytest.mark.parametrize("files", [READER_DRIVER, {"/usr/lib/acme.so": "elf"}], ids=["reader-driver", "library"])
def test_a_running_daemon_is_told_of_a_reader_driver_in_a_package_file(pc: Machine, files: dict[str, str]) -> None:
    package = SimPackage(name="libacme", version="2.0", files=files)
    wanted = PackageFile(format="deb", name="libacme", version="2.0", payload=payload("libacme.deb", package.deb()))
    file = pc.folder / "libacme.deb"
    file.write_bytes(package.deb())

    transaction.carry_out(plan(wanted), host=pc.host, journal=pc.journal, fetch=lambda _: file, reporter=SimReporter(),
                          wait=lambda wait: None)

    assert (RESTART in pc.host.calls) is (files is READER_DRIVER)
