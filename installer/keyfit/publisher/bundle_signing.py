"""The repository of offline kits, DIR/media/repository: it always holds the whole release, and a kit is a part of it.

So two kits for different brands that are pressed from one release are of one version, and a computer may use one after
the other. Versions only grow: a kit of an older release is refused where a newer one was used.
"""

from datetime import timedelta

import msgspec

from keyfit.errors import TrustError
from keyfit.publisher.bundle_content import KitContent
from keyfit.publisher.keyring import AskSecret
from keyfit.publisher.release import Outcome, Workplace
from keyfit.publisher.roles import MEDIA

_SLACK = 50
"""Signatures are used again for further kits as long as no more than a 50th of the asked life is over."""


def media_workplace(work: Workplace, ask: AskSecret, days: int) -> Workplace:
    """The kits' side of a publisher's directory, with the life that is asked for.

    Raises:
        UserError: there is none, or its first version still waits for signatures.
    """
    media = Workplace(work.folder, ask, layout=MEDIA)
    media.keyring = work.keyring
    life = {role: MEDIA.life_days["root"] if role == "root" else days for role in MEDIA.life_days}
    media.layout = msgspec.structs.replace(MEDIA, life_days=life)
    media.repository.layout = media.layout
    media.require()
    return media


def sign_kits(media: Workplace, content: KitContent, days: int, *, replace: bool) -> Outcome | None:
    """Sign the release for kits, with the keys that are here; if they are too few, leave a signing request.

    None if what was signed before serves.

    Raises:
        UserError: a request waits already.
        TrustError: the kits' root would expire before the kit.
    """
    repository = media.repository
    until = repository.now() + timedelta(days=days)
    if repository.root().expires < until:
        raise TrustError("root-expires-first", f"The root of offline kits expires on {repository.root().expires:%Y-%m-%d},"
                         f" before a kit of {days} days would.", hint="Sign a new one: keyfit-publish rotate DIR media-root")
    draft = media.begin(replace=replace)
    draft.set_targets(content.targets)
    naming = {"targets", "drivers", *repository.bin_names()}
    kept = [repository.load(role).signed.expires for role in naming - draft.roles.keys()]
    top = [repository.load(role).signed.expires for role in ("snapshot", "timestamp")]
    slack = timedelta(days=max(1.0, days / _SLACK))
    if any(not until - slack <= expires <= until + timedelta(days=1) for expires in kept) or min(top) < until - slack:
        for role in naming:
            draft.edit(role)
    if not draft.roles:
        return None
    said = [f"offline kits with {len(content.targets)} manifests, for {days} days"]
    return media.finish(draft, said)
