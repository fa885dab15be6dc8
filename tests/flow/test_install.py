"""Stories of the main job over the whole program, on a machine in memory: what the user sees, and what is left behind."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from keyfit.app import install as use_case
from keyfit.app import maintain
from keyfit.app.certificate import certificate
from keyfit.app.devices import list_devices
from keyfit.app.verify import verify
from keyfit.errors import DataError, KeyfitError, Outcome
from keyfit.model.catalog import KernelModuleBlacklist, Payload
from keyfit.model.certificate import ModuleReport, Reader
from tests.sim.brands import LINUX, SOURCES, a_brand, a_device, a_hand_off, a_match, a_package, facts
from tests.sim.host import SimHost, differences
from tests.sim.packages import SimPackage
from tests.sim.world import World, with_sequence

IDS = {"id_vendor": 0x1234, "id_product": 1}
INFO = (b"<key>ifdVendorID</key>\n<array>\n<string>0x1234</string>\n</array>\n<key>ifdProductID</key>\n<array>\n"
        b"<string>0x0001</string>\n</array>\n<key>ifdFriendlyName</key>\n<array>\n<string>Acme One</string>\n</array>\n")
DRIVER = SimPackage(name="libacme", files={"/usr/lib/pcsc/drivers/acme.bundle/Contents/Info.plist": INFO.decode()})
BRAND = a_brand("acme", a_match(**IDS), package=(a_package("libacme"),), hand_off=a_hand_off())
RIVAL = a_brand("rival", a_match(id_vendor=0x5678, id_product=2), package=(a_package("librival"),))
TOKEN = a_device(product="Acme Token")
OTHER = a_device(0x5678, 2, bus_path="1-2", product="Rival Token")


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A machine with Acme's token in it; the token answers once its driver is installed."""
    host = SimHost(tmp_path / "machine", **{k: getattr(facts(), k) for k in ("machine", "running_services")})
    host.offer(DRIVER, SimPackage(name="librival"))
    made = World(tmp_path, host, [BRAND, RIVAL], TOKEN)
    made.tokens.reader_list = (Reader(name="Acme One 00 00", atr="3B00"),)
    made.tokens.visible = lambda: host.installed("libacme") and bool(made.bus.plugged)
    return made


def refused(world: World, *arguments: Any, **options: Any) -> KeyfitError:
    """An install that must not go through, and must not change anything."""
    before = world.host.snapshot()
    with pytest.raises(KeyfitError) as caught:
        use_case.install(world.context(), *arguments, **options)
    assert differences(before, world.host.snapshot()) == []
    assert caught.value.hint
    return caught.value


def test_the_main_job(world: World) -> None:
    before = world.host.snapshot()
    (device,) = list_devices(world.context()).data["devices"]
    assert (device["brand"], device["driver"]["state"]) == ("acme", "missing")

    result = use_case.install(world.context(), None)

    assert result.outcome is Outcome.DONE
    assert result.data["verdict"]["works"] is True
    assert world.opened == ["https://www.example.com/certificate"]
    assert len(world.reporter.all("confirm")) == 1
    (device,) = list_devices(world.context()).data["devices"]
    assert device["driver"]["state"] == "ready"

    maintain.uninstall(world.context(), "acme")
    assert differences(before, world.host.snapshot()) == []


def test_j1_what_is_asked_names_everything_that_is_done(world: World) -> None:
    plan = use_case.plan(world.context(), None).data["plan"]
    use_case.install(world.context(), None)

    ((_, question),) = world.reporter.all("confirm")
    assert all(step["action"] in question and step["undo"] in question for step in plan["steps"])
    assert {entry[1] for entry in world.reporter.all("step")} == {step["id"] for step in plan["steps"]}


def test_a_plan_and_a_dry_run_change_nothing(world: World) -> None:
    before = world.host.snapshot()

    use_case.plan(world.context(), None)
    result = use_case.install(world.context(), None, dry_run=True)

    assert differences(before, world.host.snapshot()) == []
    assert result.data["dry_run"] is True
    assert world.journal.history() == ()


def test_a_no_is_a_no(world: World) -> None:
    world.reporter.answer = False

    with pytest.raises(KeyfitError) as caught:
        use_case.install(world.context(), None)
    assert caught.value.outcome is Outcome.CANCELLED
    assert not world.host.installed("libacme")
    assert world.journal.history() == ()


def test_c9_a_token_that_forges_the_ids_but_does_not_answer_is_taken_back(world: World) -> None:
    world.tokens.visible = lambda: False
    before = world.host.snapshot()

    result = use_case.install(world.context(), None)

    assert result.outcome is Outcome.FAILED_UNCHANGED
    assert "taken-back" in [m.code for m in result.messages]
    assert differences(before, world.host.snapshot()) == []
    assert world.opened == []


