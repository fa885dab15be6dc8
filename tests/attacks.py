"""Makes docs/security/attacks.md from the tests: python -m tests.attacks docs/security/attacks.md

Which requirement a test covers stands in its name (`test_a4_...`) or its docstring ("A4: ..."). Which attack of a TUF client it
is, is found by words of its name, see ATTACKS; an attack without a test is shown as such.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
REQUIREMENTS: dict[str, str] = {
    "A1": "the trusted root is the one that the program carries, never one from the cache",
    "A2": "everything that the TUF conformance suite asks for",
    "A3": "the elevated side verifies everything itself, from its own trusted data",
    "A4": "a brand's key signs for that brand alone",
    "A5": "no way back to older or revoked versions",
    "A6": "nothing is accepted after its expiry; a wrong clock is named",
    "A7": "sizes, times and numbers have limits",
    "A8": "names of roles and targets are harmless",
    "A9": "signed data selects among fixed actions; it commands nothing",
    "F1": "https with the system's certificates, and nothing turns that off",
    "F2": "no trust store is changed",
    "F3": "redirects are bounded and stay on https; credentials go nowhere",
    "F4": "a sign-in page is recognised",
    "F5": "nothing personal is sent; checks are cheap",
    "K1": "keys of several people; every one of them can be replaced",
}
ATTACKS: dict[str, str] = {
    "stolen brand key": r"brands_key|brand_s_stolen_key",
    "stolen timestamp key": r"stolen_timestamp",
    "old root, forged or skipped root": r"root_rotation|roots?_|_root\b",
    "rollback of timestamp, snapshot, targets": r"rollback|went_back|set_back|goes_back",
    "fast forward, and recovery from it": r"fast_forward|worth_nothing_after",
    "freeze: old data withheld until it expires": r"expire|withheld",
    "mix and match": r"mix_and_match|hash_mismatch|delegation_not_in",
    "unsigned, half-signed, doubly counted signatures":
        r"unsigned|below_its_threshold|duplicate|counted|same_key|a_threshold|bad_signature|tampered_copy",
    "delegation tricks: loops, order, depth, diamonds": r"loop|terminat|depth|diamond|cycle",
    "odd names of roles and targets": r"odd_name|unusual|quot|name_in|names?_of_(roles|targets)|role_names?|target_names?",
    "target swapped": r"substitut|swapped|other_bytes|tampered_payload|wrong_bytes|payload_that_is_not",
    "endless data": r"endless|too_large|_longer_than|at_the_limit|more_than_(was|is)_signed",
    "drip-feed and stalled servers": r"drip|slow|silen|minimum_speed",
    "gzip bomb and broken compression": r"gzip|packed|bomb|coding",
    "redirect to http or elsewhere": r"redirect",
    "Retry-After that blocks": r"retry_after|retry",
    "malicious mirror beside a good one": r"malicious_mirror|mirror.*good_one|stale.*(mirror|address)|one_alone",
    "clock back and forward": r"clock",
    "two clients on one cache": r"two_(programs|processes)",
    "full disk in mid-refresh": r"full_(disk|in)|disk_(that|full)|is_full",
    "planted files and links in the cache": r"planted|links?_",
    "kit for another root, and kits mixed with the network": r"media_|kit.*(network|http|online|root)|online.*kit",
}
"""Attack -> words in test names."""
FOLDERS = ("flow", "conformance", "unit", "platforms", "vm")
_ABOUT_TRUST = re.compile(r"conformance/|unit/trust/|flow/test_(trust|serving|publish_(signing|brands|mirror|bundle))")
_ID = re.compile(r"\b([A-K]\d)\b")


def tests() -> Iterator[tuple[str, set[str]]]:
    """("folder/file.py::test", requirement ids) of every test, sorted."""
    for folder in FOLDERS:
        for path in sorted((HERE / folder).rglob("test_*.py")):
            module = ast.parse(path.read_text("utf-8"))
            for node in module.body:
                if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                    named = re.match(r"test_([a-k]\d)_", node.name)
                    ids = set(_ID.findall(ast.get_docstring(node) or "")) | ({named.group(1).upper()} if named else set())
                    yield f"{path.relative_to(HERE)}::{node.name}", ids


def table() -> str:
    """The whole document."""
    found = list(tests())
    trust = [name for name, _ in found if _ABOUT_TRUST.match(name)]
    lines = ["# Attacks and their tests", "",
             "Made by `python -m tests.attacks` from the tests' names and docstrings; a test fails if it is out of date.", "",
             "## By requirement", "", "| id | what is required | tests |", "| --- | --- | --- |"]
    for number, text in REQUIREMENTS.items():
        lines.append(f"| {number} | {text} | {shown([name for name, ids in found if number in ids])} |")
    lines += ["", "## By attack", "", "| attack | tests |", "| --- | --- |"]
    for attack, words in ATTACKS.items():
        matching = [name for name in trust if re.search(words, name.partition("::")[2])]
        lines.append(f"| {attack} | {shown(matching)} |")
    return "\n".join(lines) + "\n"


def shown(names: list[str]) -> str:
    """Tests file by file; "none yet" if there are none."""
    files: dict[str, list[str]] = {}
    for name in names:
        file, _, test = name.partition("::")
        files.setdefault(file, []).append(test)
    return "<br>".join(f"{file}: " + ", ".join(f"`{test}`" for test in tests) for file, tests in files.items()) or "none yet"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(table(), encoding="utf-8")
