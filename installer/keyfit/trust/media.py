"""Offline kits: a signed repository on a disc, a stick or a folder, under a root of its own.

Metadata of a kit is refused from the network and metadata from the network in a kit, because each has its own root. A kit
carries its own expiry, and there is no switch to ignore it. When it has expired, the network is tried, then the days of
grace that the administrator's policy grants, if any.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

from msgspec import Struct

from keyfit.errors import NetworkError, TrustError, UserError
from keyfit.model.catalog import Manifest, Payload
from keyfit.model.result import Message
from keyfit.ports import Offer, Progress, Repository

T = TypeVar("T")
DAY_S = 86_400.0


def kit_folder(source: str) -> Path | None:
    """The folder that `--source` names, or None if it names an address on the network.

    A kit's files lie in `keyfit/` beside its start menu, or in the folder itself.

    Raises:
        UserError: code "no-kit": there is no signed repository in it.
    """
    if "://" in source and not source.lower().startswith("file:"):
        return None
    given = Path(source) if "://" not in source else _path_of(source)
    for folder in (given / "keyfit", given):
        if (folder / "metadata" / "timestamp.json").is_file():
            return folder.absolute()
    raise UserError("no-kit", f"Expected an offline kit in {given}, there is no keyfit/metadata and no metadata folder in"
                    " it.", hint="Name the folder that the kit was unpacked into, or where its disc is mounted.")


def _path_of(url: str) -> Path:
    from urllib.parse import unquote, urlsplit

    return Path(unquote(urlsplit(url).path))


class _Way(Struct, frozen=True, kw_only=True):
    """One way to signed data."""

    kind: Literal["kit", "online", "grace"]
    open: Callable[[], Repository]


class KitRepository:
    """The signed data of an offline kit: `keyfit.ports.Repository`.

    Args:
        open_kit: makes the kit's repository, with so many seconds of grace.
        open_online: makes the repository on the network, None if this build knows none and none was given.
        grace_days: from the administrator's policy.
    """

    def __init__(self, *, open_kit: Callable[[float], Repository], open_online: Callable[[], Repository] | None,
                 grace_days: int) -> None:
        self._ways = [_Way(kind="kit", open=lambda: open_kit(0.0))]
        if open_online is not None:
            self._ways.append(_Way(kind="online", open=open_online))
        if grace_days:
            self._ways.append(_Way(kind="grace", open=lambda: open_kit(grace_days * DAY_S)))
        self._grace_days = grace_days
        self._used: Repository | None = None
        self._expired: TrustError | None = None

    @property
    def offline(self) -> bool:
        """True as long as the kit itself is used."""
        return self._ways[0].kind != "online"

    def refresh(self) -> None:
        """See `ports.Repository`.

        Raises:
            TrustError: code "kit-expired"; else as from the repository.
        """
        self._do(lambda repository: repository.refresh())

    def manifest(self, target: str) -> Manifest | None:
        """See `ports.Repository`."""
        return self._do(lambda repository: repository.manifest(target))

    def offer(self, target: str) -> Offer | None:
        """See `ports.Repository`."""
        return self._do(lambda repository: repository.offer(target))

    def payload(self, payload: Payload, progress: Progress | None = None) -> Path:
        """See `ports.Repository`. What is returned is a private copy, hashed while it was made."""
        return self._do(lambda repository: repository.payload(payload, progress))

    def check_not_withdrawn(self, payload: Payload) -> None:
        """See `ports.Repository`."""
        self._do(lambda repository: repository.check_not_withdrawn(payload))

    def permit(self, payload: Payload) -> None:
        """See `ports.Repository`."""
        self._do(lambda repository: repository.permit(payload))

    def relay(self, path: str) -> bytes | None:
        """See `ports.Repository`."""
        return self._do(lambda repository: repository.relay(path))

    def notes(self) -> tuple[Message, ...]:
        """That the kit has expired, if it has, and what is used instead."""
        if self._ways[0].kind == "online":
            return (Message(level="warning", code="kit-expired-online", text="The offline kit has expired; signed data was"
                            " taken from the network instead.", hint="Ask the publisher for a newer kit."),)
        if self._ways[0].kind == "grace":
            return (Message(level="warning", code="kit-grace", text="The offline kit has expired. It is used because the"
                            f" administrator's policy grants {self._grace_days} days of grace; what was withdrawn since"
                            " is not known here.", hint="Ask the publisher for a newer kit."),)
        return ()

    def _do(self, work: Callable[[Repository], T]) -> T:
        """Work with the way in use; when the kit turns out to have expired, with the next one. Roles below the first ones
        may show their age only when a manifest is asked for."""
        while True:
            try:
                if self._used is None:
                    self._used = self._ways[0].open()
                return work(self._used)
            except (TrustError, NetworkError, UserError) as error:
                self._give_up_way(error)

    def _give_up_way(self, error: TrustError | NetworkError | UserError) -> None:
        """Go on to the next way.

        Raises:
            TrustError: code "kit-expired", if there is no other.
            KeyfitError: `error`, if the kit failed for another reason than its age.
        """
        if self._ways[0].kind != "online":
            if error.code != "metadata-expired" or not isinstance(error, TrustError):
                raise error
            self._expired = error
        elif self._expired is None:
            raise error
        if len(self._ways) == 1:
            raise self._kit_expired(error) from self._expired
        del self._ways[0]
        self._used = None

    def _kit_expired(self, last: Exception) -> TrustError:
        more = "" if last is self._expired else f" The network could not help: {last}"
        if self._ways[0].kind == "grace":
            more += f" The {self._grace_days} days of grace that the policy grants are over as well."
        return TrustError("kit-expired", f"The offline kit has expired, so what it holds may have been withdrawn since."
                          f"{more}", hint="Check this computer's date and time. If they are right, ask the publisher for a"
                          " newer kit.")
