"""A staged version on its way: who gets it, who keeps it, and whom its withdrawal must not lock out."""

from pathlib import Path

import pytest

from keyfit.app import install as use_case
from keyfit.app.select import choices
from keyfit.core.rollout import GROUPS, effective, group
from keyfit.engine.journal import Journal
from keyfit.errors import HostError, KeyfitError, TrustError
from keyfit.model.catalog import Revocation, Staged
from tests.flow.test_first_commands import document, keyfit, tree  # noqa: F401 - a fixture
from tests.sim.brands import a_brand, a_device, a_match, a_package, facts
from tests.sim.host import SimHost
from tests.sim.layered import LayeredRepository, by_name
from tests.sim.packages import SimPackage
from tests.sim.world import World, with_sequence

ACME = a_brand("acme", a_match(id_vendor=0x1234, id_product=1), package=(a_package("libacme"),))
FIVE, SIX = with_sequence(ACME, 5), with_sequence(ACME, 6)
TARGET = by_name(ACME).path
REASON = {"en": "It loses the PIN."}


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A machine with Acme's token; 5 is out, 6 is staged for nobody yet."""
    host = SimHost(tmp_path / "machine", **{k: getattr(facts(), k) for k in ("machine", "running_services")})
    host.offer(SimPackage(name="libacme"))
    made = World(tmp_path, host, [FIVE], a_device())
    made.repository.staged = [Staged(brand=SIX, share=0)]
    return made


def reach(world: World, *, inside: bool) -> None:
    """Make the share so large that this machine is just inside, or just outside."""
    world.repository.staged = [Staged(brand=SIX, share=group(world.host.facts().machine, "acme") + inside)]


def have(world: World) -> None:
    """The staged version is installed."""
    reach(world, inside=True)
    world.bus.unplug_all()
    use_case.install(world.context(), "acme", silent=True)
    world.bus.plug(a_device())


def planned(world: World, name: str | None = None) -> int:
    sequence: int = use_case.plan(world.context(), name).data["plan"]["sequence"]
    return sequence


@pytest.mark.parametrize("name", [None, "acme"])
@pytest.mark.parametrize(("inside", "sequence"), [(True, 6), (False, 5)])
def test_who_is_in_the_share_gets_the_staged_version(world: World, name: str | None, inside: bool, sequence: int) -> None:
    reach(world, inside=inside)

    assert planned(world, name) == sequence


def test_the_plan_says_that_the_version_is_staged(world: World) -> None:
    reach(world, inside=True)
    plan = use_case.plan(world.context(), None).data["plan"]
    assert any("in stages" in text for text in plan["satisfied"])

    world.repository.staged = [Staged(brand=SIX, share=GROUPS)]
    assert use_case.plan(world.context(), None).data["plan"]["id"] == plan["id"], "a share that grows changes no plan"

    reach(world, inside=False)
    assert not any("in stages" in text for text in use_case.plan(world.context(), None).data["plan"]["satisfied"])


def test_a_hold_stops_it_and_takes_nothing_back(world: World) -> None:
    held = Staged(brand=SIX, share=GROUPS, hold=True)
    world.repository.staged = [held]
    assert planned(world) == 5

    have(world)
    world.repository.staged = [held]
    assert planned(world) == 6


def test_who_has_it_keeps_it_when_the_share_is_made_smaller(world: World) -> None:
    have(world)
    world.repository.staged = [Staged(brand=SIX, share=0)]

    assert planned(world) == 6


def test_a5_when_it_is_taken_back_who_has_it_is_not_downgraded(world: World) -> None:
    """A5."""
    have(world)
    world.repository.staged = []

    with pytest.raises(KeyfitError) as caught:
        planned(world)
    assert caught.value.code == "older-than-installed"

    world.repository.brands = [with_sequence(ACME, 7)]
    assert planned(world) == 7


