"""The tables of requirements and attacks are made from the tests, and those in the documentation are the current ones."""

from pathlib import Path

import pytest

from tests import security_tables
from tests.security_ids import REQUIREMENTS, WHY_NOT
from tests.security_tables import (
    COMMAND,
    MAX_NAMES,
    Case,
    attacks_page,
    every_test,
    found_in,
    pages,
    requirements_page,
)

NUMBER = {"A": 9, "B": 7, "C": 10, "D": 7, "E": 5, "F": 5, "G": 5, "H": 4, "I": 2, "J": 4, "K": 8}
"""How many requirements each letter has."""


def test_the_tables_are_current() -> None:
    assert {path: path.read_text("utf-8") for path in pages()} == pages(), f"run: {COMMAND}"


def test_no_requirement_is_left_out() -> None:
    assert list(REQUIREMENTS) == [f"{letter}{n}" for letter, last in NUMBER.items() for n in range(1, last + 1)]
    assert len(REQUIREMENTS) == 66
    page = (security_tables.FOLDER / "requirements.md").read_text("utf-8")
    assert all(page.count(f"**{r}** {text} |") == 1 for r, text in REQUIREMENTS.items())


def test_ids_come_from_names_and_from_the_beginning_of_docstrings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security_tables, "TESTS", tmp_path)
    path = tmp_path / "test_example.py"
    tests = ('def test_a2_a7_both():\n    """F3, D2: more (CVE-2024-47081, TAP 15), but not C1, C2."""\n\n'
             'def test_none():\n    """Paper A4: A5 is smaller."""\n\ndef helper_a1_():\n    pass\n')
    path.write_text(tests)

    assert {t.name: t.requirements for t in found_in(path)} == {"test_a2_a7_both": ("A2", "A7", "D2", "F3"), "test_none": ()}

    path.write_text(f'"""I1: of all."""\n{tests}')
    assert {t.name: t.requirements for t in found_in(path)} == {
        "test_a2_a7_both": ("A2", "A7", "D2", "F3", "I1"), "test_none": ("I1",)}


def test_an_attack_without_a_test_is_named() -> None:
    with pytest.raises(ValueError, match="Retry-After"):
        attacks_page([test for test in every_test() if "retry_after" not in test.name])


def test_a_requirement_without_test_and_reason_is_named() -> None:
    with pytest.raises(ValueError, match=r"no test stands for: A3, H1;"):
        requirements_page([t for t in every_test() if not {"A3", "H1"} & set(t.requirements)])
    with pytest.raises(ValueError, match=r"no test stands for: K7;"):
        requirements_page(every_test(), {r: why for r, why in WHY_NOT.items() if r != "K7"})


def test_a_requirement_with_test_and_reason_is_named() -> None:
    with pytest.raises(ValueError, match=r"tests stand for: A1;"):
        requirements_page(every_test(), {**WHY_NOT, "A1": "later"})


@pytest.mark.parametrize("name", ["A10", "K9", "C0"])
def test_an_id_that_there_is_not_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"unit/test_x.py: test_y names {name}"):
        requirements_page([*every_test(), Case("unit/test_x.py", "test_y", (name,))])
    with pytest.raises(ValueError, match=f"a reason for {name}"):
        requirements_page(every_test(), {**WHY_NOT, name: "?"})


def test_of_many_tests_the_number_is_told() -> None:
    many = [Case("unit/test_x.py", f"test_{n}", ("F4",)) for n in range(MAX_NAMES + 3)]
    line = next(line for line in requirements_page([*every_test(), *many]).splitlines() if "| unit/test_x.py |" in line)
    assert line.count("`") == 2 * MAX_NAMES
    assert line.endswith(", and 3 more |")
