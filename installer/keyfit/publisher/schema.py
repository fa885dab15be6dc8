"""The JSON schemas of brand files and manifests, generated from the types in `keyfit.model.catalog`.

Published in `docs/schemas/`, so that editors can check a brand file while it is written. Run as
`python -m keyfit.publisher.schema OUT_DIR`.
"""

import inspect
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keyfit.model import catalog

DIALECT = "https://json-schema.org/draft/2020-12/schema"
"""Name of the dialect (JSON Schema Core, Draft 2020-12, section 8.1.1)."""
FILES = {"driver.schema.json": catalog.Brand, "manifest.schema.json": catalog.Manifest,
         "grant.schema.json": catalog.Grant, "app.schema.json": catalog.AppManifest}
"""File name under `docs/schemas/` -> the type it describes."""


def brand_schema() -> dict[str, Any]:
    """Schema of `drivers/<brand>/driver.toml`, read as JSON data."""
    return _schema(catalog.Brand)


def manifest_schema() -> dict[str, Any]:
    """Schema of a signed device manifest."""
    return _schema(catalog.Manifest)


def write_schemas(out: Path) -> None:
    """Write the schemas into the folder `out`, which is made if it is missing."""
    out.mkdir(parents=True, exist_ok=True)
    for name, kind in FILES.items():
        (out / name).write_text(schema_text(kind), encoding="utf-8")


def schema_text(kind: type) -> str:
    """The schema of a type as it is published: indented, with a final newline."""
    return json.dumps(_schema(kind), indent=2, ensure_ascii=False) + "\n"


def _schema(kind: type) -> dict[str, Any]:
    import msgspec  # heavy enough to be kept out of the import of this module's users

    (root,), definitions = msgspec.json.schema_components((kind,), ref_template="#/$defs/{name}")
    published: dict[str, Any] = _publishable({"$schema": DIALECT, **root, "$defs": definitions})
    return published


def _publishable(node: Any) -> Any:
    """A copy with Python's end-of-text anchor turned into ECMA-262's (which JSON Schema asks for), sorted definitions
    and descriptions without the indentation of their docstrings."""
    if isinstance(node, list):
        return [_publishable(item) for item in node]
    if not isinstance(node, dict):
        return node
    out: dict[str, Any] = {}
    for key, value in node.items():
        if key == "pattern" and isinstance(value, str):
            out[key] = value.removesuffix("\\Z") + "$" if value.endswith("\\Z") else value
        elif key == "description" and isinstance(value, str):
            out[key] = inspect.cleandoc(value)
        elif key == "$defs":
            out[key] = {name: _publishable(value[name]) for name in sorted(value)}
        else:
            out[key] = _publishable(value)
    return out


def main(arguments: Sequence[str]) -> int:
    """Command line: OUT_DIR. Returns the exit code."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m keyfit.publisher.schema OUT_DIR\n")
        return 2
    write_schemas(Path(arguments[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
