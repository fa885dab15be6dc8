"""The composition root: the only place that makes adaptors and hands them over. `keyfit.__main__` starts it."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from keyfit.app.context import Context
from keyfit.errors import HostError, UserError
from keyfit.model.catalog import Catalog
from keyfit.ports import Host, Reporter, Repository, TokenReader, UsbBus
from keyfit.token import CHILD_COMMAND
from keyfit.ui.options import Options

if TYPE_CHECKING:
    from keyfit.engine.journal import Journal

DATA = Path(__file__).parent / "data"
"""Beside the code: the shipped catalog, and in a release build the trusted root and the repository's address."""
STATE_DIR = "/var/lib/keyfit"


def options_from_environment() -> Options:
    """What KEYFIT_* say; an elevated process ignores them, because the caller's environment is not to be trusted."""
    options = Options()
    if _is_elevated():
        return options
    for name in ("root", "state_dir", "cache_dir", "emulate"):
        value = os.environ.get(f"KEYFIT_{name.upper()}")
        if value:
            setattr(options, name, Path(value).absolute())
    if os.environ.get("KEYFIT_REPOSITORY"):
        options.repository = tuple(os.environ["KEYFIT_REPOSITORY"].split())
    return options


def compose(options: Options, reporter: Reporter) -> Context:
    """Make the ports from the options; the slow ones when first used."""
    from keyfit.platforms import browser_opener, host, usb_bus

    root = _root(options)
    machine = host(root)
    return Context(
        bus=_emulated_bus(options.emulate) if options.emulate else usb_bus(),
        host=machine,
        open_tokens=lambda: open_tokens(options, machine),
        load_catalog=lambda: load_catalog(machine),
        open_repository=lambda: open_repository(options, root),
        open_journal=lambda: open_journal(options, root),
        open_page=browser_opener(),
        clock=SystemClock(),
        reporter=reporter,
    )


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


def open_repository(options: Options, root: str) -> Repository:
    """The signed repository, on the embedded or the given trusted root.

    Raises:
        UserError: no repository or no trusted root was given and this build embeds none.
    """
    from keyfit.trust.repository import TufRepository

    urls = options.repository or _lines(DATA / "repositories.txt")
    if not urls:
        raise UserError("no-repository", "This build names no repository of its own, and none was given.",
                        hint="Use --repository URL and --trust-root FILE.")
    trusted = options.trust_root or DATA / "root.json"
    try:
        trusted_root = trusted.read_bytes()
    except OSError as error:
        raise UserError("no-trusted-root", f"The trusted root {trusted} cannot be read: {error.strerror}.",
                        hint="Give the repository's root metadata with --trust-root FILE.") from error
    state, cache = _state_dir(options, root), _cache_dir(options, root)
    metadata = state / "metadata" if _owns_state(options, root) else cache / "metadata"
    return TufRepository(urls=tuple(_as_url(u) for u in urls), trusted_root=trusted_root, metadata_dir=metadata,
                         cache_dir=cache / "payloads")


def open_journal(options: Options, root: str) -> "Journal":
    """The record of changes in the state directory."""
    from keyfit.engine.journal import Journal

    return Journal(_state_dir(options, root))


def _emulated_bus(recording: Path) -> UsbBus:
    from keyfit.token.emulated import EmulatedUsbBus

    return EmulatedUsbBus(recording)


def open_tokens(options: Options, machine: Host) -> TokenReader:
    """What asks tokens: a child process, or a recording."""
    if options.emulate is not None:
        from keyfit.token.emulated import EmulatedTokenReader

        return EmulatedTokenReader(options.emulate, machine)
    from keyfit.token.reader import ChildTokenReader

    frozen = getattr(sys, "frozen", False)
    command = [sys.executable, CHILD_COMMAND] if frozen else [sys.executable, "-P", "-m", "keyfit", CHILD_COMMAND]
    return ChildTokenReader(child_command=command)


def _root(options: Options) -> str:
    if options.root is None:
        return "/"
    if not options.root.is_dir():
        raise UserError("no-such-root", f"The tree {options.root} is not a directory.",
                        hint="Make it first, or leave --root out.")
    return str(options.root.resolve())


def _state_dir(options: Options, root: str) -> Path:
    return options.state_dir or Path(root + STATE_DIR if root != "/" else STATE_DIR)


def _cache_dir(options: Options, root: str) -> Path:
    if options.cache_dir is not None:
        return options.cache_dir
    if _is_elevated() and root == "/":
        return Path("/var/cache/keyfit")
    import platformdirs

    return Path(platformdirs.user_cache_dir("keyfit", appauthor=False))


def _owns_state(options: Options, root: str) -> bool:
    return root != "/" or options.state_dir is not None or _is_elevated()


def _is_elevated() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _as_url(repository: str) -> str:
    if "://" in repository:
        return repository
    return Path(repository).absolute().as_uri()


def _lines(path: Path) -> tuple[str, ...]:
    try:
        return tuple(path.read_text("ascii").split())
    except OSError:
        return ()