def test_the_second_install_finds_nothing_to_do(world: World) -> None:
    use_case.install(world.context(), None)

    again = use_case.install(world.context(), None)

    assert "nothing-to-do" in [m.code for m in again.messages]
    assert len(world.reporter.all("confirm")) == 1


def test_no_token(world: World) -> None:
    world.bus.unplug_all()

    assert (refused(world, None).code, refused(world, None).outcome) == ("no-token", Outcome.NO_TOKEN)


def test_a_token_that_nobody_knows(world: World) -> None:
    world.bus.plugged = [a_device(0x9999, 9)]

    assert refused(world, None).code == "unknown-token"


def test_two_tokens_of_two_brands(world: World) -> None:
    world.bus.plug(OTHER)

    error = refused(world, None)

    assert (error.code, error.outcome) == ("several-tokens", Outcome.USAGE)
    assert use_case.install(world.context(), "acme").data["verdict"]["works"] is True


def test_the_wrong_brand_is_refused_but_an_administrator_may_prepare_for_it(world: World) -> None:
    assert refused(world, "rival").code == "wrong-brand"

    result = use_case.install(world.context(), "rival", silent=True)

    assert result.outcome is Outcome.DONE
    assert [m.code for m in result.messages] == ["not-proven"]
    assert world.host.installed("librival")


def test_two_brands_that_claim_one_device(world: World, tmp_path: Path) -> None:
    world.repository.brands.append(a_brand("twin", a_match(**IDS), package=(a_package("libtwin"),)))

    error = refused(world, None)

    assert (error.code, error.outcome) == ("two-brands", Outcome.FORBIDDEN)
    assert "acme" in error.hint


def test_an_unknown_brand_is_answered_with_the_nearest(world: World) -> None:
    error = refused(world, "acmee")

    assert (error.code, error.outcome) == ("unknown-brand", Outcome.USAGE)
    assert "acme" in error.hint


@pytest.mark.parametrize(("fault", "outcome"), [("down", Outcome.NETWORK), ("distrust", Outcome.TRUST)])
def test_without_trusted_data_nothing_is_done(world: World, fault: str, outcome: Outcome) -> None:
    setattr(world.repository, fault, True)

    assert refused(world, None).outcome is outcome


def test_without_rights_nothing_is_done(world: World, tmp_path: Path) -> None:
    host = SimHost(tmp_path / "plain", elevated=False)
    host.offer(DRIVER)
    world.host = host

    assert refused(world, None).outcome is Outcome.ELEVATION_REQUIRED


def test_j2_silent_wants_a_brand_and_asks_nothing(world: World) -> None:
    assert refused(world, None, silent=True).code == "silent-needs-brand"

    use_case.install(world.context(), "acme", silent=True)
    assert world.opened == []


def test_j2_silent_takes_no_less_care(world: World) -> None:
    world.repository.distrust = True

    assert refused(world, "acme", silent=True).outcome is Outcome.TRUST


def test_the_insert_order_is_watched_and_it_goes_on_by_itself(world: World) -> None:
    first = msgspec.structs.replace(BRAND, insert_order="unplug-before-install")
    world.repository.brands[0] = first
    installed_when: list[bool] = []
    world.bus.script = [lambda bus: bus.unplug_all(),
                        lambda bus: (installed_when.append(world.host.installed("libacme")), bus.plug(TOKEN))[1]]

    result = use_case.install(world.context(), None)

    assert [entry[1] for entry in world.reporter.all("wait")] == ["unplug", "plug-in"]
    assert installed_when == [True]
    assert result.data["verdict"]["works"] is True


def test_a_token_that_nobody_unplugs_is_waited_for_only_so_long(world: World) -> None:
    world.repository.brands[0] = msgspec.structs.replace(BRAND, insert_order="unplug-before-install")

    assert refused(world, None).outcome is Outcome.CANCELLED


def test_a_token_pulled_out_before_it_is_checked_leaves_its_driver(world: World) -> None:
    world.tokens.visible = lambda: False
    world.bus.script = [lambda bus: bus.unplug_all()]

    result = use_case.install(world.context(), None)

    assert result.outcome is Outcome.NO_TOKEN
    assert world.host.installed("libacme")


def test_a_saved_plan_is_carried_out(world: World, tmp_path: Path) -> None:
    saved = _save(world, tmp_path)

    assert use_case.apply(world.context(), saved).data["verdict"]["works"] is True


