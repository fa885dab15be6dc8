"""The options that every command takes, before or after the command's name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from msgspec import Struct

F = TypeVar("F", bound=Callable[..., Any])


class Options(Struct, kw_only=True):
    """What the command line and the environment said. Paths are absolute."""

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    lang: str = "en"
    root: Path | None = None
    state_dir: Path | None = None
    cache_dir: Path | None = None
    repository: tuple[str, ...] = ()
    trust_root: Path | None = None
    emulate: Path | None = None
    source: str | None = None


_PATH = click.Path(path_type=Path)

_OPTIONS = [
    click.option("--json", "json", is_flag=True, default=None, help="Print one JSON document and nothing else."),
    click.option("--quiet", is_flag=True, default=None, help="Print errors only."),
    click.option("--verbose", is_flag=True, default=None, help="Print every detail."),
    click.option("--lang", metavar="CODE", help="Language of brand names and instructions, for example zh_CN."),
    click.option("--root", type=_PATH, metavar="DIR", help="Install into this tree instead of /."),
    click.option("--state-dir", type=_PATH, metavar="DIR", help="Where the record of changes is kept."),
    click.option("--cache-dir", type=_PATH, metavar="DIR", help="Where downloads are kept."),
    click.option("--repository", multiple=True, metavar="URL", help="Signed repository (https, or file); repeatable."),
    click.option("--trust-root", type=_PATH, metavar="FILE", help="Trusted root metadata of the repository."),
    click.option("--emulate", type=_PATH, metavar="FILE", help="Use a recorded token instead of the USB bus."),
]


source_option = click.option("--source", metavar="DIR-OR-URL",
                             help="Take the signed data from this offline kit, or from this repository.")
"""For the commands that install; --trust-root is then the kit's."""
part_option = click.option("--part", type=click.Choice(["system", "driver"]),
                           help="Only what prepares the system, or only the brand's own driver.")


def common(function: F) -> F:
    """Add the options to a command or group."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def merge(options: Options, given: dict[str, Any]) -> dict[str, Any]:
    """Put the common options of `given` into `options` (what is given last wins) and return the rest."""
    rest = dict(given)
    for name in Options.__struct_fields__:
        if name not in rest:
            continue
        value = rest.pop(name)
        if value in (None, ()):
            continue
        setattr(options, name, value.absolute() if isinstance(value, Path) else value)
    return rest
