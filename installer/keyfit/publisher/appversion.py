"""Versions of Keyfit itself: the targets of the role `app`."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from keyfit.errors import UserError
from keyfit.model.catalog import AppManifest, app_target
from keyfit.publisher.compile import platforms
from keyfit.publisher.packages import PackageIndex
from keyfit.publisher.repository import PublisherRepository

_VERSION = re.compile(r"[0-9][0-9A-Za-z.+-]{0,39}\Z")


def app_targets(repository: PublisherRepository, index: PackageIndex, files: Sequence[str],
                version: str) -> dict[str, bytes]:
    """The manifests of a new version: target path -> JSON. The setups are copied into the repository.

    Args:
        files: "SYSTEM-ARCHITECTURE=FILE" each, such as "linux-amd64=keyfit.tar.gz".

    Raises:
        UserError: code "bad-app" or "no-such-file".
    """
    if not _VERSION.fullmatch(version):
        raise UserError("bad-app", f"Expected a version such as 1.2.0 with --app, came {version[:80]!a}.",
                        hint="--app linux-amd64=FILE --app-version 1.2.0")
    known = {f"{system}-{architecture}": (system, architecture) for system, architecture in platforms()}
    wanted: dict[str, tuple[Any, Path]] = {}
    for text in files:
        name, _, path = text.partition("=")
        if name not in known or not path:
            raise UserError("bad-app", f"Expected SYSTEM-ARCHITECTURE=FILE, came {text[:200]!a}.",
                            hint="Systems are " + ", ".join(known) + ".")
        if not Path(path).is_file():
            raise UserError("no-such-file", f"The setup {path} is not there.")
        wanted[name] = (known[name], Path(path))
    targets = {}
    for (system, architecture), file in wanted.values():
        path = app_target(system, architecture)
        before = repository.target(path)
        sequence = msgspec.json.decode(before, type=AppManifest).sequence + 1 if before is not None else 1
        targets[path] = msgspec.json.encode(AppManifest(
            keyfit=1, path=path, system=system, architecture=architecture, version=version, sequence=sequence,
            payload=index.add_program(file)), order="deterministic")
    return targets
