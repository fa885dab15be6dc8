"""python-tuf's client on our transport, and its errors as ours. Imports tuf: import this module only when needed."""

from collections.abc import Generator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from msgspec import Struct
from tuf.api import exceptions as tuf
from tuf.api.metadata import Metadata, Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.ngclient import Updater, UpdaterConfig
from tuf.ngclient._internal.trusted_metadata_set import _load_from_metadata
from tuf.ngclient.fetcher import FetcherInterface

from keyfit.errors import BugError, KeyfitError, NetworkError, TrustError
from keyfit.privatefiles import storage_error
from keyfit.trust.addresses import origin
from keyfit.trust.transport import Answer, Transport, captive_portal

SIGNED_AT = "x-keyfit-signed-at"
"""Field of the timestamp role that says when it was signed (ISO 8601, UTC). TUF allows further fields in `signed`
(specification 1.0.34, "File formats: general principles")."""
_ERROR_PAGE_BYTES = 65_536
_ASK_PUBLISHER = "Tell the publisher of this repository; do not install from it until it is mended."


class Fetcher(FetcherInterface):
    """Metadata and manifests over our transport."""

    def __init__(self, transport: Transport, allowed_hosts: frozenset[str]) -> None:
        self._transport = transport
        self._allowed_hosts = allowed_hosts
        self.etags: dict[str, str] = {}
        """Address -> entity tag of the file that came from there."""

    def _fetch(self, url: str) -> Generator[bytes, None, None]:
        seconds = self._transport.limits.metadata_s
        with self._transport.get(url, seconds=seconds, allowed_hosts=self._allowed_hosts,
                                 may_be_gzip=True) as answer:
            if answer.status in (403, 404):
                _drain(answer)
                raise tuf.DownloadHTTPError(f"{origin(url)} does not have {url.rpartition('/')[2]}", answer.status)
            answer.require_data()
            if answer.url == url:  # not if it came from elsewhere
                self.etags[url] = answer.headers.get("ETag", "")
            first = True
            for chunk in answer.content():
                if first and chunk.lstrip()[:1] == b"<":
                    raise captive_portal(url)
                first = first and not chunk.strip()
                yield chunk

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """Like the base class's, but in memory instead of a file in a directory that others may write."""
        data = bytearray()
        with closing(self._fetch(url)) as chunks:  # closed at once, also if there is more to come
            for chunk in chunks:
                data += chunk
                if len(data) > max_length:
                    raise tuf.DownloadLengthMismatchError(f"more than {max_length} bytes came for"
                                                          f" {url.rpartition('/')[2]}")
        return bytes(data)


def _drain(answer: Answer) -> None:
    """Read a small page to its end, so that the next request can use the connection."""
    size = 0
    for chunk in answer.chunks():
        size += len(chunk)
        if size > _ERROR_PAGE_BYTES:
            return


class Standing(Struct, frozen=True, kw_only=True):
    """How one can see cheaply whether what was verified is still the newest.

    Attributes:
        url, etag: of the timestamp, as the server gave it; the tag may be empty.
        expires: the first expiry of the top-level roles, in seconds since the epoch.
    """

    url: str
    etag: str
    expires: float


