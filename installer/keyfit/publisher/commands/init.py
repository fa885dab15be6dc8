"""`keyfit-publish init`."""

from pathlib import Path

import click
from msgspec import structs

from keyfit.errors import HostError
from keyfit.model.result import Message, OperationResult
from keyfit.publisher.cli import common
from keyfit.publisher.output import done
from keyfit.publisher.workplace import DIR, LOCK_WAIT_S, passphrase, passphrase_option


@click.command
@click.argument("folder", metavar="DIR", type=DIR)
@click.option("--threshold", multiple=True, metavar="ROLE=NEEDED/KEYS",
              help="How many of how many keys a role needs, for example root=3/5; repeatable.")
@click.option("--encrypt", is_flag=True, help="Encrypt the key files with a passphrase.")
@passphrase_option
@common
def command(folder: Path, threshold: tuple[str, ...], encrypt: bool, passphrase_file: Path | None) -> OperationResult:
    """Make keys and an empty signed repository.

    Example: keyfit-publish init /srv/keyfit --threshold root=3/5 --encrypt
    """
    from keyfit.privatefiles import FileLock
    from keyfit.publisher.keys import KeyStore, parse_thresholds
    from keyfit.publisher.repository import PublisherRepository

    thresholds = parse_thresholds(threshold)
    if (folder / "repository").exists():
        raise HostError("repository-exists", f"Expected no repository yet, {folder / 'repository'} is there already.",
                        hint="Choose another directory.")
    secret = passphrase(passphrase_file, new=True) if encrypt or passphrase_file else None
    keys = KeyStore(folder / "keys")
    keys.create(thresholds, secret)
    with FileLock(folder / "keys" / "lock", LOCK_WAIT_S):
        published = PublisherRepository(folder / "repository", keys).create(thresholds)
    root = folder / "repository" / "metadata" / "1.root.json"
    number = sum(t.keys for t in thresholds.values())
    warnings = () if secret else (Message(
        level="warning", code="plain-keys", text="The key files are not encrypted.",
        hint="For anything but a trial, use --encrypt and keep the root keys apart from this machine."),)
    return done("init", {"root": str(root), "keys": number, **structs.asdict(published)},
                f"Made {number} keys in {folder / 'keys'} and an empty repository in {folder / 'repository'}.",
                f"Clients need {root}; serve {folder / 'repository'} and nothing else.", warnings=warnings)
