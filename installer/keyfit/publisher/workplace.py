"""A publisher's directory, as the commands find it: brand data, keys, the repository and the notes beside it."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from keyfit.errors import DataError, UserError

if TYPE_CHECKING:
    from keyfit.publisher.repository import Published, PublisherRepository

F = TypeVar("F", bound=Callable[..., Any])
LOCK_WAIT_S = 60.0
DIR = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)
EXISTING = click.Path(path_type=Path, exists=True)

passphrase_option = click.option("--passphrase-file", type=FILE, metavar="FILE",
                                 help="Passphrase of the keys; without it you are asked.")
drivers_option = click.option("--drivers", type=EXISTING, default=Path("drivers"), show_default=True, metavar="DRIVERS",
                              help="Folder of brand data.")


def checked_brands(drivers: Path) -> tuple[Any, Any]:
    """(brands, warnings) of a folder of brand data.

    Raises:
        DataError: code "brand-file-invalid" or "lint-failed".
    """
    from keyfit.publisher.brandfile import load_brands
    from keyfit.publisher.lint import lint

    brands = load_brands(drivers)
    problems = lint(brands, drivers)
    errors = tuple(str(p) for p in problems if p.level == "error")
    if errors:
        raise DataError("lint-failed", f"expected sound brand data, found {len(errors)} faults", errors,
                        hint="Correct the lines named above.")
    return brands, tuple(p for p in problems if p.level == "warning")


def require(folder: Path) -> None:
    """See that there is a repository in `folder`.

    Raises:
        UserError: code "no-repository-here".
    """
    if not (folder / "repository" / "metadata" / "timestamp.json").is_file():
        raise UserError("no-repository-here", f"Expected a publisher's directory, {folder} is none.",
                        hint=f"Make it with: keyfit-publish init {folder}")


def repository(folder: Path, passphrase_file: Path | None) -> "PublisherRepository":
    """The repository with its keys; the passphrase is asked for when an encrypted key is met."""
    from keyfit.publisher.keys import KeyStore
    from keyfit.publisher.repository import PublisherRepository

    keys = KeyStore(folder / "keys", lambda: passphrase(passphrase_file, new=False))
    return PublisherRepository(folder / "repository", keys)


def index(folder: Path) -> Any:
    """Which package files were added."""
    from keyfit.publisher.packages import PackageIndex

    return PackageIndex(folder / "packages.json", folder / "repository" / "payloads")


def passphrase(file: Path | None, *, new: bool) -> bytes:
    """From a file, or typed.

    Raises:
        UserError: the file is empty or cannot be read.
    """
    if file is None:
        typed: str = click.prompt("Passphrase of the keys", hide_input=True, confirmation_prompt=new, err=True)
        return typed.encode()
    try:
        passphrase = file.read_bytes().rstrip(b"\r\n")
    except OSError as error:
        raise UserError("no-such-file", f"{file} cannot be read: {error.strerror}.") from error
    if not passphrase:
        raise UserError("passphrase-needed", f"Expected a passphrase in {file}, it is empty.")
    return passphrase


def told(published: "Published") -> tuple[str, ...]:
    """What was published, in words."""
    return (f"Published {published.targets} manifests: {published.changed_targets} changed, in {published.changed_bins}"
            " newly signed bins.", "Expires: " + ", ".join(
                f"{role} {moment[:10]}" for role, moment in sorted(published.expires.items(), key=lambda e: e[1])) + ".")
