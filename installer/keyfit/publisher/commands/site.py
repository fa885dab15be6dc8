"""`keyfit-publish site`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click
from msgspec import structs

from keyfit.model.result import Message, OperationResult
from keyfit.publisher.cli import common
from keyfit.publisher.output import done
from keyfit.publisher.workplace import DIR, EXISTING, FILE, checked_brands, drivers_option, index, workplace

if TYPE_CHECKING:
    from keyfit.publisher.site.model import Site


@click.command
@click.argument("folder", metavar="DIR", type=DIR)
@drivers_option
@click.option("--out", required=True, type=DIR, metavar="FOLDER", help="Where the site goes; made anew each time.")
@click.option("--title", metavar="TEXT", help="Name of the site; the branding file can name it in each language.")
@click.option("--branding", type=FILE, metavar="FILE", help="Names, colours, logo, contact page (TOML).")
@click.option("--program", "programs", multiple=True, metavar="FILE[=ADDRESS]",
              help="A setup program to offer: copied, or served at an https address; repeatable.")
@click.option("--base-url", default="", metavar="ADDRESS", help="Where the site will be served, for canonical links.")
@click.option("--hand-off", "hand_off", type=EXISTING, metavar="FILE",
              help="Certificate pages of your own, as for release.")
@common
def command(folder: Path, drivers: Path, out: Path, title: str | None, branding: Path | None, programs: tuple[str, ...],
            base_url: str, hand_off: Path | None) -> OperationResult:
    """Make the static download site for customers and administrators.

    Example: keyfit-publish site /srv/keyfit --out /srv/www --program keyfit-setup.exe
    """
    from keyfit.publisher.site.build import build
    from keyfit.publisher.site.folder import fresh_folder, write
    from keyfit.publisher.site.programs import parse_programs, take_program

    workplace(folder)
    wanted = parse_programs(programs)
    site, logo = _site(folder, drivers, title, branding, base_url, hand_off)
    with fresh_folder(out) as fresh:
        site = structs.replace(site, programs=tuple(take_program(one, fresh) for one in wanted))
        if logo is not None:
            write(fresh, f"assets/{site.logo}", logo)
        for name, data in build(site):
            write(fresh, name, data)
        sizes = {path: path.stat().st_size for path in fresh.rglob("*") if path.is_file()}
    pages = sum(path.suffix == ".html" for path in sizes)
    warnings = () if wanted else (Message(
        level="warning", code="no-program", text="The site offers no program.",
        hint="Name the setup programs with --program, or say on your own pages where they are."),)
    return done("site", {"out": str(out), "pages": pages, "files": len(sizes), "size_bytes": sum(sizes.values()),
                         "brands": len(site.brands), "programs": [structs.asdict(program) for program in site.programs]},
                f"Made {pages} pages about {len(site.brands)} brands in {out}.", warnings=warnings)


def _site(folder: Path, drivers: Path, title: str | None, branding_file: Path | None, base_url: str,
          hand_off: Path | None) -> tuple["Site", bytes | None]:
    """Everything but the programs, and the logo's bytes."""
    from keyfit.publisher.handoff import merge_hand_offs
    from keyfit.publisher.site.branding import Branding, load_branding, site_address, titled
    from keyfit.publisher.site.logo import read_logo
    from keyfit.publisher.site.model import Site
    from keyfit.publisher.state import State

    base_url = site_address(base_url)
    brands, _ = checked_brands(drivers)
    if hand_off is not None:
        brands, _ = merge_hand_offs(brands, hand_off)
    branding = titled(load_branding(branding_file) if branding_file else Branding(), title)
    states = State(folder / "state").current()
    withdrawn = {name: state.revoked for name, state in states.items() if state.revoked}
    refused = {one.sha256 for revoked in withdrawn.values() for one in revoked}
    payloads = {key: payload for key, payload in index(folder).read().items() if payload.sha256 not in refused}
    name, logo = read_logo(branding_file.parent / branding.logo) if branding_file and branding.logo else ("", None)
    return Site(brands=brands, payloads=payloads, programs=(), branding=branding, withdrawn=withdrawn, base_url=base_url,
                minimum={name: state.minimum for name, state in states.items()}, logo=name), logo
