"""`keyfit-publish add`."""

from pathlib import Path

import click
from msgspec import structs

from keyfit.model.result import Message, OperationResult
from keyfit.publisher.cli import common
from keyfit.publisher.output import done
from keyfit.publisher.packagechecks import checks_options, read_checks
from keyfit.publisher.workplace import DIR, EXISTING, drivers_option, index, workplace


@click.command
@click.argument("folder", metavar="DIR", type=DIR)
@click.argument("brand")
@click.argument("file", type=EXISTING)
@click.option("--package", "package_id", metavar="ID", help="Which package; needed if the file name fits several.")
@drivers_option
@checks_options
@common
def command(folder: Path, brand: str, file: Path, package_id: str | None, drivers: Path, blocklists: tuple[Path, ...],
            roots: Path | None) -> OperationResult:
    """Put a driver package file into the repository. It reaches clients with the next release.

    The file is looked into first: it has to be what the brand data declares, signed by the vendor that it names, and do
    nothing that a driver package may not. Otherwise nothing is added.

    Example: keyfit-publish add /srv/keyfit acme acme_1.0_amd64.deb
    """
    from keyfit.publisher.brandfile import load_brands
    from keyfit.publisher.packages import find_package

    work = workplace(folder)
    found, package = find_package(load_brands(drivers), brand, file.name, package_id)
    checks = read_checks(drivers, blocklists, roots)
    notes: list[str] = []
    with work.lock():
        payload = index(folder).add(found, package, file, checks, notes)
    return done("add", {"brand": brand, "package": package.id, "payload": structs.asdict(payload), "notes": notes},
                f"Added {file.name} to {brand}/{package.id}: {payload.length_bytes} bytes, SHA-256 {payload.sha256}.",
                warnings=tuple(Message(level="warning", code="package-content", text=note) for note in notes))
