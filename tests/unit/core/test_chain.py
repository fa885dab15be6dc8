"""The first broken link, and when a token counts as working."""

from typing import Any

import pytest

from keyfit.core.chain import Evidence, judge
from keyfit.model.certificate import ModuleReport, Reader, SlotReport
from tests.sim.brands import a_device

READER = Reader(name="Acme One 00 00", atr="3B00")
SLOT = SlotReport(slot="Acme One 00 00", label="token", model="One", manufacturer="Acme", initialised=True,
                  login_required=True, pin_initialised=True, pin_to_be_changed=False, pin_count_low=False,
                  pin_final_try=False, pin_locked=False)
MODULE = ModuleReport(path="/usr/lib/acme.so", loaded=True, description="Acme 1.0", slots=(SLOT,))


def evidence(**changed: Any) -> Evidence:
    given: dict[str, Any] = {
        "brand": "acme", "brand_name": "Acme", "device": a_device(), "readers": (READER,),
        "expected_readers": ("Acme One",), "modules": (MODULE,), "browsers": {"firefox": True}, **changed}
    return Evidence(**given)


def test_a_token_that_answers_works() -> None:
    verdict = judge(evidence())

    assert verdict.works
    assert {link.state for link in verdict.links} == {"ok"}


@pytest.mark.parametrize(
    ("changed", "link"),
    [
        ({"device": None}, "bus"),
        ({"missing": ("Install libacme",)}, "driver"),
        ({"readers": None, "reader_error": "no daemon"}, "reader"),
        ({"readers": ()}, "reader"),
        ({"readers": (Reader(name="Other 00 00", atr="3B00"),)}, "reader"),
        ({"readers": (Reader(name="Acme One 00 00"),)}, "reader"),
        ({"shows_disc": True}, "reader"),
        ({"modules": (ModuleReport(path="/x", loaded=False, error="it crashed"),)}, "module"),
        ({"modules": (ModuleReport(path="/x", loaded=True),)}, "token"),
        ({"browsers": {"firefox": False}}, "browser-firefox"),
    ],
)
def test_each_broken_link_is_named_and_what_hangs_on_it_is_not_looked_at(changed: dict[str, Any], link: str) -> None:
    verdict = judge(evidence(**changed))
    broken = verdict.first_broken

    assert broken is not None
    assert broken.id == link
    assert not verdict.works
    assert broken.text
    assert broken.cure or changed.get("readers", ()) is None
    after = [k.state for k in verdict.links[verdict.links.index(broken) + 1 :]]
    assert set(after) <= {"not-checked"} or link.startswith("browser")


def test_a_slot_without_a_reader_behind_it_proves_nothing() -> None:
    """Some modules report a token in slot 0 on a machine with no reader at all."""
    device = a_device(classes=(0x0B,))

    verdict = judge(evidence(device=device, readers=(Reader(name="Acme One 00 00"),)))

    assert not verdict.works


def test_without_a_module_the_reader_s_answer_is_the_proof() -> None:
    assert judge(evidence(modules=())).works


def test_files_in_place_alone_are_no_proof() -> None:
    """A token that neither PC/SC nor a module can ask is not said to work."""
    verdict = judge(evidence(device=a_device(classes=(0x03,)), modules=(), readers=(), expected_readers=()))

    assert not verdict.works
    assert verdict.first_broken is None
