"""Copies a signed repository, whole or in part, byte for byte: any client with the repository's root can use the copy.

Nothing is trusted but the root that is given. What is there already and is right is not fetched again, so a run that was
killed is simply started anew.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from urllib.parse import quote

import msgspec
from msgspec import Struct
from tuf.api import exceptions as tuf
from tuf.api.metadata import Metadata, Root, Targets

from keyfit.errors import StorageError, TrustError, UserError
from keyfit.model.catalog import Brand, Payload
from keyfit.privatefiles import private_directory
from keyfit.publisher.mirror_choice import Choice, contents
from keyfit.publisher.mirror_folder import MirrorFolder
from keyfit.publisher.mirror_origin import Origin, Rate
from keyfit.publisher.mirror_roles import ROOT_BYTES, Listed, RoleTree, Top, role_file, roots_before
from keyfit.trust.grants import delegated_brands
from keyfit.trust.limits import Limits
from keyfit.trust.metadata import CheckedAddress, check_root, translated
from keyfit.trust.payloads import PayloadStore

_TOLD_EVERY = 1000
LARGEST_TARGET_BYTES = 4_000_000
"""Targets are held in memory; a client takes manifests of at most a quarter of this."""


class Request(Struct, frozen=True, kw_only=True):
    """What to copy and how.

    Attributes:
        trusted_root: root metadata of any version.
        jobs: requests at a time.
        rate_bytes_per_s: at most; 0 for as fast as it goes.
        zipped: keep a .gz beside each metadata file.
        prune: remove what neither this run nor the one before it needs.
        payloads_url: where driver files are, if not beside the metadata.
        without: SHA-256 of driver files that are not wanted.
    """

    url: str
    folder: Path
    trusted_root: bytes
    choice: Choice = Choice()
    jobs: int = 4
    rate_bytes_per_s: int = 0
    zipped: bool = True
    prune: bool = False
    payloads_url: str = ""
    without: frozenset[str] = frozenset()
    limits: Limits = Limits()


class Tally(Struct, kw_only=True):
    """Of one kind of file."""

    files: int = 0
    fetched: int = 0
    fetched_bytes: int = 0

    def count(self, fetched_bytes: int | None) -> None:
        """One more file; None if it was there already."""
        self.files += 1
        if fetched_bytes is not None:
            self.fetched += 1
            self.fetched_bytes += fetched_bytes


class Mirrored(Struct, frozen=True, kw_only=True):
    """What a run did. `expires` is the timestamp's, ISO 8601."""

    metadata: Tally
    targets: Tally
    payloads: Tally
    pruned: int
    pruned_bytes: int
    versions: dict[str, int]
    expires: str
    oldest_root: int


def mirror(request: Request, tell: Callable[[str], None]) -> Mirrored:
    """Make or renew a mirror.

    Args:
        tell: is told how far it got, in words.

    Raises:
        UserError: the address, or the folder, or a brand that is not there.
        HostError: the folder is the mirror of another repository.
        NetworkError, TrustError, StorageError, BusyError: the mirror is as readers saw it before.
    """
    folder = MirrorFolder(request.folder)
    origin = Origin(request.url, request.jobs, Rate(request.rate_bytes_per_s), request.limits)
    check_root(request.trusted_root)
    if origin.url.startswith("file:") and Path(request.folder).absolute().as_uri() + "/" == origin.url:
        raise UserError("not-a-mirror", "Expected another folder than the repository's own.", hint="Choose another folder.")
    with folder.locked():
        folder.clean()
        run = _Run(request, folder, origin, tell)
        try:
            return run()
        except (tuf.RepositoryError, tuf.DownloadError, OSError) as error:
            raise translated(error, origin.url, request.folder) from error


