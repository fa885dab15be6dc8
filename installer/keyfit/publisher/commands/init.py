"""`keyfit-publish init`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from keyfit.errors import HostError, UserError
from keyfit.model.result import Message, OperationResult
from keyfit.publisher.cli import common
from keyfit.publisher.workplace import DIR, ask_secret, passphrase_option, secret, told

if TYPE_CHECKING:
    from keyfit.publisher.keyring import Keyring
    from keyfit.publisher.roles import Threshold


@click.command
@click.argument("folder", metavar="DIR", type=DIR)
@click.option("--threshold", multiple=True, metavar="ROLE=NEEDED/KEYS",
              help="How many of how many keys a role needs, for example root=3/5; repeatable.")
@click.option("--key", "given", multiple=True, metavar="ROLE=FILE-OR-ADDRESS",
              help="Use this key instead of making one: a public or private key file (PEM), or hsm:..., awskms:...;"
                   " repeatable.")
@click.option("--hybrid-root", is_flag=True, help="Give every root key a post-quantum (ML-DSA) partner; both kinds are"
                                                  " needed then.")
@click.option("--encrypt", is_flag=True, help="Encrypt the key files with a passphrase.")
@passphrase_option
@common
def command(folder: Path, threshold: tuple[str, ...], given: tuple[str, ...], hybrid_root: bool, encrypt: bool,
            passphrase_file: Path | None) -> OperationResult:
    """Make keys and two empty signed repositories: one to be served, and one for offline kits.

    Example: keyfit-publish init /srv/keyfit --encrypt
    """
    from keyfit.publisher.release import Workplace
    from keyfit.publisher.roles import MEDIA, parse_thresholds

    thresholds, keys = parse_thresholds(threshold), _given(given)
    if (folder / "repository").exists():
        raise HostError("repository-exists", f"Expected no repository yet, {folder / 'repository'} is there already.",
                        hint="Choose another directory.")
    if any((folder / "keys").glob("*")):
        raise HostError("keys-exist", f"Expected no keys yet, {folder / 'keys'} holds some already.",
                        hint="Choose another directory; keys are never overwritten.")
    passphrase = secret(passphrase_file, new=True) if encrypt or passphrase_file else None
    work = Workplace(folder, ask_secret(passphrase_file))
    needed = _make_keys(work.keyring, thresholds, keys, passphrase, hybrid=hybrid_root)
    with work.lock():
        outcome = work.create(needed)
        media = Workplace(folder, layout=MEDIA)
        media.keyring = work.keyring
        kits = media.create(needed)
    plain = passphrase is None and any(e.location.startswith("file:") for e in work.keyring.entries())
    warnings = (Message(
        level="warning", code="plain-keys", text="The key files are not encrypted.",
        hint="For anything but a trial, use --encrypt and keep the root keys apart from this machine."),) if plain else ()
    root = folder / "repository" / "metadata" / "1.root.json"
    kit_root = folder / "media" / "repository" / "metadata" / "1.root.json"
    waiting = () if kits.published else (f"Offline kits: {kits.request} waits for signatures.",)
    return told("init", outcome, f"{len(work.keyring.entries())} keys are in {folder / 'keys'}, empty repositories in"
                f" {folder}.", f"Clients need {root}, and {kit_root} for offline kits; serve {folder / 'repository'} and"
                " nothing else.", *waiting, warnings=warnings,
                data={"root": str(root), "media_root": str(kit_root), "keys": len(work.keyring.entries())})


def _given(texts: tuple[str, ...]) -> dict[str, list[str]]:
    from keyfit.publisher.roles import OWNERS

    given: dict[str, list[str]] = {}
    for text in texts:
        role, _, where = text.partition("=")
        if role not in OWNERS or not where:
            raise UserError("bad-key", f"Expected ROLE=FILE-OR-ADDRESS, came {text!a}.",
                            hint=f"Roles are {', '.join(OWNERS)}.")
        given.setdefault(role, []).append(where)
    return given


def _make_keys(keyring: "Keyring", thresholds: "dict[str, Threshold]", given: dict[str, list[str]],
               passphrase: bytes | None, *, hybrid: bool) -> dict[str, int]:
    """Fill the keyring; returns owner -> how many keys have to sign."""
    from keyfit.publisher.roles import MAX_KEYS

    for owner, places in given.items():
        if len(places) > thresholds[owner].keys:
            raise UserError("bad-key", f"Expected at most {thresholds[owner].keys} keys for {owner}, came {len(places)}.",
                            hint=f"Raise it with --threshold {owner}=NEEDED/KEYS, up to {MAX_KEYS}.")
    needed = {}
    for owner, threshold in thresholds.items():
        needed[owner] = threshold.needed
        for number in range(1, threshold.keys + 1):
            places = given.get(owner, [])
            if number <= len(places):
                keyring.use(f"{owner}-{number}", places[number - 1])
            else:
                keyring.make(f"{owner}-{number}", passphrase=passphrase)
            if hybrid and owner in ("root", "media-root"):
                keyring.make(f"{owner}-{number}-pq", "ml-dsa", passphrase)
        if hybrid and owner in ("root", "media-root"):
            # whoever breaks one kind of signature altogether still lacks one of the other kind
            needed[owner] = max(2 * threshold.needed, threshold.keys + 1)
    return needed
