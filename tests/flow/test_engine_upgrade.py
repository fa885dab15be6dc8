"""Upgrades of our own package files: the newer version is installed over the one that Keyfit installed, and whatever goes wrong
the old one is there again."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from keyfit.engine import transaction
from keyfit.engine.journal import Journal
from keyfit.errors import HostError, KeyfitError, StorageError
from keyfit.model.catalog import Payload
from keyfit.model.plan import Change, PackageFile, UdevRuleFile
from tests.sim.host import SimHost, differences
from tests.sim.packages import SimPackage
from tests.sim.plans import changes, machine, payload, plan
from tests.sim.power import Power, PowerCut, PoweredJournal
from tests.sim.world import SimReporter

OLD = SimPackage(name="libdriver1", version="1.0", files={"/usr/lib/driver.so": "elf 1", "/usr/lib/old.so": "elf"})
NEW = SimPackage(name="libdriver1", version="2.0", files={"/usr/lib/driver.so": "elf 2", "/usr/lib/acme/new.so": "elf"})
NEWEST = SimPackage(name="libdriver1", version="3.0", files={"/usr/lib/driver.so": "elf 3"})
UDEV_RULE = next(change for change in changes() if isinstance(change, UdevRuleFile))
FAILING = SimPackage(name="libdriver1", version="2.0", files=NEW.files, depends=("libabsent9",))


def step(package: SimPackage) -> PackageFile:
    return PackageFile(format="deb", name=package.name, version=package.version,
                       payload=payload(f"{package.name}_{package.version}.deb", package.deb()))


class Pc:
    """A simulated machine with its record."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.power = folder, Power()
        self.host = machine(SimHost(folder / "machine", power=self.power))
        self.restart()

    def restart(self) -> None:
        self.power.restore()
        self.journal: Journal = PoweredJournal(self.folder / "state", self.power)

    def fetch(self, wanted: Payload) -> Path:
        path = self.folder / wanted.file
        path.write_bytes(next(p.deb() for p in (OLD, NEW, NEWEST, FAILING) if step(p).payload.sha256 == wanted.sha256))
        return path

    def install(self, *wanted: Change, brand: str = "acme") -> None:
        transaction.carry_out(plan(*wanted, brand=brand), host=self.host, journal=self.journal, fetch=self.fetch,
                              reporter=SimReporter(), wait=lambda wait: None)

    def uninstall(self, brand: str = "acme", *, latest_only: bool = False) -> tuple[str, ...]:
        return transaction.uninstall(brand, host=self.host, journal=self.journal, reporter=SimReporter(),
                                     latest_only=latest_only).kept

    def repair(self) -> tuple[str, ...]:
        return transaction.repair("acme", host=self.host, journal=self.journal, reporter=SimReporter(), fetch=self.fetch).repaired

    def recover(self) -> None:
        transaction.recover(host=self.host, journal=self.journal, reporter=SimReporter())

    @property
    def version(self) -> str | None:
        return self.host.package_versions().get("libdriver1")

    def kept(self) -> set[str]:
        """Versions whose files are kept."""
        folder = self.folder / "state" / "kept"
        names = {path.name for path in folder.iterdir()} if folder.exists() else set()
        known = {step(p).payload.sha256: p.version for p in (OLD, NEW, NEWEST)}
        return {known.get(name, name) for name in names}


@pytest.fixture
def pc(tmp_path: Path) -> Pc:
    return Pc(tmp_path / "pc")


def refused(pc: Pc, *wanted: Change) -> KeyfitError:
    old = pc.host.snapshot()
    with pytest.raises(KeyfitError) as caught:
        pc.install(*wanted)
    assert differences(old, pc.host.snapshot()) == []
    assert not pc.journal.open_transactions()
    return caught.value


def test_a_newer_version_replaces_the_one_that_keyfit_installed_and_goes_without_a_trace(pc: Pc) -> None:
    clean = pc.host.snapshot()
    pc.install(step(OLD))
    pc.install(step(NEW))
    assert (pc.version, pc.host.files["/usr/lib/driver.so"]) == ("2.0", b"elf 2")
    assert pc.kept() == {"1.0", "2.0"}
    before = len(pc.host.calls)
    assert pc.uninstall() == ()
    assert not any("-i" in call for call in pc.host.calls[before:]), "the old version is not installed only to be removed"
    assert differences(clean, pc.host.snapshot()) == []
    assert (pc.kept(), pc.journal.records()) == (set(), ())


