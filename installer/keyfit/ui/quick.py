"""`keyfit update --check` when nothing has changed: no framework, no signed data, one small request.

It prints, from what the last strict workflow wrote down, exactly what that printed. Whatever it is not sure of it leaves to
the long way, by saying None.
"""

import os
import sys
import time
from typing import TYPE_CHECKING

from keyfit import __version__, places
from keyfit.errors import EXIT_CODES, Outcome
from keyfit.trust import poll

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

FLAGS = ("--check", "--exit-code", "--quiet", "--json")
VALUES = ("--repository", "--state-dir", "--cache-dir", "--root", "--trust-root")
ENVIRONMENT = {"--root": "KEYFIT_ROOT", "--state-dir": "KEYFIT_STATE_DIR", "--cache-dir": "KEYFIT_CACHE_DIR",
               "--repository": "KEYFIT_REPOSITORY"}


def quick_check(arguments: "Sequence[str]") -> int | None:
    """The exit code, after printing; None if the long way has to be gone, and nothing was printed."""
    given = parse(arguments, {} if places.is_elevated() else os.environ)
    if given is None:
        return None
    flags, values = given
    root, state, cache = values.get("--root", ["/"])[-1], _last(values, "--state-dir"), _last(values, "--cache-dir")
    root = os.path.realpath(root)
    if not os.path.isdir(root):
        return None
    urls = values.get("--repository") or _built_in()
    trust_root = _last(values, "--trust-root") or places.DATA + "/root.json"
    folder = places.metadata_dir(root, state, cache)
    known = poll.recall(folder, version=__version__, urls=urls, inputs=places.inputs(root, state, folder, trust_root),
                        now=time.time())
    if known is None or not poll.goes_directly(known["url"], os.environ) \
            or not poll.is_unchanged(known["url"], known["etag"], f"keyfit/{__version__}"):
        return None
    return show(known, flags)


def parse(arguments: "Sequence[str]", environment: "Mapping[str, str]") -> "tuple[set[str], dict[str, list[str]]] | None":
    """Flags, and values by option; paths are absolute. None if anything else is there: the long way knows what it means."""
    flags: set[str] = set()
    values: dict[str, list[str]] = {}
    words = iter(arguments)
    for word in words:
        name, is_given, value = word.partition("=")
        if word in FLAGS:
            flags.add(word)
        elif name in VALUES:
            value = value if is_given else next(words, "")
            if not value or value.startswith("-"):
                return None
            values.setdefault(name, []).append(value)
        else:
            return None
    for name, variable in ENVIRONMENT.items():
        if environment.get(variable) and name not in values:
            values[name] = environment[variable].split() if name == "--repository" else [environment[variable]]
    for name in VALUES[1:]:
        values.update({name: [os.path.abspath(value) for value in values[name]]} if name in values else {})
    return (flags, values) if "--check" in flags else None


def show(known: "Mapping[str, Any]", flags: "set[str]") -> int:
    """Print what is known, in the form of `keyfit.ui.output`."""
    available = "--exit-code" in flags and known["data"]["updates"]
    outcome = Outcome.UPDATES_AVAILABLE if available else Outcome.DONE
    code = EXIT_CODES[outcome][0]
    try:
        if "--json" in flags:
            import json

            messages = [dict(zip(("level", "code", "text", "hint"), message, strict=True)) for message in known["messages"]]
            print(json.dumps({"keyfit": 1, "command": "update", "outcome": outcome.value, "exit_code": code,
                              "data": known["data"], "messages": messages}, ensure_ascii=False, separators=(",", ":")))
        else:
            _print_texts(known["messages"], quiet="--quiet" in flags)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # who does not listen is not told; nor by the interpreter's end
        return 0
    return code


def _print_texts(messages: "Sequence[Sequence[str]]", *, quiet: bool) -> None:
    for level, _, text, hint in messages:
        if quiet and level != "error":
            continue
        stream = sys.stdout if level == "info" else sys.stderr
        print({"error": "Error: ", "warning": "Warning: ", "info": ""}[level] + text, file=stream)
        if hint:
            print("  " + hint, file=stream)


def _last(values: "Mapping[str, Sequence[str]]", name: str) -> str | None:
    return values[name][-1] if name in values else None


def _built_in() -> list[str]:
    try:
        with open(places.DATA + "/repositories.txt", encoding="ascii") as file:
            return file.read().split()
    except (OSError, ValueError):
        return []
