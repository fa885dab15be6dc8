"""What was withdrawn is not installed any more: not from the source that said so, and from no other."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from keyfit.app import install as use_case
from keyfit.errors import KeyfitError, Outcome, StorageError, TrustError, WithdrawnError
from keyfit.model.catalog import Brand, Revocation
from keyfit.model.policy import Policy
from keyfit.trust import floors
from keyfit.trust.repository import TufRepository
from keyfit.ui.output import envelope, failure
from tests.flow.test_first_commands import document, keyfit, tree  # noqa: F401 - a fixture
from tests.sim.brands import a_brand, a_device, a_match, a_package, facts
from tests.sim.host import SimHost, differences
from tests.sim.layered import LayeredRepository, by_device, by_name
from tests.sim.packages import SimPackage
from tests.sim.world import World, with_sequence

IDS = {"id_vendor": 0x1234, "id_product": 1}
ACME = a_brand("acme", a_match(**IDS, product="Acme*"), package=(a_package("libacme"),))
RIVAL = a_brand("rival", a_match(**IDS, product="Rival*"), package=(a_package("librival"),))
REASON = {"en": "It loses the PIN.", "zh": "会丢失密码。"}
TARGET = by_name(ACME).path
FOUR = Revocation(brand="acme", sequence=4, reason=REASON, version="1.4")


@pytest.fixture
def repository(tmp_path: Path) -> LayeredRepository:
    return LayeredRepository(tmp_path / "repository")


def version(sequence: int, brand: Brand = ACME, **fields: Any) -> Brand:
    return msgspec.structs.replace(with_sequence(brand, sequence), **fields)


def refused(client: TufRepository, target: str = TARGET) -> TrustError:
    with pytest.raises(TrustError) as caught:
        client.manifest(target)
    assert caught.value.hint
    return caught.value


def sequence(client: TufRepository, target: str = TARGET) -> int:
    manifest = client.manifest(target)
    assert manifest is not None
    return manifest.brands[0].sequence


def test_a5_a_revoked_version_is_refused_with_the_publishers_reason(repository: LayeredRepository, tmp_path: Path) -> None:
    """A5, J4."""
    repository.put(by_name(version(4), revoked=(FOUR,)))

    error = refused(repository.client(tmp_path))

    assert error.code == "revoked"
    assert "1.4" in error.message
    assert isinstance(error, WithdrawnError)
    assert error.reason == REASON


@pytest.mark.parametrize(("language", "said"), [("en", "loses the PIN"), ("zh_CN", "会丢失密码"), ("fr", "loses the PIN")])
def test_j4_the_reason_is_in_the_readers_language(language: str, said: str) -> None:
    """J4."""
    document = envelope(failure("install", WithdrawnError("revoked", "Withdrawn.", REASON, hint="Wait."), language))

    assert document["messages"][0]["text"].startswith("Withdrawn. ")
    assert said in document["messages"][0]["text"]


def test_h1_a_reason_cannot_dress_up_the_terminal() -> None:
    """H1: it may come from a stolen key."""
    hostile = {"en": "\x1b[2Jall is well\u202e\nkeyfit: done"}

    text = envelope(failure("install", WithdrawnError("revoked", "Withdrawn.", hostile)))["messages"][0]["text"]

    assert text == "Withdrawn. [2Jall is well keyfit: done"


def test_a5_a_newer_version_is_not_touched_by_the_revocation_of_an_older(repository: LayeredRepository,
                                                                         tmp_path: Path) -> None:
    """A5."""
    repository.put(by_name(version(5), revoked=(FOUR,)))

    assert sequence(repository.client(tmp_path)) == 5


def test_a5_a_version_with_a_revoked_file_is_refused(repository: LayeredRepository, tmp_path: Path) -> None:
    """A5: by the file's hash, whatever the number."""
    payload = repository.add_payload("libacme.deb", b"old driver")
    bad = Revocation(brand="acme", sha256=payload.sha256, reason=REASON, version="1.0")
    brand = version(9, package=(a_package("libacme", "deb", payload=payload),))
    repository.put(by_name(brand))
    assert sequence(repository.client(tmp_path)) == 9
    repository.put(by_name(brand, revoked=(bad,)))

    error = refused(repository.client(tmp_path))

    assert error.code == "revoked"
    assert "libacme.deb" in error.message


