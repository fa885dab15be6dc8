"""Offline kits: accepted for as long as they say, under their own root, and never a way around what was learnt elsewhere.

The first part is the table of cases of the design, with a kit that is valid for 730 days.
"""

import hashlib
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from keyfit.app import install as use_case
from keyfit.app import maintain
from keyfit.errors import NetworkError, Outcome, TrustError, UserError
from keyfit.model.catalog import Payload
from keyfit.model.certificate import Reader
from keyfit.model.plan import Part
from keyfit.model.result import Message
from keyfit.trust.media import KitRepository, kit_folder
from keyfit.trust.repository import TufRepository
from keyfit.ui.commands.plan import save
from tests.flow.test_first_commands import CHECKOUT, document, keyfit, tree  # noqa: F401 - a fixture
from tests.sim.brands import a_brand, a_device, a_match, a_module, a_package, facts
from tests.sim.host import SimHost, differences
from tests.sim.layered import LayeredRepository, by_device, by_name, swap
from tests.sim.packages import SimPackage
from tests.sim.repository import CertificateAuthority, HostileServer
from tests.sim.world import SimClock, World, with_sequence

DAY = 86_400.0
ACME = a_brand("acme", a_match(id_vendor=0x1234, id_product=1), package=(a_package("libacme"),))
RIVAL = a_brand("rival", a_match(id_vendor=0x1234, id_product=1, product="Rival*"), package=(a_package("librival"),))
TARGET = by_name(ACME).path
DRIVER = bytes(range(256)) * 4_000


@pytest.fixture
def clock() -> SimClock:
    made = SimClock()
    made.time = datetime.now(UTC).timestamp()
    return made


@pytest.fixture
def kit(tmp_path: Path) -> LayeredRepository:
    """Pressed today, good for 730 days."""
    made = LayeredRepository(tmp_path / "disc" / "keyfit", days=730)
    made.put(by_name(with_sequence(ACME, 5)))
    return made


@pytest.fixture
def online(tmp_path: Path) -> LayeredRepository:
    """The repository on the network, kept up to date."""
    made = LayeredRepository(tmp_path / "online", days=4_000)
    made.put(by_name(with_sequence(ACME, 6)))
    return made


class Machine:
    """One machine with its own directories and clock; it is given kits."""

    def __init__(self, folder: Path, clock: SimClock) -> None:
        self.folder = folder / "machine"
        self.clock = clock

    def with_kit(self, kit: LayeredRepository, grace_days: int = 0, online: LayeredRepository | None = None,
                 folder: Path | None = None) -> KitRepository:
        def open_kit(grace_s: float) -> TufRepository:
            url = (folder or kit.folder).as_uri()
            return kit.client(self.folder, url, kind="media", clock=self.clock, grace_s=grace_s)

        return KitRepository(open_kit=open_kit, grace_days=grace_days,
                             open_online=(lambda: self.online(online)) if online is not None else None)

    def online(self, repository: LayeredRepository) -> TufRepository:
        return repository.client(self.folder, clock=self.clock)

    def later(self, days: float) -> None:
        self.clock.time += days * DAY


@pytest.fixture
def machine(tmp_path: Path, clock: SimClock) -> Machine:
    return Machine(tmp_path, clock)


def sequence(repository: KitRepository | TufRepository) -> int:
    repository.refresh()
    manifest = repository.manifest(TARGET)
    assert manifest is not None
    return manifest.brands[0].sequence


def refused(repository: KitRepository | TufRepository) -> TrustError:
    with pytest.raises(TrustError) as caught:
        sequence(repository)
    assert caught.value.hint
    assert caught.value.outcome is Outcome.TRUST
    return caught.value


# -- the table --------------------------------------------------------------------------------------------------------


def test_a_fresh_machine_takes_a_kit_that_is_100_days_old(machine: Machine, kit: LayeredRepository) -> None:
    machine.later(100)
    repository = machine.with_kit(kit)

    assert sequence(repository) == 5
    assert repository.offline
    assert repository.notes() == ()


