"""A copy of the running system for programs that work on "/": an overlay over it, with processes and sockets of its own.

    with LiveCopy(tmp_path) as copy:
        copy.run(["dpkg", "-i", ...])
        copy.changed()

Needs root, as the tests have it. The checkout and the test's own folder are the real ones in it, also for writing; of
everything else the system sees nothing, and `changed` is exactly what was written. It has no devices but those of /dev.
"""

import os
import stat
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

CHECKOUT = Path(__file__).resolve().parents[2]
SCRIPT = """
mount -t tmpfs -o mode=755 none "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" overlay "$1/root"
mount --rbind /dev "$1/root/dev"
mount -t tmpfs -o mode=755 none "$1/root/sys"
mount -t proc proc "$1/root/proc"
mount -t tmpfs -o mode=755 none "$1/root/run"
mount -t tmpfs -o mode=1777 none "$1/root/tmp"
for folder in "$2" "$3"; do mkdir -p "$1/root$folder"; mount --bind "$folder" "$1/root$folder"; done
[ "$4" = shared ] || ip link set lo up
echo ready
read -r _ || true
"""


class LiveCopy:
    """The copy. A context manager; everything that still runs in it ends with it.

    Args:
        folder: the test's own; it is the same inside.
        network: the machine's, so that servers of the test can be reached; by default there is none.
    """

    def __init__(self, folder: Path, *, network: bool = False) -> None:
        self._mount = folder / "live-copy"
        self._mount.mkdir()
        apart = [] if network else ["--net"]
        self._process = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--ipc", *apart, "sh", "-euc", SCRIPT, "sh",
             str(self._mount), str(CHECKOUT), str(folder), "shared" if network else "none"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self._process.stdout is None or self._process.stdout.readline() != "ready\n":
            self._process.wait()
            raise RuntimeError("there is no copy of the running system: see what unshare and mount said")
        self._first = int(Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()[0])

    def __enter__(self) -> "LiveCopy":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(20)
        if self._process.stdout is not None:
            self._process.stdout.close()

    @property
    def root(self) -> Path:
        """Where "/" of the copy lies for the test, for reading and for preparing."""
        return Path(f"/proc/{self._first}/root{self._mount}/root")

    def run(self, argv: Sequence[str | Path], *, environment: Mapping[str, str] | None = None, user: str = "",
            cwd: str = "/") -> "subprocess.CompletedProcess[str]":
        """Run a program in it, as root or as `user`."""
        given = {k: v for k, v in os.environ.items() if not k.startswith("KEYFIT_")} | dict(environment or {})
        return subprocess.run(self.command(argv, user=user, cwd=cwd), capture_output=True, text=True, timeout=100, env=given,
                              stdin=subprocess.DEVNULL, check=False)

    def command(self, argv: Sequence[str | Path], *, user: str = "", cwd: str = "/") -> list[str]:
        """The command line that runs a program in it."""
        become = ["setpriv", f"--reuid={user}", f"--regid={_group(user)}", "--clear-groups"] if user else []
        return ["nsenter", f"--target={self._first}", "--mount", "--pid", "--net", "--ipc", "chroot", f"{self._mount}/root",
                "sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", cwd, *become, *map(str, argv)]

    def changed(self) -> dict[str, str]:
        """Path -> "file", "folder", "link", "gone" or "other", of all that was written, made or removed."""
        upper = Path(f"/proc/{self._first}/root{self._mount}/upper")
        return {"/" + str(path.relative_to(upper)): _kind(path) for path in _below(upper)}

    def processes(self) -> set[str]:
        """Command lines of what runs in it, but for this test's own programs."""
        listed = self.run(["ps", "-eo", "pid=,args="]).stdout.splitlines()
        rows = [line.split(None, 1) for line in listed]
        return {args for pid, args in rows if pid != "1" and not args.startswith(("ps -eo", "sh -euc"))}

    def sockets(self) -> set[str]:
        """Everything that listens: TCP, UDP and Unix sockets."""
        lines = self.run(["ss", "--no-header", "--listening", "--tcp", "--udp", "--unix", "--numeric"]).stdout.splitlines()
        return {" ".join(line.split()[:5]) for line in lines}


def _group(user: str) -> int:
    import pwd

    return pwd.getpwnam(user).pw_gid


def _below(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from _below(path)


def _kind(path: Path) -> str:
    mode = path.lstat().st_mode
    if stat.S_ISCHR(mode) and path.lstat().st_rdev == 0:
        return "gone"  # how an overlay keeps it (Linux, Documentation/filesystems/overlayfs)
    return "link" if stat.S_ISLNK(mode) else "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "other"