class CheckedAddress:
    """A verified view of one repository address: refreshed metadata and the targets below it.

    Args:
        metadata_url, targets_url: folders; with a slash at the end.
        folder: where python-tuf keeps what it has verified; for this repository's root alone.
        trusted_root: the root that this build carries, never the one in the folder (security A1).
        reference_time: against which expiry is checked, in seconds since the epoch; None for the system's clock.
        grace_s: how long timestamp, snapshot, targets and delegated roles may be expired. The root never may.

    Raises:
        TrustError: code "trusted-root-invalid".
        KeyfitError: as `translated` says.
    """

    def __init__(self, *, metadata_url: str, targets_url: str, folder: Path, trusted_root: bytes,
                 fetcher: Fetcher, reference_time: float | None = None, grace_s: float = 0) -> None:
        self._metadata_url = metadata_url
        self._targets_url = targets_url
        self._folder = folder
        self._fetcher = fetcher
        now = datetime.now(UTC) if reference_time is None else datetime.fromtimestamp(reference_time, UTC)
        try:
            self._updater = _started(folder, metadata_url, trusted_root, fetcher)
            self._updater.judge_at(now - timedelta(seconds=grace_s))
            # the whole client workflow (TUF specification 1.0.34, section 5)
            self._updater.refresh()
            self._root = Metadata[Root].from_bytes((folder / "root.json").read_bytes()).signed
            if self._root.is_expired(now):  # python-tuf has checked it with the grace
                raise tuf.ExpiredMetadataError("Final root.json is expired")
        except (tuf.RepositoryError, tuf.DownloadError, OSError) as error:
            raise translated(error, metadata_url, folder) from error

    def signed_at(self) -> float:
        """When the timestamp was signed, in seconds since the epoch; 0 if it does not say."""
        try:
            timestamp = Metadata[Timestamp].from_bytes((self._folder / "timestamp.json").read_bytes()).signed
            moment = datetime.fromisoformat(str(timestamp.unrecognized_fields.get(SIGNED_AT, "")))
        except (OSError, ValueError, tuf.RepositoryError):
            return 0.0
        return moment.timestamp() if moment.tzinfo and moment < timestamp.expires.astimezone(UTC) else 0.0

    def standing(self) -> Standing:
        """See `Standing`.

        Raises:
            KeyfitError: as `translated` says.
        """
        url = self._metadata_url + "timestamp.json"
        try:
            roles = [Metadata[Any].from_bytes((self._folder / f"{role}.json").read_bytes()).signed
                     for role in (Timestamp.type, Snapshot.type, Targets.type)]
        except (tuf.RepositoryError, OSError) as error:
            raise translated(error, self._metadata_url, self._folder) from error
        return Standing(url=url, etag=self._fetcher.etags.get(url, ""),
                        expires=min(role.expires.timestamp() for role in (self._root, *roles)))

    def delegated_roles(self) -> tuple[str, ...]:
        """Names of the roles to which the verified top-level targets delegates, in its order.

        Raises:
            KeyfitError: as `translated` says.
        """
        try:
            targets = Metadata[Targets].from_bytes((self._folder / "targets.json").read_bytes()).signed
        except (tuf.RepositoryError, OSError) as error:
            raise translated(error, self._metadata_url, self._folder) from error
        if targets.delegations is None:
            return ()
        if targets.delegations.succinct_roles is not None:
            return tuple(targets.delegations.succinct_roles.get_roles())
        return tuple(targets.delegations.roles or ())

    def target(self, path: str, max_bytes: int) -> bytes | None:
        """Verified content of a target, or None if there is no such target.

        Raises:
            KeyfitError: as `translated` says.
        """
        info = self.target_info(path)
        return None if info is None else self.fetch_target(info, max_bytes)

    def target_info(self, path: str) -> TargetFile | None:
        """Signed length and hashes of a target, or None if there is no such target.

        Raises:
            KeyfitError: as `translated` says.
        """
        try:
            return self._updater.get_targetinfo(path)
        except (tuf.RepositoryError, tuf.DownloadError, OSError) as error:
            raise translated(error, self._metadata_url, self._folder) from error

    def fetch_target(self, info: TargetFile, max_bytes: int) -> bytes:
        """Verified content of a target.

        Raises:
            KeyfitError: as `translated` says.
        """
        name = origin(self._targets_url)
        if info.length > max_bytes:
            raise TrustError("manifest-invalid", f"Expected at most {max_bytes} bytes for {info.path}, its signed length"
                             f" is {info.length}.", hint=_ASK_PUBLISHER)
        # consistent snapshots: the file's name begins with one of its hashes (specification, section 6.2)
        path = info.get_prefixed_paths()[0] if self._root.consistent_snapshot else info.path
        try:
            data = self._fetcher.download_bytes(self._targets_url + path, info.length)
            info.verify_length_and_hashes(data)
        except tuf.LengthOrHashMismatchError as error:
            raise TrustError("target-hash", f"Expected {info.path} from {name} with its signed hash and length, came"
                             f" something else ({error}).", hint=_ASK_PUBLISHER) from error
        except tuf.DownloadLengthMismatchError as error:
            raise TrustError("target-hash", f"Expected {info.length} bytes of {info.path} from {name}, came more.",
                             hint=_ASK_PUBLISHER) from error
        except (tuf.RepositoryError, tuf.DownloadError, OSError) as error:
            raise translated(error, self._targets_url, self._folder) from error
        return data


