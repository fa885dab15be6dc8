"""Who gets a staged version."""

import hashlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyfit.core.rollout import GROUPS, effective, group
from keyfit.model.catalog import Brand, Manifest, Staged
from tests.sim.brands import a_brand, a_match

ACME = a_brand("acme", a_match(id_vendor=0x1234, id_product=1))
MACHINES = [hashlib.sha256(str(n).encode()).hexdigest()[:16] for n in range(100_000)]
machines = st.text(min_size=1, max_size=40)
shares = st.integers(0, GROUPS)


def version(sequence: int, brand: Brand = ACME) -> Brand:
    return msgspec.structs.replace(brand, sequence=sequence)


def manifest(*brands: Brand, staged: tuple[Staged, ...] = ()) -> Manifest:
    return Manifest(keyfit=1, path="brand/acme/linux-amd64.json", system="linux", architecture="amd64", brands=brands,
                    staged=staged)


def gets(share: int, machine: str, *, installed: int = 0, hold: bool = False) -> int:
    """The sequence that a machine gets, if 5 is out and 6 goes to a share."""
    staged = Staged(brand=version(6), share=share, hold=hold)
    made = effective(manifest(version(5), staged=(staged,)), machine, {"acme": installed} if installed else {})
    (brand,) = made.brands
    assert (brand.brand in made.staged) is (brand.sequence == 6)
    return brand.sequence


@given(machines, shares, shares)
def test_a_share_that_grows_never_takes_a_machine_out(machine: str, one: int, other: int) -> None:
    smaller, larger = sorted((one, other))

    assert gets(smaller, machine) <= gets(larger, machine)


@given(machines)
def test_nobody_is_in_no_share_and_everybody_in_the_whole(machine: str) -> None:
    assert gets(0, machine) == 5
    assert gets(GROUPS, machine) == 6


@given(machines)
def test_a_group_is_within_its_bounds_and_stays(machine: str) -> None:
    assert 0 <= group(machine, "acme") < GROUPS
    assert group(machine, "acme") == group(machine, "acme")


@pytest.mark.parametrize(("machine", "brand", "expected"), [
    ("0123456789abcdef", "acme", 5541), ("0123456789abcdef", "rival", 9888), ("fedcba9876543210", "acme", 9735)])
def test_the_groups_are_the_published_ones(machine: str, brand: str, expected: int) -> None:
    """Written down once: a change of the salt or the rule would move every machine in the middle of a rollout."""
    assert group(machine, brand) == expected


@pytest.mark.parametrize("share", [100, 1_000, 5_000, 9_000])
def test_of_100_000_machines_the_share_that_was_asked_for(share: int) -> None:
    among = sum(group(machine, "acme") < share for machine in MACHINES)

    assert abs(among / len(MACHINES) - share / GROUPS) < 0.01


def test_the_groups_of_two_brands_have_nothing_to_do_with_each_other() -> None:
    """Of those who are first for one brand, every tenth is first for the other: nobody is always the first."""
    first = [machine for machine in MACHINES if group(machine, "acme") < 1_000]
    both = sum(group(machine, "rival") < 1_000 for machine in first)

    assert abs(both / len(first) - 0.1) < 0.01


@given(machines, shares)
def test_a_hold_stops_it_for_those_who_do_not_have_it(machine: str, share: int) -> None:
    assert gets(share, machine, hold=True) == 5


@given(machines, shares, st.booleans())
def test_who_has_it_keeps_it(machine: str, share: int, hold: bool) -> None:
    """Neither a hold nor a share that was made smaller takes a version back."""
    assert gets(share, machine, installed=6, hold=hold) == 6


def test_a_machine_with_a_later_version_gets_what_is_nearest_to_it() -> None:
    assert gets(0, "m", installed=7) == 6


def test_a_staged_version_that_is_no_newer_counts_for_nothing() -> None:
    for sequence in (4, 5):
        made = effective(manifest(version(5), staged=(Staged(brand=version(sequence), share=GROUPS),)), "m", {})
        assert [b.sequence for b in made.brands] == [5]
        assert not made.staged


def test_of_several_staged_versions_the_latest_that_reaches_the_machine() -> None:
    staged = (Staged(brand=version(7), share=0), Staged(brand=version(6), share=GROUPS),
              Staged(brand=version(8), share=GROUPS, hold=True))

    assert [b.sequence for b in effective(manifest(version(5), staged=staged), "m", {}).brands] == [6]
    assert [b.sequence for b in effective(manifest(version(5), staged=staged), "m", {"acme": 8}).brands] == [8]


def test_a_brand_that_is_only_staged_is_there_for_its_share_alone() -> None:
    new = (Staged(brand=version(1), share=5_000),)
    inside = next(m for m in MACHINES if group(m, "acme") < 5_000)
    outside = next(m for m in MACHINES if group(m, "acme") >= 5_000)

    assert [b.brand for b in effective(manifest(staged=new), inside, {}).brands] == ["acme"]
    assert effective(manifest(staged=new), outside, {}).brands == ()


def test_other_brands_of_the_manifest_stay_as_they_are() -> None:
    rival = a_brand("rival", a_match(id_vendor=0x1234, id_product=1))
    made = effective(manifest(rival, version(5), staged=(Staged(brand=version(6), share=GROUPS),)), "m", {})

    assert [(b.brand, b.sequence) for b in made.brands] == [("rival", 1), ("acme", 6)]