def test_a_newer_kit_is_taken_and_then_the_older_one_refused(machine: Machine, kit: LayeredRepository,
                                                             tmp_path: Path) -> None:
    old = Path(shutil.copytree(kit.folder, tmp_path / "old"))
    assert sequence(machine.with_kit(kit, folder=old)) == 5
    kit.put(by_name(with_sequence(ACME, 6)))

    assert sequence(machine.with_kit(kit)) == 6
    assert refused(machine.with_kit(kit, folder=old)).code == "metadata-rollback"


def test_a5_a_newer_kit_with_an_older_driver_is_refused_for_that_driver_alone(machine: Machine, kit: LayeredRepository,
                                                                             online: LayeredRepository) -> None:
    """A5: the online repository has taught this machine 6; the kit's 5 is refused, the other brand of the kit is not."""
    assert sequence(machine.online(online)) == 6
    kit.put(by_device(0x1234, 1, with_sequence(ACME, 5), RIVAL))

    assert refused(machine.with_kit(kit)).code == "rollback"
    offer = machine.with_kit(kit).offer("usb/1234/0001-linux-amd64.json")
    assert offer is not None
    assert [b.brand for b in offer.manifest.brands] == ["rival"]


def test_a_payload_that_was_changed_by_one_byte_is_refused(machine: Machine, kit: LayeredRepository) -> None:
    payload = kit.add_payload("libacme.deb", DRIVER)
    kit.payload_file(payload).write_bytes(DRIVER[:-1] + b"!")

    with pytest.raises(TrustError) as caught:
        machine.with_kit(kit).payload(payload)

    assert caught.value.code == "payload-hash"


@pytest.mark.parametrize(("grace_days", "code"), [(0, "kit-expired"), (60, "kit-expired"), (90, "")])
def test_a6_a_kit_that_expired_70_days_ago(machine: Machine, kit: LayeredRepository, grace_days: int, code: str) -> None:
    """A6: refused, but for an administrator's grace of 90 days."""
    machine.later(800)
    repository = machine.with_kit(kit, grace_days)

    if code:
        assert refused(repository).code == code
    else:
        assert sequence(repository) == 5
        assert [(m.level, m.code) for m in repository.notes()] == [("warning", "kit-grace")]
        assert "90 days" in repository.notes()[0].text


def test_a6_a_clock_set_back_brings_no_expired_kit_to_life(machine: Machine, kit: LayeredRepository,
                                                          online: LayeredRepository) -> None:
    """A6: a signed date was seen after the kit's end; the floor is for all sources."""
    machine.later(800)
    online.publish(signed_at=datetime.fromtimestamp(machine.clock.time, UTC))
    machine.online(online).refresh()

    machine.later(-900)

    assert refused(machine.with_kit(kit, grace_days=365)).code == "clock-behind"


def test_a6_a_clock_set_back_is_named_with_a_good_kit_too(machine: Machine, kit: LayeredRepository) -> None:
    """A6: no override, and no guess at what the time may be."""
    assert sequence(machine.with_kit(kit)) == 5
    machine.later(-900)

    assert refused(machine.with_kit(kit)).code == "clock-behind"


def test_a6_a_clock_a_little_behind_is_judged_at_the_newest_signed_date(machine: Machine, kit: LayeredRepository,
                                                                       online: LayeredRepository) -> None:
    """A6: half a day before the kit's end by the clock, half a day after it by a date that was signed."""
    machine.later(730.5)
    online.publish(signed_at=datetime.fromtimestamp(machine.clock.time, UTC))
    machine.online(online).refresh()
    machine.later(-0.9)

    assert refused(machine.with_kit(kit)).code == "kit-expired"


