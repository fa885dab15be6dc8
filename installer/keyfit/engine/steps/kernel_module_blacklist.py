"""A modprobe.d file that keeps kernel modules from taking a reader away from PC/SC (modprobe.d(5), "blacklist")."""

from keyfit.engine.steps import textfile
from keyfit.engine.steps.base import Detected, Fetch, State
from keyfit.model.plan import KernelModuleBlacklistFile
from keyfit.ports import Host


class Kind:
    """See `base.StepKind`."""

    def detect(self, change: KernelModuleBlacklistFile, host: Host) -> Detected:
        """Is the file there as we write it?"""
        return textfile.detect(host, change.path, content(change))

    def expect(self, change: KernelModuleBlacklistFile, host: Host, before: State, fetch: Fetch) -> State:
        """The hash of the file."""
        return textfile.expect(content(change))

    def apply(self, change: KernelModuleBlacklistFile, host: Host, before: State, fetch: Fetch) -> State:
        """Write it, and take the modules out of the running kernel where they are loaded. One that is in use goes with the
        next start of the machine."""
        after = textfile.write(host, change.path, before, content(change))
        if host.facts().root == "/" and host.has_program("modprobe"):
            loaded = {line.split(" ")[0] for line in (host.read_bytes("/proc/modules") or b"").decode().splitlines()}
            in_use = [m for m in change.modules if m in loaded and host.run(["modprobe", "-r", m]).returncode]
            after |= {"restart": True} if in_use else {}
        return after

    def undo(self, change: KernelModuleBlacklistFile, host: Host, before: State, after: State) -> str:
        """Delete the file; the kernel loads the modules again by itself when a device asks for them."""
        return textfile.undo(host, change.path, before, after, content(change))


def content(change: KernelModuleBlacklistFile) -> bytes:
    """The file."""
    lines = "".join(f"blacklist {module}\n" for module in change.modules)
    return f"# Written by Keyfit; `keyfit uninstall` removes it.\n{lines}".encode()
