"""A brand's README.md: its fixed headings and its table of USB ids."""

import re
from collections.abc import Iterator
from pathlib import Path

HEADINGS = ("Introduction", "USB IDs", "Packages", "Privileges", "Known problems", "Sources")
"""Second-level headings of every brand's README, in this order."""
MAX_BYTES = 256 * 1024
_HEADING = re.compile(r"## +(.+?)\s*\Z")
_ROW = re.compile(r"\|\s*`([0-9A-Fa-f]{4}):([0-9A-Fa-f]{4})`\s*\|")


def readme_faults(path: Path, claimed: set[tuple[int, int]]) -> Iterator[tuple[int, str]]:
    """(line, fault) of a README: headings missing or out of order, ids missing from or only in its table.

    Args:
        path: the README.
        claimed: vendor and product ids that the brand file names.
    """
    try:
        text = path.read_bytes()[:MAX_BYTES].decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        yield 1, f"expected a readable README.md in UTF-8, came: {error.__class__.__name__}"
        return
    found: dict[str, int] = {}
    table: dict[tuple[int, int], int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        heading, row = _HEADING.match(line), _ROW.match(line)
        if heading:
            found.setdefault(heading.group(1), number)
        elif row and list(found)[-1:] == ["USB IDs"]:
            table.setdefault((int(row.group(1), 16), int(row.group(2), 16)), number)
    yield from _heading_faults(found)
    place = found.get("USB IDs", 1)
    for device in sorted(claimed - set(table)):
        yield place, f"expected a row for `{device[0]:04x}:{device[1]:04x}`, which driver.toml names"
    for device in sorted(set(table) - claimed):
        yield table[device], f"`{device[0]:04x}:{device[1]:04x}` is not in driver.toml"


def _heading_faults(found: dict[str, int]) -> Iterator[tuple[int, str]]:
    for heading in HEADINGS:
        if heading not in found:
            yield 1, f"expected the heading '## {heading}', found none"
    order = [heading for heading in found if heading in HEADINGS]
    if order != [heading for heading in HEADINGS if heading in found]:
        yield found[order[0]], f"expected the headings in the order {', '.join(HEADINGS)}, came {', '.join(order)}"
