"""What goes into offline kits: the manifests of the released repository, read as a client reads them.

A kit has no keys of brands: what a brand signed itself is put in the places of what it claims, within its grant, and the
kit's own keys sign the result. Versions of Keyfit and grants stay out.
"""

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct
from tuf.api import exceptions as tuf
from tuf.api.metadata import Targets

from keyfit.errors import HostError, KeyfitError, NetworkError, TrustError
from keyfit.model.catalog import Brand, Manifest, brand_target
from keyfit.publisher.mirror_roles import Check, Listed, RoleTree, Top
from keyfit.trust.grants import delegated_brands
from keyfit.trust.limits import MANIFEST_BYTES
from keyfit.trust.manifests import brand_of, decode_manifest
from keyfit.trust.metadata import translated
from keyfit.trust.repository import TufRepository

A = TypeVar("A")
B = TypeVar("B")


class KitContent(Struct, frozen=True, kw_only=True):
    """Target path -> manifest, and what was left out and why."""

    targets: dict[str, bytes]
    warnings: tuple[str, ...]


def kit_content(repository: Path) -> KitContent:
    """Read the released repository, verified from its first root on.

    Raises:
        TrustError: it is out of date or damaged.
        HostError: a file of it is gone.
    """
    with tempfile.TemporaryDirectory(prefix="keyfit-kit-") as private:
        try:
            client = TufRepository(urls=[repository.as_uri()], metadata_dir=Path(private, "metadata"),
                                   trusted_root=(repository / "metadata" / "1.root.json").read_bytes(),
                                   cache_dir=Path(private, "payloads"))
            client.refresh()
            top = Top.read(Path(private, "metadata", "tuf"))
            return _Reader(repository, client, top).read()
        except (tuf.RepositoryError, OSError) as error:
            raise translated(error, repository.as_uri() + "/", repository) from error


class _Reader:
    """Reads one repository."""

    def __init__(self, repository: Path, client: TufRepository, top: Top) -> None:
        self._repository = repository
        self._client = client
        self._tree = RoleTree(top, self._role, datetime.now(UTC))
        self._delegated = delegated_brands(self._tree.names())
        self._own: dict[str, Manifest | None] = {}
        self._left_out: dict[str, str] = {}

    def read(self) -> KitContent:
        """Everything that a kit may hold."""
        targets: dict[str, bytes] = {}
        for _, listed in self._tree.every(_one_by_one):
            for target in listed:
                if target.path.startswith(("usb/", "brand/")) and target.path not in targets:  # the first role counts
                    data = self._for_kit(target.path, self._verified(target))
                    if data is not None:
                        targets[target.path] = data
        return KitContent(targets=targets, warnings=tuple(f"{brand} is left out: {why}"
                                                          for brand, why in sorted(self._left_out.items())))

    def _role(self, name: str, max_bytes: int, check: Check) -> Targets:
        with (self._repository / "metadata" / name).open("rb") as file:
            return check(file.read(max_bytes + 1))

    def _verified(self, target: Listed) -> bytes:
        with (self._repository / target.file).open("rb") as file:
            data = file.read(MANIFEST_BYTES + 1)
        if len(data) != target.length_bytes or hashlib.sha256(data).hexdigest() != target.sha256:
            raise TrustError("target-hash", f"Expected {target.path} with its signed hash and length in {target.file}, it is"
                             " another file.", hint="Release everything again.")
        return data

    def _for_kit(self, path: str, data: bytes) -> bytes | None:
        """The manifest as the kit's keys will sign it; the same bytes unless a brand signed a part of it itself."""
        manifest = decode_manifest(data, path)
        named = {b.brand for b in (*manifest.brands, *(s.brand for s in manifest.staged))}
        if not named & self._delegated:
            return data
        composed = self._offered(path)
        if composed is None or not (composed.brands or composed.staged):
            return None
        if not brand_of(path):
            owners = named & self._delegated
            own = [self._offered(brand_target(b, manifest.system, manifest.architecture)) for b in sorted(owners)]
            composed = _with_withdrawals(composed, [each for each in own if each is not None])
        return msgspec.json.encode(composed, order="deterministic")

    def _offered(self, path: str) -> Manifest | None:
        """What a client makes of a target."""
        if path not in self._own:
            self._own[path] = None
            try:
                offer = self._client.offer(path)
            except (TrustError, NetworkError) as error:
                self._note(brand_of(path) or path, error)
                return None
            for refusal in offer.refused if offer is not None else ():
                self._note(refusal.brand.brand, refusal.error)
            self._own[path] = offer.manifest if offer is not None else None
        return self._own[path]

    def _note(self, brand: str, error: KeyfitError) -> None:
        self._left_out.setdefault(brand, f"{error.message} ({error.code})")


def _one_by_one(work: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
    return (work(item) for item in items)


def _with_withdrawals(manifest: Manifest, others: Iterable[Manifest]) -> Manifest:
    """A manifest that also withdraws what the others withdraw."""
    minimum, revoked = dict(manifest.minimum), list(manifest.revoked)
    for other in others:
        for brand, sequence in other.minimum.items():
            minimum[brand] = max(sequence, minimum.get(brand, 1))
        revoked += [each for each in other.revoked if each not in revoked]
    return msgspec.structs.replace(manifest, minimum=minimum, revoked=tuple(revoked))


def withdrawn_files(targets: Iterable[bytes]) -> frozenset[str]:
    """SHA-256 of driver files that some manifest withdraws, by themselves or with a version of their brand, and that no
    other version of the brand has."""
    manifests = [msgspec.json.decode(data, type=Manifest) for data in targets]
    revoked = [each for manifest in manifests for each in manifest.revoked]
    minimum: dict[str, int] = {}
    for manifest in manifests:
        for brand, sequence in manifest.minimum.items():
            minimum[brand] = max(sequence, minimum.get(brand, 1))
    files = {each.sha256 for each in revoked if each.sha256 is not None}
    sequences = {(each.brand, each.sequence) for each in revoked}
    bad: set[str] = set()
    good: set[str] = set()
    for version in _brands(manifests):
        gone = (version.brand, version.sequence) in sequences or version.sequence < minimum.get(version.brand, 1)
        (bad if gone else good).update(package.payload.sha256 for package in version.package if package.payload)
    return frozenset(files | (bad - good))


def _brands(manifests: Iterable[Manifest]) -> Iterable[Brand]:
    for manifest in manifests:
        yield from manifest.brands
        yield from (staged.brand for staged in manifest.staged)


def require_released(repository: Path) -> None:
    """See that there is something to make kits of.

    Raises:
        HostError: code "nothing-released".
    """
    if not (repository / "targets").is_dir():
        raise HostError("nothing-released", f"Expected a released repository in {repository}, nothing was released yet.",
                        hint="Run keyfit-publish release first.")
