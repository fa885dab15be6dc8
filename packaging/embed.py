"""Puts what a build has to know of a signed repository into the program: python packaging/embed.py DIR ADDRESS ...

DIR is a publisher's directory, or a folder of `manifests/`. Written into `installer/keyfit/data`: the trusted roots of the
repository and of its offline kits, its addresses, the date of the build, and the metadata that a first contact need not
fetch. `--remove` takes all that away again.
"""

import argparse
import json
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

DATA = Path(__file__).resolve().parent.parent / "installer" / "keyfit" / "data"
FILES = ("root.json", "media.json", "repositories.txt", "built.txt")
SEED_ROLES = ("targets", "drivers")
"""Roles that every client needs and that rarely change; nothing of them is trusted before it is verified."""


def main(arguments: list[str]) -> int:
    """Embed, or remove; returns the exit code."""
    parser = argparse.ArgumentParser(description="Embed a repository's trusted roots into the program.")
    parser.add_argument("folder", nargs="?", type=Path, help="a publisher's directory")
    parser.add_argument("addresses", nargs="*", help="where clients find the repository, https")
    parser.add_argument("--remove", action="store_true", help="take it all away again")
    given = parser.parse_args(arguments)
    remove()
    if given.remove:
        return 0
    if given.folder is None or not given.addresses:
        parser.error("expected a publisher's directory and at least one address")
    try:
        embed(given.folder, given.addresses)
    except (OSError, KeyError, ValueError) as error:
        remove()
        sys.stderr.write(f"{given.folder} is no publisher's directory: {error}\n")
        return 1
    return 0


def remove() -> None:
    """Take away what an earlier run embedded."""
    for name in FILES:
        (DATA / name).unlink(missing_ok=True)
    shutil.rmtree(DATA / "seed", ignore_errors=True)


def embed(folder: Path, addresses: list[str]) -> None:
    """Copy the newest roots and the seed, and write addresses and date."""
    metadata = folder / "repository" / "metadata"
    DATA.mkdir(exist_ok=True)
    (DATA / "seed").mkdir()
    (DATA / "root.json").write_bytes(newest(metadata, "root").read_bytes())
    (DATA / "media.json").write_bytes(newest(folder / "media" / "repository" / "metadata", "root").read_bytes())
    (DATA / "repositories.txt").write_text("".join(f"{address}\n" for address in addresses), "ascii")
    (DATA / "built.txt").write_text(datetime.now(UTC).replace(microsecond=0).isoformat() + "\n", "ascii")
    timestamp = json.loads((metadata / "timestamp.json").read_bytes())["signed"]
    version = timestamp["meta"]["snapshot.json"]["version"]
    snapshot = json.loads((metadata / f"{version}.snapshot.json").read_bytes())["signed"]
    for role in SEED_ROLES:
        name = f"{snapshot['meta'][f'{role}.json']['version']}.{role}.json"
        (DATA / "seed" / f"{role}.json").write_bytes((metadata / name).read_bytes())


def newest(metadata: Path, role: str) -> Path:
    """The file of a role's highest version."""
    files = {int(path.name.split(".")[0]): path for path in metadata.glob(f"*.{role}.json")}
    if not files:
        raise ValueError(f"there is no {role} in {metadata}")
    return files[max(files)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
