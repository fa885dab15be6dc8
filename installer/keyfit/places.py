"""Where things lie on a machine. Strings and `os` only: the cheap check for updates begins with this module."""

import os

DATA = os.path.join(os.path.dirname(__file__), "data")
STATE_DIR = "/var/lib/keyfit"
POLICY = "/etc/keyfit/policy.toml"
LOG_DIR = "/var/log/keyfit"
_join = os.path.join


def is_elevated() -> bool:
    """True with administrator rights."""
    return hasattr(os, "geteuid") and os.geteuid() == 0


def state_dir(root: str, given: str | None) -> str:
    """The record of changes, below `root` ("/" for the running system)."""
    return given or root.rstrip("/") + STATE_DIR


def cache_dir(root: str, given: str | None) -> str:
    """Downloads; for Linux, where users have theirs by the XDG base directory specification."""
    if given:
        return given
    if is_elevated() and root == "/":
        return "/var/cache/keyfit"
    home = os.environ.get("XDG_CACHE_HOME", "")
    return _join(home if home.strip() else os.path.expanduser("~/.cache"), "keyfit")


def user_log_dir() -> str:
    """An ordinary user's own log, by the XDG base directory specification, which has relative paths ignored."""
    home = os.environ.get("XDG_STATE_HOME", "")
    return _join(home if os.path.isabs(home) else os.path.expanduser("~/.local/state"), "keyfit")


def owns_state(root: str, state: str | None) -> bool:
    """True if the trusted metadata lies beside the record; an ordinary user keeps it with the downloads."""
    return root != "/" or state is not None or is_elevated()


def metadata_dir(root: str, state: str | None, cache: str | None) -> str:
    """The trusted metadata."""
    return _join(state_dir(root, state) if owns_state(root, state) else cache_dir(root, cache), "metadata")


def inputs(root: str, state: str | None, metadata: str, trust_root: str) -> dict[str, list[int] | None]:
    """What an answer about updates depends on, beside the signed data: files, each with a stamp that changes with it."""
    journal = _join(state_dir(root, state), "journal.sqlite")
    files = (trust_root, _join(DATA, "built.txt"), root.rstrip("/") + POLICY, _join(metadata, "floors.json"), journal,
             journal + "-wal")
    return {name: stamp(name) for name in map(os.path.abspath, files)}


def stamp(path: str) -> list[int] | None:
    """Time of change, size and number of a file; None if it is not there or empty."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return [status.st_mtime_ns, status.st_size, status.st_ino] if status.st_size else None
