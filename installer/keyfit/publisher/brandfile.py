"""Reads `drivers/<brand>/driver.toml` into `keyfit.model.catalog.Brand`, and tells every fault of every file at once.

Order of the checks: size and encoding, nesting, TOML syntax, size of numbers, and the conversion into the types themselves.
The published JSON schema is made from these types and forbids nothing more; a file that cannot be converted is held against
it, because it names all faults instead of the first. What the values mean together is `keyfit.publisher.lint`'s matter.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from keyfit.errors import DataError
from keyfit.model.catalog import Brand
from keyfit.publisher.schema import brand_schema
from keyfit.publisher.toml_lines import KeyPath, line_map, line_of, line_too_deep

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import ValidationError

FILE_NAME = "driver.toml"
MAX_BYTES = 256 * 1024
MAX_DEPTH = 12
MAX_INTEGER = 2**63
"""TOML 1.0 asks for 64-bit signed integers and no more ("Integer")."""
_SHOWN = 60
_AT_LINE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)\Z")
_MSGSPEC_PATH = re.compile(r" - at `\$(.*)`\Z", re.DOTALL)


def load_brand(path: Path) -> Brand:
    """Read one brand file.

    Raises:
        DataError: code "brand-file-invalid"; `problems` has every fault as "<file>:<line>: <expected>, <what came>".
    """
    brand, problems = _read(path)
    if brand is None:
        raise _error(problems)
    return brand


def load_brands(folder: Path, names: Collection[str] | None = None) -> tuple[Brand, ...]:
    """Read every `<folder>/<brand>/driver.toml`, in the order of the folders' names.

    Args:
        names: read only these folders.

    Raises:
        DataError: as for `load_brand`, over all the files; also for a folder without a file, two files for one brand,
            and a `folder` that is none.
    """
    brands: list[Brand] = []
    problems: list[str] = []
    first: dict[str, Path] = {}
    try:
        folders = sorted(folder.iterdir()) if names is None else [folder / name for name in sorted(names)]
        paths = [entry / FILE_NAME for entry in folders if entry.is_dir()]
    except OSError as error:
        raise _error([f"{folder}:1: expected a folder of brands, came: {error.strerror or error}"]) from error
    for path in paths:
        brand, found = _read(path)
        problems += found
        if brand is None:
            continue
        if brand.brand in first:
            problems.append(f"{shown_path(path)}:1: expected a brand of its own, came {brand.brand!r}, which"
                            f" {shown_path(first[brand.brand])} has already")
        first.setdefault(brand.brand, path)
        brands.append(brand)
    if problems:
        raise _error(problems)
    return tuple(brands)


def shown_path(path: Path) -> str:
    """The last three parts of a path, as in "drivers/<brand>/driver.toml", for messages that fit everyone's machine."""
    return "/".join(path.parts[-3:])


def _error(problems: Sequence[str]) -> DataError:
    count = len(problems)
    return DataError("brand-file-invalid", f"expected sound brand files, found {count} fault{'s' * (count != 1)}",
                     tuple(problems), hint="Correct the lines named above; docs/schemas/driver.schema.json says what"
                     " each field may hold.")


def _read(path: Path) -> tuple[Brand | None, list[str]]:
    """A brand, or its problems."""
    name = shown_path(path)
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        return None, [f"{name}:1: expected a readable file, came: {error.strerror or error}"]
    except ValueError as error:  # a NUL in the path
        return None, [f"{name}:1: expected a readable file, came: {error}"]
    return parse_brand(raw, name)


def parse_brand(raw: bytes, name: str) -> tuple[Brand | None, list[str]]:
    """The brand that a file's bytes describe, or None with every problem; nothing is raised for what the bytes may be.

    Args:
        name: how the file is called in the problems.
    """
    text, problem = _decode(raw)
    if problem:
        return None, [f"{name}:{problem}"]
    data, problem = _parse(text)
    if problem:
        return None, [f"{name}:{problem}"]
    faults = list(_shape_faults(data))
    if not faults:
        try:
            return msgspec.convert(data, Brand), []
        except msgspec.ValidationError as error:
            faults = list(_faults(data)) or [_conversion_fault(error)]
    lines = line_map(text)
    placed = sorted({(line_of(lines, place), fault) for place, fault in faults})
    return None, [f"{name}:{line}: {fault}" for line, fault in placed]


def _decode(raw: bytes) -> tuple[str, str]:
    """(text, "") or ("", "line: problem")."""
    if len(raw) > MAX_BYTES:
        return "", f"1: expected at most {MAX_BYTES} bytes, came more"
    try:
        return raw.decode("utf-8").replace("\r\n", "\n"), ""
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        return "", f"{line}: expected UTF-8, came byte 0x{raw[error.start]:02X}"


def _parse(text: str) -> tuple[dict[str, Any], str]:
    """(data, "") or ({}, "line: problem")."""
    import tomllib

    line = line_too_deep(text, MAX_DEPTH)
    if line:
        return {}, f"{line}: expected at most {MAX_DEPTH} levels of nesting, came more"
    try:
        return tomllib.loads(text), ""
    except ValueError as error:  # TOMLDecodeError, or int() on thousands of digits
        message = str(error)
        found = _AT_LINE.search(message)
        if found and found.group(1):
            line = int(found.group(1))
        else:
            line = text.count("\n") + 1 if found else 1
        return {}, f"{line}: expected TOML, came: {_AT_LINE.sub('', message)}"