def test_a6_a_clock_in_2099_is_refused_and_poisons_nothing(machine: Machine, kit: LayeredRepository) -> None:
    """A6."""
    now, machine.clock.time = machine.clock.time, datetime(2099, 1, 1, tzinfo=UTC).timestamp()
    assert refused(machine.with_kit(kit, grace_days=365)).code == "kit-expired"

    machine.clock.time = now
    assert sequence(machine.with_kit(kit)) == 5


# -- beyond the table -------------------------------------------------------------------------------------------------


def test_a6_no_grace_for_the_root(tmp_path: Path, machine: Machine) -> None:
    """A6: it is what everything else hangs on."""
    kit = LayeredRepository(tmp_path / "disc", days=730, root_days=700)
    kit.put(by_name(ACME))
    machine.later(710)

    assert refused(machine.with_kit(kit, grace_days=365)).code == "kit-expired"


@pytest.mark.parametrize(("grace_days", "code"), [(0, "kit-expired"), (5, "kit-expired"), (20, "")])
def test_a6_a_role_far_below_shows_its_age_when_a_manifest_is_asked_for(machine: Machine, kit: LayeredRepository,
                                                                       grace_days: int, code: str) -> None:
    """A6."""
    for name in kit.bins:
        kit.files.roles[name].expires = datetime.fromtimestamp(machine.clock.time + 10 * DAY, UTC).replace(microsecond=0)
    kit.publish()
    machine.later(20)

    if code:
        assert refused(machine.with_kit(kit, grace_days)).code == code
    else:
        assert sequence(machine.with_kit(kit, grace_days)) == 5


def test_an_expired_kit_makes_room_for_the_network(machine: Machine, kit: LayeredRepository,
                                                   online: LayeredRepository) -> None:
    machine.later(800)
    repository = machine.with_kit(kit, grace_days=365, online=online)

    assert sequence(repository) == 6
    assert not repository.offline
    assert [m.code for m in repository.notes()] == ["kit-expired-online"]


@pytest.mark.parametrize("grace_days", [0, 365])
def test_an_expired_kit_without_a_network_has_its_grace_or_nothing(machine: Machine, kit: LayeredRepository, grace_days: int,
                                                                   tmp_path: Path, online: LayeredRepository) -> None:
    machine.later(800)
    shutil.rmtree(online.folder)
    repository = machine.with_kit(kit, grace_days, online=online)

    if grace_days:
        assert sequence(repository) == 5
        assert repository.offline
    else:
        assert "network could not help" in refused(repository).message


def test_a_good_kit_asks_nothing_of_the_network(machine: Machine, kit: LayeredRepository, online: LayeredRepository) -> None:
    shutil.rmtree(online.folder)

    assert sequence(machine.with_kit(kit, online=online)) == 5


def test_a_kit_that_is_bad_is_not_merely_old(machine: Machine, kit: LayeredRepository, online: LayeredRepository) -> None:
    """Only age makes room for the network: what was tampered with is told as such."""
    timestamp = kit.folder / "metadata" / "timestamp.json"
    whole = timestamp.read_bytes()
    timestamp.write_bytes(whole.replace(b'"expires":"20', b'"expires":"21'))
    assert timestamp.read_bytes() != whole

    assert refused(machine.with_kit(kit, 365, online=online)).code == "metadata-signature"


def test_a6_kit_and_repository_teach_each_other(machine: Machine, kit: LayeredRepository, online: LayeredRepository) -> None:
    """A5, A6: one lock, one table; what python-tuf keeps is apart, so that neither root spoils the other's files."""
    assert sequence(machine.with_kit(kit)) == 5
    assert sequence(machine.online(online)) == 6
    assert sequence(machine.online(online)) == 6
    assert refused(machine.with_kit(kit)).code == "rollback"

    names = {p.name for p in (machine.folder / "metadata").iterdir()}
    assert names == {"lock", "floors.json", "tuf", "media"}


