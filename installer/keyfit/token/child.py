"""The child process that talks to PC/SC and to a foreign PKCS#11 module, so that they may crash or hang.

Usage: `python -m keyfit.token.child [--user UID] readers` or `... module /absolute/path`. One line of JSON on standard output,
as `keyfit.token.protocol` has it; what the module itself prints goes to standard error.

Before it touches either, it becomes that user, for good, and gives up what it does not need (`keyfit.confinement`).

Signals that would end the process are blocked and looked at between two calls into the module: ending it in the middle
of an exchange with the card leaves PC/SC stuck until the token is unplugged.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import PurePath

import msgspec
from msgspec import structs

from keyfit import confinement
from keyfit.core.text import clean
from keyfit.model.certificate import ModuleReport, SlotReport
from keyfit.token import pcsc, pkcs11
from keyfit.token.protocol import MAX_CERTIFICATES, MAX_SLOTS, failed, safe_readers, safe_report

MAX_ADDRESS_BYTES = 4 * 1024**3
"""Address space; generous, because every thread of a module reserves 64 MB of it (glibc's malloc arenas)."""
MAX_DATA_BYTES = 1024**3
"""Memory that can be written to (Linux counts private mappings since 4.7): keeps a runaway module from filling it."""
MAX_CPU_S = 300
"""Processor time: waiting for a card takes none, so only an endless loop reaches it."""
MAX_CERTIFICATE_BYTES = 65_536
MAX_LABEL_BYTES = 1_024
EXIT_USAGE = 2
EXIT_STOPPED = 75
_STOPPING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name))


class Stopped(Exception):
    """Somebody asked this process to end."""


def main(arguments: Sequence[str]) -> int:
    """Run the child; returns its exit code."""
    output = _Output()
    user: int | None
    match list(arguments):
        case ["--user", uid, *rest] if uid.isascii() and uid.isdigit():
            user = int(uid)
        case rest:
            user = None
    _confine(user)
    _hold_signals()
    try:
        match rest:
            case ["readers"]:
                output.send(_readers())
            case ["module", path] if PurePath(path).is_absolute():
                _module(output, path)
            case _:
                sys.stderr.write("usage: [--user UID] readers | module /absolute/path\n")
                return EXIT_USAGE
    except Stopped:
        return EXIT_STOPPED
    return 0


def check_stop() -> None:
    """Raise `Stopped` if a signal waits. Called between the calls into foreign code, never during one.

    Raises:
        Stopped: one of the held signals has arrived.
    """
    if sys.platform != "win32" and signal.sigpending().intersection(_STOPPING):
        raise Stopped


class _Output:
    """Keeps standard output for the one answer and sends whatever else is printed to standard error."""

    def __init__(self) -> None:
        self.sent = False
        self._fd = os.dup(1)
        os.dup2(2, 1)

    def send(self, answer: msgspec.Struct) -> None:
        """Write the answer as one line and close the output."""
        self.sent = True
        line = msgspec.json.encode(answer) + b"\n"
        with contextlib.suppress(BrokenPipeError):
            while line:
                line = line[os.write(self._fd, line) :]
        os.close(self._fd)


def _confine(user: int | None) -> None:
    """Limits on memory, processor time and rights, as far as the system knows them; and be this user, if it is not None.

    Whatever is still to be loaded is loaded before: it may lie where only root can read.
    """
    limits = {"CORE": 0, "CPU": MAX_CPU_S}
    if sys.platform == "linux":
        limits |= {"AS": MAX_ADDRESS_BYTES, "DATA": MAX_DATA_BYTES}
    confinement.limit(limits)
    confinement.no_new_privileges()
    if sys.platform != "win32" and user is not None:
        import pwd

        from keyfit.token.x509 import describe

        describe(b"", "")
        entry = pwd.getpwuid(user)
        confinement.become(user, entry.pw_gid, tuple(os.getgrouplist(entry.pw_name, entry.pw_gid)))
    confinement.filter_calls(confinement.filters.token_child)


def _hold_signals() -> None:
    """Block the signals that end a process; threads that a module starts inherit this. Windows has none of them."""
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)


def _readers() -> msgspec.Struct:
    answer = pcsc.list_readers(check_stop)
    return structs.replace(answer, readers=safe_readers(answer.readers))


def _module(output: _Output, path: str) -> None:
    """Load, look, answer, and only then finalise: modules that crash when they are unloaded are many."""
    try:
        with pkcs11.Module(path, check_stop) as module:
            output.send(safe_report(_look(module, path), path))
    except (OSError, pkcs11.Pkcs11Failed) as error:
        if not output.sent:
            output.send(failed(path, str(error)))


def _look(module: pkcs11.Module, path: str) -> ModuleReport:
    info = module.info()
    version = info.libraryVersion
    name = pkcs11.text(info.libraryDescription) or pkcs11.text(info.manufacturerID)
    found = [_slot(module, slot) for slot in module.slots()[:MAX_SLOTS]]
    return ModuleReport(path=path, loaded=True, description=f"{name} {version.major}.{version.minor}",
                        slots=tuple(report for report, _ in found if report is not None),
                        error="; ".join(problem for _, problem in found if problem))


def _slot(module: pkcs11.Module, slot: int) -> tuple[SlotReport | None, str]:
    """One slot and what went wrong with it; None if the module cannot say what token is in it."""
    try:
        name = clean(pkcs11.text(module.slot_info(slot).slotDescription))
        token = module.token_info(slot)
    except pkcs11.Pkcs11Failed as error:
        return None, f"slot {slot}: {error}"
    report = _describe(name, token)
    found: list[tuple[str, bytes]] = []
    problem = ""
    try:
        with module.session(slot) as session:
            found.extend(_certificates(module, session))  # keeps what came before a failure
    except pkcs11.Pkcs11Failed as error:
        problem = f"slot {slot}: {error}"
    if not found:
        return report, problem
    from keyfit.token.x509 import describe

    described = [describe(der, label) for label, der in found]
    unreadable = described.count(None)
    if unreadable and not problem:
        problem = f"slot {slot}: {unreadable} objects are no readable certificates"
    return structs.replace(report, certificates=tuple(c for c in described if c is not None)), problem


def _certificates(module: pkcs11.Module, session: int) -> Iterator[tuple[str, bytes]]:
    for handle in module.certificates(session, MAX_CERTIFICATES):
        der = module.attribute(session, handle, pkcs11.CKA_VALUE, MAX_CERTIFICATE_BYTES)
        label = module.attribute(session, handle, pkcs11.CKA_LABEL, MAX_LABEL_BYTES)
        yield clean(pkcs11.text(label)), der


def _describe(name: str, token: pkcs11.TokenInfo) -> SlotReport:
    flags = token.flags
    return SlotReport(
        slot=name,
        label=clean(pkcs11.text(token.label)),
        model=clean(pkcs11.text(token.model)),
        manufacturer=clean(pkcs11.text(token.manufacturerID)),
        initialised=bool(flags & pkcs11.CKF_TOKEN_INITIALIZED),
        login_required=bool(flags & pkcs11.CKF_LOGIN_REQUIRED),
        pin_initialised=bool(flags & pkcs11.CKF_USER_PIN_INITIALIZED),
        pin_to_be_changed=bool(flags & pkcs11.CKF_USER_PIN_TO_BE_CHANGED),
        pin_count_low=bool(flags & pkcs11.CKF_USER_PIN_COUNT_LOW),
        pin_final_try=bool(flags & pkcs11.CKF_USER_PIN_FINAL_TRY),
        pin_locked=bool(flags & pkcs11.CKF_USER_PIN_LOCKED),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