def test_what_does_not_work_goes_back_to_the_version_before(pc: Pc) -> None:
    clean = pc.host.snapshot()
    pc.install(step(OLD))
    old = pc.host.snapshot()
    pc.install(step(NEW))
    pc.uninstall(latest_only=True)
    assert differences(old, pc.host.snapshot()) == []
    assert pc.kept() == {"1.0"}
    pc.install(step(NEW))
    assert pc.version == "2.0"
    pc.uninstall()
    assert differences(clean, pc.host.snapshot()) == []


def test_three_versions_go_back_one_by_one_or_all_at_once(pc: Pc) -> None:
    clean = pc.host.snapshot()
    for package in (OLD, NEW, NEWEST):
        pc.install(step(package))
    pc.uninstall(latest_only=True)
    assert (pc.version, pc.host.files["/usr/lib/acme/new.so"]) == ("2.0", b"elf")
    pc.install(step(NEWEST))
    pc.uninstall()
    assert differences(clean, pc.host.snapshot()) == []


def test_an_upgrade_that_fails_puts_the_old_version_back(pc: Pc) -> None:
    pc.install(step(OLD))
    assert "libabsent9" in refused(pc, UDEV_RULE, step(FAILING)).message
    assert (pc.version, pc.kept()) == ("1.0", {"1.0"})


def test_a_later_step_that_fails_puts_the_old_version_back(pc: Pc) -> None:
    pc.install(step(OLD))
    pc.host.full_at = pc.host._writes + 1
    assert isinstance(refused(pc, step(NEW), UDEV_RULE), StorageError)
    assert pc.kept() == {"1.0"}


@pytest.mark.parametrize("by", ["nobody of ours", "another brand"])
def test_a_version_that_somebody_else_installed_is_refused(pc: Pc, by: str) -> None:
    if by == "another brand":
        pc.install(step(OLD), brand="other")
    else:
        pc.host.install(OLD)
    assert refused(pc, UDEV_RULE, step(NEW)).code == "other-version-installed"


def test_a_version_that_somebody_put_in_place_of_ours_is_refused(pc: Pc) -> None:
    pc.install(step(OLD))
    pc.host.install(NEW)
    assert refused(pc, step(NEWEST)).code == "other-version-installed"


def test_a_version_that_somebody_put_in_place_of_an_upgrade_stays(pc: Pc) -> None:
    pc.install(step(OLD))
    pc.install(step(NEW))
    pc.host.install(NEWEST)
    assert pc.uninstall(latest_only=True) == ("libdriver1 3.0 stayed, because somebody else installed that version since",)
    assert pc.version == "3.0"


def test_an_upgrade_that_somebody_removed_is_not_put_back(pc: Pc) -> None:
    pc.install(step(OLD))
    pc.install(step(NEW))
    pc.host.packages.dpkg(["dpkg", "--purge", "libdriver1"])
    assert pc.uninstall(latest_only=True) == (
        "libdriver1 1.0 was not put back, because somebody else removed the package since",)
    assert pc.uninstall() == ()
    assert pc.version is None


# ---- the file to go back to


def remove(path: Path) -> None:
    path.unlink()


