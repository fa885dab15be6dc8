"""`keyfit-publish release`."""

from pathlib import Path
from typing import Any

import click

from keyfit.model.result import Message, OperationResult
from keyfit.publisher.cli import common
from keyfit.publisher.workplace import (
    DIR,
    EXISTING,
    checked_brands,
    drivers_option,
    index,
    passphrase_option,
    replace_option,
    told,
    workplace,
)


@click.command
@click.argument("folder", metavar="DIR", type=DIR)
@drivers_option
@click.option("--brand", "names", multiple=True, metavar="BRAND", help="Only this brand has changed; repeatable.")
@click.option("--share", type=click.FloatRange(0.01, 100), default=100.0, metavar="PERCENT",
              help="Share of the machines that get newer versions of brands; see rollout.")
@click.option("--hand-off", "hand_off", type=EXISTING, metavar="FILE",
              help="Certificate pages of your own, for brands that name none.")
@click.option("--app", "apps", multiple=True, metavar="SYSTEM-ARCHITECTURE=FILE",
              help="Instead of brand data: a setup of Keyfit itself, for example linux-amd64=FILE; repeatable.")
@click.option("--app-version", default="", metavar="VERSION", help="Its version.")
@replace_option
@passphrase_option
@common
def command(folder: Path, drivers: Path, names: tuple[str, ...], share: float, hand_off: Path | None,
            apps: tuple[str, ...], app_version: str, replace: bool, passphrase_file: Path | None) -> OperationResult:
    """Check and compile the brand data, sign with the keys that are here, and publish - or leave a signing request.

    Example: keyfit-publish release /srv/keyfit --drivers drivers
    """
    if apps:
        return _release_app(folder, apps, app_version, replace=replace, passphrase_file=passphrase_file)
    from keyfit.publisher import changes
    from keyfit.publisher.compile import with_files
    from keyfit.publisher.contents import require_signers

    work = workplace(folder, passphrase_file)
    brands, problems = checked_brands(drivers, names or None)
    warnings = [Message(level="warning", code="lint", text=f"There are {len(problems)} warnings about the brand data.",
                        hint=f"keyfit-publish check {drivers} lists them.")] if problems else []
    if hand_off is not None:
        brands, more = _with_pages(brands, hand_off, partial=bool(names))
        warnings += more
    with work.lock():
        added = index(folder).read()
        require_signers(brands, added)
        draft = work.begin(replace=replace)
        texts = changes.release(work, draft, with_files(brands, added), whole=not names,
                                share=round(share * 100))
        warnings += [Message(level="warning", code="sequence-unchanged", text=text) for text in texts]
        said = [f"brands: {', '.join(b.brand for b in brands)}", f"{draft.changed_targets} manifests change"]
        outcome = work.finish(draft, said)
    return told("release", outcome, warnings=tuple(warnings))


def _release_app(folder: Path, apps: tuple[str, ...], version: str, *, replace: bool,
                 passphrase_file: Path | None) -> OperationResult:
    from keyfit.publisher.appversion import app_targets

    work = workplace(folder, passphrase_file)
    with work.lock():
        draft = work.begin(replace=replace)
        targets = app_targets(work.repository, index(folder), apps, version)
        draft.change_targets(dict(targets))
        outcome = work.finish(draft, [f"Keyfit {version}: {', '.join(sorted(targets))}"])
    return told("release", outcome, data={"app_version": version})


def _with_pages(brands: Any, hand_off: Path, *, partial: bool) -> tuple[Any, list[Message]]:
    from keyfit.publisher.handoff import merge_hand_offs

    brands, kept = merge_hand_offs(brands, hand_off, partial=partial)
    return brands, [Message(level="warning", code="hand-off-kept", text=f"{name} names a certificate page itself; the one"
                            f" from {hand_off.name} is not used.") for name in kept]
