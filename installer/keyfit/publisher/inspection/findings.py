"""Collects what a reader finds, with a limit, and the rules on names that all packages share."""

import re

from keyfit.publisher.inspection import forbidden
from keyfit.publisher.inspection.limits import MAX_FINDINGS, MAX_NAME_CHARACTERS

_TRUST_FOLDERS = ("/etc/ssl/certs/", "/usr/local/share/ca-certificates/", "/usr/share/ca-certificates/",
                  "/etc/pki/ca-trust/source/", "/usr/share/pki/ca-trust-source/", "/etc/ca-certificates/trust-source/")
"""Where Debian, Fedora and Arch keep the roots that programs trust (update-ca-certificates(8), update-ca-trust(8))."""

_USERS_FOLDERS = ("/tmp/", "/var/tmp/", "/home/", "/root/", "/dev/shm/", "/run/user/")  # noqa: S108
"""Places that users write to (hier(7)): a link there would let them say what the system loads."""


class Findings:
    """`problems` refuse the file, `notes` are to be looked at."""

    def __init__(self) -> None:
        self._problems: dict[str, None] = {}
        self._notes: dict[str, None] = {}

    def problem(self, text: str) -> None:
        """Something that no package may be or do."""
        self._problems[text] = None

    def note(self, text: str) -> None:
        """Something to look at."""
        self._notes[text] = None

    @property
    def problems(self) -> tuple[str, ...]:
        """All of them, or the first ones and how many more there are."""
        return _cut(list(self._problems))

    @property
    def notes(self) -> tuple[str, ...]:
        """All of them, or the first ones and how many more there are."""
        return _cut(list(self._notes))

    def script(self, name: str, text: str) -> None:
        """Look at a script's or command line's words."""
        for fault in forbidden.words_faults(text):
            self.problem(f"{name} {fault}")
        fetcher = forbidden.fetches(text)
        if fetcher:
            self.note(f"{name} fetches from a network ({fetcher!a}): what comes is in no signed list")

    def registry(self, where: str, key: str, value: str) -> None:
        """Look at a registry value that is set or deleted."""
        fault = forbidden.registry_fault(key, value)
        if fault:
            self.problem(f"{where} changes {fault}: {key}\\{value}".rstrip("\\"))

    def system_file(self, path: str, *, kind: str, mode: int, link: str = "") -> None:
        """Look at a file that a system package brings.

        Args:
            path: absolute.
            kind: "file", "folder", "link", "hard link"; anything else is told as what it is.
            mode: permission bits.
            link: target of a link.
        """
        for text in _path_faults(path):
            self.problem(text)
        if kind not in ("file", "folder", "link", "hard link"):
            self.problem(f"{path}: expected files, folders and links, came {kind}")
        elif kind in ("link", "hard link"):
            if not link_stays(path, link):
                self.problem(f"{path}: expected a link inside the system, came one to {link!a}")
        else:
            self._mode(path, mode, is_folder=kind == "folder")
        if path.startswith(_TRUST_FOLDERS) and kind != "folder":
            self.problem(f"{path}: a driver package may not add to the certificates that the system trusts")

    def _mode(self, path: str, mode: int, *, is_folder: bool) -> None:
        if mode & 0o6000 and not is_folder:
            self.problem(f"{path}: expected no set-user-id or set-group-id bits, came mode {mode:04o}")
        if mode & 0o002 and not (is_folder and mode & 0o1000):
            self.problem(f"{path}: expected nothing that everyone may write to, came mode {mode:04o}")


def _path_faults(path: str) -> list[str]:
    parts = path.split("/")
    if not path.startswith("/") or ".." in parts or "." in parts[1:] or "" in parts[1:-1]:
        return [f"{path!a}: expected an absolute path without '.' and '..'"]
    if len(path) > MAX_NAME_CHARACTERS or not path.isprintable():
        return [f"{path[:80]!a}: expected a printable path of at most {MAX_NAME_CHARACTERS} characters"]
    return []


def link_stays(path: str, link: str) -> bool:
    """Does a link of a file at `path` lead to a place that more ".." than folders do not reach?"""
    if not link or len(link) > MAX_NAME_CHARACTERS or not link.isprintable():
        return False
    if link.startswith("/"):
        return ".." not in link.split("/") and not link.startswith(_USERS_FOLDERS)
    depth = len([part for part in path.split("/")[:-1] if part])
    for part in link.split("/"):
        depth += -1 if part == ".." else 0 if part in ("", ".") else 1
        if depth < 0:
            return False
    return True


def _cut(texts: list[str]) -> tuple[str, ...]:
    if len(texts) <= MAX_FINDINGS:
        return tuple(texts)
    return (*texts[:MAX_FINDINGS], f"and {len(texts) - MAX_FINDINGS} more")


_TEXT = re.compile(rb"\A(#!|[\t\r\n\x20-\x7e])")


def is_text(data: bytes) -> bool:
    """Does this look like a script rather than a program?"""
    return bool(_TEXT.match(data)) and b"\0" not in data[:4096]