def test_metadata_of_a_kit_is_refused_from_the_network(machine: Machine, kit: LayeredRepository, online: LayeredRepository,
                                                       tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thief of the kit's keys, which last for years, gains nothing online; over real TLS."""
    authority = CertificateAuthority(tmp_path / "ca")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    with HostileServer(kit.folder, tls=authority) as server, HostileServer(online.folder, tls=authority) as good:
        client = online.client(machine.folder, server.url, clock=machine.clock)
        assert refused(client).code == "metadata-signature"
        assert sequence(online.client(machine.folder, good.url, clock=machine.clock)) == 6


def test_metadata_of_the_repository_is_refused_in_a_kit(machine: Machine, kit: LayeredRepository,
                                                        online: LayeredRepository) -> None:
    """A thief of the timestamp's key cannot make a kit of what he has."""
    assert refused(machine.with_kit(kit, grace_days=365, folder=online.folder)).code == "metadata-signature"


def test_d2_only_the_private_copy_is_used(machine: Machine, kit: LayeredRepository) -> None:
    """D2: the file on the medium is swapped after the check, and what is installed is what was checked."""
    payload = kit.add_payload("libacme.deb", DRIVER)
    path = machine.with_kit(kit).payload(payload)
    swap(kit.payload_file(payload), b"evil" * 1_000)

    assert path.read_bytes() == DRIVER
    assert machine.folder in path.parents
    assert path.stat().st_mode & 0o777 == 0o600
    assert machine.with_kit(kit).payload(payload).read_bytes() == DRIVER


@pytest.mark.parametrize("how", ["swapped", "rewritten"])
def test_d2_a_file_that_changes_while_it_is_read(machine: Machine, kit: LayeredRepository, how: str) -> None:
    """D2: either the old bytes come whole, or the hash of what was copied is another one."""
    payload = kit.add_payload("libacme.deb", DRIVER)
    evil = b"!" * len(DRIVER)

    def change(done: int, total: int) -> None:
        if done < total and how == "swapped":
            swap(kit.payload_file(payload), evil)
        elif done < total:
            with kit.payload_file(payload).open("r+b") as file:
                file.write(evil)

    if how == "swapped":
        assert machine.with_kit(kit).payload(payload, change).read_bytes() == DRIVER
    else:
        with pytest.raises(TrustError) as caught:
            machine.with_kit(kit).payload(payload, change)
        assert caught.value.code == "payload-hash"
        assert not list((machine.folder / "cache").glob("*.part"))


def test_a_payload_that_the_kit_does_not_have(machine: Machine, kit: LayeredRepository) -> None:
    with pytest.raises(NetworkError):
        machine.with_kit(kit).payload(Payload(file="x.deb", sha256="1" * 64, length_bytes=5))


def test_what_source_may_name(kit: LayeredRepository, tmp_path: Path) -> None:
    disc = kit.folder.parent
    assert disc.name == "disc"
    for name in (str(disc), str(kit.folder), disc.as_uri(), kit.folder.as_uri()):
        assert kit_folder(name) == kit.folder
    assert kit_folder("https://drivers.example.com/keyfit") is None
    for name in (str(tmp_path), str(tmp_path / "nowhere"), (tmp_path / "nowhere").as_uri()):
        with pytest.raises(UserError) as caught:
            kit_folder(name)
        assert caught.value.code == "no-kit"


# -- what is installed from a kit, and its parts ----------------------------------------------------------------------

INFO = (b"<key>ifdVendorID</key>\n<array>\n<string>0x1234</string>\n</array>\n<key>ifdProductID</key>\n<array>\n"
        b"<string>0x0001</string>\n</array>\n<key>ifdFriendlyName</key>\n<array>\n<string>Acme One</string>\n</array>\n")
LIBACME = SimPackage(name="libacme", files={"/usr/lib/pcsc/drivers/acme.bundle/Contents/Info.plist": INFO.decode()})
BOTH_WAYS = a_brand("acme", a_match(id_vendor=0x1234, id_product=1), package=(
    a_package("pcscd"), a_package("libacme"), a_package("libacme", "deb", version="1.0")), module=(a_module(),))


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A machine with Acme's token; its driver is in the system's archives and, as a file, in the repository."""
    host = SimHost(tmp_path / "host", **{k: getattr(facts(), k) for k in ("machine", "running_services")})
    host.offer(SimPackage(name="pcscd"), LIBACME)
    made = World(tmp_path, host, [BOTH_WAYS], a_device())
    made.tokens.visible = lambda: host.installed("libacme")
    return made


def kinds(world: World, **options: Any) -> list[str]:
    return [s["kind"] for s in use_case.plan(world.context(), None, **options).data["plan"]["steps"]]


def test_from_a_kit_the_file_goes_before_the_systems_archives(world: World) -> None:
    assert kinds(world)[:2] == ["distribution-package", "p11-kit-module"]

    world.repository.offline = True
    assert kinds(world)[:3] == ["distribution-package", "package-file", "p11-kit-module"]
    first = use_case.plan(world.context(), None).data["plan"]["steps"][0]
    assert first["change"]["names"] == ("pcscd",), "there is no file of it, so the archives are asked all the same"


def test_from_a_kit_a_package_of_the_system_that_is_there_already_is_kept(world: World) -> None:
    world.repository.offline = True
    world.host.install(SimPackage(name="pcscd"), LIBACME)

    plan = use_case.plan(world.context(), None).data["plan"]

    assert "package-file" not in [s["kind"] for s in plan["steps"]]
    assert any("pcscd, libacme" in text and "already so" in text for text in plan["satisfied"])


def test_the_parts_are_apart_and_together_the_whole(world: World) -> None:
    world.repository.offline = True

    system, driver = kinds(world, part="system"), kinds(world, part="driver")

    assert system == ["distribution-package"]
    assert driver == ["package-file", "p11-kit-module", "firefox-policy", "nss-module"]
    assert sorted(system + driver) == sorted(kinds(world))


def test_first_the_system_then_the_driver_and_all_is_taken_back(world: World) -> None:
    """As a kit's start menu has it: System Upgrade, then Driver Installation."""
    deb = LIBACME.deb()
    payload = Payload(file="libacme.deb", sha256=hashlib.sha256(deb).hexdigest(), length_bytes=len(deb))
    world.repository.brands[0] = a_brand("acme", a_match(id_vendor=0x1234, id_product=1), package=(
        a_package("pcscd"), a_package("libacme"), a_package("libacme", "deb", version="1.0", payload=payload)),
        insert_order="unplug-before-install")
    world.repository.payloads[payload.sha256] = deb
    world.repository.offline = True
    world.tokens.reader_list = (Reader(name="Acme One 00 00", atr="3B00"),)
    world.bus.script = [lambda bus: bus.unplug_all(), lambda bus: bus.plug(a_device())]
    before = world.host.snapshot()

    prepared = use_case.install(world.context(), None, part="system")
    assert [m.code for m in prepared.messages] == ["system-prepared"]
    assert (prepared.outcome, prepared.data["verdict"]) == (Outcome.DONE, None)
    assert world.reporter.all("wait") == [], "the token is asked for with the driver"
    assert world.host.installed("pcscd")
    assert not world.host.installed("libacme")
    again = use_case.install(world.context(), None, part="system")
    assert [m.code for m in again.messages] == ["nothing-to-do", "system-prepared"]

    finished = use_case.install(world.context(), None, part="driver")
    assert finished.data["verdict"]["works"] is True
    assert len(world.reporter.all("wait")) == 2

    maintain.uninstall(world.context(), "acme")
    assert differences(before, world.host.snapshot()) == []


@pytest.mark.parametrize("part", ["system", "driver"])
def test_a_saved_plan_of_a_part_stays_a_plan_of_that_part(world: World, tmp_path: Path, part: Part) -> None:
    saved = tmp_path / "plan.json"
    world.bus.unplug_all()
    save(saved, use_case.plan(world.context(), "acme", part=part).data["plan"])

    result = use_case.apply(world.context(), saved)

    assert result.data["plan"]["part"] == part
    assert world.host.installed("pcscd") is (part == "system")
    assert world.host.exists("/etc/pkcs11/modules/keyfit-acme.module") is (part == "driver")


def test_what_the_kit_has_to_say_is_in_every_result(world: World) -> None:
    world.repository.said = (Message(level="warning", code="kit-grace", text="old", hint="ask"),)
    world.bus.unplug_all()

    assert "kit-grace" in [m.code for m in use_case.plan(world.context(), "acme").messages]
    assert "kit-grace" in [m.code for m in use_case.install(world.context(), "acme", silent=True, part="system").messages]


# -- the program ------------------------------------------------------------------------------------------------------


def program(tree: Path, kit: LayeredRepository, *arguments: object, before: tuple[str, ...] = ()) -> dict[str, Any]:  # noqa: F811
    """keyfit plan from the kit's disc, on the kit's root."""
    (tree.parent / "media.json").write_bytes(kit.trusted_root)
    given = ("plan", "acme", "--json", "--root", tree, "--source", kit.folder.parent, "--trust-root",
             tree.parent / "media.json", "--cache-dir", tree.parent / "cache", *arguments)
    if not before:
        return document(keyfit(*given))
    done = subprocess.run([*before, sys.executable, "-m", "keyfit", *map(str, given)], capture_output=True, text=True,
                          timeout=60, cwd=CHECKOUT)
    return document(done)


def test_the_program_plans_from_a_kit_without_any_network(kit: LayeredRepository, tree: Path) -> None:  # noqa: F811
    """In a network namespace that has not even a loopback address."""
    said = program(tree, kit, before=("unshare", "-n"))

    assert said["data"]["plan"]["sequence"] == 5
    assert (tree / "var/lib/keyfit/metadata/media/root.json").exists()
    assert not (tree / "var/lib/keyfit/metadata/tuf").exists()


def test_a6_the_program_refuses_an_expired_kit_but_for_the_administrators_grace(tree: Path, tmp_path: Path) -> None:  # noqa: F811
    """A6: exit code 76, and no option that changes it."""
    kit = LayeredRepository(tmp_path / "disc" / "keyfit", days=-10)
    kit.put(by_name(ACME))
    said = program(tree, kit)
    assert (said["exit_code"], said["messages"][0]["code"]) == (76, "kit-expired")

    policy = tree / "etc/keyfit/policy.toml"
    policy.parent.mkdir()
    for days, code in ((9, "kit-expired"), (11, "kit-grace")):
        policy.write_text(f"offline_kit_grace_days = {days}\n")
        assert program(tree, kit)["messages"][0]["code"] == code


def test_the_program_tells_a_folder_without_a_kit(tree: Path, tmp_path: Path) -> None:  # noqa: F811
    done = keyfit("plan", "acme", "--json", "--root", tree, "--source", tmp_path, "--cache-dir", tmp_path / "cache")

    assert document(done)["messages"][0]["code"] == "no-kit"


def test_an_address_as_source_is_a_repository_on_its_own_root(kit: LayeredRepository, online: LayeredRepository, tree: Path,  # noqa: F811
                                                             tmp_path: Path) -> None:
    """--trust-root is then the repository's, and metadata of a kit is not signed by it."""
    (tmp_path / "root.json").write_bytes(online.trusted_root)
    for repository, code in ((online, 0), (kit, 76)):
        with HostileServer(repository.folder) as server:
            done = keyfit("plan", "acme", "--json", "--root", tree, "--source", server.url, "--trust-root",
                          tmp_path / "root.json", "--cache-dir", tmp_path / "cache")
        assert document(done)["exit_code"] == code


@pytest.mark.parametrize("part", ["system", "driver"])
def test_the_program_takes_a_part(kit: LayeredRepository, tree: Path, part: str) -> None:  # noqa: F811
    assert program(tree, kit, "--part", part)["data"]["plan"]["part"] == part
