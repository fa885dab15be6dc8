"""The elevated helper: `keyfit-helper VERB [BRAND]`, started by pkexec for one request, gone when that is done.

Nothing of the caller's is used: not its environment, directory, open files, configuration or network. What it asks for comes as
one typed message on standard input; the brand on the command line is there for the administrator who is asked, and has to be
the request's (security C1 to C8).
"""

import os
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keyfit.engine.helper.frames import Channel
    from keyfit.engine.helper.messages import Request

EXIT_USAGE = 2
EXIT_NOT_ELEVATED = 77
BRAND = re.compile(r"[a-z0-9][a-z0-9-]{0,47}\Z")


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve one request; returns the exit code, which is 0 if the last word was said on standard output."""
    from keyfit.engine.helper.messages import VERBS

    given = list(sys.argv[1:] if arguments is None else arguments)
    if not 1 <= len(given) <= 2 or given[0] not in VERBS or not all(BRAND.match(brand) for brand in given[1:]):
        sys.stderr.write("This is Keyfit's elevated helper; keyfit starts it. Use: keyfit --help\n")
        return EXIT_USAGE
    if sys.platform != "linux" or os.geteuid() != 0:
        sys.stderr.write("This is Keyfit's elevated helper; it needs administrator rights. Use: keyfit --help\n")
        return EXIT_NOT_ELEVATED
    return _serve(given[0], given[1] if len(given) > 1 else "")


def _serve(verb: str, brand: str) -> int:
    from keyfit.platforms.linux import isolation

    isolation.clean_process()
    channel_out = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whatever is printed is no part of the protocol
    from keyfit.app import helper
    from keyfit.engine.helper.frames import Channel
    from keyfit.engine.helper.messages import VERBS
    from keyfit.errors import KeyfitError

    channel = Channel(0, channel_out)
    try:
        isolation.require_admins_place(isolation.program_folder())
        network = isolation.leave_network()
        request = helper.receive_request(channel, VERBS[VERBS.index(verb)], brand)
    except KeyfitError as error:
        helper.say_failed(channel, error)
        return 0
    _carry_out(channel, request, verb, network)
    return 0


def _carry_out(channel: "Channel", request: "Request", verb: str, network: int) -> None:
    from keyfit import __version__
    from keyfit.app import helper
    from keyfit.composition import compose_elevated
    from keyfit.engine.helper.messages import Install, Repair
    from keyfit.errors import BugError
    from keyfit.platforms import event_log
    from keyfit.platforms.linux.host import LinuxHost
    from keyfit.ui.crash import frames

    log = event_log("/", f"helper-{verb}", traffic=False)
    log.event("info", "run-begun", version=__version__)
    source = request.source if isinstance(request, Install | Repair) else "repository"
    try:
        machine = LinuxHost("/", log=log, outer_network=network)
        helper.serve(request, compose_elevated(channel, source, machine, log), channel, log)
    except Exception as error:  # noqa: BLE001 - the edge of the program, as ui.cli.run is of the other
        log.event("error", "crash", version=__version__, frames=frames(error))
        helper.say_failed(channel, BugError("internal", "Keyfit's elevated helper made a mistake.",
                                            hint=f"Please report what {log.where} says of it; then: keyfit recover"))


if __name__ == "__main__":
    sys.exit(main())
