"""Starts the adapter as the conformance suite does, and looks at what it keeps."""

import json
import subprocess
from datetime import datetime
from pathlib import Path
from urllib.parse import unquote

from tests.sim.repository import HostileServer
from tests.sim.tufrepository import TufRepository

PROGRAM = Path(__file__).with_name("client")


class Client:
    """One client with its two folders. Every command is a process of its own, started in another folder."""

    def __init__(self, folder: Path, repository: TufRepository, server: HostileServer) -> None:
        self.metadata = folder / "metadata"
        self.targets = folder / "targets"
        self.repository = repository
        self.server = server
        self.said = ""
        self._folder = folder
        for made in (self.metadata, self.targets):
            made.mkdir(parents=True)

    def init(self, root: bytes | None = None) -> int:
        given = self._folder / "initial-root.json"
        given.write_bytes(root or self.repository.trusted_root)
        return self._run("--metadata-dir", str(self.metadata), "init", str(given))

    def refresh(self, at: datetime | None = None) -> int:
        return self._run("--metadata-url", self.server.url + "metadata/", "--metadata-dir", str(self.metadata), "refresh",
                         at=at)

    def download(self, *names: str, at: datetime | None = None) -> int:
        asked = [word for name in names for word in ("--target-name", name)]
        return self._run("--metadata-url", self.server.url + "metadata/", "--metadata-dir", str(self.metadata), *asked,
                         "--target-dir", str(self.targets), "--target-base-url", self.server.url + "targets/", "download",
                         at=at)

    def trusted(self) -> dict[str, int]:
        """Roles with their versions: every file of the folder that the suite would take for one."""
        return {unquote(path.name.removesuffix(".json")): json.loads(path.read_bytes())["signed"]["version"]
                for path in sorted(self.metadata.glob("*.json"))}

    def downloaded(self) -> list[bytes]:
        return sorted(path.read_bytes() for path in self.targets.iterdir())

    def asked(self) -> list[str]:
        """What was asked for since the last call: metadata files by name, targets with their folder."""
        paths = [path.removeprefix("/metadata/").removesuffix(".json") for path, _ in self.server.requests]
        self.server.requests.clear()
        return paths

    def _run(self, *arguments: str, at: datetime | None = None) -> int:
        command = [str(PROGRAM), *arguments] if at is None else ["faketime", f"{at}", str(PROGRAM), *arguments]
        done = subprocess.run(command, cwd=self._folder, capture_output=True, text=True, timeout=60)
        self.said = done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode
