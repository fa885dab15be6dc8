"""One entry in Firefox's policies: the PKCS#11 module for every user of the machine."""

import base64

from keyfit.core import firefoxpolicy
from keyfit.engine.steps.base import Detected, Fetch, State
from keyfit.model.plan import FirefoxPolicy
from keyfit.ports import Host


class Kind:
    """See `base.StepKind`."""

    def detect(self, change: FirefoxPolicy, host: Host) -> Detected:
        """Is the module registered?"""
        old = host.read_bytes(change.path)
        return Detected(
            satisfied=old is not None and firefoxpolicy.module(old, change.name) == change.module,
            before={"old": None if old is None else base64.b64encode(old).decode(),
                    "made": list(host.missing_directories(change.path))})

    def apply(self, change: FirefoxPolicy, host: Host, before: State, fetch: Fetch) -> State:
        """Add it beside whatever else the file says."""
        new = firefoxpolicy.add(host.read_bytes(change.path), change.name, change.module)
        host.write_bytes(change.path, new)
        return {"new": base64.b64encode(new).decode()}

    def undo(self, change: FirefoxPolicy, host: Host, before: State, after: State) -> str:
        """The file as it was; if others changed it since, only our entry is taken out."""
        now = host.read_bytes(change.path)
        old = None if before["old"] is None else base64.b64decode(before["old"])
        if now is None and old is None:
            host.remove_empty_directories(change.path, before["made"])
        if now is None or now == old:
            return ""
        if now == firefoxpolicy.add(old, change.name, change.module):
            if old is not None:
                host.write_bytes(change.path, old)
            else:
                host.remove_file(change.path)
                host.remove_empty_directories(change.path, before["made"])
            return ""
        if firefoxpolicy.module(now, change.name) != change.module:
            return f"{change.path} was changed by somebody else since, so it was left as it is"
        theirs = None if old is None else firefoxpolicy.module(old, change.name)
        host.write_bytes(change.path, firefoxpolicy.take_back(now, change.name, theirs))
        return ""
