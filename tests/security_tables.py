"""Writes docs/security/requirements.md and attacks.md: which tests stand for what, from the tests' own names.

    python -m tests.security_tables           write them
    python -m tests.security_tables --check   say whether they are current

A test names a requirement in its name (`test_a6_...`) or at the beginning of its docstring ("A6: ...", "A6, D2."); a file
whose own docstring begins so names it for all its tests. Attacks are found by the words that names of tests have for them; a
new test with such a name is in the table without more ado.
"""

import ast
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from msgspec import Struct

from tests.security_ids import ATTACKS, REQUIREMENTS, WHY_NOT

TESTS = Path(__file__).resolve().parent
FOLDER = TESTS.parent / "docs" / "security"
COMMAND = "python -m tests.security_tables"
MAX_NAMES = 6
"""Names that are written out for a file in the table of requirements."""
_IN_NAME = re.compile(r"(?:^test_|_)([a-k]\d{1,2})(?=_)")
_IN_TEXT = re.compile(r"((?:[A-K]\d{1,2}, )*[A-K]\d{1,2})[:.,]")

_ABOUT_TRUST = re.compile(r"conformance/|unit/trust/|flow/test_(trust|publish|serving|cli_main_job)")
"""Files whose tests may stand for an attack on the repository or on the way to it."""


class Case(Struct, frozen=True, order=True):
    """A test function. `requirements` are those that its name or docstring names, or its file's docstring."""

    file: str
    name: str
    requirements: tuple[str, ...] = ()


def every_test() -> list[Case]:
    """Every test, by file and name."""
    return sorted(test for path in TESTS.rglob("test_*.py") for test in found_in(path))


def found_in(path: Path) -> Iterator[Case]:
    """The test functions of a file."""
    module = ast.parse(path.read_text("utf-8"))
    of_all = named_in(ast.get_docstring(module))
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            found = of_all | named_in(ast.get_docstring(node)) | {name.upper() for name in _IN_NAME.findall(node.name)}
            yield Case(path.relative_to(TESTS).as_posix(), node.name, tuple(sorted(found)))


def named_in(docstring: str | None) -> set[str]:
    """The requirements at the beginning of a docstring."""
    found = _IN_TEXT.match(docstring or "")
    return set(found[1].split(", ")) if found else set()


def requirements_page(known: list[Case], why_not: Mapping[str, str] = WHY_NOT) -> str:
    """The whole page of requirements.

    Raises:
        ValueError: a test names a requirement that there is not; a requirement has neither tests nor a reason, or both.
    """
    unknown = [f"{t.file}: {t.name} names {r}" for t in known for r in t.requirements if r not in REQUIREMENTS]
    unknown += [f"a reason for {r}" for r in why_not if r not in REQUIREMENTS]
    if unknown:
        raise ValueError(f"no such requirement: {'; '.join(unknown)}")
    covered = {r: [t for t in known if r in t.requirements] for r in REQUIREMENTS}
    bare = [r for r, found in covered.items() if not found and not why_not.get(r)]
    if bare:
        raise ValueError(f"no test stands for: {', '.join(bare)}; give a reason in tests/security_ids.py")
    stale = [r for r, found in covered.items() if found and r in why_not]
    if stale:
        raise ValueError(f"tests stand for: {', '.join(stale)}; take the reason out of tests/security_ids.py")
    tested = {r: found for r, found in covered.items() if found}
    return "\n".join([
        "# Security requirements and the tests that stand for them", "",
        f"Made by `{COMMAND}` from the names and docstrings of the tests; do not edit. Files are below",
        f"`tests/`. Of many names in a file the first {MAX_NAMES} are here. What is tried against the",
        "repository and the way to it is in [another table](attacks.md), by attack.", "",
        f"{len(tested)} of {len(REQUIREMENTS)} have tests. A test stands for what it does, on the system that it runs on; it is",
        "no promise for another system.", "",
        *rows("Requirement", ((f"**{r}** {REQUIREMENTS[r]}", f) for r, f in tested.items()), MAX_NAMES),
        "", "## Not covered yet", "", "| Requirement | why |", "| --- | --- |",
        *(f"| **{r}** {REQUIREMENTS[r]} | {why_not[r]} |" for r in REQUIREMENTS if r in why_not), ""])


def attacks_page(known: list[Case]) -> str:
    """The whole page of attacks.

    Raises:
        ValueError: an attack has no test.
    """
    of_trust = [test for test in known if _ABOUT_TRUST.match(test.file)]
    by_attack = {title: [t for t in of_trust if re.search(pattern, t.name)] for title, pattern in ATTACKS.items()}
    bare = [what for what, found in by_attack.items() if not found]
    if bare:
        raise ValueError(f"no test stands for: {'; '.join(bare)}")
    return "\n".join([
        "# Attacks and the tests that stand for them", "",
        f"Made by `{COMMAND}` from the names of the tests; do not edit. Files are below `tests/`. A name may stand for many",
        "cases: `.venv/bin/pytest --collect-only -q tests/flow/test_trust_attacks.py` lists them. The requirements behind them",
        "are in [another table](requirements.md).", "",
        "`flow/test_trust_attacks.py` attacks the real program, process and all; the other files attack its parts, more closely.",
        "", *rows("Attack", by_attack.items()), ""])


def rows(title: str, content: Iterable[tuple[str, list[Case]]], at_most: int = sys.maxsize) -> Iterator[str]:
    """A table with a line for each file, and no more than so many names in it."""
    yield f"| {title} | file | tests |"
    yield "| --- | --- | --- |"
    for what, found in content:
        shown = what
        for file in sorted({test.file for test in found}):
            names = [f"`{test.name.removeprefix('test_')}`" for test in found if test.file == file]
            more = f", and {len(names) - at_most} more" if len(names) > at_most else ""
            yield f"| {shown} | {file} | {', '.join(names[:at_most])}{more} |"
            shown = ""


def pages() -> dict[Path, str]:
    """File -> what it has to say."""
    known = every_test()
    return {FOLDER / "requirements.md": requirements_page(known), FOLDER / "attacks.md": attacks_page(known)}


def main(arguments: list[str]) -> int:
    """Write the pages, or check them."""
    if arguments == ["--check"]:
        stale = [path.name for path, text in pages().items() if not path.exists() or path.read_text("utf-8") != text]
        print(f"out of date: {', '.join(stale)}; run: {COMMAND}" if stale else "current")
        return 1 if stale else 0
    for path, text in pages().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
