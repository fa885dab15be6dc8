"""The commands of `keyfit-publish`. What a command needs is imported when it runs."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from msgspec import Struct, structs

from keyfit import __version__
from keyfit.errors import DataError, HostError, KeyfitError, Outcome, UserError
from keyfit.model.result import Message, OperationResult
from keyfit.publisher.output import done, emit, ended, failure

if TYPE_CHECKING:
    from types import FrameType

    from keyfit.publisher.repository import Published, PublisherRepository

F = TypeVar("F", bound=Callable[..., Any])
_LOCK_WAIT_S = 60.0
_DIR = click.Path(path_type=Path, file_okay=False)
_FILE = click.Path(path_type=Path, dir_okay=False)
_EXISTING = click.Path(path_type=Path, exists=True)


class Session(Struct):
    """What the common options said, and which command runs."""

    json: bool = False
    quiet: bool = False
    command: str = "keyfit-publish"


def common(function: F) -> F:
    """Add the options that may stand before or after the command."""
    for option in (click.option("--quiet", is_flag=True, expose_value=False, callback=_set, help="Print errors only."),
                   click.option("--json", is_flag=True, expose_value=False, callback=_set,
                                help="Print one JSON document and nothing else.")):
        function = option(function)
    return function


def _set(context: click.Context, option: click.Parameter, value: bool) -> None:
    session: Session = context.ensure_object(Session)
    if value and option.name:
        setattr(session, option.name, True)
    if context.parent is not None and context.info_name:
        session.command = context.info_name


_passphrase_file = click.option("--passphrase-file", type=_FILE, metavar="FILE",
                                help="Passphrase of the keys; without it you are asked.")
_drivers = click.option("--drivers", type=_EXISTING, default=Path("drivers"), show_default=True, metavar="DRIVERS",
                        help="Folder of brand data.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="keyfit-publish")
@common
def cli() -> None:
    """Checks brand data, signs it and publishes it as a folder of static files.

    Example: keyfit-publish init /srv/keyfit
    """


@cli.command("init")
@click.argument("folder", metavar="DIR", type=_DIR)
@click.option("--threshold", multiple=True, metavar="ROLE=NEEDED/KEYS",
              help="How many of how many keys a role needs, for example root=3/5; repeatable.")
@click.option("--encrypt", is_flag=True, help="Encrypt the key files with a passphrase.")
@_passphrase_file
@common
def init_command(folder: Path, threshold: tuple[str, ...], encrypt: bool, passphrase_file: Path | None) -> OperationResult:
    """Make keys and an empty signed repository.

    Example: keyfit-publish init /srv/keyfit --threshold root=3/5 --encrypt
    """
    from keyfit.privatefiles import FileLock
    from keyfit.publisher.keys import KeyStore, parse_thresholds
    from keyfit.publisher.repository import PublisherRepository

    thresholds = parse_thresholds(threshold)
    if (folder / "repository").exists():
        raise HostError("repository-exists", f"Expected no repository yet, {folder / 'repository'} is there already.",
                        hint="Choose another directory.")
    passphrase = _passphrase(passphrase_file, new=True) if encrypt or passphrase_file else None
    keys = KeyStore(folder / "keys")
    keys.create(thresholds, passphrase)
    with FileLock(folder / "keys" / "lock", _LOCK_WAIT_S):
        published = PublisherRepository(folder / "repository", keys).create(thresholds)
    root = folder / "repository" / "metadata" / "1.root.json"
    number = sum(t.keys for t in thresholds.values())
    warnings = () if passphrase else (Message(
        level="warning", code="plain-keys", text="The key files are not encrypted.",
        hint="For anything but a trial, use --encrypt and keep the root keys apart from this machine."),)
    return done("init", {"root": str(root), "keys": number, **structs.asdict(published)},
                f"Made {number} keys in {folder / 'keys'} and an empty repository in {folder / 'repository'}.",
                f"Clients need {root}; serve {folder / 'repository'} and nothing else.", warnings=warnings)


@cli.command("check")
@click.argument("drivers", type=_EXISTING, default=Path("drivers"))
@common
def check_command(drivers: Path) -> OperationResult:
    """See whether brand data is sound; every fault is told with file and line.

    Example: keyfit-publish check drivers
    """
    brands, warnings = _checked_brands(drivers)
    problems = [structs.asdict(p) for p in warnings]
    return done("check", {"brands": len(brands), "problems": problems},
                f"{len(brands)} brands are sound ({len(warnings)} warnings).",
                warnings=tuple(Message(level="warning", code="lint", text=str(p)) for p in warnings))


@cli.command("add")
@click.argument("folder", metavar="DIR", type=_DIR)
@click.argument("brand")
@click.argument("file", type=_EXISTING)
@click.option("--package", "package_id", metavar="ID", help="Which package; needed if the file name fits several.")
@_drivers
@common
def add_command(folder: Path, brand: str, file: Path, package_id: str | None, drivers: Path) -> OperationResult:
    """Put a driver package file into the repository. It reaches clients with the next release.

    Example: keyfit-publish add /srv/keyfit acme acme_1.0_amd64.deb
    """
    from keyfit.privatefiles import FileLock
    from keyfit.publisher.brandfile import load_brands
    from keyfit.publisher.packages import find_package

    _require(folder)
    found, package = find_package(load_brands(drivers), brand, file.name, package_id)
    with FileLock(folder / "keys" / "lock", _LOCK_WAIT_S):
        payload = _index(folder).add(found, package, file)
    return done("add", {"brand": brand, "package": package.id, "payload": structs.asdict(payload)},
                f"Added {file.name} to {brand}/{package.id}: {payload.length_bytes} bytes, SHA-256 {payload.sha256}.")


@cli.command("release")
@click.argument("folder", metavar="DIR", type=_DIR)
@_drivers
@click.option("--hand-off", "hand_off", type=_EXISTING, metavar="FILE",
              help="Certificate pages of your own, for brands that name none.")
@_passphrase_file
@common
def release_command(folder: Path, drivers: Path, hand_off: Path | None, passphrase_file: Path | None) -> OperationResult:
    """Check, compile, sign and publish the brand data.

    Example: keyfit-publish release /srv/keyfit --drivers drivers
    """
    from keyfit.privatefiles import FileLock
    from keyfit.publisher.compile import manifests
    from keyfit.publisher.handoff import merge_hand_offs
    from keyfit.publisher.sequences import check_sequences, write_sequences

    _require(folder)
    brands, problems = _checked_brands(drivers)
    warnings = [Message(level="warning", code="lint", text=str(p)) for p in problems]
    if hand_off is not None:
        brands, kept = merge_hand_offs(brands, hand_off)
        warnings += [Message(level="warning", code="hand-off-kept", text=f"{name} names a certificate page itself; the"
                             f" one from {hand_off.name} is not used.") for name in kept]
    with FileLock(folder / "keys" / "lock", _LOCK_WAIT_S):
        check_sequences(folder, brands)
        published = _repository(folder, passphrase_file).release(manifests(brands, _index(folder).read()))
        write_sequences(folder, brands)
    return done("release", structs.asdict(published), *_told(published), warnings=tuple(warnings))


@cli.command("refresh")
@click.argument("folder", metavar="DIR", type=_DIR)
@_passphrase_file
@common
def refresh_command(folder: Path, passphrase_file: Path | None) -> OperationResult:
    """Sign a new timestamp, and a new snapshot when half of its life is over. Run it every day.

    Example: keyfit-publish refresh /srv/keyfit
    """
    from keyfit.privatefiles import FileLock

    _require(folder)
    with FileLock(folder / "keys" / "lock", _LOCK_WAIT_S):
        published = _repository(folder, passphrase_file).refresh()
    return done("refresh", structs.asdict(published), *_told(published))


@cli.command("serve")
@click.argument("folder", metavar="DIR", type=_DIR)
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 for any free one.")
@click.option("--bind", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Others than this machine need TLS.")
@click.option("--tls-cert", type=_EXISTING, metavar="FILE", help="Certificate chain (PEM).")
@click.option("--tls-key", type=_EXISTING, metavar="FILE", help="Its private key (PEM).")
@common
@click.pass_obj
def serve_command(session: Session, folder: Path, port: int, bind: str, tls_cert: Path | None,
                  tls_key: Path | None) -> OperationResult:
    """Serve the repository from this machine, for development only; ends with Ctrl+C.

    Example: keyfit-publish serve /srv/keyfit --port 0
    """
    from keyfit.publisher.serve import RepositoryServer

    _require(folder)
    with RepositoryServer(folder / "repository", bind, port, tls_cert, tls_key) as server:
        try:
            signal.signal(signal.SIGTERM, _interrupt)
            # told before it serves, since whoever started it waits for the address
            emit(done("serve", {"url": server.url}, f"Serving {folder / 'repository'} at {server.url}"),
                 as_json=session.json)
            server.serve_forever()
        except KeyboardInterrupt:
            pass
    return OperationResult(command="", outcome=Outcome.DONE)


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code. The only place where errors become text."""
    session = Session(json="--json" in arguments)
    try:
        result = cli.main(arguments, prog_name="keyfit-publish", standalone_mode=False, obj=session)
        if not isinstance(result, OperationResult) or not result.command:
            return result if isinstance(result, int) else 0
    except KeyfitError as error:
        result = failure(session.command, error)
    except (click.exceptions.Abort, KeyboardInterrupt):
        result = ended(session.command, Outcome.CANCELLED, "cancelled", "Cancelled.")
    except click.ClickException as error:
        hint = f"See `{error.ctx.command_path} --help`." if isinstance(error, click.UsageError) and error.ctx else ""
        result = ended(session.command, Outcome.USAGE, "usage", error.format_message(), hint)
    return emit(result, as_json=session.json, quiet=session.quiet)