@pytest.mark.parametrize("elevated", [True, False])
def test_a_record_that_cannot_be_read_stops_whoever_may_change_something(world: World, tmp_path: Path,
                                                                        elevated: bool) -> None:
    """An ordinary user may still see a plan; with rights, what is installed has to be known."""
    have(world)
    world.repository.staged = []
    world.journal = Journal(tmp_path / "state")
    (tmp_path / "state").chmod(0o777)
    world.host = SimHost(tmp_path / "again", machine=world.host.facts().machine, elevated=elevated)

    if elevated:
        with pytest.raises(HostError):
            planned(world)
    else:
        assert planned(world) == 5


def test_a_new_brand_that_is_only_staged_is_unknown_to_the_others(world: World) -> None:
    world.repository.brands = []
    reach(world, inside=False)
    with pytest.raises(KeyfitError) as caught:
        planned(world)
    assert caught.value.code == "unknown-token"

    reach(world, inside=True)
    assert planned(world) == 6


def test_j4_a_staged_version_that_was_withdrawn_leaves_the_main_one(world: World) -> None:
    """J4: nobody is refused because of what they would have got."""
    reach(world, inside=True)
    world.repository.withdrawn["acme", 6] = TrustError("revoked", "Withdrawn.", hint="Wait.")

    assert planned(world) == 5


def test_a5_a_withdrawn_main_version_does_not_stop_the_staged_one(world: World) -> None:
    """A5: the cure may be the staged version; who is not in its share is told of the withdrawal."""
    world.repository.withdrawn["acme", 5] = TrustError("revoked", "Withdrawn.", hint="Wait.")
    reach(world, inside=True)
    assert planned(world) == 6

    reach(world, inside=False)
    with pytest.raises(KeyfitError) as caught:
        planned(world)
    assert caught.value.code == "revoked"


def test_a5_a_staged_version_raises_no_floor(tmp_path: Path) -> None:
    """A5: it is taken back, and 5 is as good as before."""
    repository = LayeredRepository(tmp_path / "repository")
    repository.put(by_name(FIVE, staged=(Staged(brand=with_sequence(ACME, 9), share=GROUPS),)))
    offer = repository.client(tmp_path).offer(TARGET)
    assert offer is not None
    assert [b.sequence for b in effective(offer.manifest, "m", {}).brands] == [9]

    repository.put(by_name(FIVE))
    manifest = repository.client(tmp_path).manifest(TARGET)

    assert manifest is not None
    assert manifest.brands == (FIVE,)


@pytest.mark.parametrize("withdrawal", [{"revoked": (Revocation(brand="acme", sequence=6, reason=REASON),)},
                                        {"minimum": {"acme": 7}}])
def test_j4_the_repository_leaves_a_withdrawn_staged_version_out(tmp_path: Path, withdrawal: dict[str, object]) -> None:
    """J4."""
    repository = LayeredRepository(tmp_path / "repository")
    repository.put(by_name(with_sequence(ACME, 7), staged=(Staged(brand=SIX, share=GROUPS),), **withdrawal))

    offer = repository.client(tmp_path).offer(TARGET)

    assert offer is not None
    assert [b.sequence for b in offer.manifest.brands] == [7]
    assert offer.manifest.staged == ()


def test_the_choice_names_what_is_staged(world: World) -> None:
    reach(world, inside=True)
    made = choices(world.context(), TARGET)

    assert made is not None
    assert made.staged == {"acme"}
    assert [b.sequence for b in made.brands] == [6]


def test_the_program_takes_the_group_of_the_tree(tmp_path: Path, tree: Path) -> None:  # noqa: F811
    """The whole way, with the machine's own id in the tree: just inside the share, and just outside."""
    (tree / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    repository = LayeredRepository(tmp_path / "repository")
    (tmp_path / "root.json").write_bytes(repository.trusted_root)
    machine = ""
    for share, expected in ((0, 5), (GROUPS, 6), (None, 5), (-1, 6)):
        own = group(machine, "acme") if machine else 0
        share = own if share is None else own + 1 if share == -1 else share
        repository.put(by_name(FIVE, staged=(Staged(brand=SIX, share=share),)))
        plan = document(keyfit("plan", "acme", "--json", "--root", tree, "--repository", repository.folder, "--trust-root",
                               tmp_path / "root.json", "--cache-dir", tmp_path / "cache"))["data"]["plan"]
        machine = plan["host"]["machine"]
        assert plan["sequence"] == expected
