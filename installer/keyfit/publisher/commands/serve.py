"""`keyfit-publish serve`."""

import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from keyfit.errors import Outcome
from keyfit.model.result import OperationResult
from keyfit.publisher.cli import Session, common
from keyfit.publisher.output import done, emit
from keyfit.publisher.workplace import DIR, EXISTING, workplace

if TYPE_CHECKING:
    from types import FrameType


@click.command
@click.argument("folder", metavar="DIR", type=DIR)
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 for any free one.")
@click.option("--bind", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Others than this machine need TLS.")
@click.option("--tls-cert", type=EXISTING, metavar="FILE", help="Certificate chain (PEM).")
@click.option("--tls-key", type=EXISTING, metavar="FILE", help="Its private key (PEM).")
@common
@click.pass_obj
def command(session: Session, folder: Path, port: int, bind: str, tls_cert: Path | None,
                  tls_key: Path | None) -> OperationResult:
    """Serve the repository from this machine, for development only; ends with Ctrl+C.

    Example: keyfit-publish serve /srv/keyfit --port 0
    """
    from keyfit.publisher.serve import RepositoryServer

    workplace(folder)
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


def _interrupt(_number: int, _frame: "FrameType | None") -> None:
    raise KeyboardInterrupt
