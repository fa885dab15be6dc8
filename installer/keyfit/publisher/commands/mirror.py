"""`keyfit-publish mirror`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from msgspec import structs

from keyfit.errors import UserError
from keyfit.model.result import OperationResult
from keyfit.publisher.cli import Session, common
from keyfit.publisher.output import done
from keyfit.publisher.workplace import EXISTING

DEST = click.Path(path_type=Path, file_okay=False)
SLOWEST_KB_S = 100
"""Below this a driver file would take longer than the client's own limits allow."""


@click.command
@click.argument("url")
@click.argument("dest", type=DEST)
@click.option("--trust-root", type=EXISTING, required=True, metavar="FILE", help="Root metadata of the repository.")
@click.option("--brand", multiple=True, metavar="BRAND", help="Only this brand; repeatable.")
@click.option("--system", multiple=True, type=click.Choice(["linux", "windows", "macos"]), help="Only this system; repeatable.")
@click.option("--architecture", multiple=True, type=click.Choice(["amd64", "arm64", "i386"]),
              help="Only this architecture; repeatable.")
@click.option("--jobs", type=click.IntRange(1, 16), default=4, show_default=True, help="Requests at a time.")
@click.option("--rate-limit", type=click.IntRange(min=SLOWEST_KB_S), metavar="KB", help="At most so many kB per second.")
@click.option("--no-gzip", is_flag=True, help="Keep no compressed copies of the metadata.")
@click.option("--prune", is_flag=True, help="Remove what is no longer needed.")
@common
@click.pass_obj
def command(session: Session, url: str, dest: Path, trust_root: Path, no_gzip: bool, rate_limit: int | None,
            brand: tuple[str, ...], system: Any, architecture: Any, jobs: int, prune: bool) -> OperationResult:
    """Copy a signed repository, whole or in part, or renew the copy. Any client with the repository's root can use it.

    Example: keyfit-publish mirror https://drivers.example.com/keyfit /srv/mirror --trust-root root.json --system windows
    """
    from keyfit.publisher.mirror_choice import Choice
    from keyfit.publisher.mirroring import Request, mirror

    try:
        root = trust_root.read_bytes()
    except OSError as error:
        raise UserError("no-trusted-root", f"The trusted root {trust_root} cannot be read: {error.strerror}.") from error
    request = Request(url=url if "://" in url else Path(url).absolute().as_uri(), folder=dest.absolute(), trusted_root=root,
                      choice=Choice(brands=brand, systems=system, architectures=architecture), jobs=jobs,
                      rate_bytes_per_s=(rate_limit or 0) * 1000, zipped=not no_gzip, prune=prune)
    mirrored = mirror(request, teller(session))
    kinds = {"metadata files": mirrored.metadata, "manifests": mirrored.targets, "driver files": mirrored.payloads}
    lines = [f"{kind}: {tally.files}, of which {tally.fetched} fetched ({tally.fetched_bytes} bytes)"
             for kind, tally in kinds.items()]
    if prune:
        lines.append(f"removed: {mirrored.pruned} files ({mirrored.pruned_bytes} bytes)")
    return done("mirror", {"folder": str(dest), **_data(mirrored)}, f"{dest} is a mirror of {url}.", *lines,
                f"Renew it before {mirrored.expires[:10]}: then its timestamp expires.")


def _data(mirrored: Any) -> dict[str, Any]:
    return {name: structs.asdict(value) if hasattr(value, "__struct_fields__") else value
            for name, value in structs.asdict(mirrored).items()}


def teller(session: Session) -> Callable[[str], None]:
    """Tells on stderr how far it got, unless that is not wanted."""
    def tell(text: str) -> None:
        if not session.quiet and not session.json:
            click.echo(text, err=True)
    return tell
