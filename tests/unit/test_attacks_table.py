"""The table of attacks says what the tests cover now."""

from pathlib import Path

from tests import attacks

DOCUMENT = Path(__file__).parents[2] / "docs" / "security" / "attacks.md"


def test_the_table_is_current() -> None:
    """If this fails: python -m tests.attacks docs/security/attacks.md"""
    assert DOCUMENT.read_text("utf-8") == attacks.table()


def test_every_attack_has_a_test() -> None:
    by_attack = attacks.table().partition("## By attack")[2]

    assert by_attack.count("| `") == 0  # a row begins with the attack's name
    assert [line for line in by_attack.splitlines() if "none yet" in line] == []
    assert len([line for line in by_attack.splitlines() if "test_" in line]) == len(attacks.ATTACKS)
