"""The main job from end to end, on this machine but without touching it: `make demo`.

A publisher signs this checkout's brand data with throw-away keys and serves it; a customer with an emulated token
installs a real Debian driver package into a throw-away tree, has it verified, is handed to the bank's page, and takes
everything back. Every command that is run is shown, with what it printed (of many
warnings, the first).
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
BIN = CHECKOUT / ".venv" / "bin"
PACKAGE = "libacsccid1"
BRAND = "acs-cryptomate"
RECORDING = CHECKOUT / "tests" / "data" / "recordings" / "acs-cryptomate-t1.json"
MOST_WARNINGS = 6
"""Lines of a command's warnings that are shown."""
HAND_OFF = CHECKOUT / "demo" / "hand-off.toml"


def main() -> int:
    """Run the demo; 0 if every stage did what it says."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="keyfit-demo-") as folder:
        try:
            Demo(Path(folder)).run()
        except DemoFailed as failure:
            print(f"\nThe demo stopped: {failure}", file=sys.stderr)
            return 1
    print(f"\nDone in {time.monotonic() - began:.0f} s. The throw-away tree, keys and repository are deleted again.")
    return 0


class DemoFailed(Exception):
    """A stage did not do what it says."""


class Demo:
    """The stages, sharing one throw-away folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tree = folder / "tree"
        self.publisher = folder / "publisher"
        self.server: subprocess.Popen[str] | None = None
        self.url = ""

    def run(self) -> None:
        """All stages, in order."""
        try:
            self.real_token()
            driver = self.fetch_driver()
            self.make_tree()
            self.publish(driver)
            self.customer()
        finally:
            self.stop_server()

    def real_token(self) -> None:
        """Say so if there is a real token; it is only looked at."""
        heading("What is plugged into this computer?")
        done = run([BIN / "keyfit", "devices"], show=True)
        if done.stdout.startswith("No token"):
            print("No real token is here, so the demo goes on with an emulated one.")
        else:
            print("A real token is plugged in: the lines above are what Keyfit makes of it. The demo only looks at it;")
            print("installing is shown with an emulated token, so that nothing on this computer is changed.")

    def fetch_driver(self) -> Path:
        """The real driver package from this machine's own Debian archives, without any change to the machine."""
        heading("A publisher gets the driver: the Debian package " + PACKAGE)
        sys.path.insert(0, str(CHECKOUT))
        from tests.sim.debs import fetch

        cache = CHECKOUT / "build" / "debs"
        driver: Path = fetch(PACKAGE, cache)
        print(f"{driver.name}, {driver.stat().st_size} bytes")
        return driver

    def make_tree(self) -> None:
        """A tree with a copy of this machine's package database, so that dpkg finds what the package depends on."""
        from tests.sim.debs import fetch, tree_with_package_database

        tree_with_package_database(self.tree)
        if not (self.tree / "var/lib/dpkg/info/libusb-1.0-0:amd64.list").exists():
            library = fetch("libusb-1.0-0", CHECKOUT / "build" / "debs")
            run(["dpkg", f"--root={self.tree}", "--force-not-root", "--force-script-chrootless", "-i", library])

    def publish(self, driver: Path) -> None:
        """Make keys and a repository, add the package, sign, serve."""
        heading("The publisher signs the brand data of this checkout with throw-away keys and serves it")
        tool = BIN / "keyfit-publish"
        run([tool, "init", self.publisher], show=True)
        run([tool, "check", CHECKOUT / "drivers"], show=True)
        run([tool, "add", self.publisher, BRAND, driver, "--drivers", CHECKOUT / "drivers"], show=True)
        run([tool, "release", self.publisher, "--drivers", CHECKOUT / "drivers", "--hand-off", HAND_OFF], show=True)
        self.serve(tool)

    def serve(self, tool: Path) -> None:
        """Start the development server and learn its address."""
        command = [str(tool), "serve", str(self.publisher), "--port", "0"]
        print("$ " + " ".join(shown(part) for part in command))
        self.server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        line: list[str] = []
        reader = threading.Thread(target=lambda: line.append(self.server.stdout.readline()))  # type: ignore[union-attr]
        reader.start()
        reader.join(20)
        found = [word for word in (line[0] if line else "").split() if word.startswith("http")]
        if not found:
            raise DemoFailed("the development server did not start")
        self.url = found[0].rstrip(".,")
        print(line[0].strip())

    def customer(self) -> None:
        """Everything a customer does, each command with the same options."""
        heading("A customer plugs the token in: what is it, and why?")
        self.keyfit("devices", "--explain")
        heading("What would be changed?")
        self.keyfit("plan")
        heading("Install: the real package manager, into the throw-away tree")
        self.keyfit("install", "--yes")
        if not (self.tree / "usr/lib/pcsc/drivers/ifd-acsccid.bundle/Contents/Info.plist").exists():
            raise DemoFailed("the driver is not in the tree")
        heading("Again: nothing is left to do")
        self.keyfit("install", "--yes", "--no-handoff")
        heading("Proof: does the token answer?")
        self.keyfit("verify")
        heading("The certificate, and the bank's page")
        self.keyfit("certificate", "--open")
        heading("What was done?")
        self.keyfit("history")
        heading("Take everything back")
        self.keyfit("uninstall", BRAND, "--yes")
        if (self.tree / "usr/lib/pcsc/drivers/ifd-acsccid.bundle").exists():
            raise DemoFailed("the driver is still in the tree")

    def keyfit(self, *arguments: str) -> None:
        """One `keyfit` command on the emulated token, in the throw-away tree."""
        environment = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")}
        hidden = ["--root", self.tree, "--emulate", RECORDING, "--repository", self.url,
                  "--trust-root", self.publisher / "repository" / "metadata" / "1.root.json",
                  "--cache-dir", self.folder / "cache"]
        print("$ keyfit " + " ".join(arguments))
        run([BIN / "keyfit", *arguments, *hidden], show=True, quiet_command=True, environment=environment)

    def stop_server(self) -> None:
        """End the development server."""
        if self.server is not None:
            self.server.send_signal(signal.SIGTERM)
            self.server.wait(10)


def heading(text: str) -> None:
    """A stage begins."""
    width = shutil.get_terminal_size((100, 24)).columns
    print(f"\n{'-' * min(width, 100)}\n{text}\n", flush=True)


def shown(part: object) -> str:
    """Shorter names for what is printed."""
    return str(part).replace(str(BIN) + "/", "").replace(str(CHECKOUT) + "/", "")


def run(command: list[object], *, show: bool = False, quiet_command: bool = False,
        environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command; stop the demo if it fails."""
    if show and not quiet_command:
        print("$ " + " ".join(shown(part) for part in command))
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=environment,
                          stdin=subprocess.DEVNULL)
    if show:
        said, warned = done.stdout.rstrip(), done.stderr.splitlines()
        more = [f"... and {len(warned) - MOST_WARNINGS} lines more"] if len(warned) > MOST_WARNINGS else []
        print("\n".join([*([said] if said else []), *warned[:MOST_WARNINGS], *more]), flush=True)
    if done.returncode:
        raise DemoFailed(f"{' '.join(shown(p) for p in command)} ended with {done.returncode}\n{done.stderr}")
    return done


if __name__ == "__main__":
    sys.exit(main())
