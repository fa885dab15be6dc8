"""Starts the elevated helper by pkexec: polkit asks an administrator, with the action of the verb (packaging/linux).

Sources: pkexec(1), polkit(8).
"""

import os
import subprocess
from pathlib import Path

from keyfit.errors import ElevationError
from keyfit.platforms.linux import programs, ttyagent
from keyfit.platforms.linux.isolation import ADMINISTRATOR
from keyfit.privatefiles import foreign_influence

HELPER = "keyfit-helper"
"""Beside `keyfit` in the folder of the installed program."""
PASSED_ON = ("TERM", "LANG", "LANGUAGE", "LC_ALL", "LC_MESSAGES")
"""What the question for the password is written with. pkexec gives the helper an environment of its own making."""


class _Helper:
    """A running helper: `ports.Elevated`."""

    def __init__(self, process: "subprocess.Popen[bytes]", agent: "subprocess.Popen[bytes] | None" = None) -> None:
        self._process, self._agent = process, agent
        if process.stdin is None or process.stdout is None:
            raise ElevationError("helper-failed", "The elevated helper has no pipes.")
        self._in, self._out = process.stdout, process.stdin
        self.incoming, self.outgoing = process.stdout.fileno(), process.stdin.fileno()

    def hang_up(self) -> None:
        """See `ports.Elevated`."""
        self._out.close()

    def wait(self) -> int:
        """See `ports.Elevated`."""
        if not self._out.closed:
            self._out.close()
        code = self._process.wait()
        ttyagent.end(self._agent)
        self._in.close()
        return code


def start(command: list[str], *, ask: bool = False) -> _Helper:
    """Start a program that speaks the helper's protocol; with somebody at the terminal who asks for a password, if need be."""
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    environment |= {"PATH": programs.CLEAN_ENVIRONMENT["PATH"], "SHELL": "/bin/sh"}  # pkexec wants one of /etc/shells
    agent = ttyagent.start(environment) if ask else None
    try:
        return _Helper(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=environment,
                                        cwd="/"), agent)
    except OSError as error:
        ttyagent.end(agent)
        raise ElevationError("helper-failed", f"{command[0]} could not be started: {error.strerror}.",
                             hint="Run the command as administrator.") from error


class PkexecElevator:
    """`ports.Elevator` by pkexec.

    Args:
        helper: the helper's program, in a place that nobody but the administrator can write.
    """

    def __init__(self, helper: Path) -> None:
        self._helper = helper

    def start(self, verb: str, brand: str) -> _Helper:
        """See `ports.Elevator`."""
        pkexec = programs.find("pkexec")
        if pkexec is None:
            raise ElevationError("no-pkexec", "Administrator rights are needed, and pkexec, which asks for them, is not"
                                 " installed.", hint=f"sudo keyfit {verb} {brand}".rstrip())
        command = [pkexec, "--disable-internal-agent", str(self._helper), verb, *([brand] if brand else [])]
        return start(command, ask=True)


def installed_helper(program: Path) -> Path | None:
    """The helper beside this program, if it is one that an administrator has installed."""
    helper = program.with_name(HELPER)
    try:
        return helper if helper.is_file() and not foreign_influence(helper, owners=ADMINISTRATOR) else None
    except OSError:
        return None
