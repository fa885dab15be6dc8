"""What the publisher's commands do to a directory: one change at a time, published whole or left as a signing request.

A publisher's directory holds:

    repository/    what is served
    media/         the same for offline kits: repository/, request/
    keys/          the keyring and the key files that are on this machine
    state/         brands as they were last released, rollouts, revocations
    packages.json  which driver files were added
    request/       a change that waits for signatures: request.json to be carried around, and what goes with it

Every change begins with `Workplace.settle`, which ends a publication that was cut off.
"""

import shutil
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from msgspec import Struct

from keyfit.errors import HostError, UserError
from keyfit.privatefiles import FileLock, write_private
from keyfit.publisher.draft import Draft, Missing, Sign, count_bins
from keyfit.publisher.keyring import AskSecret, Keyring
from keyfit.publisher.repository import Published, PublisherRepository, write_targets
from keyfit.publisher.request import SigningRequest, lacking_words, read_request, write_request
from keyfit.publisher.roles import MEDIA, ONLINE, Layout
from keyfit.publisher.state import State

LOCK_WAIT_S = 60.0


class Outcome(Struct, frozen=True, kw_only=True):
    """How a change ended: `published`, or `lacking` signatures, which the file `request` waits for."""

    published: Published | None = None
    request: Path | None = None
    lacking: tuple[Missing, ...] = ()
    words: tuple[str, ...] = ()


