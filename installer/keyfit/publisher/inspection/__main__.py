"""The child that looks at one file: `python -m keyfit.publisher.inspection KIND [ROOTS]`, the file being standard input.

One JSON document on standard output, `reports.Answer`. It imports everything first, because afterwards it may not be able
to read its own modules; then gives up its rights; then reads the file.
"""

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import msgspec

from keyfit.publisher.inspection import sandbox
from keyfit.publisher.inspection.limits import MAX_FILE_BYTES
from keyfit.publisher.inspection.reports import Answer, Report
from keyfit.publisher.inspection.source import Malformed, Source
from keyfit.publisher.inspection.unpack import start_unpackers
from keyfit.publisher.inspection.warmup import load_encodings, warm_up

SIGNED = ("archive", "exe", "msi", "inf", "pkg")
"""Kinds with signatures to check; their readers also take `authenticode.Trust`."""
KINDS = (*SIGNED, "deb", "rpm")
_ZSTD_PARTS = {"deb": 2, "rpm": 1, "archive": 1}
"""Parts of a package that may be packed with zstd, by kind; in all others it is unusual."""


def main(arguments: Sequence[str]) -> int:
    """Look at standard input; returns the exit code."""
    if not 1 <= len(arguments) <= 2 or arguments[0] not in KINDS:
        sys.stderr.write(f"usage: {' | '.join(KINDS)} [ROOTS]\n")
        return 2
    output = os.dup(1)
    os.dup2(2, 1)  # nothing but the answer goes to standard output
    look = _prepared(arguments[0], Path(arguments[1]) if len(arguments) > 1 else None)
    with os.fdopen(0, "rb", closefd=False) as file:
        sandbox.restrict()
        start_unpackers(_ZSTD_PARTS.get(arguments[0], 0))
        sandbox.close()
        answer = _answer(look, file)
    with os.fdopen(output, "wb") as pipe:
        pipe.write(msgspec.json.encode(answer))
    return 0


def _prepared(kind: str, roots: Path | None) -> Callable[[Source], Report]:
    """The reader of a kind, with everything imported and the roots read."""
    reader: Callable[..., Report] = importlib.import_module(f"keyfit.publisher.inspection.{kind}").inspect
    load_encodings()
    if kind not in SIGNED:
        return reader
    from keyfit.publisher.inspection.authenticode import Trust
    from keyfit.publisher.inspection.chain import Roots

    warm_up()
    trust = Trust(Roots(roots.read_bytes() if roots else b""), datetime.now(UTC))
    return lambda source: reader(source, trust)


def _answer(look: Callable[[Source], Report], file: BinaryIO) -> Answer:
    try:
        source = Source(file)
        if source.size > MAX_FILE_BYTES:
            raise Malformed(f"expected at most {MAX_FILE_BYTES} bytes, came {source.size}")
        return Answer(report=look(source))
    except Malformed as error:
        return Answer(malformed=str(error))
    except MemoryError:
        return Answer(malformed="it takes more memory to look at than is allowed")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