def test_j4_a_revoked_file_is_not_fetched_whatever_asks_for_it(repository: LayeredRepository, tmp_path: Path) -> None:
    """J4: a repair asks for files by the record, without a manifest; and the file may lie in the cache already."""
    payload = repository.add_payload("libacme.deb", b"old driver")
    client = repository.client(tmp_path)
    assert client.payload(payload).read_bytes() == b"old driver"
    repository.put(by_name(version(2), revoked=(Revocation(brand="acme", sha256=payload.sha256, reason=REASON),)))
    assert sequence(client) == 2

    with pytest.raises(WithdrawnError) as caught:
        repository.client(tmp_path).payload(payload)

    assert caught.value.code == "revoked"
    assert caught.value.reason == REASON


def test_a4_a_brand_cannot_withdraw_the_file_of_another(repository: LayeredRepository, tmp_path: Path) -> None:
    """A4: two brands may ship the same file; what one withdraws is its own version of it."""
    payload = repository.add_payload("shared.deb", b"shared")
    rival = version(1, RIVAL, package=(a_package("librival", "deb", payload=payload),))
    repository.put(by_name(version(2), revoked=(Revocation(brand="acme", sha256=payload.sha256, reason=REASON),)),
                   by_name(rival))
    client = repository.client(tmp_path)
    assert sequence(client) == 2

    assert sequence(client, by_name(RIVAL).path) == 1
    assert client.payload(payload).read_bytes() == b"shared"


def test_a5_below_the_minimum_is_refused_under_its_own_name(repository: LayeredRepository, tmp_path: Path) -> None:
    """A5."""
    repository.put(by_name(version(4), minimum={"acme": 5}))
    client = repository.client(tmp_path)
    assert refused(client).code == "below-minimum"

    repository.put(by_name(version(5), minimum={"acme": 5}))
    assert sequence(repository.client(tmp_path)) == 5


def test_a5_a_version_that_is_refused_raises_no_floor(repository: LayeredRepository, tmp_path: Path) -> None:
    """A5: only what was used may not be gone behind."""
    repository.put(by_name(version(9), revoked=(Revocation(brand="acme", sequence=9, reason=REASON),)))
    assert refused(repository.client(tmp_path)).code == "revoked"
    repository.put(by_name(version(8)))

    assert sequence(repository.client(tmp_path)) == 8


@pytest.mark.parametrize(("said", "code"), [({"minimum": {"acme": 5}}, "below-minimum"), ({"revoked": (FOUR,)}, "revoked")])
def test_a5_what_one_source_withdrew_no_other_can_bring_back(repository: LayeredRepository, tmp_path: Path,
                                                             said: dict[str, Any], code: str) -> None:
    """A5: learnt from the manifest of another device, in another repository; later manifests do not say it again."""
    stick = LayeredRepository(tmp_path / "stick")
    stick.put(by_device(0x5678, 2, RIVAL, **said))
    repository.put(by_name(version(4)), by_device(0x5678, 2, RIVAL))
    assert sequence(repository.client(tmp_path)) == 4

    assert stick.client(tmp_path, kind="media").manifest("usb/5678/0002-linux-amd64.json") is not None

    assert refused(repository.client(tmp_path)).code == code
    assert repository.client(tmp_path).manifest("usb/5678/0002-linux-amd64.json") is not None
    assert refused(repository.client(tmp_path)).code == code


def test_a5_the_minimum_only_grows(repository: LayeredRepository, tmp_path: Path) -> None:
    """A5."""
    for minimum in (5, 3):
        repository.put(by_name(version(6), minimum={"acme": minimum}))
        assert sequence(repository.client(tmp_path)) == 6
    stick = LayeredRepository(tmp_path / "stick")
    stick.put(by_name(version(4)))

    assert refused(stick.client(tmp_path, kind="media")).code == "below-minimum"


def test_a5_of_several_brands_only_the_revoked_one_is_refused(repository: LayeredRepository, tmp_path: Path) -> None:
    """A5."""
    manifest = by_device(0x1234, 1, version(4), RIVAL, revoked=(FOUR,))
    repository.put(manifest)

    offer = repository.client(tmp_path).offer(manifest.path)

    assert offer is not None
    assert [b.brand for b in offer.manifest.brands] == ["rival"]
    ((brand, error),) = [(r.brand, r.error) for r in offer.refused]
    assert (brand.brand, error.code) == ("acme", "revoked")


@pytest.mark.parametrize(("allow", "code"), [
    ("acme=4", ""), ("acme=5", "revoked"), ("rival=4", "revoked"), ("acme=40", "revoked")])
