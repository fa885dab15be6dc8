"""The signed repository as the rest of Keyfit sees it: `keyfit.ports.Repository` over one or several addresses."""

import stat
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar
from urllib.parse import quote

import msgspec

from keyfit.errors import KeyfitError, NetworkError, NoTokenError, TrustError, UserError
from keyfit.model.catalog import Brand, Manifest, Payload, Staged, brand_target, grant_target
from keyfit.model.policy import Policy
from keyfit.model.result import Message
from keyfit.ports import Clock, Offer, Progress, Refusal
from keyfit.privatefiles import FileLock, private_directory, read_private, storage_error, unsafe
from keyfit.trust import grants
from keyfit.trust.addresses import check_repository, host_of
from keyfit.trust.floors import Floors, clock_behind, files_of
from keyfit.trust.limits import MANIFEST_BYTES, Limits
from keyfit.trust.manifests import TARGET_NAME, brand_of, decode_grant, decode_manifest, device_of
from keyfit.trust.seed import plant
from keyfit.trust.transport import Transport

if TYPE_CHECKING:
    from keyfit.trust.metadata import CheckedAddress, Standing

T = TypeVar("T")
_BAD_DATA = (NetworkError, TrustError)
_MAX_RELAYED = 5_000_000
"""As large as python-tuf takes any metadata (`UpdaterConfig.targets_max_length`)."""
_ROOTS = "root_history"
_MAX_TIMESTAMP = 16_384
"""As large as python-tuf takes one (`UpdaterConfig.timestamp_max_length`)."""


