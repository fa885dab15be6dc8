"""`keyfit-publish rotate`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from keyfit.errors import UserError
from keyfit.model.result import OperationResult
from keyfit.publisher.cli import common
from keyfit.publisher.workplace import DIR, ask_secret, passphrase_option, replace_option, secret, told

if TYPE_CHECKING:
    from keyfit.publisher.keyring import KeyEntry
    from keyfit.publisher.release import Workplace


@click.command
@click.argument("folder", metavar="DIR", type=DIR)
@click.argument("role")
@click.option("--remove", "removed", multiple=True, metavar="NAME", help="Take this key away (its name, such as root-2);"
              " repeatable.")
@click.option("--add", "given", multiple=True, metavar="FILE-OR-ADDRESS", help="Take this key in; repeatable.")
@click.option("--make", type=click.IntRange(1, 15), metavar="N", help="Make N new keys here.")
@click.option("--needed", type=click.IntRange(1, 30), metavar="N", help="How many have to sign from now on.")
@click.option("--encrypt", is_flag=True, help="Encrypt the files of made keys.")
@replace_option
@passphrase_option
@common
def command(folder: Path, role: str, removed: tuple[str, ...], given: tuple[str, ...], make: int | None,
            needed: int | None, encrypt: bool, replace: bool, passphrase_file: Path | None) -> OperationResult:
    """Change a role's keys: replace a lost or stolen one, or sign the role anew with those it has.

    Roles are root, targets, app, drivers, bins, snapshot, timestamp, media-root, media, and brand-BRAND. A new root is
    signed by enough keys of the old one and of the new one, so clients follow without being updated.

    Example: keyfit-publish rotate /srv/keyfit targets --remove targets-2 --make 1
    """
    from keyfit.publisher import changes
    from keyfit.publisher.release import Workplace
    from keyfit.publisher.roles import MEDIA, ONLINE

    media = role in ("media-root", "media")
    work = Workplace(folder, ask_secret(passphrase_file), layout=MEDIA if media else ONLINE)
    work.require()
    with work.lock():
        draft = work.begin(replace=replace)
        names, threshold = changes.holders(work, role)
        unknown = [name for name in removed if name not in names]
        if unknown:
            raise UserError("no-such-key", f"{role} has no key {unknown[0]!a}.", hint="It has " + ", ".join(names) + ".")
        passphrase = secret(passphrase_file, new=True) if encrypt else None
        added = _added(work, role, given, make or 0, passphrase)
        keys = [*(entry for name, entry in names.items() if name not in removed), *added]
        wanted = needed or min(threshold, len(keys))
        if not 1 <= wanted <= len(keys):
            raise UserError("bad-threshold", f"Expected at least {wanted} keys for {role}, {len(keys)} would be left.",
                            hint="Add some with --add or --make, or lower --needed.")
        draft.set_keys(role, [entry.key() for entry in keys], wanted)
        said = f"{role}: {wanted} of {', '.join(e.name for e in keys)}" + (f"; without {', '.join(removed)}" if removed
                                                                          else "")
        outcome = work.finish(draft, [said])
    return told("rotate", outcome, said + ".", data={"role": role, "keys": [e.name for e in keys], "needed": wanted})


def _added(work: "Workplace", role: str, given: tuple[str, ...], make: int, passphrase: bytes | None) -> "list[KeyEntry]":
    entries = [work.keyring.use(work.keyring.next_name(role), place) for place in given]
    return entries + [work.keyring.make(work.keyring.next_name(role), passphrase=passphrase) for _ in range(make)]