def test_a5_only_a_policy_that_names_this_very_version_lifts_it(repository: LayeredRepository, tmp_path: Path, allow: str,
                                                               code: str) -> None:
    """A5."""
    payload = repository.add_payload("libacme.deb", b"old driver")
    brand = version(4, package=(a_package("libacme", "deb", payload=payload),))
    repository.put(by_name(brand, revoked=(FOUR, Revocation(brand="acme", sha256=payload.sha256, reason=REASON))))
    client = repository.client(tmp_path, policy=Policy(allow=(allow,)))

    offer = client.offer(TARGET)

    assert offer is not None
    assert [r.error.code for r in offer.refused] == ([code] if code else [])
    assert [r.error.code for r in offer.lifted] == ([] if code else ["revoked"])
    if not code:
        assert client.payload(payload).read_bytes() == b"old driver"


def test_a5_a_policy_lifts_the_floor_for_one_version_and_does_not_lower_it(repository: LayeredRepository,
                                                                          tmp_path: Path) -> None:
    """A5."""
    repository.put(by_name(version(5)))
    assert sequence(repository.client(tmp_path)) == 5
    repository.put(by_name(version(4)))

    assert sequence(repository.client(tmp_path, policy=Policy(allow=("acme=4",)))) == 4
    assert refused(repository.client(tmp_path)).code == "rollback"


def test_a5_the_table_is_bounded_and_a_brand_that_fills_it_is_refused(repository: LayeredRepository,
                                                                     tmp_path: Path) -> None:
    """A5: what cannot be kept in mind may not be forgotten either. Other brands are as before."""
    texts = {f"{a}{b}": "x" * 400 for a in "abcdefgh" for b in "abcdefgh"} | {"en": "too long to be kept whole"}
    for begin in range(10, 10 + floors.MAX_PER_BRAND + 256, 256):
        numbers = range(begin, begin + 256)
        repository.put(by_name(version(5), RIVAL, path="usb/1234/0001-linux-amd64.json", revoked=tuple(
            Revocation(brand="acme", sequence=n, reason=texts if n == 10 else REASON) for n in numbers)))
        offer = repository.client(tmp_path).offer("usb/1234/0001-linux-amd64.json")

    assert offer is not None
    assert [b.brand for b in offer.manifest.brands] == ["rival"]
    assert [r.error.code for r in offer.refused] == ["revoked"]
    kept = msgspec.json.decode((tmp_path / "metadata" / "floors.json").read_bytes())
    assert len(kept["revoked"]) == floors.MAX_PER_BRAND
    assert kept["revoked"][0]["reason"] == {"en": "too long to be kept whole"}


