"""The published schemas are those of the types."""

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from keyfit.publisher import schema
from keyfit.publisher.brandfile import load_brands
from keyfit.publisher.compile import manifests

from .conftest import Write, as_new

PUBLISHED = Path(__file__).parents[3] / "docs" / "schemas"


@pytest.mark.parametrize("name", sorted(schema.FILES))
def test_the_committed_schema_is_the_generated_one(name: str) -> None:
    """If this fails: python -m keyfit.publisher.schema docs/schemas"""
    assert (PUBLISHED / name).read_text(encoding="utf-8") == schema.schema_text(schema.FILES[name])


@pytest.mark.parametrize("name", sorted(schema.FILES))
def test_the_schema_is_good_draft_2020_12_without_python_s_anchors(name: str) -> None:
    document = json.loads((PUBLISHED / name).read_text(encoding="utf-8"))

    Draft202012Validator.check_schema(document)
    assert "\\Z" not in json.dumps(document).replace("\\\\", "\\")


def test_what_is_compiled_fits_the_manifest_schema(write: Write) -> None:
    validator = Draft202012Validator(schema.manifest_schema())
    made = manifests(as_new(load_brands(write()), {}))

    assert made
    for target, data in made.items():
        assert not list(validator.iter_errors(json.loads(data))), target


def test_the_command_writes_both_files(tmp_path: Path) -> None:
    assert schema.main([str(tmp_path / "new")]) == 0
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == sorted(schema.FILES)


def test_the_command_without_a_folder_says_how_it_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert schema.main([]) == 2
    assert "OUT_DIR" in capsys.readouterr().err
