"""One table of outcomes: the code, the administrators' page and the output schema agree."""

import json
import re
from pathlib import Path
from typing import get_args

from keyfit.engine.steps import KINDS
from keyfit.errors import EXIT_CODES, Outcome
from keyfit.model.plan import Change

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_every_outcome_has_its_codes_and_the_page_shows_them() -> None:
    page = (DOCS / "administrators" / "index.md").read_text()
    table = page.split("## Exit codes")[1].split("## JSON")[0]
    rows = [(int(a), int(b)) for a, b in re.findall(r"\| (\d+) \| (\d+) \|", table)]

    assert rows == list(EXIT_CODES.values())
    assert set(EXIT_CODES) == set(Outcome)


def test_the_schema_knows_every_outcome_and_every_kind_of_step() -> None:
    schema = json.loads((DOCS / "schemas" / "output.schema.json").read_text())
    text = json.dumps(schema)

    assert schema["properties"]["outcome"]["enum"] == [o.value for o in Outcome]
    assert all(f'"{change.__struct_config__.tag}"' in text for change in get_args(Change))


def test_every_change_has_its_kind_of_step() -> None:
    assert set(KINDS) == set(get_args(Change))
