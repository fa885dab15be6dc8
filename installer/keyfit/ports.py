"""The edges of Keyfit as Protocols. Adaptors in `platforms`, `trust`, `token` and `engine` fulfil them for real; the
simulators under `tests/sim` fulfil them in memory."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

from msgspec import Struct

from keyfit.errors import KeyfitError
from keyfit.model.catalog import Brand, Manifest, Payload
from keyfit.model.certificate import ModuleReport, Reader
from keyfit.model.host import HostFacts
from keyfit.model.result import Message
from keyfit.model.usb import UsbDevice

LogLevel = Literal["traffic", "info", "warning", "error"]


class Completed(Struct, frozen=True, kw_only=True):
    """A finished child process. Output is decoded as UTF-8 with replacement and capped."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str


class Refusal(Struct, frozen=True, kw_only=True):
    """A brand of a verified manifest, and the error that says why this version of it may not be used."""

    brand: Brand
    error: KeyfitError


class Offer(Struct, frozen=True, kw_only=True):
    """A verified manifest, parted into what may be used and what may not.

    Attributes:
        manifest: without the refused brands and staged versions.
        refused: to be told only if that brand would be chosen: the others stay usable.
        lifted: brands that are in `manifest` only because the administrator's policy names exactly this version.
    """

    manifest: Manifest
    refused: tuple[Refusal, ...] = ()
    lifted: tuple[Refusal, ...] = ()


class UsbBus(Protocol):
    """The USB bus."""

    def devices(self) -> tuple[UsbDevice, ...]:
        """Every device now on the bus but hubs, sorted by bus path."""

    def wait_for_change(self, timeout_s: float) -> bool:
        """Block until something was plugged or unplugged; False if nothing happened within `timeout_s`.

        The first call only arms the watch if it was not armed yet; call `devices` after it to see the new state.
        """


class Host(Protocol):
    """The machine that is changed. Paths are absolute as the machine sees them ("/etc/..."): the adaptor puts the
    root before them. Files are never opened through a symbolic link that leaves the root."""

    def facts(self) -> HostFacts:
        """The facts a plan depends on."""

    def read_bytes(self, path: str, max_bytes: int = 4_000_000) -> bytes | None:
        """Content of a regular file, or None if there is none.

        Raises:
            HostError: it is no regular file, is larger than `max_bytes`, or cannot be read.
        """

    def write_bytes(self, path: str, data: bytes, mode: int = 0o644, *, expected: bytes | None) -> None:
        """Replace a file that now holds `expected`, or make one that is not there (None), atomically and on the disk; owner,
        mode and labels of an existing one are kept. Missing parent directories are made: with mode 0755, or 0700 for a file
        that is its owner's alone.

        Raises:
            HostError: code "changed-meanwhile": it holds something else; that is left as it is.
            StorageError: disk full, read-only, or no permission.
        """

    def remove_file(self, path: str, *, expected: bytes) -> None:
        """Remove a file that holds `expected`, if it is there. A symbolic link is removed itself.

        Raises:
            HostError: code "changed-meanwhile": it holds something else; that is left as it is.
            StorageError: it cannot be removed.
        """

    def settle(self, path: str) -> str:
        """Put right what a `write_bytes` or `remove_file` that was cut off left beside the file.

        Returns:
            "" or what was left lying there, because somebody else wrote it.
        """

    def remove_empty_directories(self, path: str, made: Sequence[str]) -> None:
        """Remove `path` and its parents as far as they are in `made` and empty."""

    def missing_directories(self, path: str) -> tuple[str, ...]:
        """The parents of `path` that do not exist yet, outermost first."""

    def exists(self, path: str) -> bool:
        """True if there is something at `path`."""

    def glob(self, directory: str, pattern: str) -> tuple[str, ...]:
        """Paths in `directory` whose name matches the shell pattern, sorted; empty if there is no such directory."""

    def real_path(self, path: str) -> Path:
        """Where a path of the machine lies for this process."""

    def run(self, argv: Sequence[str], *, timeout_s: float = 60.0, environment: Mapping[str, str] | None = None,
            input_text: str = "", network: bool = False) -> Completed:
        """Run a program of the closed table (absolute path, argument vector, clean environment, no shell, no terminal).
        At the time limit the whole process tree is ended.

        Args:
            network: it fetches from the system's own archives. Every other program is kept as far from the network as this
                process itself is.

        Raises:
            HostError: the program is not there, or the time limit was reached.
        """

    def has_program(self, name: str) -> bool:
        """True if the program of the closed table is installed."""

    def installed(self, name: str) -> bool:
        """True if the package is installed; cheap, without reading the whole package database."""

    def package_versions(self) -> dict[str, str]:
        """Installed packages by name -> version, from the system's package database under the root."""

    def unfinished_packages(self) -> dict[str, str]:
        """Packages that dpkg has begun with and not finished: name -> dpkg's word for it ("half-installed", "unpacked",
        "half-configured", "triggers-awaited", "triggers-pending"; "reinst-required" goes before all of them)."""

    def wait_for_package_tools(self, wait_s: float) -> bool:
        """Wait until no other package tool holds dpkg's locks under the root; False if one still does after that time."""


