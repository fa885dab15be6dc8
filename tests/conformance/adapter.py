"""The client protocol of the TUF conformance suite (its CLIENT-CLI.md) on the code that Keyfit itself uses.

    client --metadata-dir D init ROOT.json
    client --metadata-dir D --metadata-url U refresh
    client --metadata-dir D --metadata-url U --target-name P [--target-name ...] --target-base-url T --target-dir X download

Exit code 0 or 1. Only the strict workflow is behind it: the cheap check that `keyfit update --check` begins with would pass
by a new root as long as the timestamp stays the same, which the suite rightly forbids.

The root that `init` was given stays the trust anchor, as the embedded root does in the product. `D/root.json` is the newest
trusted root, which python-tuf keeps as a link.
"""

import hashlib
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from keyfit.errors import KeyfitError

if TYPE_CHECKING:
    from tuf.api.metadata import TargetFile  # imported with the workflow only

ANCHOR = "trust-anchor"
"""The suite takes every *.json in the folder for a role, so the anchor is not called so."""
MAX_TARGET_BYTES = 100_000_000
MAX_NAME = 200
"""Longer names of files, which not every file system takes, become their hash."""


OPTIONS = {"--metadata-dir": "metadata_dir", "--metadata-url": "metadata_url", "--target-name": "",
           "--target-base-url": "targets_url", "--target-dir": "target_dir"}
OPTIONS_OF = {"init": ["--metadata-dir"], "refresh": ["--metadata-dir", "--metadata-url"], "download": list(OPTIONS)}


@dataclass(frozen=True, kw_only=True)
class Given:
    """The command line."""

    command: str
    metadata_dir: str
    trusted_root: Path
    names: list[str]
    metadata_url: str = ""
    targets_url: str = ""
    target_dir: str = ""


def main(arguments: list[str]) -> int:
    """Run one command."""
    given = parse(arguments)
    folder = Path(given.metadata_dir)
    if given.command == "init":
        return init(folder, given.trusted_root)
    try:
        return refresh_or_download(given, folder)
    except KeyfitError as error:
        print(f"{error.code}: {error.message}", file=sys.stderr)
        return 1


def init(folder: Path, trusted_root: Path) -> int:
    """Keep the root; nothing else is trusted yet."""
    data = trusted_root.read_bytes()
    folder.mkdir(parents=True, exist_ok=True)
    for name in (ANCHOR, "root.json"):
        store(folder / name, data)
    return 0


def refresh_or_download(given: Given, folder: Path) -> int:
    """The whole client workflow, and then the targets in their order, with the same metadata."""
    from keyfit.trust.addresses import check_repository, host_of
    from keyfit.trust.limits import Limits
    from keyfit.trust.metadata import CheckedAddress, Fetcher
    from keyfit.trust.transport import Transport

    anchor = (folder / ANCHOR).read_bytes()
    metadata_url = check_repository(given.metadata_url)
    targets_url = check_repository(given.targets_url) if given.targets_url else metadata_url
    hosts = frozenset({host_of(metadata_url), host_of(targets_url)})
    address = CheckedAddress(metadata_url=metadata_url, targets_url=targets_url, folder=folder, trusted_root=anchor,
                             fetcher=Fetcher(Transport(Limits()), hosts))
    for name in given.names:
        info = address.target_info(name)
        if info is None:
            print(f"no such target: {name}", file=sys.stderr)
            return 1
        path = Path(given.target_dir) / file_name(name)
        if not is_there(info, path):
            store(path, address.fetch_target(info, MAX_TARGET_BYTES))
    return 0


def file_name(target: str) -> str:
    """One name of a file for every target path, whatever is in it."""
    name = quote(target, safe="")
    return name if len(name) <= MAX_NAME and name.strip(".") else hashlib.sha256(target.encode()).hexdigest()


def is_there(info: "TargetFile", path: Path) -> bool:
    """True if the file was downloaded before and is what is signed now."""
    from tuf.api.exceptions import LengthOrHashMismatchError

    try:
        with path.open("rb") as file:
            info.verify_length_and_hashes(file)
    except (OSError, LengthOrHashMismatchError):
        return False
    return True


def store(path: Path, data: bytes) -> None:
    """Replace a file in one go."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    Path(name).replace(path)


def parse(arguments: list[str]) -> Given:
    """Options and one command, in any order. A value is what follows, also if it begins with a dash."""
    options: dict[str, list[str]] = {}
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        if word not in OPTIONS:
            rest.append(word)
        else:
            options.setdefault(word, []).append(next(words, ""))
    if not rest or rest[0] not in OPTIONS_OF or len(rest) != 1 + (rest[0] == "init"):
        raise SystemExit(__doc__)
    missing = [name for name in OPTIONS_OF[rest[0]] if not any(options.get(name, ()))]
    if missing:
        raise SystemExit(f"{rest[0]} needs {', '.join(missing)}")
    return Given(command=rest[0], trusted_root=Path(rest[-1]), names=options.get("--target-name", []),
                 **{field: options[name][-1] for name, field in OPTIONS.items() if field and name in options})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
