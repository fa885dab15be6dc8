"""Which paths a program changes: what strace(1) saw of one run."""

import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

CALLS = ("open", "openat", "openat2", "creat", "rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat",
         "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir", "chmod", "fchmodat", "chown", "lchown", "fchownat", "truncate",
         "mknod", "mknodat", "setxattr", "lsetxattr", "utimensat")
_CALL = re.compile(r"(\d+) +(\w+)\((.*)")
_PATH = re.compile(r'(?:(?:AT_FDCWD|\d+)<([^>]*)>, )?"((?:[^"\\]|\\.)*)"')
_WRITES = re.compile(r"\bO_(?:WRONLY|RDWR|CREAT|TRUNC|TMPFILE)\b")
_TARGETS = ("symlink", "symlinkat")


def changed_paths(run: Callable[[Sequence[str]], object]) -> set[Path]:
    """Every path that a program itself, not one that it starts, opened for writing, made, renamed, removed or gave away.

    Args:
        run: starts the program with a command before its own.
    """
    with tempfile.NamedTemporaryFile() as log:
        run(["strace", "-f", "-y", "-s", "4096", "-o", log.name, "-e", f"trace={','.join(CALLS)},execve"])
        lines = Path(log.name).read_text(errors="replace").splitlines()
    own = lines[0].split()[0]
    calls = [found.groups() for line in lines if (found := _CALL.match(line))]
    others = {pid for pid, name, _ in calls if name == "execve" and pid != own}
    changed: set[Path] = set()
    for pid, name, arguments in calls:
        if pid not in others and name != "execve" and (not name.startswith("open") or _WRITES.search(arguments)):
            paths = [Path(folder or "/", path) for folder, path in _PATH.findall(arguments)]
            changed |= set(paths[1:] if name in _TARGETS else paths)
    return changed
