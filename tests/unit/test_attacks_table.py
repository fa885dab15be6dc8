"""The table of attacks is made from the tests, and the one in the documentation is the current one."""

from pathlib import Path

import pytest

from tests import attacks_table
from tests.attacks_table import COMMAND, TABLE, every_test, found_in, page


def test_the_table_is_current() -> None:
    assert TABLE.read_text("utf-8") == page(every_test()), f"run: {COMMAND}"


def test_ids_come_from_names_and_docstrings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attacks_table, "TESTS", tmp_path)
    path = tmp_path / "test_example.py"
    path.write_text('def test_a2_a7_both():\n    """F3, D2: more (CVE-2024-47081, TAP 15)."""\n\n'
                    "def test_none():\n    pass\n\ndef helper_a1_():\n    pass\n")

    found = {test.name: test.requirements for test in found_in(path)}

    assert found == {"test_a2_a7_both": ("A2", "A7", "D2", "F3"), "test_none": ()}


def test_an_attack_without_a_test_is_named() -> None:
    without = [test for test in every_test() if "retry_after" not in test.name and "A3" not in test.requirements]
    with pytest.raises(ValueError, match=r"A3; Retry-After"):
        page(without)
