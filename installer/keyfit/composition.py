"""The composition root: the only place that makes adaptors and hands them over. `keyfit.__main__` starts it."""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from keyfit import __version__, places
from keyfit.app.context import Context, Keep
from keyfit.errors import BugError, HostError, StorageError, UserError
from keyfit.model.catalog import Catalog
from keyfit.model.policy import Policy
from keyfit.model.result import OperationResult
from keyfit.model.usb import UsbDevice
from keyfit.ports import EventLog, Host, NullLog, Reporter, Repository, RunLog, TokenReader, UsbBus
from keyfit.token import CHILD_COMMAND
from keyfit.ui.options import Options

if TYPE_CHECKING:
    from keyfit.engine.helper.frames import Channel
    from keyfit.engine.journal import Journal
    from keyfit.trust.transport import Transport

DATA = Path(places.DATA)
"""Beside the code: the shipped catalog; in a release build also the trusted roots of repositories (root.json) and of offline
kits (media.json), the repository's addresses (repositories.txt), the date of the build (built.txt) and signed metadata for
the first contact (seed/)."""


def options_from_environment() -> Options:
    """What KEYFIT_* say; an elevated process ignores them, because the caller's environment is not to be trusted."""
    options = Options()
    if places.is_elevated():
        return options
    for name in ("root", "state_dir", "cache_dir", "emulate"):
        value = os.environ.get(f"KEYFIT_{name.upper()}")
        if value:
            setattr(options, name, Path(value).absolute())
    if os.environ.get("KEYFIT_REPOSITORY"):
        options.repository = tuple(os.environ["KEYFIT_REPOSITORY"].split())
    return options


def compose(options: Options, reporter: Reporter, log: EventLog | None = None) -> Context:
    """Make the ports from the options; the slow ones when first used. `log` is that of a command that changes something."""
    from keyfit.platforms import browser_opener, elevator, host, policy, require_safe_program, usb_bus

    root = _root(options)
    log = log or NullLog()
    machine = host(root, log)
    load_policy = cache(lambda: policy(root))
    return Context(
        bus=_emulated_bus(options.emulate) if options.emulate else usb_bus(),
        host=machine,
        open_tokens=lambda: open_tokens(options, machine, log),
        load_catalog=lambda: load_catalog(machine),
        open_repository=lambda: open_repository(options, root, load_policy()),
        open_journal=lambda: open_journal(options, root),
        open_page=browser_opener(),
        clock=SystemClock(),
        reporter=reporter,
        load_policy=load_policy,
        elevator=elevator() if root == "/" else None,
        require_safe_program=require_safe_program if root == "/" else lambda: None,
        begin_check=lambda: begin_check(options, root),
        log=log,
    )


def open_log(options: Options, command: str) -> RunLog:
    """The log of a command that changes something; what programs said is kept with --verbose.

    Raises:
        UserError: there is no such tree.
    """
    from keyfit.platforms import event_log

    return event_log(_root(options), command, traffic=options.verbose)


def compose_elevated(channel: "Channel", source: Literal["repository", "kit"], machine: Host, log: EventLog,
                     options: Options | None = None) -> Context:
    """The ports of the elevated helper: everything of its own and of the administrator's, nothing of the caller's but the bytes
    that come over the channel (security A3, C3, D6).

    Args:
        options: places for the rehearsal in another tree; the helper itself gives none.
    """
    from keyfit.app.helper import ChannelReporter, ask_for_file
    from keyfit.platforms import policy
    from keyfit.ui.logged import LoggedReporter

    options, ask = options or Options(), ask_for_file(channel)
    root = _root(options)
    load_policy = cache(lambda: policy(root))
    return Context(
        bus=_NoBus(), host=machine, open_tokens=lambda: open_tokens(options, machine, log),
        load_catalog=lambda: load_catalog(machine),
        open_repository=lambda: _open_relayed(ask, source, load_policy(), options),
        open_journal=lambda: open_journal(options, root), open_page=lambda page: False, clock=SystemClock(),
        reporter=LoggedReporter(ChannelReporter(channel), log), load_policy=load_policy, log=log)


