"""What the commands share: their options, the publisher's directory, and how a change is told."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from msgspec import structs

from keyfit.errors import DataError, UserError
from keyfit.model.result import Message, OperationResult

if TYPE_CHECKING:
    from keyfit.publisher.keyring import AskSecret
    from keyfit.publisher.release import Outcome, Workplace
    from keyfit.publisher.repository import Published

F = TypeVar("F", bound=Callable[..., Any])
DIR = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)
EXISTING = click.Path(path_type=Path, exists=True)

_PIN_FILE = "keyfit.pin_file"
"""Where the option's value waits in click's context until a device asks for it."""


def passphrase_option(function: F) -> F:
    """Add `--passphrase-file`, which the command is given, and `--pin-file`, which `ask_secret` finds."""
    function = click.option("--pin-file", type=FILE, metavar="FILE", expose_value=False, callback=_keep_pin_file,
                            help="PIN of a PKCS#11 device; without it you are asked.")(function)
    return click.option("--passphrase-file", type=FILE, metavar="FILE",
                        help="Passphrase of the key files; without it you are asked.")(function)


def _keep_pin_file(context: click.Context, _option: click.Parameter, value: Path | None) -> None:
    if value is not None:
        context.meta[_PIN_FILE] = value


drivers_option = click.option("--drivers", type=click.Path(path_type=Path), default=Path("drivers"), show_default=True,
                              metavar="DRIVERS", help="Folder of brand data.")
replace_option = click.option("--replace", is_flag=True, help="Drop a signing request that waits.")


def workplace(folder: Path, passphrase_file: Path | None = None) -> "Workplace":
    """The publisher's directory; secrets are asked for when they are needed.

    Raises:
        UserError: code "no-repository-here".
    """
    from keyfit.publisher.release import Workplace

    work = Workplace(folder, ask_secret(passphrase_file))
    work.require()
    return work


def checked_brands(drivers: Path, names: Sequence[str] | None = None) -> tuple[Any, Any]:
    """(brands, warnings) of a folder of brand data.

    Args:
        names: only these brands; the others are not read.

    Raises:
        DataError: code "no-such-brand", "brand-file-invalid" or "lint-failed".
    """
    from keyfit.publisher.brandfile import FILE_NAME, load_brands
    from keyfit.publisher.lint import lint

    missing = tuple(name for name in names or () if not (drivers / name / FILE_NAME).is_file())
    if missing:
        raise DataError("no-such-brand", f"expected these brands in {drivers}, they are not there", missing)
    brands = load_brands(drivers, names)
    problems = lint(brands, drivers, names)
    errors = tuple(str(p) for p in problems if p.level == "error")
    if errors:
        raise DataError("lint-failed", f"expected sound brand data, found {len(errors)} faults", errors,
                        hint="Correct the lines named above.")
    return brands, tuple(p for p in problems if p.level == "warning")


def index(folder: Path) -> Any:
    """Which package files were added."""
    from keyfit.publisher.packages import PackageIndex

    return PackageIndex(folder / "packages.json", folder / "repository" / "payloads")


def ask_secret(file: Path | None) -> "AskSecret":
    """Secrets from files, or typed."""
    context = click.get_current_context(silent=True)
    pin_file: Path | None = context.meta.get(_PIN_FILE) if context is not None else None
    return lambda kind: secret(pin_file if kind == "pin" else file, kind)


def secret(file: Path | None, kind: str = "passphrase", *, new: bool = False) -> bytes:
    """A passphrase or PIN from a file, or typed.

    Raises:
        UserError: the file is empty or cannot be read.
    """
    if file is None:
        what = "PIN of the device" if kind == "pin" else "Passphrase of the keys"
        typed: str = click.prompt(what, hide_input=True, confirmation_prompt=new, err=True)
        return typed.encode()
    try:
        read = file.read_bytes().rstrip(b"\r\n")
    except OSError as error:
        raise UserError("no-such-file", f"{file} cannot be read: {error.strerror}.") from error
    if not read:
        raise UserError("passphrase-needed", f"Expected a {kind} in {file}, it is empty.")
    return read


def told(command: str, outcome: "Outcome", *lines: str, warnings: tuple[Message, ...] = (),
         data: dict[str, Any] | None = None) -> OperationResult:
    """A change that was published, or that waits for signatures, in words and as data."""
    from keyfit.publisher.output import done

    more = dict(data or {})
    if outcome.published is not None:
        return done(command, more | {"complete": True} | structs.asdict(outcome.published),
                    *lines, *published_words(outcome.published), warnings=warnings)
    return done(command, more | {"complete": False, "request": str(outcome.request), "missing": [
        {"role": m.role, "needed": m.needed, "keyids": list(m.keyids)} for m in outcome.lacking]},
        *lines, f"Not published yet: the signing request {outcome.request} waits for",
        *(f"  {line}" for line in outcome.words),
        "Each of them runs: keyfit-publish sign request.json --key FILE-OR-ADDRESS; then here: keyfit-publish sign DIR"
        " --request request.json", warnings=warnings)


def published_words(published: "Published") -> tuple[str, ...]:
    """What was published, in words."""
    whole = f"{published.targets} manifests, " if published.targets is not None else ""
    return (f"Published: {whole}{published.changed_targets or 'none'} of them new or changed;"
            f" {published.changed_bins or 'no'} bins signed anew." if whole else
            f"Published: {published.changed_targets or 'no'} manifests new or changed; {published.changed_bins or 'no'} bins"
            " signed anew.", "Expires: " + ", ".join(f"{role} {moment[:10]}" for role, moment in sorted(
                published.expires.items(), key=lambda e: e[1])) + ".")
