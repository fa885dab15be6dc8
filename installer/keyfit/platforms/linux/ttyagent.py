"""Asks for an administrator's password on the terminal, where no desktop does: polkit's own pkttyagent, as the user.

pkexec has a question of its own, but it registers it as root while the answer comes from the user, and polkitd then knows "No
session for cookie": so it is in Debian 12 (polkit 122, tried) and in others (polkit-org/polkit, pull request 423, issue 686).
An agent of the user's own is not concerned by that. Sources: pkttyagent(1), polkit(8).
"""

import os
import select
import subprocess

from keyfit.platforms.linux import programs
from keyfit.platforms.linux.posix import posix

READY_WITHIN_S = 10.0
"""How long the agent may take to tell polkitd of itself. A second is much; without it pkexec only finds nobody to ask."""


def start(environment: dict[str, str]) -> "subprocess.Popen[bytes] | None":
    """An agent for this process, ready to ask; None without a terminal, or without the program.

    It does not take the place of a desktop's agent (`--fallback`), where there may be one: without a login session polkitd does
    not find such an agent (polkit 122, tried). Whoever started it ends it.
    """
    program = programs.find("pkttyagent")
    if program is None or not _has_terminal():
        return None
    ready, told = os.pipe()
    polite = ["--fallback"] if _has_session() else []
    try:
        agent = subprocess.Popen([program, *polite, "--notify-fd", str(told)], pass_fds=(told,), cwd="/",
                                 stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment)
    except OSError:
        os.close(ready)
        os.close(told)
        return None
    os.close(told)
    select.select([ready], [], [], READY_WITHIN_S)  # the end of the pipe: it closes its side when polkitd knows it
    os.close(ready)
    return agent


def end(agent: "subprocess.Popen[bytes] | None") -> None:
    """End it; the terminal is as it was."""
    if agent is not None:
        agent.terminate()
        agent.wait()


def _has_session() -> bool:
    """In a session of systemd-logind, by its control group (session-N.scope), or with a desktop (whose programs often run in
    the user's own service manager)."""
    if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        return True
    try:
        with open("/proc/self/cgroup", encoding="ascii", errors="replace") as file:
            return "/session-" in file.read()
    except OSError:
        return False


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | posix.O_NOCTTY))
    except OSError:
        return False
    return True