class _DatedUpdater(Updater):
    """python-tuf's client at a time of our choosing.

    Its public API knows the system's clock alone. The time lies in a private attribute, so a test fails if that moves,
    and no time is set rather than a wrong one.
    """

    def judge_at(self, moment: datetime) -> None:
        """Check expiry against this moment. Call before `refresh`."""
        if not isinstance(vars(self._trusted_set).get("reference_time"), datetime):
            raise BugError("tuf-changed", "This version of python-tuf keeps its reference time elsewhere.",
                           hint="Install the versions that requirements.lock names.")
        self._trusted_set.reference_time = moment
        if vars(self._trusted_set).get("_load_data") is _load_from_metadata:  # otherwise it stays as it is, and slower
            self._trusted_set._load_data = _load_data


def _load_data(role: type[Any], data: bytes, delegator: Any = None, role_name: str | None = None) -> tuple[Any, bytes, Any]:
    """python-tuf's `_load_from_metadata` with the same checks in the same order. It encodes what is signed once instead of
    twice, which for a snapshot of a thousand roles is a sixth of all the work of a refresh."""
    metadata = Metadata[Any].from_bytes(data)
    if metadata.signed.type != role.type:
        raise tuf.RepositoryError(f"Expected '{role.type}', got '{metadata.signed.type}'")
    signed = metadata.signed_bytes
    if delegator:
        delegator.verify_delegate(role.type if role_name is None else role_name, signed, metadata.signatures)
    return metadata.signed, signed, metadata.signatures


def _started(folder: Path, metadata_url: str, trusted_root: bytes, fetcher: Fetcher) -> _DatedUpdater:
    try:
        return _DatedUpdater(str(folder), metadata_url, fetcher=fetcher, config=UpdaterConfig(), bootstrap=trusted_root)
    except tuf.RepositoryError as error:  # nothing but the trusted root has been looked at yet
        raise _no_root(error) from error


def check_root(trusted_root: bytes) -> None:
    """See that a root is one, before anything is done with it.

    Raises:
        TrustError: code "trusted-root-invalid".
    """
    try:
        root = Metadata[Root].from_bytes(trusted_root)
        if not isinstance(root.signed, Root):
            raise ValueError(f"it is the role {root.signed.type}")
        root.signed.verify_delegate(Root.type, root.signed_bytes, root.signatures)
    except (tuf.RepositoryError, ValueError) as error:
        raise _no_root(error) from error


def _no_root(error: Exception) -> TrustError:
    return TrustError("trusted-root-invalid", f"The trusted root is not a signed TUF root: {error}.",
                      hint="Give the repository's own root file, or install Keyfit again.")


_REFUSALS: tuple[tuple[type[Exception], str, str, str], ...] = (
    (tuf.ExpiredMetadataError, "metadata-expired", "is out of date",
     "Check this computer's date and time. If they are right, the publisher has to renew the repository."),
    (tuf.BadVersionNumberError, "metadata-rollback", "is older than what this computer has already seen",
     "The repository or its mirror is out of date or was set back. Try another one, or ask the publisher."),
    (tuf.UnsignedMetadataError, "metadata-signature", "is not signed by the keys that this program trusts",
     _ASK_PUBLISHER + " If the repository is your own, check --trust-root."),
    (tuf.LengthOrHashMismatchError, "metadata-hash", "does not have the hash or length that was signed", _ASK_PUBLISHER),
    (tuf.RepositoryError, "metadata-invalid", "is not valid TUF metadata", _ASK_PUBLISHER),
    (tuf.DownloadLengthMismatchError, "metadata-too-large", "is larger than metadata may be", _ASK_PUBLISHER),
)
"""tuf's exceptions, the special ones first: (type, code, what is wrong, hint)."""


def translated(error: Exception, url: str, folder: Path) -> KeyfitError:
    """An error of tuf or of the system as the one that a user sees."""
    if isinstance(error, OSError):
        return storage_error(error, folder, "use")
    for kind, code, wrong, hint in _REFUSALS:
        if isinstance(error, kind):
            return TrustError(code, f"The metadata of {origin(url)} {wrong} ({error}).", hint=hint)
    if isinstance(error, tuf.DownloadHTTPError):
        return NetworkError("repository-file-missing", f"{error} (HTTP status {error.status_code}).",
                            hint="Check the repository's address; otherwise ask the publisher.")
    return NetworkError("repository-unreachable", f"{origin(url)} cannot be read.",
                        hint="Check the network connection and the repository's address.")
