"""Writes docs/security/attacks.md: which tests stand for which requirement and which attack, from the tests' own names.

    python tests/attacks_table.py           write it
    python tests/attacks_table.py --check   say whether it is current

A test names a requirement in its name (`test_a6_...`) or in its docstring ("A6: ..."). Attacks are found by the words that
names of tests have for them; a new test with such a name is in the table without more ado.
"""

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from msgspec import Struct

TESTS = Path(__file__).resolve().parent
TABLE = TESTS.parent / "docs" / "security" / "attacks.md"
COMMAND = "python tests/attacks_table.py"
_IN_NAME = re.compile(r"(?:^test_|_)([a-k]\d{1,2})(?=_)")
_IN_TEXT = re.compile(r"(?<![\w-])([A-K]\d{1,2})(?=[,:. ])")

_ABOUT_TRUST = re.compile(r"conformance/|unit/trust/|flow/test_(trust|publish|serving|cli_main_job)")
"""Files whose tests may stand for an attack on the repository or on the way to it."""

REQUIREMENTS = {
    "A1": "The root of trust is the one that the program carries, never one from a cache or the network",
    "A2": "What no TUF client may accept: rollback, freeze, mix and match, too few or wrong signatures",
    "A3": "Who changes the machine verifies for itself and takes nobody's word, a saved plan's least of all",
    "A4": "A brand's key signs for that brand alone, and within its grant",
    "A5": "Nothing older than what was used, below the minimum, or withdrawn",
    "A6": "Nothing expired; a clock that is wrong is named; a clock set back is noticed",
    "A7": "Caps on size, number and time of everything that comes from outside",
    "A8": "Names of roles, targets and files lead nowhere else",
    "A9": "Signed data selects among verbs that the program has, and commands nothing",
    "F1": "https only, the system's certificate store, and no way to turn the check off",
    "F2": "No trust store is edited",
    "F3": "Redirects to https at named hosts only; no credentials in messages or to others",
    "F4": "A network that wants a sign-in is recognised",
    "F5": "Requests say the program's version and the brand, and nothing of the user or the token",
    "K1": "Keys of several people, every one of which can be replaced",
}
"""The security requirements that the repository and the way to it have to keep, in our words."""

ATTACKS = {
    "Unsigned, half-signed or forged metadata": r"unsigned|other_keys|changed_after_signing|not_a_byte|wrong_signatures"
                                                r"|signatures_of_a_tampered|below_its_threshold|tampered_metadata",
    "One key or signature counted twice": r"counted_twice|counted_several|signature_twice",
    "A forged rotation of the root, or a gap in it": r"forged_root|root_rotation|gap_between_roots|planted_root|root_planted",
    "An old root, and the keys that a rotation took away": r"old_root|revoked_key|rotation_of_other_roles|older_root",
    "A stolen timestamp key": r"stolen_timestamp",
    "A stolen brand key": r"stolen_brand|brand_s_stolen_key|brands_key|brand_speaks|exceeds_the_grant",
    "Rollback": r"rollback|rolls_back|set_back|lower_sequence|may_not_vanish|floor",
    "Fast-forward, and the way back": r"fast_forward|stolen_timestamp",
    "Freeze: old data that is shown for ever": r"frozen|freeze|withheld|expire[sd]|expired_",
    "Mix and match": r"mix_and_match|of_another_release|older_manifests|snapshot_does_not_name",
    "Wrong types, unknown fields, odd names": r"junk|in_place_of|unknown_fields|names_of|malformed|signed_data_commands",
    "Delegations: loops, order, depth, diamonds": r"test_order$|who_signs_what|terminating|depth|verified_for_each"
                                                  r"|first_that_has_it",
    "A target that was swapped": r"other_bytes|wrong_bytes|hash_algorithm|two_hashes|another_release|changed_by_one_byte",
    "Wrong software under a good signature": r"right_brand_under|under_the_name_of_another|claim_alone|grant_of_another",
    "Endless data": r"endless|without_end|never_ends|announces_more",
    "Slow retrieval, drip-feed": r"drip|slow_server|minimum_speed|total_time",
    "Retry-After": r"retry_after",
    "A gzip bomb, and other codings": r"gzip_bomb|codings_that",
    "A redirect to http, or to elsewhere": r"redirect",
    "A malicious mirror beside a good one": r"malicious_mirror|mirror_that_is_behind|mirror_with_a_date|next_address",
    "A clock set back or forward": r"clock",
    "Planted files and links": r"planted|link_in_the_folder|over_a_link|behind_a_link|half_a_metadata_folder",
    "A kit passed off as a repository, and the other way round": r"of_a_kit_is_refused|of_the_repository_is_refused|is_for_kits"
                                                                 r"|is_for_the_network|vouch_for_itself",
    "Two clients on one cache": r"two_programs_on_one|two_processes_take",
    "A full disk": r"full_disk|disk_is_full",
    "A download that is cut, killed or replaced meanwhile": r"cut_download|killed_download|killed_before"
                                                            r"|changed_on_the_server|linked_mean",
    "A sign-in page in place of data": r"sign_in",
    "A proxy in the way": r"proxy",
    "Half a release": r"read_while_it_is_published|killed_leaves_readers|killed_at_any_moment|no_moment_of_a_rotation"
                      r"|publication_cut_off",
}
"""Attack -> what tests against it are called. First what The Update Framework is made against (specification 1.0.34, client
workflow), then what it leaves to the client."""