def _faults(data: dict[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """(path, problem) of everything that the schema forbids."""
    for error in _validator().iter_errors(data):
        yield from _explain(error)


def _shape_faults(data: dict[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """Nesting and numbers that the later checks could not stand; walks without recursion."""
    waiting: list[tuple[KeyPath, Any]] = [((), data)]
    while waiting:
        path, value = waiting.pop()
        if len(path) > MAX_DEPTH:
            yield path, f"expected at most {MAX_DEPTH} levels of nesting, came more"
        elif isinstance(value, dict):
            waiting += [((*path, key), item) for key, item in value.items()]
        elif isinstance(value, list):
            waiting += [((*path, index), item) for index, item in enumerate(value)]
        elif isinstance(value, int) and not -MAX_INTEGER <= value < MAX_INTEGER:
            yield path, f"{_dotted(path)}: expected a 64-bit number, came one of {value.bit_length()} bits"


@cache
def _validator() -> "Draft202012Validator":
    from jsonschema import Draft202012Validator

    return Draft202012Validator(brand_schema())


def _explain(error: "ValidationError") -> Iterator[tuple[KeyPath, str]]:
    """(path, problem) of one fault; unions are followed into the branch that was meant."""
    path: KeyPath = tuple(error.absolute_path)
    instance: Any = error.instance
    if "propertyNames" in error.absolute_schema_path:
        path = (*path, str(instance))  # the key itself is at fault
    if error.validator == "anyOf":
        yield from _explain_union(error, path)
    elif error.validator == "additionalProperties":
        fields: Any = error.schema["properties"]  # type: ignore[index]
        for key in (key for key in instance if key not in fields):
            yield (*path, key), (f"{_dotted((*path, key))}: expected one of the fields {', '.join(sorted(fields))},"
                                 " came an unknown one")
    elif error.validator == "required":
        # each missing field is reported by itself, and only the message says which one
        needed: Any = error.validator_value
        for key in (key for key in needed if key not in instance and error.message.startswith(repr(key))):
            yield path, f"{_dotted(path)}: expected the field {key!r}, came none"
    else:
        yield path, f"{_dotted(path)}: expected {_expected(error)}, came {_came(error)}"


def _explain_union(error: "ValidationError", path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    branches: dict[int, list[ValidationError]] = {}
    for cause in error.context or ():
        branches.setdefault(int(cause.schema_path[0]), []).append(cause)
    kinds = [branch["properties"]["kind"]["enum"][0] for branch in _resolved(error) if _has_kind(branch)]
    if kinds:
        given = error.instance.get("kind") if isinstance(error.instance, dict) else None
        if not isinstance(given, str) or given not in kinds:
            yield (*path, "kind"), (f"{_dotted((*path, 'kind'))}: expected one of {', '.join(kinds)},"
                                    f" came {_shown(given) if given is not None else 'none'}")
            return
        meant = branches.get(kinds.index(given), [])
    else:  # "this or nothing": null never comes from TOML, so the other branch was meant
        meant = branches.get(0, [])
    for cause in meant:
        yield from _explain(cause)


def _resolved(error: "ValidationError") -> list[Mapping[str, Any]]:
    branches: Any = error.validator_value
    definitions = _definitions()
    return [definitions.get(str(branch.get("$ref", "")).removeprefix("#/$defs/"), branch) for branch in branches]


@cache
def _definitions() -> Mapping[str, Mapping[str, Any]]:
    definitions: Mapping[str, Mapping[str, Any]] = brand_schema()["$defs"]
    return definitions


def _has_kind(branch: Mapping[str, Any]) -> bool:
    return "enum" in branch.get("properties", {}).get("kind", {})


def _expected(error: "ValidationError") -> str:
    limit: Any = error.validator_value
    match error.validator:
        case "type":
            return f"a value of type {limit}"
        case "enum":
            return "one of " + ", ".join(_shown(value) for value in limit)
        case "pattern":
            return f"text of the form {limit}"
        case "minimum" | "maximum":
            return f"a number of at {'least' if error.validator == 'minimum' else 'most'} {limit}"
        case "minLength" | "maxLength":
            return f"at {'least' if error.validator == 'minLength' else 'most'} {limit} characters"
        case "minItems" | "maxItems":
            return f"at {'least' if error.validator == 'minItems' else 'most'} {limit} items"
        case _:
            return f"{error.validator} {_shown(limit)}"


def _came(error: "ValidationError") -> str:
    instance: Any = error.instance
    if error.validator in ("minItems", "maxItems", "minLength", "maxLength"):
        return f"{len(instance)}"
    return _shown(instance)


def _shown(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def _dotted(path: KeyPath) -> str:
    """A path as people read it: "model[0].match[2].id_product"; "the file" for the outermost table."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{_plain(part)}"
    return text.removeprefix(".") or "the file"


def _plain(key: str) -> str:
    return key if key.isascii() and key.isprintable() and len(key) <= _SHOWN else _shown(key)


def _conversion_fault(error: msgspec.ValidationError) -> tuple[KeyPath, str]:
    """(path, problem) of what the types forbid and the schema cannot say."""
    message = str(error)
    found = _MSGSPEC_PATH.search(message)
    path = _path_in(found.group(1)) if found else ()
    return path, f"{_dotted(path)}: {_MSGSPEC_PATH.sub('', message)}"


def _path_in(text: str) -> KeyPath:
    """msgspec's ".model[0].match[1].id_vendor" as a path."""
    return tuple(int(index) if index else key for key, index in re.findall(r"\.([A-Za-z0-9_]+)|\[(\d+)\]", text))