@pytest.mark.parametrize("change", ["newer", "other-machine", "edited", "garbage", "huge", "unplugged"])
def test_a_plan_that_no_longer_fits_is_refused(world: World, tmp_path: Path, change: str) -> None:
    saved = _save(world, tmp_path)
    if change == "newer":
        world.repository.brands[0] = with_sequence(BRAND, 2)
    elif change == "other-machine":
        world.host = SimHost(tmp_path / "other", machine="another")
        world.host.offer(DRIVER)
    elif change == "edited":
        saved.write_bytes(saved.read_bytes().replace(b"libacme", b"libevil"))
    elif change == "garbage":
        saved.write_bytes(b'{"id": []}')
    elif change == "huge":
        saved.write_bytes(b" " * 2_000_000)
    else:
        world.bus.unplug_all()
    before = world.host.snapshot()

    with pytest.raises(KeyfitError) as caught:
        use_case.apply(world.context(), saved)

    assert differences(before, world.host.snapshot()) == []
    assert caught.value.outcome in (Outcome.FORBIDDEN, Outcome.USAGE, Outcome.NO_TOKEN)
    assert caught.value.hint


def _save(world: World, tmp_path: Path) -> Path:
    from keyfit.ui.commands.plan import save

    path = tmp_path / "plan.json"
    save(path, use_case.plan(world.context(), None).data["plan"])
    return path


def test_repair_puts_back_what_somebody_removed(world: World) -> None:
    use_case.install(world.context(), None)
    world.host.packages.installed.pop("libacme")
    assert verify(world.context(), None).outcome is Outcome.NO_TOKEN

    maintain.repair(world.context(), None)

    assert verify(world.context(), None).outcome is Outcome.DONE


def test_what_takes_effect_after_a_restart_is_not_judged_before_it(world: World) -> None:
    """A kernel module holds the device: nothing is taken back, and what helps is said until it was done."""
    patch = KernelModuleBlacklist(id="nfc", modules=("nfc",), on=LINUX, reason={"en": "why"}, sources=SOURCES)
    world.repository.brands[0] = msgspec.structs.replace(BRAND, patch=(patch,))
    world.host.put("/proc/modules", b"nfc 1 0 - Live 0x0\n")
    world.host.failing["modprobe"] = "modprobe: FATAL: Module nfc is in use.\n"
    world.tokens.visible = lambda: world.host.boot == "second"

    result = use_case.install(world.context(), None)

    assert result.outcome is Outcome.RESTART_REQUIRED
    assert [m.code for m in result.messages] == ["restart-required"]
    assert world.journal.records("acme")
    assert verify(world.context(), None).messages[-1].code == "restart-required"

    world.host.boot = "second"
    assert verify(world.context(), None).outcome is Outcome.DONE
    maintain.uninstall(world.context(), "acme")
    assert not world.host.exists("/etc/modprobe.d/keyfit-acme-nfc.conf")


def test_verify_knows_a_brand_that_is_newer_than_the_program(world: World) -> None:
    """It is in the signed data only; a brand that is nowhere is told as such."""
    newer = a_brand("newer", a_match(id_vendor=0x4321, id_product=9), package=(a_package("libnewer"),))
    context = world.context()
    _ = context.catalog  # what was shipped, from before the brand was published
    world.repository.brands.append(newer)

    assert verify(context, "newer").data["verdict"]["brand"] == "newer"

    world.repository.down = True
    for name in ("newest", "../newer", "NEWER"):
        with pytest.raises(KeyfitError) as caught:
            verify(world.context(), name)
        assert caught.value.code == "unknown-brand"


def test_what_was_never_installed_cannot_be_uninstalled(world: World) -> None:
    with pytest.raises(KeyfitError) as caught:
        maintain.uninstall(world.context(), "acme")

    assert caught.value.outcome is Outcome.NO_TOKEN


def test_the_certificate_is_waited_for(world: World) -> None:
    from tests.sim.brands import a_module

    brand = msgspec.structs.replace(BRAND, module=(a_module(register=()),))
    world.repository.brands[0] = brand
    world.host.put("/usr/lib/acme.so", b"elf")
    world.tokens.reports = {"/usr/lib/acme.so": _report()}
    use_case.install(world.context(), None)
    now = datetime.fromtimestamp(world.clock.now(), UTC)
    placeholder = _report("key", not_before=now, not_after=now)
    world.bus.script = [lambda bus: None, lambda bus: world.tokens.reports.update({"/usr/lib/acme.so": placeholder}),
                        lambda bus: world.tokens.reports.update({"/usr/lib/acme.so": _report("new")})]

    result = certificate(world.context(), None, open_page=True, wait_s=600)

    assert result.data["certificate"]["state"] == "valid"
    assert result.data["certificate"]["subject"] == "CN=new"
    assert world.opened[-1] == "https://www.example.com/certificate"


def test_a_certificate_that_never_comes_ends_the_waiting(world: World) -> None:
    use_case.install(world.context(), None)

    with pytest.raises(KeyfitError) as caught:
        certificate(world.context(), None, open_page=False, wait_s=10)
    assert caught.value.code == "no-new-certificate"


