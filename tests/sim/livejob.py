"""A change of the system itself, for tests in a `LiveCopy`: `python -m tests.sim.livejob VERB PLAN STATE PACKAGES [LOCK_WAIT_S]`.

VERB is "install", "uninstall" or "recover", PLAN a file with the plan as JSON. Prints the error's code and ends with its exit
code.
"""

import sys
from pathlib import Path

import msgspec

from keyfit.engine import transaction
from keyfit.engine.journal import Journal
from keyfit.engine.steps import packagetools
from keyfit.errors import EXIT_CODES, KeyfitError
from keyfit.model.plan import Plan
from keyfit.platforms.linux.host import LinuxHost
from tests.sim.world import SimReporter


def main(verb: str, plan: str, state: str, packages: str, lock_wait_s: str = "30") -> int:
    """See the module's text."""
    packagetools.LOCK_WAIT_S = float(lock_wait_s)
    host, journal, reporter = LinuxHost("/"), Journal(Path(state)), SimReporter()
    try:
        if verb == "install":
            wanted = msgspec.json.decode(Path(plan).read_bytes(), type=Plan)
            transaction.carry_out(wanted, host=host, journal=journal, reporter=reporter, wait=lambda wait: None,
                                  fetch=lambda payload: Path(packages) / payload.file)
        elif verb == "uninstall":
            transaction.uninstall("acme", host=host, journal=journal, reporter=reporter)
        else:
            transaction.recover(host=host, journal=journal, reporter=reporter)
    except KeyfitError as error:
        print(error.code, error.message)
        return EXIT_CODES[error.outcome][0]
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
