"""Edits Firefox's policies.json: one PKCS#11 module in SecurityDevices, everything else kept.

Source: mozilla.github.io, Enterprise policy reference, SecurityDevices: {"Add": {NAME: PATH}, "Delete": [NAME]} since
Firefox 114; before that {NAME: PATH} directly, which current versions still read.
"""

import json
from typing import Any

from keyfit.errors import HostError

MAX_DEPTH_HINT = "Mend or remove the file, then run this again."


def module(data: bytes, name: str) -> str | None:
    """Path of the module registered under `name`, or None; None too if the file cannot be understood."""
    try:
        devices = _devices(_load(data))
    except HostError:
        return None
    if "Delete" in devices and isinstance(devices["Delete"], list) and name in devices["Delete"]:
        return None
    added = devices.get("Add")
    found = added.get(name) if isinstance(added, dict) else devices.get(name)
    return found if isinstance(found, str) else None


def add(data: bytes | None, name: str, path: str) -> bytes:
    """The file with the module added; `data` None makes a new one.

    Raises:
        HostError: "policies-malformed": it is no policies.json, so it is not touched.
    """
    document = {} if data is None else _load(data)
    policies = _member(document, "policies")
    devices = _member(policies, "SecurityDevices")
    flat = {k: v for k, v in devices.items() if k not in ("Add", "Delete")}
    if flat and "Add" not in devices:
        devices[name] = path  # the older form; mixing both would hide the entries that are there
    else:
        _member(devices, "Add")[name] = path
    return _dump(document)


def take_back(data: bytes, name: str, before: str | None) -> bytes:
    """The file with the module that was under this name before, or without it if there was none.

    Raises:
        HostError: "policies-malformed".
    """
    return remove(data, name) if before is None else add(data, name, before)


def remove(data: bytes, name: str) -> bytes:
    """The file without the module; what becomes empty by that is taken out too.

    Raises:
        HostError: "policies-malformed".
    """
    document = _load(data)
    policies = _member(document, "policies")
    devices = _member(policies, "SecurityDevices")
    added = devices.get("Add")
    if isinstance(added, dict):
        added.pop(name, None)
        if not added:
            devices.pop("Add")
    else:
        devices.pop(name, None)
    if not devices:
        policies.pop("SecurityDevices")
    return _dump(document)


def _devices(document: dict[str, Any]) -> dict[str, Any]:
    return _member(_member(document, "policies"), "SecurityDevices")


def _member(holder: dict[str, Any], key: str) -> dict[str, Any]:
    found = holder.setdefault(key, {})
    if not isinstance(found, dict):
        raise HostError("policies-malformed", f"In Firefox's policies.json, {key} is not an object.", hint=MAX_DEPTH_HINT)
    return found


def _load(data: bytes) -> dict[str, Any]:
    try:
        document = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise HostError("policies-malformed", f"Firefox's policies.json is not valid JSON: {error}.",
                        hint=MAX_DEPTH_HINT) from error
    if not isinstance(document, dict):
        raise HostError("policies-malformed", "Firefox's policies.json does not hold an object.", hint=MAX_DEPTH_HINT)
    return document


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def _dump(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()