def _report(*names: str, not_before: datetime = datetime(2026, 1, 1, tzinfo=UTC),
            not_after: datetime = datetime(2028, 1, 1, tzinfo=UTC)) -> ModuleReport:
    from keyfit.model.certificate import CertificateInfo, SlotReport

    certificates = tuple(
        CertificateInfo(label=n, subject=f"CN={n}", issuer="CN=Example CA", not_before=not_before.isoformat(),
                        not_after=not_after.isoformat(), sha256=hashlib.sha256(n.encode()).hexdigest()) for n in names)
    slot = SlotReport(slot="Acme One 00 00", label="token", model="One", manufacturer="Acme", initialised=True,
                      login_required=True, pin_initialised=True, pin_to_be_changed=False, pin_count_low=False,
                      pin_final_try=False, pin_locked=False, certificates=certificates)
    return ModuleReport(path="/usr/lib/acme.so", loaded=True, description="Acme", slots=(slot,))


def test_a_payload_that_does_not_arrive_leaves_everything_as_it_was(world: World) -> None:
    payload = Payload(file="libacme.deb", sha256="1" * 64, length_bytes=10)
    world.repository.brands[0] = msgspec.structs.replace(
        BRAND, package=(a_package("libacme", "deb", payload=payload, version="1.0"),))

    assert refused(world, None).outcome is Outcome.NETWORK


def test_a_full_disk_leaves_everything_as_it_was(world: World) -> None:
    from tests.sim.brands import a_module

    world.repository.brands[0] = msgspec.structs.replace(BRAND, module=(a_module(register=("p11-kit",)),))
    world.host.full_at = 1

    assert refused(world, None).outcome is Outcome.CANNOT_WRITE


def test_dpkg_that_is_busy_leaves_everything_as_it_was(world: World) -> None:
    world.host.packages.locked = True

    assert refused(world, None).outcome is Outcome.BUSY


def test_the_plan_file_is_not_believed(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        use_case.load_plan(tmp_path / "nothing")
    assert caught.value.code == "plan-unreadable"


# ---- a newer version


def release(world: World, sequence: int, version: str, *, works: bool = True) -> SimPackage:
    """The repository's brand with a package file of ours."""
    text = INFO.decode() + ("" if works else "<!-- broken -->")
    package = SimPackage(name="libacme", version=version, files={next(iter(DRIVER.files)): text})
    data = package.deb()
    file = Payload(file=f"libacme_{version}.deb", sha256=hashlib.sha256(data).hexdigest(), length_bytes=len(data))
    world.repository.payloads[file.sha256] = data
    world.repository.brands[0] = with_sequence(
        a_brand("acme", a_match(**IDS), package=(a_package("libacme", "deb", version=version, payload=file),)), sequence)
    return package


def test_j1_a_newer_sequence_is_planned_as_an_upgrade_and_carried_out(world: World) -> None:
    before = world.host.snapshot()
    release(world, 1, "1.0")
    use_case.install(world.context(), None)
    release(world, 2, "2.0")

    (step,) = use_case.plan(world.context(), None).data["plan"]["steps"]
    result = use_case.install(world.context(), None)

    assert (step["action"], step["undo"]) == ("Replace the package libacme 1.0 with 2.0 from libacme_2.0.deb",
                                              "Go back to libacme 1.0")
    assert "Replace the package libacme 1.0 with 2.0" in world.reporter.all("confirm")[-1][1]
    assert (result.outcome, world.host.package_versions()["libacme"]) == (Outcome.DONE, "2.0")
    assert world.journal.installed() == {"acme": 2}
    maintain.uninstall(world.context(), "acme")
    assert differences(before, world.host.snapshot()) == []


def test_an_upgrade_with_which_the_token_does_not_answer_goes_back(world: World) -> None:
    release(world, 1, "1.0")
    use_case.install(world.context(), None)
    before = world.host.snapshot()
    release(world, 2, "2.0", works=False)
    world.tokens.visible = lambda: world.host.package_versions().get("libacme") == "1.0"

    result = use_case.install(world.context(), None)

    assert (result.outcome, result.messages[-1].code) == (Outcome.FAILED_UNCHANGED, "taken-back")
    assert differences(before, world.host.snapshot()) == []
    assert world.journal.installed() == {"acme": 1}
    assert verify(world.context(), "acme").outcome is Outcome.DONE


def test_repair_and_verify_after_an_upgrade_find_nothing_broken(world: World) -> None:
    release(world, 1, "1.0")
    use_case.install(world.context(), None)
    release(world, 2, "2.0")
    use_case.install(world.context(), None)

    assert maintain.repair(world.context(), "acme").data["repaired"] == []
    assert verify(world.context(), "acme").outcome is Outcome.DONE
    assert world.host.package_versions()["libacme"] == "2.0"
