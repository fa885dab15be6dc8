"""`keyfit-publish bundle`."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from msgspec import structs

from keyfit.errors import UserError
from keyfit.model.result import Message, OperationResult
from keyfit.publisher.cli import Session, common
from keyfit.publisher.commands.mirror import teller
from keyfit.publisher.workplace import DIR, ask_secret, passphrase_option, replace_option, told, workplace

if TYPE_CHECKING:
    from keyfit.publisher.bundling import Pressed

LONGEST_DAYS = 3650


@click.command
@click.argument("folder", metavar="DIR", type=DIR)
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--format", "form", type=click.Choice(["folder", "zip", "iso"]), default="folder", show_default=True,
              help="A folder for a stick or share, a zip file, or an image for a disc.")
@click.option("--brand", multiple=True, metavar="BRAND", help="Only this brand; repeatable.")
@click.option("--system", multiple=True, type=click.Choice(["linux", "windows", "macos"]), help="Only this system; repeatable.")
@click.option("--architecture", multiple=True, type=click.Choice(["amd64", "arm64", "i386"]),
              help="Only this architecture; repeatable.")
@click.option("--days", type=click.IntRange(1, LONGEST_DAYS), default=730, show_default=True,
              help="How long the kit may be used: 730 for discs, 90 for an enterprise's own share.")
@click.option("--program", multiple=True, type=click.Path(path_type=Path, exists=True, file_okay=False), metavar="FOLDER",
              help="Bring this frozen client along (made by `make dist`), one for each system; repeatable.")
@click.option("--force", is_flag=True, help="Replace OUT if it is there.")
@replace_option
@passphrase_option
@common
@click.pass_obj
def command(session: Session, folder: Path, out: Path, form: Any, brand: tuple[str, ...], system: Any, architecture: Any,
            days: int, program: tuple[Path, ...], force: bool, replace: bool, passphrase_file: Path | None) -> OperationResult:
    """Press a signed offline kit from the released repository: all of it, or chosen brands and systems.

    If the keys that are here are too few, a signing request is left; run this again when it is complete.

    Example: keyfit-publish bundle /srv/keyfit kit.iso --format iso --system windows --program dist/keyfit
    """
    from keyfit.publisher.bundle_content import kit_content, require_released, withdrawn_files
    from keyfit.publisher.bundle_signing import media_workplace, sign_kits
    from keyfit.publisher.bundling import Kit, check_place, press
    from keyfit.publisher.mirror_choice import Choice

    work = workplace(folder, passphrase_file)
    repository = work.repository.folder.absolute()
    require_released(repository)
    check_place(out, force=force)
    with work.lock():
        media = media_workplace(work, ask_secret(passphrase_file), days)
        content = kit_content(repository)
        warnings = tuple(Message(level="warning", code="left-out", text=text) for text in content.warnings)
        outcome = sign_kits(media, content, days, replace=replace)
    if outcome is not None and outcome.published is None:
        return told("bundle", outcome, "No kit was pressed: run this again when the request is complete.",
                    warnings=warnings, data={"kit": None})
    # without the lock: what is signed does not change any more, and a daily refresh need not wait for a large image
    pressed = press(Kit(media=media.repository.folder.absolute(), payloads=repository / "payloads", out=out, format=form,
                        choice=Choice(brands=brand, systems=system, architectures=architecture), programs=program,
                        without=withdrawn_files(content.targets.values()), force=force, moment=_source_date()),
                    teller(session))
    return _told(out, form, pressed, signed_anew=outcome is not None, warnings=warnings)


def _told(out: Path, form: str, pressed: "Pressed", *, signed_anew: bool, warnings: tuple[Message, ...]) -> OperationResult:
    from keyfit.publisher.output import done

    data = {"complete": True, "kit": str(out), "format": form, "signed_anew": signed_anew} | structs.asdict(pressed)
    data["drivers"] = [structs.asdict(driver) for driver in pressed.drivers]
    programs = ", ".join(pressed.programs) or "none: computers need Keyfit already, or give --program"
    return done("bundle", data, f"{out} is an offline kit ({pressed.label}): {pressed.manifests} manifests,"
                f" {len({driver.sha256 for driver in pressed.drivers})} driver files, {pressed.bytes} bytes.",
                f"Programs: {programs}.", f"It may be used until {pressed.expires[:10]}.", warnings=warnings)


def _source_date() -> datetime | None:
    """The date that reproducible builds are given (https://reproducible-builds.org/specs/source-date-epoch/), if any.

    Raises:
        UserError: it is no number.
    """
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        raise UserError("bad-source-date", f"Expected seconds since the epoch in SOURCE_DATE_EPOCH, came {text[:40]!a}.",
                        hint="Unset it, or give a number.")
    return datetime.fromtimestamp(int(text), UTC)