def change(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def give_it_a_second_name(path: Path) -> None:
    os.link(path, path.with_name("second"))


def make_it_a_link(path: Path) -> None:
    os.replace(path, path.parent.parent / "elsewhere.deb")
    path.symlink_to(path.parent.parent / "elsewhere.deb")


def open_the_folder(path: Path) -> None:
    path.parent.chmod(0o777)


SPOILT: list[Callable[[Path], None]] = [remove, change, give_it_a_second_name, make_it_a_link, open_the_folder]


def kept_file(pc: Pc, package: SimPackage) -> Path:
    return pc.folder / "state" / "kept" / step(package).payload.sha256


@pytest.mark.parametrize("spoil", SPOILT)
def test_d2_without_the_very_file_to_go_back_to_nothing_is_begun(pc: Pc, spoil: Callable[[Path], None]) -> None:
    pc.install(step(OLD))
    spoil(kept_file(pc, OLD))
    history, calls = len(pc.journal.history()), len(pc.host.calls)
    error = refused(pc, UDEV_RULE, step(NEW))
    assert (error.code, error.hint.endswith("keyfit uninstall acme")) == ("no-way-back", True)
    assert (len(pc.journal.history()), len(pc.host.calls)) == (history, calls)


def test_d1_files_are_kept_for_administrators_only(pc: Pc) -> None:
    pc.install(step(OLD))
    file = kept_file(pc, OLD)
    assert (file.parent.stat().st_mode & 0o777, file.stat().st_mode & 0o777) == (0o700, 0o600)
    assert file.read_bytes() == OLD.deb()


def test_an_install_that_fails_leaves_no_file_behind(pc: Pc) -> None:
    refused(pc, step(FAILING))
    assert pc.kept() == set()


def test_an_upgrade_whose_way_back_was_lost_afterwards_stays_and_can_be_uninstalled(pc: Pc) -> None:
    clean = pc.host.snapshot()
    pc.install(step(OLD))
    pc.install(step(NEW))
    change(kept_file(pc, OLD))
    assert pc.uninstall(latest_only=True) == ("libdriver1 2.0 stayed, because the file of 1.0 is no longer there as it was",)
    assert pc.version == "2.0"
    assert pc.uninstall() == ()
    assert differences(clean, pc.host.snapshot()) == []


def test_a_half_installed_upgrade_whose_way_back_was_lost_says_what_to_do(pc: Pc) -> None:
    def lose(wanted: Payload) -> Path:
        if kept_file(pc, FAILING).exists():  # it was kept, so the step is about to begin
            kept_file(pc, OLD).unlink(missing_ok=True)
        return pc.fetch(wanted)

    pc.install(step(OLD))
    with pytest.raises(KeyfitError) as caught:
        transaction.carry_out(plan(step(FAILING)), host=pc.host, journal=pc.journal, fetch=lose, reporter=SimReporter(),
                              wait=lambda wait: None)
    assert (caught.value.code, "1.0" in caught.value.message) == ("undo-failed", True)
    pc.host.install(OLD)
    pc.recover()
    assert pc.version == "1.0"


def test_a_whole_uninstall_that_dpkg_refuses_leaves_the_version_and_a_record_of_it(pc: Pc) -> None:
    clean = pc.host.snapshot()
    pc.install(step(OLD))
    pc.install(step(NEW))
    new = pc.host.snapshot()
    pc.host.failing["dpkg"] = "dpkg: error: something is wrong"
    with pytest.raises(KeyfitError, match="something is wrong"):
        pc.uninstall()
    del pc.host.failing["dpkg"]
    assert differences(new, pc.host.snapshot()) == []
    assert (len(pc.journal.records("acme")), pc.journal.open_transactions()) == (1, ())
    assert pc.repair() == (), "the older record has taken the newer version over"
    pc.install(step(NEWEST))
    pc.uninstall(latest_only=True)
    assert differences(new, pc.host.snapshot()) == []
    pc.uninstall()
    assert differences(clean, pc.host.snapshot()) == []


# ---- repair


def test_repair_of_an_upgraded_brand_repairs_the_newest_version(pc: Pc) -> None:
    pc.install(UDEV_RULE, step(OLD))
    pc.install(step(NEW))
    assert pc.repair() == ()
    pc.host.packages.dpkg(["dpkg", "--purge", "libdriver1"])
    assert pc.repair() == ("step-0",)
    assert pc.version == "2.0"


def test_repair_of_what_only_the_older_record_brought_still_works(pc: Pc) -> None:
    pc.install(UDEV_RULE, step(OLD))
    pc.install(step(NEW))
    del pc.host.files[UDEV_RULE.path]
    assert pc.repair() == ("step-0",)
    assert (UDEV_RULE.path in pc.host.files, pc.version) == (True, "2.0")


def test_repair_where_somebody_went_back_to_our_old_version_upgrades_again(pc: Pc) -> None:
    clean = pc.host.snapshot()
    pc.install(step(OLD))
    pc.install(step(NEW))
    pc.host.install(OLD)
    assert pc.repair() == ("step-0",)
    assert pc.version == "2.0"
    pc.uninstall()
    assert differences(clean, pc.host.snapshot()) == []


# ---- other brands


def test_an_upgraded_package_that_another_brand_needs_stays_until_that_goes_too(pc: Pc) -> None:
    clean = pc.host.snapshot()
    pc.install(step(OLD))
    pc.install(step(NEW))
    transaction.carry_out(plan(brand="other", needs=("package:libdriver1",)), host=pc.host, journal=pc.journal, fetch=pc.fetch,
                          reporter=SimReporter(), wait=lambda wait: None)
    assert len(pc.uninstall()) == 1
    assert pc.version == "2.0"
    pc.uninstall("other")
    assert differences(clean, pc.host.snapshot()) == []


def test_a_failing_upgrade_of_what_another_brand_needs_goes_back(pc: Pc) -> None:
    pc.install(step(OLD))
    transaction.carry_out(plan(brand="other", needs=("package:libdriver1",)), host=pc.host, journal=pc.journal, fetch=pc.fetch,
                          reporter=SimReporter(), wait=lambda wait: None)
    refused(pc, step(FAILING))
    assert pc.version == "1.0"


# ---- power cuts


def prepared(folder: Path, verb: str) -> Pc:
    pc = Pc(folder)
    pc.install(step(OLD), UDEV_RULE)
    if verb != "upgrade":
        pc.install(step(NEW))
    pc.power.restore()
    return pc


def perform(pc: Pc, verb: str) -> None:
    if verb == "upgrade":
        pc.install(step(NEW))
    else:
        pc.uninstall(latest_only=verb == "back")


@pytest.mark.parametrize("verb", ["upgrade", "back", "uninstall"])
def test_d7_a_power_cut_at_every_moment_of_an_upgrade_leaves_one_version_and_a_record_of_it(tmp_path: Path, verb: str) -> None:
    whole = prepared(tmp_path / "whole", verb)
    perform(whole, verb)
    seen: set[str | None] = set()
    for moment in range(1, whole.power.moments + 1):
        pc = prepared(tmp_path / str(moment), verb)
        pc.power.cut_at = moment
        with pytest.raises(PowerCut):
            perform(pc, verb)
        pc.restart()
        pc.recover()
        assert not pc.journal.open_transactions()
        wanted = {0: None, 1: "1.0", 2: "2.0"}[len(pc.journal.records("acme"))]
        if verb == "uninstall" and len(pc.journal.records("acme")) == 1:
            assert pc.version in ("1.0", "2.0"), "the older record has taken over, or not yet"
        else:
            assert pc.version == wanted
        assert pc.host.packages.unpacked == {}
        assert not pc.kept() - {"1.0", "2.0"}
        seen.add(pc.version)
        pc.uninstall()
        assert pc.version is None
        assert pc.kept() == set()
        assert not [path for path in pc.host.files if path.startswith("/usr/lib/") and path.endswith(".so")]
    assert seen >= ({"2.0", None} if verb == "uninstall" else {"1.0", "2.0"})


def test_d7_recover_that_is_cut_off_while_it_goes_back_goes_on(tmp_path: Path) -> None:
    whole = prepared(tmp_path / "whole", "upgrade")
    perform(whole, "upgrade")
    cut_at, moment, cuts = whole.power.moments - 3, 0, 0
    while cuts == moment:
        moment += 1
        pc = prepared(tmp_path / str(moment), "upgrade")
        old = pc.host.snapshot()
        pc.power.cut_at = cut_at
        with pytest.raises(PowerCut):
            perform(pc, "upgrade")
        pc.restart()
        pc.power.cut_at = moment
        try:
            pc.recover()
        except PowerCut:
            cuts += 1
        pc.restart()
        pc.recover()
        assert differences(old, pc.host.snapshot()) == []
    assert cuts > 5


def test_the_error_for_a_foreign_version_says_what_is_there(pc: Pc) -> None:
    pc.host.install(OLD)
    with pytest.raises(HostError, match=r"libdriver1 1\.0"):
        pc.install(step(NEW))
