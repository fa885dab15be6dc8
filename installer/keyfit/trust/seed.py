"""Signed metadata that a build carries, so that a first contact need not fetch it.

It is put where python-tuf keeps what it has seen, and python-tuf treats it as it treats all that lies there: it verifies it
against the root and the snapshot, and fetches what does not fit. So an old or spoilt seed costs nothing but the saving. Only
roles that sign targets are taken: a snapshot or timestamp is always newer on the server.
"""

import re
from contextlib import suppress
from pathlib import Path

from keyfit.errors import StorageError
from keyfit.privatefiles import write_private

MAX_FILES = 64
MAX_BYTES = 5_000_000
"""As much as python-tuf takes for one role that signs targets (`UpdaterConfig.targets_max_length`)."""
_ROLE_FILE = re.compile(r"(?!(root|timestamp|snapshot)\.json)[A-Za-z0-9_%-][A-Za-z0-9_.%-]{0,120}\.json\Z")


def plant(seed: Path, folder: Path) -> None:
    """Copy the seed into the folder of a repository that was never seen here. Call with the folder's lock held."""
    with suppress(OSError, StorageError):  # whatever is wrong: the refresh that follows fetches everything
        if any(folder.iterdir()):
            return
        for path in sorted(seed.iterdir())[:MAX_FILES]:
            if _ROLE_FILE.fullmatch(path.name) and path.is_file() and path.stat().st_size <= MAX_BYTES:
                write_private(folder / path.name, path.read_bytes())
