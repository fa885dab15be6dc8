"""What a program and all that it starts did with files, programs and the network, by strace."""

import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

CHANGES = ("mkdir", "mkdirat", "rmdir", "unlink", "unlinkat", "rename", "renameat", "renameat2", "link", "linkat", "symlink",
           "symlinkat", "mknod", "mknodat", "truncate", "creat", "chmod", "fchmodat", "chown", "lchown", "fchownat", "utimensat",
           "setxattr", "lsetxattr", "removexattr")
"""Calls that change a name or what lies under it; and open, if it is for writing."""
OPENS = ("open", "openat", "openat2", "creat")
_LINE = re.compile(r"^(?P<pid>\d+) +(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+|\?)(?P<rest>.*)$")
_PATHS = re.compile(r'(?:(?P<at>AT_FDCWD|\d+)<(?P<folder>[^>]*)>(?:\(deleted\))?, )?"(?P<path>(?:[^"\\]|\\.)*)"')
_WRITES = re.compile(r"O_(WRONLY|RDWR|CREAT|TRUNC|TMPFILE)")


class Call(Struct, frozen=True):
    """A call that succeeded (or, for `connect` and `execve`, was tried). `paths` are absolute."""

    name: str
    paths: tuple[str, ...]
    text: str
    result: int

    @property
    def writes(self) -> bool:
        """True if it changes a file or a name."""
        return self.name in CHANGES or (self.name in OPENS and _WRITES.search(self.text) is not None)


def command(log: Path, program: Sequence[str], environment: Mapping[str, str] | None = None) -> list[str]:
    """The command line that runs `program`, with these variables more than the others, and writes every call into `log`."""
    given = [word for name, value in (environment or {}).items() for word in ("-E", f"{name}={value}")]
    names = ",".join((*CHANGES, *OPENS, "execve", "execveat", "connect", "bind", "listen", "socket", "write"))
    return ["strace", "-f", "-y", "-s", "4096", "-e", f"trace={names}", "-e", "signal=none", "-o", str(log), *given, "--",
            *program]


def traced(program: Sequence[str], log: Path, *, environment: Mapping[str, str] | None = None,
           cwd: str | Path = "/") -> "tuple[subprocess.CompletedProcess[str], list[Call]]":
    """Run it; what it said, and its calls."""
    done = subprocess.run(command(log, program, environment), capture_output=True, text=True, timeout=100, check=False, cwd=cwd,
                          stdin=subprocess.DEVNULL)
    return done, list(calls(log))


def calls(log: Path) -> Iterator[Call]:
    """The calls of a log, in order."""
    for line in whole_lines(log.read_text("utf-8", "replace")):
        found = _LINE.match(line)
        if found is None or (found["result"].startswith(("-", "?")) and found["name"] not in ("connect", "execve")):
            continue
        paths = tuple(os.path.normpath(os.path.join(hit["folder"] or "/", unquoted(hit["path"])))
                      for hit in _PATHS.finditer(found["arguments"]))
        if found["name"] in ("symlink", "symlinkat"):
            paths = paths[1:]  # the first is what it says, not a file
        yield Call(found["name"], paths, found["arguments"], -1 if found["result"] == "?" else int(found["result"]))


def whole_lines(text: str) -> Iterator[str]:
    """Calls that strace wrote in two pieces, because others came between, are put together."""
    begun: dict[str, str] = {}
    for line in text.splitlines():
        pid, _, rest = line.partition(" ")
        if rest.endswith("<unfinished ...>"):
            begun[pid] = line.removesuffix("<unfinished ...>").rstrip()
        elif " resumed>" in rest:
            yield begun.pop(pid, pid) + rest.partition(" resumed>")[2]
        else:
            yield line


def unquoted(text: str) -> str:
    """A string of strace as it was."""
    return text.encode("latin-1", "backslashreplace").decode("unicode_escape").encode("latin-1", "replace").decode(
        "utf-8", "replace")
