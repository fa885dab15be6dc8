"""`keyfit-publish add`."""

from pathlib import Path

import click
from msgspec import structs

from keyfit.model.result import OperationResult
from keyfit.publisher.cli import common
from keyfit.publisher.output import done
from keyfit.publisher.workplace import DIR, EXISTING, LOCK_WAIT_S, drivers_option, index, require


@click.command
@click.argument("folder", metavar="DIR", type=DIR)
@click.argument("brand")
@click.argument("file", type=EXISTING)
@click.option("--package", "package_id", metavar="ID", help="Which package; needed if the file name fits several.")
@drivers_option
@common
def command(folder: Path, brand: str, file: Path, package_id: str | None, drivers: Path) -> OperationResult:
    """Put a driver package file into the repository. It reaches clients with the next release.

    Example: keyfit-publish add /srv/keyfit acme acme_1.0_amd64.deb
    """
    from keyfit.privatefiles import FileLock
    from keyfit.publisher.brandfile import load_brands
    from keyfit.publisher.packages import find_package

    require(folder)
    found, package = find_package(load_brands(drivers), brand, file.name, package_id)
    with FileLock(folder / "keys" / "lock", LOCK_WAIT_S):
        payload = index(folder).add(found, package, file)
    return done("add", {"brand": brand, "package": package.id, "payload": structs.asdict(payload)},
                f"Added {file.name} to {brand}/{package.id}: {payload.length_bytes} bytes, SHA-256 {payload.sha256}.")