class _Run:
    """One run."""

    def __init__(self, request: Request, folder: MirrorFolder, origin: Origin, tell: Callable[[str], None]) -> None:
        self._request = request
        self._folder = folder
        self._origin = origin
        self._tell = tell
        self._metadata, self._targets, self._payloads = Tally(), Tally(), Tally()
        self._files: set[str] = set()
        self._wanted: dict[str, Payload] = {}
        self._counting = Lock()

    def __call__(self) -> Mirrored:
        top = self._refreshed()
        roots = self._roots(top)
        self._folder.check_roots(roots)
        tree = RoleTree(top, self._role, datetime.now(UTC))
        if self._request.choice.brands:
            self._copy_brands(tree)
        else:
            self._copy_everything(tree)
        self._copy_payloads()
        before = self._folder.remembered()
        self._publish(top, roots)
        self._folder.remember(self._files)
        pruned = self._folder.prune(before | self._files) if self._request.prune else (0, 0)
        return Mirrored(metadata=self._metadata, targets=self._targets, payloads=self._payloads, pruned=pruned[0],
                        pruned_bytes=pruned[1], expires=top.timestamp.expires.isoformat(),
                        versions={role: getattr(top, role).version for role in ("root", "timestamp", "snapshot", "targets")},
                        oldest_root=min(int(name.partition(".")[0]) for name in roots))

    # -- metadata -------------------------------------------------------------------------------------------------

    def _refreshed(self) -> Top:
        """The client's whole workflow, in a client's folder of our own: it also notices a repository that went back."""
        client = self._folder.state / "tuf"
        private_directory(client)
        with self._origin.line() as line:
            CheckedAddress(metadata_url=self._origin.url + "metadata/", targets_url=self._origin.url + "targets/",
                           folder=client, trusted_root=self._request.trusted_root, fetcher=self._origin.fetcher(line))
        return Top.read(client)

    def _roots(self, top: Top) -> dict[str, bytes]:
        """Every root from the oldest that the origin has to the newest."""
        history = self._folder.state / "tuf" / "root_history"
        older = roots_before(self._older_root, self._request.trusted_root)
        trusted = Metadata[Root].from_bytes(self._request.trusted_root).signed.version
        names = (role_file("root", version) for version in range(trusted, top.root.version + 1))
        return older | {name: (history / name).read_bytes() for name in names}

    def _older_root(self, name: str, max_bytes: int) -> bytes | None:
        try:
            return self._origin.data(f"metadata/{name}", max_bytes)
        except tuf.DownloadHTTPError:
            return None

    def _role(self, name: str, max_bytes: int, check: Callable[[bytes], Targets]) -> Targets:
        """A delegated role: the file that is here if it passes, else the origin's."""
        relative = f"metadata/{name}"
        here = self._folder.read(relative, max_bytes)
        if here is not None:
            try:
                role = check(here)
            except tuf.RepositoryError:
                pass  # damaged, or of an interrupted disk: the origin's will tell
            else:
                self._keep(relative, here, None)
                return role
        data = self._origin.data(relative, max_bytes)
        role = check(data)
        self._folder.place(relative, data)
        self._keep(relative, data, len(data))
        return role

    def _keep(self, relative: str, data: bytes, fetched_bytes: int | None) -> None:
        if self._request.zipped:
            self._folder.zip(relative, data)
        with self._counting:  # workers come here too
            if relative not in self._files:
                self._metadata.count(fetched_bytes)
            self._files |= {relative, relative + ".gz"} if self._request.zipped else {relative}

    # -- targets --------------------------------------------------------------------------------------------------

    def _copy_everything(self, tree: RoleTree) -> None:
        wanted: dict[str, Listed] = {}
        for _, targets in tree.every(self._origin.each):
            wanted |= {target.file: target for target in targets if self._request.choice.takes(target.path)}
        self._tell(f"{len(wanted)} manifests")
        self._copy_targets(wanted.values())

    def _copy_brands(self, tree: RoleTree) -> None:
        choice = self._request.choice
        brands = self._copy_targets(self._found(tree, choice.brand_targets()))
        missing = set(choice.brands) - {brand.brand for brand in brands}
        if missing:
            raise UserError("no-such-brand", f"The repository has nothing for {', '.join(sorted(missing))} on what was chosen.",
                            hint="Check the names; keyfit-publish mirror without --brand copies all brands.")
        mine = [brand for brand in brands if brand.brand in choice.brands]
        named = self._copy_targets(self._found(tree, (*choice.other_targets(), *choice.device_targets(mine))))
        # a device's manifest only says that these brands claim it; what they do is in targets of their own
        elsewhere = delegated_brands(tree.names()) & {brand.brand for brand in named} - set(choice.brands)
        beside = msgspec.structs.replace(choice, brands=tuple(sorted(elsewhere)))
        self._copy_targets(self._found(tree, (*beside.brand_targets(), *beside.grant_targets())))

    def _found(self, tree: RoleTree, paths: Iterable[str]) -> list[Listed]:
        return [found for path in paths if (found := tree.find(path)) is not None]

    def _copy_targets(self, targets: Iterable[Listed]) -> list[Brand]:
        """Copy them, note the payloads that they name, and return the brands in them."""
        brands: list[Brand] = []
        for target, fetched_bytes, named, payloads in self._origin.each(self._copy_target, targets):
            self._targets.count(fetched_bytes)
            self._files.add(target.file)
            self._wanted |= {payload.path: payload for payload in payloads if payload.sha256 not in self._request.without}
            if self._request.choice.brands:  # else nobody asks, and they may be many
                brands += named
            if self._targets.files % _TOLD_EVERY == 0:
                self._tell(f"{self._targets.files} manifests are here")
        return brands

    def _copy_target(self, target: Listed) -> tuple[Listed, int | None, Sequence[Brand], Sequence[Payload]]:
        if target.length_bytes > LARGEST_TARGET_BYTES:
            raise TrustError("manifest-invalid", f"Expected at most {LARGEST_TARGET_BYTES} bytes for {target.path}, its signed"
                             f" length is {target.length_bytes}.", hint="Tell the publisher of this repository.")
        if self._folder.has(target.file, target.length_bytes, target.sha256):
            data = self._folder.read(target.file, target.length_bytes)
            if data is not None:
                return target, None, *contents(target.path, data)
        data = self._origin.target(target.file, target.length_bytes, target.sha256)
        self._folder.place(target.file, data)
        return target, len(data), *contents(target.path, data)

    # -- payloads -------------------------------------------------------------------------------------------------

    def _copy_payloads(self) -> None:
        """One after the other: they are large, and each fills the line by itself."""
        missing = []
        for payload in self._wanted.values():
            relative = f"payloads/{payload.path}"
            self._files.add(relative)
            if self._folder.has(relative, payload.length_bytes, payload.sha256):
                self._payloads.count(None)
            else:
                missing.append(payload)
        self._check_room(sum(payload.length_bytes for payload in missing))
        with self._origin.line() as line:
            incoming = self._folder.state / "payloads"
            store = PayloadStore(incoming, line)
            for number, payload in enumerate(missing, 1):
                self._tell(f"driver file {number} of {len(missing)}: {payload.file}, {payload.length_bytes} bytes")
                base = self._request.payloads_url or self._origin.url + "payloads/"
                urls = [base + quote(payload.path, safe="/~+"), *payload.mirrors]
                paying = _Paying(self._origin.rate, incoming / f"{payload.sha256}.part")
                fetched = store.fetch(payload, urls, paying)
                self._folder.adopt(f"payloads/{payload.path}", fetched)
                self._payloads.count(payload.length_bytes)

    def _check_room(self, needed: int) -> None:
        needed += self._request.limits.disk_reserve if needed else 0
        free = self._folder.room()
        if free < needed:
            raise StorageError("disk-full", f"{needed} bytes of free disk space are needed for driver files,"
                               f" {self._request.folder} has {free}.", hint="Make room on that disk and try again.")

    # -- the end --------------------------------------------------------------------------------------------------

    def _publish(self, top: Top, roots: dict[str, bytes]) -> None:
        """All that readers find from the timestamp on is there and on disk before the timestamp is."""
        timestamp = role_file("timestamp", 0)
        for name in (role_file("snapshot", top.snapshot.version), role_file("targets", top.targets.version)):
            self._write(name, top.files[name])
        self._folder.sync()
        if not self._request.zipped:
            self._folder.unzip_all()
        last = {timestamp: top.files[timestamp]}
        by_version = dict(sorted(roots.items(), key=lambda root: int(root[0].partition(".")[0])))
        first = last | by_version if self._old_root_accepts(top) else by_version | last
        for name, data in first.items():
            self._write(name, data)

    def _old_root_accepts(self, top: Top) -> bool:
        """True if clients that have not seen the new root yet accept the new timestamp and what it leads to. Then the root
        may come after it, and no moment is without a repository for anybody."""
        here = sorted(int(path.name.partition(".")[0]) for path in self._folder.folder.glob("metadata/*.root.json"))
        old = self._folder.read(f"metadata/{role_file('root', here[-1])}", ROOT_BYTES) if here else None
        return old is not None and top.is_signed_under(Metadata[Root].from_bytes(old).signed)

    def _write(self, name: str, data: bytes) -> None:
        relative = f"metadata/{name}"
        known = self._folder.read(relative, len(data)) == data
        if not known:
            self._folder.place(relative, data)
        self._keep(relative, data, None if known else len(data))


class _Paying:
    """A download's progress that keeps to the rate.

    Args:
        part: where what had come before lies (see `keyfit.trust.payloads`); that is not paid for again.
    """

    def __init__(self, rate: Rate, part: Path) -> None:
        self._rate = rate
        self._paid = part.stat().st_size if part.is_file() else 0

    def __call__(self, done: int, total: int) -> None:
        self._rate.pay(max(0, done - self._paid))
        self._paid = done