def _open_relayed(ask: Callable[[str], bytes | None], source: Literal["repository", "kit"], policy: Policy,
                  options: Options) -> Repository:
    """The signed data that the caller hands over, checked from the root that this build carries."""
    from keyfit.trust.limits import Limits
    from keyfit.trust.media import KitRepository
    from keyfit.trust.relay import ADDRESS, RelayTransport

    def opened(kind: Literal["tuf", "media"], trusted: Path, grace_s: float) -> Repository:
        return _open(options, _root(options), policy, (ADDRESS,), kind, options.trust_root or trusted, grace_s,
                     RelayTransport(Limits(), ask))

    if source == "repository":
        return opened("tuf", DATA / "root.json", 0.0)
    return KitRepository(open_kit=lambda grace_s: opened("media", DATA / "media.json", grace_s), open_online=None,
                         grace_days=policy.offline_kit_grace_days)


class _NoBus:
    """The helper looks at no device: which one is meant it is told, and what the answer is worth it checks otherwise."""

    def devices(self) -> tuple[UsbDevice, ...]:
        return ()

    def wait_for_change(self, timeout_s: float) -> bool:
        return False


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """Seconds since the epoch."""
        import time

        return time.time()


def load_catalog(machine: Host) -> Catalog:
    """The shipped brand data for this system.

    Raises:
        HostError: it is not there: this checkout was not set up.
    """
    import msgspec

    facts = machine.facts()
    path = DATA / f"catalog-{facts.system}-{facts.architecture}.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Catalog)
    except OSError as error:
        raise HostError("no-catalog", f"The brand data {path.name} that belongs to the program is missing.",
                        hint="In a checkout, run `make setup`; otherwise install Keyfit again.") from error


def open_repository(options: Options, root: str, policy: Policy) -> Repository:
    """The signed data: an offline kit, if --source names a folder, else the repository on the network.

    Raises:
        UserError: no repository or no trusted root was given and this build embeds none; or there is no kit.
    """
    if options.source is None:
        return _open_online(options, root, policy, options.repository or _lines(DATA / "repositories.txt"))
    from keyfit.trust.media import KitRepository, kit_folder

    kit = kit_folder(options.source)
    if kit is None:
        return _open_online(options, root, policy, (options.source,))
    url = kit.as_uri()
    return KitRepository(
        open_kit=lambda grace_s: _open(options, root, policy, (url,), "media", options.trust_root or DATA / "media.json",
                                       grace_s),
        open_online=_fallback(options, root, policy), grace_days=policy.offline_kit_grace_days)


def _fallback(options: Options, root: str, policy: Policy) -> Callable[[], Repository] | None:
    """What an expired kit is replaced with. --trust-root is the kit's, so this is on the embedded root."""
    urls, trusted = options.repository or _lines(DATA / "repositories.txt"), DATA / "root.json"
    if not urls or not trusted.is_file():
        return None
    return lambda: _open(options, root, policy, urls, "tuf", trusted)


def _open_online(options: Options, root: str, policy: Policy, urls: tuple[str, ...]) -> Repository:
    if not urls:
        raise UserError("no-repository", "This build names no repository of its own, and none was given.",
                        hint="Use --repository URL and --trust-root FILE.")
    return _open(options, root, policy, urls, "tuf", options.trust_root or DATA / "root.json")


def _open(options: Options, root: str, policy: Policy, urls: tuple[str, ...], kind: Literal["tuf", "media"],
          trusted: Path, grace_s: float = 0.0, transport: "Transport | None" = None) -> Repository:
    from keyfit.trust.repository import TufRepository

    try:
        trusted_root = trusted.read_bytes()
    except OSError as error:
        what = "repository" if kind == "tuf" else "offline kit"
        raise UserError("no-trusted-root", f"The trusted root {trusted} cannot be read: {error.strerror}.",
                        hint=f"Give the {what}'s root metadata with --trust-root FILE.") from error
    return TufRepository(urls=tuple(_as_url(u) for u in urls), trusted_root=trusted_root,
                         metadata_dir=_metadata_dir(options, root), cache_dir=_cache_dir(options, root) / "payloads",
                         kind=kind, built_at=_built_at(), policy=policy, grace_s=grace_s, transport=transport,
                         seed=DATA / "seed" if kind == "tuf" and trusted == DATA / "root.json" else None)


