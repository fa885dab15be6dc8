"""`keyfit-publish rollout`."""

from pathlib import Path

import click
from msgspec import structs

from keyfit.errors import UserError
from keyfit.model.result import OperationResult
from keyfit.publisher.cli import common
from keyfit.publisher.output import done
from keyfit.publisher.workplace import DIR, passphrase_option, replace_option, told, workplace


@click.command
@click.argument("folder", metavar="DIR", type=DIR)
@click.argument("brand", required=False)
@click.option("--share", type=click.FloatRange(0.01, 100), metavar="PERCENT", help="Give it to this share of the machines;"
              " 100 for all.")
@click.option("--hold", is_flag=True, help="Give it to nobody else for now.")
@click.option("--resume", is_flag=True, help="Go on after a hold.")
@replace_option
@passphrase_option
@common
def command(folder: Path, brand: str | None, share: float | None, hold: bool, resume: bool, replace: bool,
            passphrase_file: Path | None) -> OperationResult:
    """Show or change which share of the machines gets a newer version of a brand.

    A machine's group never changes, so a growing share only adds machines. Begin with: release --share 1

    Example: keyfit-publish rollout /srv/keyfit acme --share 25
    """
    from keyfit.publisher import changes

    work = workplace(folder)
    if brand is None or (share is None and not hold and not resume):
        states = [changes.known_state(work, brand)] if brand else list(work.state.current().values())
        rows = {s.brand: {"sequence": s.staged.brand.sequence, "share_percent": s.staged.share / 100,
                          "hold": s.staged.hold, "main_sequence": s.main.sequence} for s in states if s.staged}
        lines = [f"{name}: sequence {row['sequence']} for {row['share_percent']:g} % of the machines"
                 f"{', on hold' if row['hold'] else ''}; the others have {row['main_sequence']}."
                 for name, row in rows.items()]
        return done("rollout", {"rollouts": rows}, *(lines or ["Everybody gets the same version of every brand."]))
    if hold and resume:
        raise UserError("usage", "Expected either --hold or --resume, came both.")
    work = workplace(folder, passphrase_file)
    with work.lock():
        draft = work.begin(replace=replace)
        before = changes.known_state(work, brand)
        after = changes.rolled_out(before, share=None if share is None else round(share * 100),
                                   hold=True if hold else False if resume else None)
        changes.change_brand(work, draft, after)
        said = (f"{brand}: everybody gets sequence {after.main.sequence}" if after.staged is None else
                f"{brand}: sequence {after.staged.brand.sequence} for {after.staged.share / 100:g} % of the machines"
                + (", on hold" if after.staged.hold else ""))
        outcome = work.finish(draft, [said])
    staged = None if after.staged is None else {k: v for k, v in structs.asdict(after.staged).items() if k != "brand"}
    return told("rollout", outcome, said + ".", data={"brand": brand, "staged": staged})
