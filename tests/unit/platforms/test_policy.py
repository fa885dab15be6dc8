"""The administrator's policy file: understood as a whole, or refused with the name of what is wrong."""

import os
from pathlib import Path

import pytest

from keyfit.errors import Outcome, PolicyError
from keyfit.model.policy import Policy
from keyfit.platforms.linux.policy import read_policy


@pytest.fixture
def file(tmp_path: Path) -> Path:
    folder = tmp_path / "etc" / "keyfit"
    folder.mkdir(parents=True)
    return folder / "policy.toml"


def refused(root: Path) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        read_policy(str(root))
    assert caught.value.hint
    assert caught.value.outcome is Outcome.FORBIDDEN
    return caught.value


def test_no_file_says_nothing(tmp_path: Path) -> None:
    assert read_policy(str(tmp_path)) == Policy()
    (tmp_path / "etc").write_text("a file")
    assert read_policy(str(tmp_path)) == Policy()


def test_what_the_administrator_wrote(file: Path, tmp_path: Path) -> None:
    file.write_text('offline_kit_grace_days = 30\nallow = ["acme=4", "rival-2=17"]\n')

    policy = read_policy(str(tmp_path))

    assert policy.offline_kit_grace_days == 30
    assert policy.allows("acme", 4)
    assert not policy.allows("acme", 5)
    assert not policy.allows("acme", 44)
    assert not policy.allows("cme", 4)


@pytest.mark.parametrize(("text", "code", "names", "expected"), [
    ("offline_kit_grace = 3", "policy-unknown-key", "offline_kit_grace", "offline_kit_grace_days"),
    ('offline_kit_grace_days = "3"', "policy-wrong-value", "offline_kit_grace_days", "0 to 365"),
    ("offline_kit_grace_days = true", "policy-wrong-value", "offline_kit_grace_days", "0 to 365"),
    ("offline_kit_grace_days = 366", "policy-wrong-value", "offline_kit_grace_days", "0 to 365"),
    ("offline_kit_grace_days = -1", "policy-wrong-value", "offline_kit_grace_days", "0 to 365"),
    ("offline_kit_grace_days = 1.5", "policy-wrong-value", "offline_kit_grace_days", "0 to 365"),
    ('allow = "acme=4"', "policy-wrong-value", "allow", "list"),
    ('allow = ["acme"]', "policy-wrong-value", "allow", "acme=4"),
    ('allow = ["acme=*"]', "policy-wrong-value", "allow", "acme=4"),
    ('allow = ["acme>=4"]', "policy-wrong-value", "allow", "acme=4"),
    ('allow = ["acme=04"]', "policy-wrong-value", "allow", "acme=4"),
    ('allow = ["acme=4\\n"]', "policy-wrong-value", "allow", "acme=4"),
    ("allow = [4]", "policy-wrong-value", "allow", "acme=4"),
    ("allow = {acme = 4}", "policy-wrong-value", "allow", "acme=4"),
    ("[skip_checks]\nall = true", "policy-unknown-key", "skip_checks", "allow"),
    ("offline_kit_grace_days = ", "policy-invalid", "", "TOML"),
    ("x = " + "9" * 5000, "policy-invalid", "", "TOML"),
    ("x = " + "[" * 5000, "policy-invalid", "", "TOML"),
    ("\udcff", "policy-invalid", "", "TOML"),
    ("#" * 70_000, "policy-invalid", "", "65536"),
], ids=range(20))
def test_anything_else_is_refused_whole_and_named(file: Path, tmp_path: Path, text: str, code: str, names: str,
                                                  expected: str) -> None:
    file.write_bytes(b'allow = ["acme=4"]\n' * (not text.startswith("allow")) + text.encode(errors="surrogateescape"))

    error = refused(tmp_path)

    assert error.code == code
    assert names in error.message
    assert expected in error.message


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_d6_a_file_that_others_may_write_is_no_policy(file: Path, tmp_path: Path, mode: int) -> None:
    """D6: whoever may write it could allow a withdrawn driver."""
    file.write_text('allow = ["acme=4"]')
    file.chmod(mode)

    assert refused(tmp_path).code == "policy-unsafe"


def test_d6_a_directory_that_others_may_write_is_no_place_for_a_policy(file: Path, tmp_path: Path) -> None:
    """D6: there another file can be put in its place."""
    file.write_text('allow = ["acme=4"]')
    file.parent.chmod(0o777)

    assert refused(tmp_path).code == "policy-unsafe"


def test_d6_a_file_of_an_ordinary_user_is_no_policy(file: Path, tmp_path: Path) -> None:
    """D6: not even in a tree that is theirs."""
    file.write_text('allow = ["acme=4"]')
    os.chown(file, 1000, -1)

    assert refused(tmp_path).code == "policy-unsafe"


def test_d3_a_link_is_followed_inside_the_tree_and_what_it_leads_to_is_looked_at(file: Path, tmp_path: Path) -> None:
    """D3: a link to a file that an ordinary user can write would be as good as the file."""
    elsewhere = tmp_path / "home"
    elsewhere.mkdir(mode=0o777)
    elsewhere.chmod(0o777)
    (elsewhere / "policy.toml").write_text('allow = ["acme=4"]')
    file.symlink_to("/home/policy.toml")

    assert refused(tmp_path).code == "policy-unsafe"


@pytest.mark.parametrize("what", ["directory", "fifo"])
def test_what_is_no_file_is_no_policy(file: Path, tmp_path: Path, what: str) -> None:
    file.mkdir() if what == "directory" else os.mkfifo(file)

    assert refused(tmp_path).code == "policy-unsafe"