def _built_at() -> float:
    """When this build was made, in seconds since the epoch; 0 for a checkout."""
    from datetime import datetime

    for text in _lines(DATA / "built.txt")[:1]:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            moment = datetime.max
        if moment.tzinfo is None:
            raise BugError("built-date", f"Expected a date with its zone in built.txt, came {text!a}.",
                           hint="Install Keyfit again.")
        return moment.timestamp()
    return 0.0


def begin_check(options: Options, root: str) -> Keep:
    """Look at what the answer to a check for updates depends on, before it is looked into; what is returned writes the
    answer down for the cheap check (see `keyfit.trust.poll`)."""
    from keyfit.trust import poll
    from keyfit.trust.repository import TufRepository

    metadata = str(_metadata_dir(options, root))
    trusted = str(options.trust_root or DATA / "root.json")

    def look() -> dict[str, list[int] | None]:
        return places.inputs(root, _text(options.state_dir), metadata, trusted)

    before = look()
    floors = str(Path(metadata).absolute() / "floors.json")

    def keep(repository: Repository, checked_at: float, result: OperationResult) -> None:
        standing = repository.standing() if isinstance(repository, TufRepository) else None
        if standing is None or options.lang != "en":
            return
        with suppress(StorageError):  # then the next check is a strict one again
            poll.remember(metadata, version=__version__, urls=options.repository or _lines(DATA / "repositories.txt"),
                          inputs=before | {floors: look()[floors]}, url=standing.url, etag=standing.etag,
                          strict_at=checked_at, expires=standing.expires, data=result.data,
                          messages=[(m.level, m.code, m.text, m.hint) for m in result.messages])

    return keep


def open_journal(options: Options, root: str) -> "Journal":
    """The record of changes in the state directory."""
    from keyfit.engine.journal import Journal

    return Journal(_state_dir(options, root))


def _emulated_bus(recording: Path) -> UsbBus:
    from keyfit.token.emulated import EmulatedUsbBus

    return EmulatedUsbBus(recording)


def open_tokens(options: Options, machine: Host, log: EventLog) -> TokenReader:
    """What asks tokens: a child process, or a recording."""
    if options.emulate is not None:
        from keyfit.token.emulated import EmulatedTokenReader

        return EmulatedTokenReader(options.emulate, machine)
    from keyfit.token.reader import ChildTokenReader

    frozen = getattr(sys, "frozen", False)
    command = [sys.executable, CHILD_COMMAND] if frozen else [sys.executable, "-P", "-m", "keyfit", CHILD_COMMAND]
    return ChildTokenReader(child_command=command, log=log)


def _root(options: Options) -> str:
    if options.root is None:
        return "/"
    if not options.root.is_dir():
        raise UserError("no-such-root", f"The tree {options.root} is not a directory.",
                        hint="Make it first, or leave --root out.")
    return str(options.root.resolve())


def _state_dir(options: Options, root: str) -> Path:
    return Path(places.state_dir(root, _text(options.state_dir)))


def _cache_dir(options: Options, root: str) -> Path:
    if sys.platform == "linux" or options.cache_dir is not None:
        return Path(places.cache_dir(root, _text(options.cache_dir)))
    import platformdirs

    return Path(platformdirs.user_cache_dir("keyfit", appauthor=False))


def _metadata_dir(options: Options, root: str) -> Path:
    beside_the_record = places.owns_state(root, _text(options.state_dir))
    if beside_the_record and _state_dir(options, root).is_symlink():
        raise HostError("state-dir-link", f"{_state_dir(options, root)} is a symbolic link, so what lies in it cannot be"
                        " trusted.", hint="Give the folder itself with --state-dir.")
    return (_state_dir(options, root) if beside_the_record else _cache_dir(options, root)) / "metadata"


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _as_url(repository: str) -> str:
    if "://" in repository:
        return repository
    return Path(repository).absolute().as_uri()


def _lines(path: Path) -> tuple[str, ...]:
    try:
        return tuple(path.read_text("ascii").split())
    except OSError:
        return ()