def test_a5_a_table_that_would_not_end_is_refused(repository: LayeredRepository, tmp_path: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    """A5: and what is there stays as it is."""
    repository.put(by_name(version(5)))
    assert sequence(repository.client(tmp_path)) == 5
    before = (tmp_path / "metadata" / "floors.json").read_bytes()
    monkeypatch.setattr(floors, "MAX_BYTES", 1_000)
    repository.put(by_name(version(5), minimum={f"brand-{n}": 2 for n in range(100)}))

    with pytest.raises(StorageError) as caught:
        repository.client(tmp_path).manifest(TARGET)

    assert caught.value.code == "floors-full"
    assert (tmp_path / "metadata" / "floors.json").read_bytes() == before


def test_h4_a_revocation_of_nothing_is_no_revocation(repository: LayeredRepository, tmp_path: Path) -> None:
    """H4."""
    repository.put(by_name(version(5), revoked=(Revocation(brand="acme", reason=REASON),)))

    assert refused(repository.client(tmp_path)).code == "manifest-invalid"


# -- the use cases ----------------------------------------------------------------------------------------------------


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A machine with Acme's token, version 5 of whose data is installed."""
    host = SimHost(tmp_path / "machine", **{k: getattr(facts(), k) for k in ("machine", "running_services")})
    host.offer(SimPackage(name="libacme"), SimPackage(name="librival"))
    made = World(tmp_path, host, [version(5), RIVAL])
    use_case.install(made.context(), "acme", silent=True)
    made.bus.plug(a_device(product="Acme Token"))
    return made


def install_refused(world: World) -> KeyfitError:
    before = world.host.snapshot()
    with pytest.raises(KeyfitError) as caught:
        use_case.install(world.context(), None)
    assert differences(before, world.host.snapshot()) == []
    assert caught.value.outcome is Outcome.TRUST
    return caught.value


def test_a5_a_version_older_than_the_installed_is_refused(world: World) -> None:
    """A5: nothing but the record of this machine knows it."""
    world.repository.brands[0] = version(4)

    assert install_refused(world).code == "older-than-installed"

    world.policy = Policy(allow=("acme=3", "acme=5"))
    assert install_refused(world).code == "older-than-installed"


def test_a5_a_policy_that_names_the_older_version_lets_it_in_and_says_so(world: World) -> None:
    """A5."""
    world.repository.brands[0] = version(4)
    world.policy = Policy(allow=("acme=4",))

    result = use_case.plan(world.context(), None)

    assert result.data["plan"]["sequence"] == 4
    assert ("warning", "allowed-by-policy") in [(m.level, m.code) for m in result.messages]


def test_a5_after_it_was_uninstalled_nothing_is_older_than_the_installed(world: World) -> None:
    """A5: the floors are for that, not the record."""
    from keyfit.app import maintain

    maintain.uninstall(world.context(), "acme")
    world.repository.brands[0] = version(4)

    assert use_case.plan(world.context(), None).data["plan"]["sequence"] == 4


def test_a5_a_withdrawn_brand_is_told_only_when_it_would_be_chosen(world: World) -> None:
    """A5: the same ids, told apart by the product's name."""
    world.repository.withdrawn["rival", 1] = WithdrawnError("revoked", "Withdrawn.", REASON, hint="Wait.")
    assert use_case.plan(world.context(), None).data["plan"]["brand"] == "acme"

    world.bus.plugged = [a_device(product="Rival Token")]

    error = install_refused(world)
    assert isinstance(error, WithdrawnError)
    assert error.reason == REASON


@pytest.mark.parametrize("silent", [True, False])
def test_j2_no_switch_lifts_a_withdrawal(world: World, silent: bool) -> None:
    """J2, A5."""
    world.repository.withdrawn["rival", 1] = WithdrawnError("revoked", "Withdrawn.", REASON, hint="Wait.")
    world.bus.plugged = []

    with pytest.raises(WithdrawnError):
        use_case.install(world.context(), "rival", silent=silent, hand_off=False)


def test_a5_a_saved_plan_does_not_outlive_a_withdrawal(world: World, tmp_path: Path) -> None:
    """A5, J4."""
    from keyfit.ui.commands.plan import save

    world.bus.plugged = [a_device(product="Rival Token")]
    save(tmp_path / "plan.json", use_case.plan(world.context(), None).data["plan"])
    world.repository.withdrawn["rival", 1] = WithdrawnError("revoked", "Withdrawn.", REASON, hint="Wait.")

    with pytest.raises(WithdrawnError):
        use_case.apply(world.context(), tmp_path / "plan.json")


# -- the program ------------------------------------------------------------------------------------------------------


def program(tree: Path, repository: LayeredRepository, *arguments: str, **environment: str) -> dict[str, Any]:  # noqa: F811
    (tree.parent / "root.json").write_bytes(repository.trusted_root)
    return document(keyfit("plan", "acme", "--json", "--root", tree, "--repository", repository.folder, "--trust-root",
                           tree.parent / "root.json", "--cache-dir", tree.parent / "cache", *arguments, **environment))


def test_a5_j4_the_program_names_the_reason_and_obeys_the_policy_of_the_tree_alone(
        repository: LayeredRepository, tree: Path) -> None:  # noqa: F811
    """A5, J4, D6: exit code 76; a policy in the user's directories or in the environment is no policy."""
    repository.put(by_name(version(4), revoked=(FOUR,)))
    home = tree.parent / "home"
    for place in (home / ".config/keyfit", home / "etc/keyfit"):
        place.mkdir(parents=True)
        (place / "policy.toml").write_text('allow = ["acme=4"]\n')

    said = program(tree, repository, "--lang", "zh_CN", HOME=str(home), XDG_CONFIG_HOME=str(home / ".config"),
                   KEYFIT_ALLOW="acme=4", KEYFIT_POLICY=str(home / "etc/keyfit/policy.toml"))
    assert (said["exit_code"], said["messages"][0]["code"]) == (76, "revoked")
    assert "会丢失密码" in said["messages"][0]["text"]

    policy = tree / "etc" / "keyfit" / "policy.toml"
    policy.parent.mkdir()
    policy.write_text('allow = ["acme=4"]\n')
    said = program(tree, repository)
    assert said["data"]["plan"]["sequence"] == 4
    assert said["messages"][0]["code"] == "allowed-by-policy"

    policy.write_text('allows = ["acme=4"]\n')
    said = program(tree, repository)
    assert (said["exit_code"], said["messages"][0]["code"]) == (78, "policy-unknown-key")