class TokenReader(Protocol):
    """PC/SC and PKCS#11, always in a child process, never with a login."""

    def readers(self) -> tuple[Reader, ...]:
        """Readers that the PC/SC daemon lists.

        Raises:
            HostError: code "pcsc-unavailable": no PC/SC library, or no daemon answers.
        """

    def load_module(self, path: str) -> ModuleReport:
        """Load a PKCS#11 module and report its slots and certificates. A crash is a report, not an exception."""


class Repository(Protocol):
    """Signed data. Nothing comes out of it that was not verified.

    Attributes:
        offline: True if it is an offline kit, so that no network is counted on.
    """

    @property
    def offline(self) -> bool: ...  # noqa: D102 - above

    def refresh(self) -> None:
        """Bring the metadata up to date (strict workflow).

        Raises:
            NetworkError: not reachable.
            TrustError: signature, expiry or rollback check failed.
        """

    def manifest(self, target: str) -> Manifest | None:
        """The verified manifest at a target path, or None if the repository has no such target.

        Raises:
            NetworkError, TrustError: also if none of its brands may be used.
        """

    def offer(self, target: str) -> Offer | None:
        """The verified manifest with what may not be used beside it, or None if the repository has no such target.

        Raises:
            NetworkError, TrustError.
        """

    def notes(self) -> tuple[Message, ...]:
        """What the user should know about where the data came from."""

    def payload(self, payload: Payload, progress: "Progress | None" = None) -> Path:
        """Fetch and verify a payload; the returned file has exactly the signed hash and length.

        Raises:
            NetworkError, TrustError, StorageError.
        """

    def check_not_withdrawn(self, payload: Payload) -> None:
        """See that a payload may be used.

        Raises:
            TrustError: code "revoked": the file was withdrawn, and it is in no manifest that was found good since.
        """

    def permit(self, payload: Payload) -> None:
        """From now on let this payload be used though it was withdrawn: the administrator's policy names exactly the version
        that it belongs to."""

    def relay(self, path: str) -> bytes | None:
        """A file of the repository as it comes, not verified, for another process that verifies it; None if there is none.

        Raises:
            NetworkError.
        """


class Elevated(Protocol):
    """The elevated helper, started for one request.

    Attributes:
        incoming, outgoing: descriptors of the pipes from it and to it.
    """

    incoming: int
    outgoing: int

    def hang_up(self) -> None:
        """Close the pipe to it: it takes back what it was doing."""

    def wait(self) -> int:
        """Close both pipes and wait for its end; its exit code."""


class Elevator(Protocol):
    """Starts the elevated helper the way the system does such things: it asks for an administrator's consent."""

    def start(self, verb: str, brand: str) -> Elevated:
        """Start it for one verb; the brand (or "") is for the eyes of who is asked.

        Raises:
            ElevationError: the system has no means for it.
        """


class Progress(Protocol):
    """Called while something long goes on."""

    def __call__(self, done: int, total: int) -> None:
        """`done` of `total` bytes."""


class Reporter(Protocol):
    """Where use cases tell what they are doing. Texts are for people."""

    def stage(self, text: str) -> None:
        """A new stage begins."""

    def step(self, step_id: str, state: Literal["start", "done", "skip", "undo", "failed"], text: str) -> None:
        """A step of the plan changes state."""

    def progress(self, what: str, done: int, total: int) -> None:
        """Progress of a download, in bytes."""

    def wait(self, kind: str, text: str) -> None:
        """The user is asked to unplug or plug in; the work goes on by itself."""

    def confirm(self, text: str) -> bool:
        """Ask once. Silent reporters answer from what the command line said."""


class EventLog(Protocol):
    """What was done, for an administrator to look up later. It never raises: no change fails because of its log."""

    def event(self, level: LogLevel, name: str, **fields: object) -> None:
        """Note one event.

        Args:
            level: "traffic" is for what programs say, kept only when asked for.
            name: stable kebab-case identifier, for example "program-ended".
            fields: what belongs to it: texts, numbers, or lists of them; never a secret, serial or certificate.
        """


class RunLog(EventLog, Protocol):
    """A log that says where it lies.

    Attributes:
        where: for people; "" for nowhere.
        problem: why something could not be written; "" if all was.
    """

    where: str
    problem: str


class NullLog:
    """For commands that change nothing."""

    where = ""
    problem = ""

    def event(self, level: LogLevel, name: str, **fields: object) -> None:
        """Forget it."""


class Clock(Protocol):
    """Time, so that decisions can be tested."""

    def now(self) -> float:
        """Seconds since the epoch, UTC."""