class TufRepository:
    """Signed data from the first of several addresses that has it and passes every check.

    All addresses carry the same repository; they are told apart only by whether they answer. The metadata directory
    holds `lock`, `floors.json` and, under `tuf/` (of an offline kit `media/`), what python-tuf keeps; it has to be as
    private as what is installed from it (security D6).

    Args:
        urls: of folders with `metadata/`, `targets/` and `payloads/` in them; in the order in which they are tried.
        trusted_root: the root metadata that this build carries, of this kind of repository.
        metadata_dir, cache_dir: made when first needed, for this user alone.
        kind: "tuf" for a repository that is kept up to date, "media" for an offline kit, with a root of its own.
        clock: compared with signed dates; expiry is checked against it, or against the newest signed date if that is
            later.
        built_at: when this build was made, in seconds since the epoch; 0 if it does not say.
        policy: names the withdrawn or older versions that may be used all the same.
        grace_s: how long everything but the root may be expired.
        seed: folder with metadata that this build carries (see `keyfit.trust.seed`).
        transport: gets the files, instead of one made here.

    Raises:
        UserError: an address is neither https, a folder, nor http on this machine.
    """

    def __init__(self, *, urls: Sequence[str], trusted_root: bytes, metadata_dir: Path, cache_dir: Path,
                 kind: Literal["tuf", "media"] = "tuf", clock: Clock | None = None, limits: Limits | None = None,
                 built_at: float = 0.0, policy: Policy | None = None, grace_s: float = 0.0,
                 seed: Path | None = None, transport: Transport | None = None) -> None:
        if not urls:
            raise UserError("no-repository", "Expected the address of a repository, came none.",
                            hint="Use --repository URL.")
        self._urls = tuple(dict.fromkeys(check_repository(url) for url in urls))
        self._trusted_root = trusted_root
        self._metadata_dir = metadata_dir
        self._cache_dir = cache_dir
        self._kind = kind
        self._now = clock.now if clock is not None else time.time
        self._limits = limits or Limits()
        self._policy = policy or Policy()
        self._grace_s = grace_s
        self._seed = seed
        self._transport = transport or Transport(self._limits)
        self._hasty = Transport(self._limits.hasty())
        self._floors = Floors(metadata_dir, built_at)
        self._current: tuple[str, CheckedAddress] | None = None
        self._good_files: set[str] = set()

    @property
    def offline(self) -> bool:
        """True if this is an offline kit."""
        return self._kind == "media"

    def refresh(self) -> None:
        """Bring the metadata up to date: the whole TUF client workflow, at the first address that passes it. The others are
        looked at for newer metadata, with less patience: one address alone could keep back what is new until its
        timestamp expires.

        Raises:
            NetworkError: no address could be reached.
            TrustError: signature, expiry, rollback or clock check failed.
            StorageError, BusyError: the metadata directory cannot be used.
        """
        self._current = None
        with self._lock():
            try:
                self._at_any_address(lambda _: None)
            except NetworkError as error:
                raise self._with_age(error) from error
            self._look_for_newer()

    def manifest(self, target: str) -> Manifest | None:
        """The verified manifest at a target path, without what may not be used; None if the repository has no such target.

        Raises:
            NetworkError, TrustError, StorageError, BusyError: as for `refresh`; or the manifest is malformed, or none of
                its brands may be used.
        """
        offer = self.offer(target)
        if offer is not None and offer.refused and not (offer.manifest.brands or offer.manifest.staged):
            raise offer.refused[0].error
        return None if offer is None else offer.manifest

    def offer(self, target: str) -> Offer | None:
        """The verified manifest at a target path, and beside it what may not be used and why; None if the repository
        has no such target.

        Raises:
            NetworkError, TrustError, StorageError, BusyError: as for `refresh`; or the manifest is malformed.
        """
        if not TARGET_NAME.fullmatch(target):
            return None
        with self._lock():
            return self._at_any_address(lambda address: self._offer_from(address, target),
                                        good=lambda offer: offer is None or not offer.refused)

    def standing(self) -> "Standing | None":
        """How to see cheaply whether the address in use still says the same; None before the first refresh."""
        return None if self._current is None else self._current[1].standing()

    def notes(self) -> tuple[Message, ...]:
        """Nothing: the data came from where it was asked for."""
        return ()

    def payload(self, payload: Payload, progress: Progress | None = None) -> Path:
        """Fetch and verify a payload; the returned file has exactly the signed hash and length.

        Raises:
            TrustError: code "revoked": the file was withdrawn, and it is in no manifest that was found good since.
            NetworkError, TrustError, StorageError, BusyError.
        """
        from keyfit.trust.payloads import PayloadStore

        self.check_not_withdrawn(payload)
        path = quote(payload.path, safe="/~+")
        urls = [f"{url}payloads/{path}" for url in self._order()] + list(payload.mirrors)
        return PayloadStore(self._cache_dir, self._transport).fetch(payload, urls, progress)

    def check_not_withdrawn(self, payload: Payload) -> None:
        """See `ports.Repository`."""
        if payload.sha256 not in self._good_files:
            refusal = self._floors.file_refusal(payload.file, payload.sha256)
            if refusal is not None:
                raise refusal

    def permit(self, payload: Payload) -> None:
        """See `ports.Repository`."""
        self._good_files.add(payload.sha256)

    def relay(self, path: str) -> bytes | None:
        """See `ports.Repository`."""
        url = next(self._order()) + path
        hosts = frozenset(host_of(each) for each in self._urls)
        with self._transport.get(url, seconds=self._limits.metadata_s, allowed_hosts=hosts, may_be_gzip=True) as answer:
            if answer.status in (403, 404):
                return None
            answer.require_data()
            data = bytearray()
            for chunk in answer.content():
                data += chunk
                if len(data) > _MAX_RELAYED:
                    raise NetworkError("bad-answer", f"{path} is larger than a file of a repository may be.",
                                       hint="Tell the publisher of this repository.")
        return bytes(data)

    # -- a manifest ---------------------------------------------------------------------------------------------------

    def _offer_from(self, address: "CheckedAddress", target: str) -> Offer | None:
        manifest = self._fetch(address, target)
        if manifest is None:
            return None
        delegated = grants.delegated_brands(address.delegated_roles())
        name, device = brand_of(target), device_of(target)
        if name in delegated:
            return self._judged(self._within_grant(address, manifest, name), [])
        refused: list[Refusal] = []
        if name:
            grants.check_named(manifest, name)
        self._floors.note(manifest.minimum, manifest.revoked)
        if device is not None:
            manifest, refused = self._composed(address, manifest, delegated, device)
        return self._judged(manifest, refused)

    def _fetch(self, address: "CheckedAddress", target: str) -> Manifest | None:
        data = address.target(target, MANIFEST_BYTES)
        return None if data is None else decode_manifest(data, target)

    def _within_grant(self, address: "CheckedAddress", own: Manifest, brand: str) -> Manifest:
        """A manifest that a brand signed with its own keys, once it was found within its grant.

        Raises:
            TrustError: code "grant-missing" or "grant-exceeded".
        """
        target = grant_target(brand)
        data = address.target(target, MANIFEST_BYTES)
        if data is None:
            raise TrustError("grant-missing", f"{brand} signs its own data, but the publisher has not signed what it may"
                             f" do ({target}).", hint="Nothing of it is used. Tell the publisher of this repository.")
        grant = decode_grant(data, target)
        if grant.brand != brand:
            raise TrustError("grant-missing", f"Expected a grant for {brand} in {target}, came one for {grant.brand}.",
                             hint="Nothing of it is used. Tell the publisher of this repository.")
        self._floors.note({brand: grant.minimum}, grant.revoked)
        grants.check_granted(own, brand, grant)
        manifest = grants.joined(own, grant)
        self._floors.note(manifest.minimum, manifest.revoked)
        return manifest

    def _composed(self, address: "CheckedAddress", claims: Manifest, delegated: frozenset[str],
                  device: tuple[int, int]) -> tuple[Manifest, list[Refusal]]:
        """A device's manifest with the data that brands signed themselves in the places of what they claim. A brand whose
        data cannot be used leaves the others as they are."""
        main: list[Brand] = [b for b in claims.brands if b.brand not in delegated]
        staged: list[Staged] = [s for s in claims.staged if s.brand.brand not in delegated]
        refused: list[Refusal] = []
        for claim in {b.brand: b for b in (*(s.brand for s in claims.staged), *claims.brands)}.values():
            if claim.brand not in delegated:
                continue
            try:
                own = self._own(address, claim.brand, claims)
            except (TrustError, NoTokenError) as error:
                refused.append(Refusal(brand=claim, error=error))
                continue
            brand, newer = grants.compose(claims, own, claim.brand, device)
            main += [brand] if brand is not None else []
            staged += newer
        return msgspec.structs.replace(claims, brands=tuple(main), staged=tuple(staged)), refused

    def _own(self, address: "CheckedAddress", brand: str, claims: Manifest) -> Manifest:
        own = self._fetch(address, brand_target(brand, claims.system, claims.architecture))
        if own is None:
            raise NoTokenError("no-driver", f"{brand} has published nothing for {claims.system} {claims.architecture}.",
                               hint="Ask the bank or the maker of the token for a driver for this system.")
        return self._within_grant(address, own, brand)

    def _judged(self, manifest: Manifest, refused: list[Refusal]) -> Offer:
        """Part what may be used from what may not, and let what may raise the floors. A staged version raises none: if it
        is taken back, who never got it must not be locked out."""
        lifted: list[Refusal] = []

        def usable(brand: Brand) -> bool:
            error = self._floors.refusal(brand)
            allowed = error is None or self._policy.allows(brand.brand, brand.sequence)
            if error is not None:
                (lifted if allowed else refused).append(Refusal(brand=brand, error=error))
            return allowed

        good = msgspec.structs.replace(
            manifest, brands=tuple(b for b in manifest.brands if usable(b)),
            staged=tuple(s for s in manifest.staged if usable(s.brand)))
        self._floors.raise_sequences(good.brands)
        for brand in (*good.brands, *(s.brand for s in good.staged)):
            self._good_files.update(files_of(brand))
        return Offer(manifest=good, refused=tuple(refused), lifted=tuple(lifted))

    # -- addresses ----------------------------------------------------------------------------------------------------

    def _at_any_address(self, work: Callable[["CheckedAddress"], T], good: Callable[[T], bool] = lambda _: True) -> T:
        """Do `work` at the first address where it succeeds and comes to something good, else the first that succeeds. A
        mirror may answer well-formed and stale, so failing over is a matter of whole workflows, not of single requests."""
        from keyfit.trust.payloads import most_telling

        self._reference_time()
        failures: list[KeyfitError] = []
        poor: list[T] = []
        for url in self._order():
            try:
                done = work(self._checked(url))
            except _BAD_DATA as error:
                self._current = None
                failures.append(error)
            else:
                if good(done):
                    return done
                poor.append(done)
        if poor:
            return poor[0]
        raise most_telling(failures)

    def _look_for_newer(self) -> None:
        """Go over to another address if it has newer metadata. The one in use is the first that did not fail, so only
        those after it are asked."""
        if self._current is None:
            return
        used = self._current
        for url in self._urls[self._urls.index(used[0]) + 1:]:
            try:
                before = self._timestamp()
                self._opened(url, self._hasty)
                if self._timestamp() != before:
                    used = (url, self._opened(url, self._transport))
            except _BAD_DATA:
                continue
        self._current = used

    def _timestamp(self) -> bytes | None:
        """The newest timestamp that was verified, as it is kept."""
        return read_private(self._metadata_dir / self._kind / "timestamp.json", _MAX_TIMESTAMP)

    def _checked(self, url: str) -> "CheckedAddress":
        if self._current is None or self._current[0] != url:
            self._current = (url, self._opened(url, self._transport))
        return self._current[1]

    def _opened(self, url: str, transport: Transport) -> "CheckedAddress":
        from keyfit.trust.metadata import CheckedAddress, Fetcher

        folder = self._metadata_dir / self._kind
        private_directory(folder)
        _refuse_planted(folder)
        if self._seed is not None:
            plant(self._seed, folder)
        hosts = frozenset(host_of(each) for each in self._urls)
        address = CheckedAddress(metadata_url=url + "metadata/", targets_url=url + "targets/", folder=folder,
                                 trusted_root=self._trusted_root, fetcher=Fetcher(transport, hosts),
                                 reference_time=self._reference_time(), grace_s=self._grace_s)
        self._note_date(address.signed_at())
        return address

    def _reference_time(self) -> float:
        return self._floors.reference_time(self._now(), self._limits.clock_slack_s)

    def _with_age(self, error: NetworkError) -> NetworkError:
        """Who cannot ask is told how old the newest is that is known here: what was withdrawn since is not (security J4)."""
        signed_at = self._floors.newest_date()
        if not signed_at:
            return error
        days = max(0, int((self._now() - signed_at) // 86_400))
        when = time.strftime("%Y-%m-%d", time.gmtime(signed_at))
        return NetworkError(error.code, error.message, outcome=error.outcome, hint=f"{error.hint} The newest signed data that"
                            f" was checked here is of {when} ({days} day{'s' * (days != 1)} old); what was withdrawn since is"
                            " not known here.")

    def _note_date(self, signed_at: float) -> None:
        """A date that the clock has not reached is not noted: a thief of the timestamp's key could set the floor years
        ahead with it, for good.

        Raises:
            TrustError: code "clock-behind".
        """
        now = self._now()
        if now < signed_at - self._limits.clock_slack_s:
            raise clock_behind(now, signed_at)
        self._floors.raise_signed_at(signed_at)

    def _order(self) -> Iterator[str]:
        """The addresses, the one in use first."""
        used = self._current[0] if self._current is not None else None
        if used is not None:
            yield used
        yield from (url for url in self._urls if url != used)

    def _lock(self) -> FileLock:
        private_directory(self._metadata_dir)
        return FileLock(self._metadata_dir / "lock", self._limits.lock_wait_s)


def _refuse_planted(folder: Path) -> None:
    """See that the metadata's folder holds files alone, before python-tuf opens them: it would wait for a FIFO, and follow links.
    Its own one is root.json, which leads to root_history/ (python-tuf, `Updater._update_root_symlink`).

    Raises:
        StorageError: code "unsafe-file".
    """
    try:
        entries = [*folder.iterdir(), *((folder / _ROOTS).iterdir() if (folder / _ROOTS).is_dir() else ())]
        for path in entries:
            mode = path.lstat().st_mode
            own = path.name == "root.json" and stat.S_ISLNK(mode) and path.readlink().parts[:-1] == (_ROOTS,)
            if not (own or stat.S_ISREG(mode) or (stat.S_ISDIR(mode) and path.name == _ROOTS)):
                raise unsafe(path, "it is a link or no regular file")
    except OSError as error:
        raise storage_error(error, folder, "look into") from error
