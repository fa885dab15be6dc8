"""`keyfit-publish refresh`."""

from pathlib import Path

import click

from keyfit.model.result import OperationResult
from keyfit.publisher.cli import common
from keyfit.publisher.workplace import DIR, passphrase_option, told, workplace


@click.command
@click.argument("folder", metavar="DIR", type=DIR)
@passphrase_option
@common
def command(folder: Path, passphrase_file: Path | None) -> OperationResult:
    """Sign a new timestamp, and a new snapshot when half of its life is over. Run it every day.

    A signing request that waits stays as it is.

    Example: keyfit-publish refresh /srv/keyfit
    """
    from keyfit.publisher.draft import Draft

    work = workplace(folder, passphrase_file)
    with work.lock():
        work.settle()
        outcome = work.refresh(Draft(work.repository))
    return told("refresh", outcome)