def _checked_brands(drivers: Path) -> tuple[Any, Any]:
    """(brands, warnings) of a folder of brand data.

    Raises:
        DataError: code "brand-file-invalid" or "lint-failed".
    """
    from keyfit.publisher.brandfile import load_brands
    from keyfit.publisher.lint import lint

    brands = load_brands(drivers)
    problems = lint(brands, drivers)
    errors = tuple(str(p) for p in problems if p.level == "error")
    if errors:
        raise DataError("lint-failed", f"expected sound brand data, found {len(errors)} faults", errors,
                        hint="Correct the lines named above.")
    return brands, tuple(p for p in problems if p.level == "warning")


def _require(folder: Path) -> None:
    if not (folder / "repository" / "metadata" / "timestamp.json").is_file():
        raise UserError("no-repository-here", f"Expected a publisher's directory, {folder} is none.",
                        hint=f"Make it with: keyfit-publish init {folder}")


def _repository(folder: Path, passphrase_file: Path | None) -> "PublisherRepository":
    from keyfit.publisher.keys import KeyStore
    from keyfit.publisher.repository import PublisherRepository

    keys = KeyStore(folder / "keys", lambda: _passphrase(passphrase_file, new=False))
    return PublisherRepository(folder / "repository", keys)


def _index(folder: Path) -> Any:
    from keyfit.publisher.packages import PackageIndex

    return PackageIndex(folder / "packages.json", folder / "repository" / "payloads")


def _passphrase(file: Path | None, *, new: bool) -> bytes:
    if file is None:
        typed: str = click.prompt("Passphrase of the keys", hide_input=True, confirmation_prompt=new, err=True)
        return typed.encode()
    try:
        passphrase = file.read_bytes().rstrip(b"\r\n")
    except OSError as error:
        raise UserError("no-such-file", f"{file} cannot be read: {error.strerror}.") from error
    if not passphrase:
        raise UserError("passphrase-needed", f"Expected a passphrase in {file}, it is empty.")
    return passphrase


def _told(published: "Published") -> tuple[str, ...]:
    return (f"Published {published.targets} manifests: {published.changed_targets} changed, in {published.changed_bins}"
            " newly signed bins.", "Expires: " + ", ".join(
                f"{role} {moment[:10]}" for role, moment in sorted(published.expires.items(), key=lambda e: e[1])) + ".")


def _interrupt(_number: int, _frame: "FrameType | None") -> None:
    raise KeyboardInterrupt
