"""`keyfit-publish refresh`."""

from pathlib import Path

import click
from msgspec import structs

from keyfit.model.result import OperationResult
from keyfit.publisher.cli import common
from keyfit.publisher.output import done
from keyfit.publisher.workplace import DIR, LOCK_WAIT_S, passphrase_option, repository, require, told


@click.command
@click.argument("folder", metavar="DIR", type=DIR)
@passphrase_option
@common
def command(folder: Path, passphrase_file: Path | None) -> OperationResult:
    """Sign a new timestamp, and a new snapshot when half of its life is over. Run it every day.

    Example: keyfit-publish refresh /srv/keyfit
    """
    from keyfit.privatefiles import FileLock

    require(folder)
    with FileLock(folder / "keys" / "lock", LOCK_WAIT_S):
        published = repository(folder, passphrase_file).refresh()
    return done("refresh", structs.asdict(published), *told(published))
