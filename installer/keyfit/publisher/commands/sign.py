"""`keyfit-publish sign`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keyfit.errors import DataError, UserError
from keyfit.model.result import OperationResult
from keyfit.publisher.cli import Session, common
from keyfit.publisher.workplace import FILE, ask_secret, passphrase_option, told

if TYPE_CHECKING:
    from keyfit.publisher.release import Outcome, Workplace


@click.command
@click.argument("where", metavar="DIR-OR-REQUEST", type=click.Path(path_type=Path, exists=True))
@click.option("--key", "keys", multiple=True, metavar="FILE-OR-ADDRESS",
              help="Sign with this private key file, or hsm:..., awskms:...; repeatable.")
@click.option("--request", "copies", multiple=True, type=FILE, metavar="FILE",
              help="With DIR: take the signatures of this copy of the request; repeatable.")
@click.option("--yes", is_flag=True, help="Do not ask before signing a request's file.")
@passphrase_option
@common
@click.pass_obj
def command(session: Session, /, where: Path, keys: tuple[str, ...], copies: tuple[Path, ...], yes: bool,
            passphrase_file: Path | None) -> OperationResult:
    """Add signatures to a signing request. In a publisher's directory: publish it when it has enough.

    On another machine, give the request's file and a key. In the publisher's directory, the keys that are there sign, and
    copies that came back are taken in.

    Example: keyfit-publish sign request.json --key mine.pem
    """
    if where.is_dir():
        return _in_directory(where, keys, copies, passphrase_file)
    if copies:
        raise UserError("usage", "Expected --request with a publisher's directory, came a file.",
                        hint="keyfit-publish sign DIR --request FILE")
    return _in_file(where, keys, passphrase_file, ask=not yes and not session.json and sys.stdin.isatty())


def _in_file(path: Path, keys: tuple[str, ...], passphrase_file: Path | None, *, ask: bool) -> OperationResult:
    from keyfit.core.text import clean
    from keyfit.publisher.keyring import Keyring
    from keyfit.publisher.output import done
    from keyfit.publisher.request import add_signatures, read_request, request_facts, save

    request = read_request(path)
    if not keys:
        raise UserError("key-needed", "Expected a key to sign with, came none.",
                        hint="--key FILE, or --key hsm:2?label=NAME for a device.")
    keyring = Keyring(path.parent / "none", ask_secret(passphrase_file))
    lent = dict(keyring.lend(key, request.keys.values()) for key in keys)
    wanted = {entry.keyid for entry in request.keys.values()}
    for key, keyid in zip(keys, lent, strict=False):
        if keyid not in wanted:
            raise UserError("key-not-wanted", f"The key {key} may sign nothing in this request.",
                            hint="It asks for " + ", ".join(sorted(request.keys)) + ".")

    def sign(keyid: str, data: bytes) -> Any:
        return lent[keyid].sign(data) if keyid in lent else None

    told_by_sender = tuple(clean(line, 400) for line in request.summary)
    facts = request_facts(request)
    lines = (f"Signing request {request.id}. What its sender says:", *(f"  {line}" for line in told_by_sender),
             "What the metadata that you sign says:", *(f"  {line}" for line in facts))
    if ask:
        click.echo("\n".join(lines), err=True)
        click.confirm("Sign it?", abort=True, err=True)
    signed, added = add_signatures(request, sign)
    save(path, signed)
    what = ", ".join(f"{count} of {role}" for role, count in sorted(added.items())) or "none: they were there already"
    return done("sign", {"id": request.id, "added": added, "summary": list(told_by_sender), "facts": list(facts)},
                *(() if ask else lines), f"Signatures added: {what}.",
                "Bring this file back to the publisher's directory: keyfit-publish sign DIR --request FILE")


def _in_directory(folder: Path, keys: tuple[str, ...], copies: tuple[Path, ...],
                  passphrase_file: Path | None) -> OperationResult:
    from keyfit.publisher.release import Workplace
    from keyfit.publisher.roles import MEDIA, ONLINE

    ask = ask_secret(passphrase_file)
    places = [Workplace(folder, ask, layout=layout) for layout in (ONLINE, MEDIA)]
    places[1].keyring = places[0].keyring
    outcomes: list[tuple[Workplace, Outcome]] = []
    unused = list(copies)
    with places[0].lock():
        for work in places:
            work.settle()
            if work.request_file.exists():
                outcomes.append((work, _one(work, keys, unused)))
    if not outcomes:
        raise UserError("no-request", f"Expected a signing request in {folder}, there is none.",
                        hint="release, rotate, delegate, revoke and rollout leave one when signatures are missing.")
    if unused:
        raise DataError("request-unknown", "expected copies of the request that waits here, these are of others",
                        tuple(str(path) for path in unused))
    open_ones = [outcome for _, outcome in outcomes if outcome.published is None]
    return told("sign", open_ones[0] if open_ones else outcomes[0][1])


def _one(work: "Workplace", keys: tuple[str, ...], copies: list[Path]) -> "Outcome":
    """Take signatures into one request, sign, and publish if that is enough. Copies that belong to it leave the list."""
    from keyfit.publisher.request import read_request

    request = read_request(work.request_file)
    draft = work.resume(request)
    for path in list(copies):
        copy = read_request(path)
        if copy.id == request.id:
            draft.take_signatures(copy.metadata())
            copies.remove(path)
    lent = dict(work.keyring.lend(key, request.keys.values()) for key in keys)

    def sign(keyid: str, data: bytes) -> Any:
        return lent[keyid].sign(data) if keyid in lent else work.sign(keyid, data)

    return work.finish(draft, request.summary, sign=sign, number=request.id)
