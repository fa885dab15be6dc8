"""`keyfit-publish release`."""

from pathlib import Path

import click
from msgspec import structs

from keyfit.model.result import Message, OperationResult
from keyfit.publisher.cli import common
from keyfit.publisher.output import done
from keyfit.publisher.workplace import (
    DIR,
    EXISTING,
    LOCK_WAIT_S,
    checked_brands,
    drivers_option,
    index,
    passphrase_option,
    repository,
    require,
    told,
)


@click.command
@click.argument("folder", metavar="DIR", type=DIR)
@drivers_option
@click.option("--hand-off", "hand_off", type=EXISTING, metavar="FILE",
              help="Certificate pages of your own, for brands that name none.")
@passphrase_option
@common
def command(folder: Path, drivers: Path, hand_off: Path | None, passphrase_file: Path | None) -> OperationResult:
    """Check, compile, sign and publish the brand data.

    Example: keyfit-publish release /srv/keyfit --drivers drivers
    """
    from keyfit.privatefiles import FileLock
    from keyfit.publisher.compile import manifests
    from keyfit.publisher.handoff import merge_hand_offs
    from keyfit.publisher.sequences import check_sequences, write_sequences

    require(folder)
    brands, problems = checked_brands(drivers)
    warnings = [Message(level="warning", code="lint", text=str(p)) for p in problems]
    if hand_off is not None:
        brands, kept = merge_hand_offs(brands, hand_off)
        warnings += [Message(level="warning", code="hand-off-kept", text=f"{name} names a certificate page itself; the"
                             f" one from {hand_off.name} is not used.") for name in kept]
    with FileLock(folder / "keys" / "lock", LOCK_WAIT_S):
        check_sequences(folder, brands)
        published = repository(folder, passphrase_file).release(manifests(brands, index(folder).read()))
        write_sequences(folder, brands)
    return done("release", structs.asdict(published), *told(published), warnings=tuple(warnings))
