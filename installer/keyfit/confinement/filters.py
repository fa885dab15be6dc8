"""Builds seccomp filters: small programs in classic BPF that the kernel runs before every system call (seccomp(2)).

Policy: a forbidden call fails with EPERM, so that a module that tries something it can do without goes on. Calls whose
arguments lie behind a pointer, where no filter sees them, fail with ENOSYS, so that the C library takes the older call. A call
from another architecture's table (32-bit code in a 64-bit process, x32) ends the process: nothing of ours makes one.
"""

import struct
from collections.abc import Callable, Iterable

from keyfit.confinement.calls import AARCH64, NUMBERS, PRIVILEGED, PROGRAMS, SOCKETS, WRITES, X86_64

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
"""BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, ...JGE..., ...JSET..., BPF_RET|BPF_K (linux/bpf_common.h)."""
ALLOW, KILL, EPERM, ENOSYS = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
"""SECCOMP_RET_ALLOW, SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_ERRNO with 1 and 38 (linux/seccomp.h)."""
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
"""Offsets in struct seccomp_data (linux/seccomp.h); of the arguments, the low words on a little-endian machine."""
_AUDIT = {X86_64: 0xC000003E, AARCH64: 0xC00000B7}
"""AUDIT_ARCH_* (linux/audit.h)."""
_X32 = 0x40000000
"""__X32_SYSCALL_BIT (asm/unistd.h)."""
_NAMESPACES = 0x7E020080
"""CLONE_NEW* of linux/sched.h: mount, cgroup, UTS, IPC, user, PID, network, time."""
_THREAD = 0x00010000
"""CLONE_THREAD."""
_FOR_WRITING = 0o1 | 0o2 | 0o100 | 0o1000
"""O_WRONLY, O_RDWR, O_CREAT, O_TRUNC (asm-generic/fcntl.h; the same on both)."""

Instruction = tuple[int, int, int, int]
"""code, jump if true, jump if false, value: struct sock_filter."""
Rules = Callable[[dict[str, int]], list[Instruction]]
"""Makes the middle of a program from the numbers of a machine."""


def token_child(machine: str) -> bytes | None:
    """For a process that loads a PKCS#11 module: sockets, files and programs are its business, the machine is not.

    Returns:
        struct sock_filter[]; None if the machine's numbers are not known.
    """
    return _program(machine, lambda numbers: [
        *_denied(numbers, PRIVILEGED), *_by_flags(numbers["clone"], 0, _NAMESPACES), *_answer(numbers["clone3"], ENOSYS)])


def reader(machine: str) -> bytes | None:
    """For a process that only reads what it has open: no socket, no other program, no writing as far as a filter can see it.

    Returns:
        struct sock_filter[]; None if the machine's numbers are not known.
    """
    return _program(machine, lambda numbers: [
        *_denied(numbers, (*PRIVILEGED, *SOCKETS, *PROGRAMS, *WRITES)),
        *_by_flags(numbers["clone"], 0, _THREAD, needed=True), *_answer(numbers["clone3"], ENOSYS),
        *(_by_flags(numbers["open"], 1, _FOR_WRITING) if "open" in numbers else ()),
        *_by_flags(numbers["openat"], 2, _FOR_WRITING), *_answer(numbers["openat2"], ENOSYS)])


def _program(machine: str, body: Rules) -> bytes | None:
    numbers = NUMBERS.get(machine)
    if numbers is None:
        return None
    code: list[Instruction] = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, _AUDIT[machine]), (_RETURN, 0, 0, KILL),
                               (_LOAD, 0, 0, _NUMBER)]
    if machine == X86_64:
        code += [(_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, KILL)]
    code += [*body(numbers), (_RETURN, 0, 0, ALLOW)]
    return b"".join(struct.pack("<HBBI", *each) for each in code)


def _denied(numbers: dict[str, int], names: Iterable[str]) -> list[Instruction]:
    return [each for name in names if name in numbers for each in _answer(numbers[name], EPERM)]


def _answer(number: int, value: int) -> list[Instruction]:
    return [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, value)]


def _by_flags(number: int, argument: int, flags: int, *, needed: bool = False) -> list[Instruction]:
    """Deny the call if any of the flags is set; if it is `needed`, if none is."""
    return [(_EQUAL, 0, 4, number), (_LOAD, 0, 0, _ARGUMENTS + 8 * argument), (_ANY_BIT, int(needed), int(not needed), flags),
            (_RETURN, 0, 0, EPERM), (_RETURN, 0, 0, ALLOW)]