class Workplace:
    """A publisher's directory, and one of its two repositories.

    Args:
        ask: for a passphrase or PIN.
        now: the time that dates are reckoned from.
        layout: ONLINE, or MEDIA for offline kits.
    """

    def __init__(self, folder: Path, ask: AskSecret | None = None, now: Callable[[], datetime] | None = None,
                 layout: Layout = ONLINE) -> None:
        self.folder = folder
        self.layout = layout
        self.keyring = Keyring(folder / "keys", ask)
        home = folder if layout is not MEDIA else folder / "media"
        self.repository = PublisherRepository(home / "repository", layout, now)
        self.state = State(folder / "state")
        self.request_folder = home / "request"

    @property
    def request_file(self) -> Path:
        """The signing request that waits, if there is one."""
        return self.request_folder / "request.json"

    def lock(self) -> FileLock:
        """One change of the directory at a time."""
        return FileLock(self.folder / "keys" / "lock", LOCK_WAIT_S, "publisher-busy")

    def require(self) -> None:
        """See that there is a repository, and end a publication that was cut off.

        Raises:
            UserError: code "no-repository-here".
        """
        if not (self.repository.folder / "metadata" / "timestamp.json").is_file():
            if self.request_file.exists():
                raise UserError("request-pending", f"The first version waits for signatures in {self.request_file}.",
                                hint="Complete it with keyfit-publish sign.")
            raise UserError("no-repository-here", f"Expected a publisher's directory, {self.folder} is none.",
                            hint=f"Make it with: keyfit-publish init {self.folder}")

    def settle(self) -> None:
        """End what a power cut left: a change that was published keeps its notes; one that was not is forgotten, unless
        it is a request that still waits for signatures."""
        mark = self.request_folder / "publishing"
        if not mark.exists():
            return
        written = self.repository.exists() and str(self.repository.load("timestamp").signed.version)
        if mark.read_text("ascii").strip() == written:
            self.state.take(self.request_folder / "state")
            self._clear()
        elif self.request_file.exists():
            mark.unlink()
        else:
            self._clear()

    def create(self, needed: dict[str, int]) -> Outcome:
        """The first version of every role, without targets, for the keys of the keyring.

        Args:
            needed: owner -> how many of its keys have to sign.
        """
        draft = Draft(self.repository)
        owners = set(self.layout.owners.values())
        draft.create({owner: [e.key() for e in self.keyring.of(owner)] for owner in owners}, needed)
        return self.finish(draft, ("the first version of every role",))

    def begin(self, *, replace: bool = False) -> Draft:
        """A draft of the repository.

        Args:
            replace: drop the signing request that waits.

        Raises:
            UserError: code "request-pending".
        """
        self.settle()
        if self.request_file.exists() and not replace:
            raise UserError("request-pending", f"A change waits for signatures in {self.request_file}.",
                            hint="Complete it with keyfit-publish sign, or drop it with --replace.")
        self._clear()
        return Draft(self.repository)

    def finish(self, draft: Draft, summary: Sequence[str], *, sign: Sign | None = None, number: str = "") -> Outcome:
        """Sign with the keys that are here; publish if that is enough, else leave a request.

        The state that belongs to the change has to be in `request_folder / "state"` before.

        Args:
            sign: instead of the keyring.
            number: of the request that goes on.
        """
        lacking = draft.complete(sign or self.sign)
        if not lacking:
            return Outcome(published=self._publish(draft))
        self.request_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_targets(self.request_folder / "targets", draft.files)
        write_request(self.request_file, draft, tuple(summary), self.keyring, number or uuid.uuid4().hex[:12])
        return Outcome(request=self.request_file, lacking=tuple(lacking), words=self.words(lacking))

    def refresh(self, draft: Draft) -> Outcome:
        """Publish a new timestamp, and a snapshot if it ages, beside whatever waits for signatures.

        Raises:
            UserError: code "keys-missing".
        """
        lacking = draft.complete(self.sign)
        if lacking:
            raise UserError("keys-missing", "Too few keys are here: " + "; ".join(self.words(lacking)) + ".",
                            hint="A refresh is signed on one machine; put the keys there and try again.")
        self.repository.publish(draft.roles, self.request_folder / "no-targets", root_first=True)
        return Outcome(published=self.repository.summary(0, 0, None))

    def resume(self, request: SigningRequest) -> Draft:
        """The draft of a request.

        Raises:
            HostError: the repository has moved on since the request was made.
        """
        draft = Draft(self.repository, request.metadata())
        draft.changed_targets, draft.targets = request.changed_targets, request.targets
        rebase(draft)
        return draft

    def pending(self) -> SigningRequest | None:
        """The request that waits, or None."""
        return read_request(self.request_file) if self.request_file.exists() else None

    def drop(self) -> None:
        """Forget the request that waits."""
        self._clear()

    def sign(self, keyid: str, data: bytes) -> Any:
        """A signature by a key of the keyring, or None if it is not here."""
        signer = self.keyring.signer(keyid)
        return signer.sign(data) if signer is not None else None

    def words(self, lacking: Sequence[Missing]) -> tuple[str, ...]:
        """What is missing, with the names of the keys."""
        return lacking_words(lacking, {entry.keyid: entry.name for entry in self.keyring.entries()})

    def _publish(self, draft: Draft) -> Published:
        write_targets(self.repository.folder / "targets", draft.files)  # nothing names them yet
        self.request_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        mark = self.request_folder / "publishing"
        write_private(mark, str(draft.roles["timestamp"].signed.version).encode())
        self.repository.publish(draft.roles, self.request_folder / "targets", root_first=not draft.root_goes_last())
        self.state.take(self.request_folder / "state")
        self._clear()
        return self.repository.summary(draft.changed_targets, count_bins(draft.roles), draft.targets)

    def _clear(self) -> None:
        with suppress(FileNotFoundError):
            shutil.rmtree(self.request_folder)


def rebase(draft: Draft) -> None:
    """Fit a draft to what was published since: a refresh may have taken the numbers of its snapshot and timestamp.

    Raises:
        HostError: code "request-outdated": another change has been published.
    """
    repository = draft.repository
    if not repository.exists():
        return
    for role in list(draft.roles):
        published = repository.load("timestamp").signed.version if role == "timestamp" else repository.version(role)
        if draft.roles[role].signed.version == published + 1:
            continue
        if role not in ("snapshot", "timestamp"):
            raise HostError("request-outdated", f"Expected version {published + 1} of {role}, the request has"
                            f" {draft.roles[role].signed.version}: something else was published since.",
                            hint="Drop the request with --replace and make the change again.")
        draft.roles.pop("timestamp", None)
        draft.roles.pop(role, None)
