"""Which brand a device is of, and why the others lost."""

from hypothesis import given
from hypothesis import strategies as st

from keyfit.core.match import RANK_ATR, RANK_CLASS, RANK_PRODUCT, decide, why_lost
from tests.sim.brands import a_brand, a_device, a_match

IDS = {"id_vendor": 0x1234, "id_product": 0x0001}


def test_exact_ids_win_over_the_class_driver() -> None:
    own = a_brand("acme", a_match(**IDS))
    general = a_brand("general", a_match(b_interface_class=0x0B), class_driver=True)

    decision = decide(a_device(), [general, own])

    assert decision.chosen is not None
    assert decision.chosen.brand is own
    assert [c.rank for c in decision.candidates] == [RANK_PRODUCT, RANK_CLASS]


def test_a_class_driver_serves_a_device_but_names_no_brand() -> None:
    general = a_brand("general", a_match(b_interface_class=0x0B), class_driver=True)

    decision = decide(a_device(0x9999, 0x9999), [general])

    assert decision.chosen is not None
    assert decision.brand is None
    assert decision.is_token


def test_nothing_claims_a_mouse() -> None:
    decision = decide(a_device(0x9999, 1, classes=(0x03,)), [a_brand("acme", a_match(**IDS))])

    assert decision.chosen is None
    assert not decision.is_token
    assert decision.candidates == ()


def test_the_product_string_tells_two_brands_with_the_same_ids_apart() -> None:
    one = a_brand("one", a_match(**IDS, product="Token *"))
    two = a_brand("two", a_match(**IDS, product="Other"))

    decision = decide(a_device(product="Token JC"), [one, two])

    assert decision.brand is one
    assert "'Token JC', asked for 'Other'" in why_lost(decision)[("two", "one")]


def test_c9_same_ids_but_another_interface_class_is_not_the_brand() -> None:
    """A gadget that forges the ids of a brand, but is no smart-card device."""
    brand = a_brand("acme", a_match(**IDS, b_interface_class=0x0B))

    assert decide(a_device(classes=(0x08,)), [brand]).chosen is None
    assert decide(a_device(classes=(0x03, 0x0B)), [brand]).brand is brand


def test_two_brands_that_fit_equally_are_a_tie_until_the_atr_is_known() -> None:
    one = a_brand("one", a_match(**IDS, atr=("3B00??",)))
    two = a_brand("two", a_match(**IDS, atr=("3B1122",)))

    without = decide(a_device(), [one, two])
    known = decide(a_device(), [one, two], atr="3B0017")

    assert without.chosen is None
    assert without.tied == ("one", "two")
    assert known.brand is one
    assert known.chosen is not None
    assert known.chosen.rank == RANK_PRODUCT + RANK_ATR


def test_bcd_device_range_has_both_ends_included() -> None:
    brand = a_brand("acme", a_match(**IDS, bcd_device_min=0x0200, bcd_device_max=0x0201))

    fits = {bcd: decide(a_device(bcd_device=bcd), [brand]).chosen is not None
            for bcd in (0x01FF, 0x0200, 0x0201, 0x0202)}

    assert fits == {0x01FF: False, 0x0200: True, 0x0201: True, 0x0202: False}


def test_two_models_of_one_brand_are_no_tie() -> None:
    brand = a_brand("acme", a_match(**IDS), a_match(**IDS, product="Pro"))

    decision = decide(a_device(product="Pro"), [brand])

    assert decision.tied == ()
    assert decision.brand is brand


@given(st.permutations(["alpha", "beta", "gamma", "delta"]), st.integers(0, 0xFFFF))
def test_the_order_of_the_brands_does_not_matter(order: list[str], bcd: int) -> None:
    brands = {
        "alpha": a_brand("alpha", a_match(**IDS)),
        "beta": a_brand("beta", a_match(**IDS, bcd_device_max=0x0FFF)),
        "gamma": a_brand("gamma", a_match(id_vendor=0x1234)),
        "delta": a_brand("delta", a_match(b_interface_class=0x0B), class_driver=True),
    }
    decision = decide(a_device(bcd_device=bcd), [brands[n] for n in order])

    assert decision.brand is (brands["beta"] if bcd <= 0x0FFF else brands["alpha"])
    assert [c.rank for c in decision.candidates] == sorted((c.rank for c in decision.candidates), reverse=True)
