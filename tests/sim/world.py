"""A whole machine in memory: bus, tokens, repository, clock, reporter, around the in-memory host.

`World` hands out a `Context` as the composition root does, so that flow tests drive the real use cases.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from keyfit.app.context import Context
from keyfit.engine.journal import Journal
from keyfit.errors import HostError, NetworkError, TrustError
from keyfit.model.catalog import Brand, Catalog, Manifest, Payload, Staged, brand_target, device_target
from keyfit.model.certificate import ModuleReport, Reader
from keyfit.model.policy import Policy
from keyfit.model.result import Message
from keyfit.model.usb import UsbDevice
from keyfit.ports import Offer, Progress, Refusal


class SimClock:
    """Time that passes only when somebody waits."""

    def __init__(self) -> None:
        self.time = 1_790_000_000.0

    def now(self) -> float:
        return self.time


class SimBus:
    """A bus on which a script plugs and unplugs. `script` runs one entry at every wait."""

    def __init__(self, clock: SimClock, *devices: UsbDevice) -> None:
        self.plugged = list(devices)
        self.script: list[Callable[[SimBus], None]] = []
        self.waits = 0
        self._clock = clock

    def devices(self) -> tuple[UsbDevice, ...]:
        return tuple(sorted(self.plugged, key=lambda d: d.bus_path))

    def wait_for_change(self, timeout_s: float) -> bool:
        self.waits += 1
        self._clock.time += timeout_s
        if self.script:
            self.script.pop(0)(self)
            return True
        return False

    def plug(self, device: UsbDevice) -> None:
        self.plugged.append(device)

    def unplug_all(self) -> None:
        self.plugged.clear()


class SimTokens:
    """PC/SC and modules as the test says; `when` decides whether the readers are seen."""

    def __init__(self) -> None:
        self.reader_list: tuple[Reader, ...] = ()
        self.reports: dict[str, ModuleReport] = {}
        self.visible: Callable[[], bool] = lambda: True
        self.broken = ""

    def readers(self) -> tuple[Reader, ...]:
        if self.broken:
            raise HostError("pcsc-unavailable", self.broken, hint="start it")
        return self.reader_list if self.visible() else ()

    def load_module(self, path: str) -> ModuleReport:
        return self.reports.get(path, ModuleReport(path=path, loaded=False, error="no such file"))


class SimRepository:
    """Signed data without the signatures: manifests by target, payload bytes by hash.

    Attributes:
        staged: versions for a share of the machines.
        withdrawn: (brand, sequence) -> the error for it; it is refused unless it is in `lifted`.
        offline: it is a kit.
        revoked: hashes of payloads that were withdrawn.
        said: what it has to say about itself.
    """

    def __init__(self, folder: Path, brands: list[Brand], payloads: dict[str, bytes]) -> None:
        self.brands = brands
        self.payloads = payloads
        self.folder = folder
        self.refreshed = 0
        self.down = False
        self.distrust = False
        self.staged: list[Staged] = []
        self.withdrawn: dict[tuple[str, int], TrustError] = {}
        self.lifted: set[tuple[str, int]] = set()
        self.offline = False
        self.revoked: set[str] = set()
        self.said: tuple[Message, ...] = ()

    def refresh(self) -> None:
        self.refreshed += 1
        if self.down:
            raise NetworkError("repository-unreachable", "no answer", hint="check the network")
        if self.distrust:
            raise TrustError("metadata-signature", "signed by nobody", hint="tell the publisher")

    def manifest(self, target: str) -> Manifest | None:
        offer = self.offer(target)
        if offer is not None and offer.refused and not offer.manifest.brands:
            raise offer.refused[0].error
        return offer.manifest if offer is not None else None

    def offer(self, target: str) -> Offer | None:
        brands = [b for b in self.brands if _is_at(b, target)]
        staged = [s for s in self.staged if _is_at(s.brand, target)]
        if not brands and not staged:
            return None
        errors = {(b.brand, b.sequence): Refusal(brand=b, error=self.withdrawn[b.brand, b.sequence])
                  for b in (*brands, *(s.brand for s in staged)) if (b.brand, b.sequence) in self.withdrawn}
        bad = set(errors) - self.lifted
        manifest = Manifest(keyfit=1, path=target, system="linux", architecture="amd64",
                            brands=tuple({b.brand: b for b in brands if (b.brand, b.sequence) not in bad}.values()),
                            staged=tuple(s for s in staged if (s.brand.brand, s.brand.sequence) not in bad))
        return Offer(manifest=manifest, refused=tuple(errors[key] for key in errors if key in bad),
                     lifted=tuple(errors[key] for key in errors if key not in bad))

    def notes(self) -> tuple[Message, ...]:
        return self.said

    def permit(self, payload: Payload) -> None:
        self.revoked.discard(payload.sha256)

    def check_not_withdrawn(self, payload: Payload) -> None:
        if payload.sha256 in self.revoked:
            raise TrustError("revoked", f"{payload.file} was withdrawn")

    def relay(self, path: str) -> bytes | None:
        return None

    def payload(self, payload: Payload, progress: Progress | None = None) -> Path:
        self.check_not_withdrawn(payload)
        if payload.sha256 not in self.payloads:
            raise NetworkError("repository-unreachable", f"{payload.file} is not there", hint="try again")
        path = self.folder / payload.file
        path.write_bytes(self.payloads[payload.sha256])
        if progress is not None:
            progress(payload.length_bytes, payload.length_bytes)
        return path


def _is_at(brand: Brand, target: str) -> bool:
    ids = {(m.id_vendor, m.id_product) for model in brand.model for m in model.match
           if m.id_vendor and m.id_product is not None}
    return target == brand_target(brand.brand, "linux", "amd64") or any(
        target == device_target(v or 0, p or 0, "linux", "amd64") for v, p in ids)


class SimReporter:
    """Keeps what it was told; answers `answer`."""

    def __init__(self, answer: bool = True) -> None:
        self.answer = answer
        self.told: list[tuple[str, ...]] = []

    def stage(self, text: str) -> None:
        self.told.append(("stage", text))

    def step(self, step_id: str, state: str, text: str) -> None:
        self.told.append(("step", step_id, state))

    def progress(self, what: str, done: int, total: int) -> None:
        self.told.append(("progress", what))

    def wait(self, kind: str, text: str) -> None:
        self.told.append(("wait", kind))

    def confirm(self, text: str) -> bool:
        self.told.append(("confirm", text))
        return self.answer

    def all(self, kind: str) -> list[tuple[str, ...]]:
        return [entry for entry in self.told if entry[0] == kind]


class World:
    """One machine, one bus, one repository."""

    def __init__(self, folder: Path, host: Any, brands: list[Brand], *devices: UsbDevice,
                 payloads: dict[str, bytes] | None = None) -> None:
        self.clock = SimClock()
        self.bus = SimBus(self.clock, *devices)
        self.host = host
        self.tokens = SimTokens()
        self.repository = SimRepository(folder, brands, payloads or {})
        self.reporter = SimReporter()
        self.opened: list[str] = []
        self.journal = Journal(folder / "state")
        self.policy = Policy()

    def context(self) -> Context:
        """A fresh context, as every command gets one."""
        catalog = Catalog(keyfit=1, system="linux", architecture="amd64", brands=tuple(self.repository.brands))
        return Context(
            bus=self.bus, host=self.host, open_tokens=lambda: self.tokens, load_catalog=lambda: catalog,
            open_repository=lambda: self.repository, open_journal=lambda: self.journal,
            open_page=self._open, clock=self.clock, reporter=self.reporter,  # type: ignore[arg-type]
            load_policy=lambda: self.policy)

    def _open(self, page: str) -> bool:
        self.opened.append(page)
        return True


def with_sequence(brand: Brand, sequence: int) -> Brand:
    """The brand as a later release has it."""
    return msgspec.structs.replace(brand, sequence=sequence)