class Test(Struct, frozen=True, order=True):
    """A test function. `requirements` are those that its name or docstring names."""

    file: str
    name: str
    requirements: tuple[str, ...] = ()


def every_test() -> list[Test]:
    """Every test, by file and name."""
    return sorted(test for path in TESTS.rglob("test_*.py") for test in found_in(path))


def found_in(path: Path) -> Iterator[Test]:
    """The test functions of a file."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            found = {name.upper() for name in _IN_NAME.findall(node.name)}
            found |= set(_IN_TEXT.findall(ast.get_docstring(node) or ""))
            yield Test(path.relative_to(TESTS).as_posix(), node.name, tuple(sorted(found)))


def page(known: list[Test]) -> str:
    """The whole page.

    Raises:
        ValueError: a requirement or an attack has no test.
    """
    by_requirement = {r: [t for t in known if r in t.requirements] for r in REQUIREMENTS}
    of_trust = [test for test in known if _ABOUT_TRUST.match(test.file)]
    by_attack = {title: [t for t in of_trust if re.search(pattern, t.name)] for title, pattern in ATTACKS.items()}
    bare = [what for what, found in {**by_requirement, **by_attack}.items() if not found]
    if bare:
        raise ValueError(f"no test stands for: {'; '.join(bare)}")
    return "\n".join([
        "# Attacks and the tests that stand for them", "",
        f"Made by `{COMMAND}` from the names and docstrings of the tests; do not edit. Files are below `tests/`. A name may",
        "stand for many cases: `.venv/bin/pytest --collect-only -q tests/flow/test_trust_attacks.py` lists them.", "",
        "`flow/test_trust_attacks.py` attacks the real program, process and all; the other files attack its parts, more closely.",
        "", "## By requirement", "", *rows("Requirement", ((f"**{r}** {REQUIREMENTS[r]}", f) for r, f in by_requirement.items())),
        "", "## By attack", "", *rows("Attack", by_attack.items()), ""])


def rows(title: str, content: Iterable[tuple[str, list[Test]]]) -> Iterator[str]:
    """A table with a line for each file."""
    yield f"| {title} | file | tests |"
    yield "| --- | --- | --- |"
    for what, found in content:
        shown = what
        for file in sorted({test.file for test in found}):
            names = ", ".join(f"`{test.name.removeprefix('test_')}`" for test in found if test.file == file)
            yield f"| {shown} | {file} | {names} |"
            shown = ""


def main(arguments: list[str]) -> int:
    """Write the page, or check it."""
    text = page(every_test())
    if arguments == ["--check"]:
        current = TABLE.exists() and TABLE.read_text("utf-8") == text
        print("current" if current else f"{TABLE.name} is out of date; run: {COMMAND}")
        return 0 if current else 1
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    TABLE.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
