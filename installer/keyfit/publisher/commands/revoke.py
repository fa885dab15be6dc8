"""`keyfit-publish revoke`."""

from pathlib import Path

import click

from keyfit.errors import UserError
from keyfit.model.result import OperationResult
from keyfit.publisher.cli import common
from keyfit.publisher.workplace import DIR, passphrase_option, replace_option, told, workplace


@click.command
@click.argument("folder", metavar="DIR", type=DIR)
@click.argument("brand")
@click.option("--sequence", type=click.IntRange(1), metavar="N", help="The version of the brand's data.")
@click.option("--sha256", metavar="HASH", help="One driver file, in whatever version it is.")
@click.option("--minimum", type=click.IntRange(1), metavar="N", help="Refuse every version below this one.")
@click.option("--reason", "reasons", multiple=True, metavar="LANGUAGE=TEXT",
              help="What users are told, for example en='It stops the computer'; repeatable; en is needed.")
@replace_option
@passphrase_option
@common
def command(folder: Path, brand: str, sequence: int | None, sha256: str | None, minimum: int | None,
            reasons: tuple[str, ...], replace: bool, passphrase_file: Path | None) -> OperationResult:
    """Revoke a version of a brand: clients that have heard of it refuse it, wherever it comes from.

    Example: keyfit-publish revoke /srv/keyfit acme --sequence 4 --reason en="It may stop the computer"
    """
    from keyfit.publisher import changes

    if sequence is None and sha256 is None and minimum is None:
        raise UserError("nothing-to-revoke", "Expected --sequence, --sha256 or --minimum, came none.",
                        hint="keyfit-publish revoke DIR BRAND --sequence N --reason en=TEXT")
    texts = _reasons(reasons, needed=sequence is not None or sha256 is not None)
    if sha256 is not None and not (len(sha256) == 64 and set(sha256) <= set("0123456789abcdef")):
        raise UserError("bad-hash", f"Expected a SHA-256 of 64 small hexadecimal digits, came {sha256[:80]!a}.")
    work = workplace(folder, passphrase_file)
    with work.lock():
        draft = work.begin(replace=replace)
        state = changes.known_state(work, brand)
        after = changes.revoked(state, sequence=sequence, sha256=sha256, reason=texts, minimum=minimum)
        changes.change_brand(work, draft, after)
        what = ", ".join(text for text in (
            f"sequence {sequence}" if sequence else "", f"the file {sha256[:16]}…" if sha256 else "",
            f"everything below sequence {minimum}" if minimum else "") if text)
        outcome = work.finish(draft, [f"revoke {brand}: {what}", *texts.values()])
    hint = "" if after.main.sequence != sequence else f"It is what everybody gets now: release a newer {brand} soon."
    return told("revoke", outcome, f"Revoked of {brand}: {what}.", *([hint] if hint else []))


def _reasons(texts: tuple[str, ...], *, needed: bool) -> dict[str, str]:
    import re

    from keyfit.core.text import clean

    reasons = {}
    for text in texts:
        language, _, reason = text.partition("=")
        if not re.fullmatch(r"[a-z]{2}(_[A-Z]{2})?", language) or not reason or clean(reason, 400) != reason:
            raise UserError("bad-reason", f"Expected LANGUAGE=TEXT such as en=TEXT or zh_CN=TEXT, one line of at most 400"
                            f" characters, came {text[:80]!a}.")
        reasons[language] = reason
    if needed and "en" not in reasons:
        raise UserError("bad-reason", "Expected a reason in English at least, came none.",
                        hint="--reason en='Why users should not have it'")
    return reasons
