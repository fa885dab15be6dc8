"""`keyfit-publish delegate`."""

from pathlib import Path

import click

from keyfit.errors import UserError
from keyfit.model.result import OperationResult
from keyfit.publisher.cli import common
from keyfit.publisher.workplace import DIR, passphrase_option, replace_option, secret, told, workplace


@click.command
@click.argument("folder", metavar="DIR", type=DIR)
@click.argument("brand", required=False)
@click.option("--key", "given", multiple=True, metavar="FILE-OR-ADDRESS",
              help="A key of the brand's: a public key file (PEM) that it sent you, or hsm:...; repeatable.")
@click.option("--make", type=click.IntRange(1, 15), metavar="N", help="Make N keys here, to be handed over.")
@click.option("--needed", type=click.IntRange(1, 15), default=1, show_default=True, metavar="N",
              help="How many of the keys have to sign.")
@click.option("--remove", is_flag=True, help="Take the brand's own keys away: you sign its data again.")
@click.option("--encrypt", is_flag=True, help="Encrypt the files of made keys.")
@replace_option
@passphrase_option
@common
def command(folder: Path, brand: str | None, given: tuple[str, ...], make: int | None, needed: int, remove: bool,
            encrypt: bool, replace: bool, passphrase_file: Path | None) -> OperationResult:
    """Give a brand its own keys: from then on only they sign what is installed for it, and they sign nothing else.

    You still sign which devices the brand claims, and a grant that says what its data may ask for. Without BRAND: list.

    Example: keyfit-publish delegate /srv/keyfit acme --key acme-public.pem
    """
    from keyfit.publisher import changes
    from keyfit.publisher.output import done
    from keyfit.publisher.roles import brand_role

    work = workplace(folder, passphrase_file)
    if brand is None:
        names = work.repository.delegated_brands()
        return done("delegate", {"brands": names}, "Brands with keys of their own: " + (", ".join(names) or "none") + ".")
    with work.lock():
        draft = work.begin(replace=replace)
        changes.known_state(work, brand)
        if remove:
            changes.take_keys(work, draft, brand)
            said = f"{brand}: no keys of its own any more"
        else:
            total = len(given) + (make or 0)
            if not 1 <= needed <= total:
                raise UserError("bad-threshold", f"Expected at least as many keys as are needed ({needed}), came {total}.",
                                hint="Give public keys with --key, or make some with --make N.")
            role = brand_role(brand)
            passphrase = secret(passphrase_file, new=True) if encrypt else None
            entries = [work.keyring.use(work.keyring.next_name(role), place) for place in given]
            entries += [work.keyring.make(work.keyring.next_name(role), passphrase=passphrase) for _ in range(make or 0)]
            changes.give_keys(work, draft, brand, [entry.keyid for entry in entries], needed)
            said = f"{brand}: signs with keys of its own ({', '.join(e.name for e in entries)}), {needed} needed"
        outcome = work.finish(draft, [said])
    return told("delegate", outcome, said + ".", data={"brand": brand})
