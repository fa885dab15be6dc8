"""keyfit-publish: the publisher's command line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from keyfit import __version__
from keyfit.errors import DataError, KeyfitError, Outcome
from keyfit.model.catalog import Brand, Package
from keyfit.model.result import Message, OperationResult
from keyfit.publisher.repository import DEFAULT_BIN_BITS, PublisherRepository

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False, exists=True)
DRIVERS = click.Path(path_type=Path, file_okay=False, exists=True)
MAGIC = {"deb": b"!<arch>\n", "rpm": b"\xed\xab\xee\xdb", "msi": b"\xd0\xcf\x11\xe0", "exe": b"MZ", "pkg": b"xar!"}
"""What files of a kind begin with (deb(5); rpm, "Lead"; Windows Installer: compound file; PE; xar)."""

F = TypeVar("F", bound=Callable[..., Any])


def password_option(function: F) -> F:
    """The password of the keys comes from a file, never from the command line, which others can read."""
    return click.option("--password-file", type=FILE, help="File with the password of the keys.")(function)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="keyfit-publish")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
def cli(as_json: bool) -> None:
    """Author brands, sign and publish a driver repository.

    Example: keyfit-publish init my-repository
    """


@cli.command(epilog="Example: keyfit-publish init my-repository")
@click.argument("folder", type=FOLDER)
@click.option("--bin-bits", type=click.IntRange(1, 16), default=DEFAULT_BIN_BITS, show_default=True,
              help="2 to the power of this many hash bins; cannot be changed later.")
@password_option
def init(folder: Path, bin_bits: int, password_file: Path | None) -> OperationResult:
    """Make keys and an empty signed repository in FOLDER."""
    made = PublisherRepository(folder, password=_password(password_file))
    made.create(bin_bits)
    root = made.public / "metadata" / "1.root.json"
    messages = [_info("initialised", f"Made {made.public} and its keys in {folder / 'keys'}. Clients trust {root}.")]
    if password_file is None:
        messages.append(Message(level="warning", code="plain-keys", text="The keys are not encrypted.",
                                hint="For more than a trial, use --password-file."))
    return OperationResult(command="init", outcome=Outcome.DONE, data={"trusted_root": str(root)}, messages=tuple(messages))


@cli.command(epilog="Example: keyfit-publish check drivers")
@click.argument("drivers", type=DRIVERS)
def check(drivers: Path) -> OperationResult:
    """Lint the brand data; lists every problem by file and line."""
    brands = checked(drivers)
    ids = {(m.id_vendor, m.id_product) for b in brands for model in b.model for m in model.match if m.id_vendor}
    return OperationResult(command="check", outcome=Outcome.DONE, data={"brands": len(brands), "ids": len(ids)},
                           messages=(_info("sound", f"{len(brands)} brands with {len(ids)} USB ids: no problem found."),))


@cli.command(epilog="Example: keyfit-publish add my-repository acs-cryptomate libacsccid1_1.1.8-1_amd64.deb --drivers drivers")
@click.argument("folder", type=FOLDER)
@click.argument("brand")
@click.argument("file", type=FILE)
@click.option("--drivers", type=DRIVERS, required=True, help="Folder of the brand data.")
@click.option("--package", "package_id", help="Id of the package in driver.toml, if its file name does not tell.")
def add(folder: Path, brand: str, file: Path, drivers: Path, package_id: str | None) -> OperationResult:
    """Put a driver package FILE into the repository, as driver.toml of BRAND declares it."""
    package = _declared(checked(drivers), brand, file, package_id)
    with file.open("rb") as opened:
        start = opened.read(8)
    if package.kind in MAGIC and not start.startswith(MAGIC[package.kind]):
        raise DataError("package-kind", f"{file.name} is declared as {package.kind}, but its content is not.",
                        hint="Give the file that driver.toml means.")
    payload = PublisherRepository(folder).add_payload(brand, package.id, file)
    return OperationResult(
        command="add", outcome=Outcome.DONE, data={"brand": brand, "package": package.id, "sha256": payload.sha256},
        messages=(_info("added", f"{file.name} ({payload.length_bytes} bytes, SHA-256 {payload.sha256}) is package"
                        f" {package.id} of {brand} from the next release on."),))


@cli.command(epilog="Example: keyfit-publish release my-repository --drivers drivers")
@click.argument("folder", type=FOLDER)
@click.option("--drivers", type=DRIVERS, required=True, help="Folder of the brand data.")
@click.option("--hand-off", "hand_off", type=FILE, help="Your own certificate pages (TOML).")
@password_option
def release(folder: Path, drivers: Path, hand_off: Path | None, password_file: Path | None) -> OperationResult:
    """Check, compile, sign and publish the brand data."""
    from keyfit.publisher.compile import manifests
    from keyfit.publisher.handoff import merge

    repository = PublisherRepository(folder, password=_password(password_file))
    brands = checked(drivers)
    if hand_off is not None:
        brands = merge(brands, hand_off)
    targets = manifests(brands, repository.payloads())
    signed = repository.release(targets)
    return OperationResult(
        command="release", outcome=Outcome.DONE, data={"manifests": len(targets), "signed": signed},
        messages=(_info("released", f"Published {len(targets)} manifests of {len(brands)} brands; signed {signed} files."),))


@cli.command(epilog="Example: keyfit-publish refresh my-repository")
@click.argument("folder", type=FOLDER)
@password_option
def refresh(folder: Path, password_file: Path | None) -> OperationResult:
    """Renew snapshot and timestamp before they expire; run it every day."""
    PublisherRepository(folder, password=_password(password_file)).refresh()
    return OperationResult(command="refresh", outcome=Outcome.DONE,
                           messages=(_info("refreshed", "Snapshot and timestamp are renewed."),))


@cli.command(epilog="Example: keyfit-publish serve my-repository --port 8080")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0: any free one.")
@click.option("--bind", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--tls-certificate", type=FILE, help="Serve https with this certificate (PEM) ...")
@click.option("--tls-key", type=FILE, help="... and this key (PEM).")
def serve(folder: Path, port: int, bind: str, tls_certificate: Path | None, tls_key: Path | None) -> OperationResult:
    """Serve the repository, for development only."""
    import signal

    from keyfit.publisher.serve import make_server

    server, address = make_server(folder / "repository", port, bind, tls_certificate, tls_key)
    click.echo(f"Serving {address} (development only; stop with Ctrl-C)")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
    return OperationResult(command="serve", outcome=Outcome.DONE)


def checked(drivers: Path) -> tuple[Brand, ...]:
    """The brands of a folder, if there is nothing wrong with any.

    Raises:
        DataError: lists every problem.
    """
    from keyfit.publisher.brandfile import load_brands
    from keyfit.publisher.lint import lint

    brands = load_brands(drivers)
    problems = tuple(str(p) for p in lint(brands, drivers))
    if problems:
        raise DataError("brand-data-unsound", f"The brand data has {len(problems)} problems.", problems,
                        hint="Nothing was changed. docs/brands says what is expected.")
    return brands


def _declared(brands: tuple[Brand, ...], name: str, file: Path, package_id: str | None) -> Package:
    brand = next((b for b in brands if b.brand == name), None)
    if brand is None:
        raise DataError("unknown-brand", f"There is no brand {name!r}.", hint="Brands: " + ", ".join(b.brand for b in brands))
    fitting = [p for p in brand.package if p.file == file.name and package_id in (None, p.id)]
    if not fitting:
        declared = ", ".join(f"{p.id}: {p.file}" for p in brand.package if p.file) or "none"
        raise DataError("package-not-declared", f"driver.toml of {name} declares no file {file.name!r}.",
                        hint=f"Declared: {declared}.")
    return fitting[0]


def _password(file: Path | None) -> bytes | None:
    return file.read_bytes().strip() if file is not None else None


def _info(code: str, text: str) -> Message:
    return Message(level="info", code=code, text=text)


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    from keyfit.ui.options import Options
    from keyfit.ui.output import emit, failure

    options = Options(json="--json" in arguments)
    command = next((a for a in arguments if a in cli.commands), "keyfit-publish")
    arguments = [a for a in arguments if a != "--json"]
    try:
        result = cli.main(arguments, prog_name="keyfit-publish", standalone_mode=False)
    except KeyfitError as error:
        result = failure(command, error)
    except click.ClickException as error:
        result = OperationResult(command=command, outcome=Outcome.USAGE,
                                 messages=(Message(level="error", code="usage", text=error.format_message()),))
    return emit(result, options) if isinstance(result, OperationResult) else 0
