"""The elevated helper in a process of its own, on a tree: `ports.Elevator` for tests.

    python tests/sim/helper.py TREE TRUSTED-ROOT VERB [BRAND]

Everything is the helper's own code but the places, which the helper itself would not be told.
"""

import os
import sys
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]


class ProcessElevator:
    """Starts the helper on a tree. `started` holds (verb, brand) of each start; `refuse` makes it end as pkexec does when
    nobody consents."""

    def __init__(self, tree: Path, trusted_root: Path) -> None:
        self._arguments = [str(tree), str(trusted_root)]
        self.started: list[tuple[str, str]] = []
        self.refuse: int | None = None
        self.process: Any = None

    def start(self, verb: str, brand: str) -> Any:
        from keyfit.platforms.linux.elevator import start

        self.started.append((verb, brand))
        if self.refuse is not None:
            return start(["/bin/sh", "-c", f"exit {self.refuse}"])
        self.process = start([sys.executable, str(Path(__file__)), *self._arguments, verb, *([brand] if brand else [])])
        return self.process


def main(tree: str, trusted_root: str, verb: Any, brand: str = "") -> None:
    """Serve one request."""
    sys.path[:0] = [str(CHECKOUT), str(CHECKOUT / "installer")]
    from keyfit.app import helper
    from keyfit.composition import compose_elevated
    from keyfit.engine.helper.frames import Channel
    from keyfit.engine.helper.messages import Install, Repair
    from keyfit.errors import KeyfitError
    from keyfit.platforms.linux.host import LinuxHost
    from keyfit.platforms.linux.isolation import PRIVATE_UMASK
    from keyfit.ports import NullLog
    from keyfit.ui.options import Options

    os.umask(PRIVATE_UMASK)
    channel = Channel(0, os.dup(1))
    os.dup2(2, 1)
    try:
        request = helper.receive_request(channel, verb, brand)
    except KeyfitError as error:
        helper.say_failed(channel, error)
        return
    source = request.source if isinstance(request, Install | Repair) else "repository"
    options = Options(root=Path(tree), trust_root=Path(trusted_root) if source == "repository" else None)
    helper.serve(request, compose_elevated(channel, source, LinuxHost(tree), NullLog(), options), channel, NullLog())


if __name__ == "__main__":
    main(*sys.argv[1:])
