"""One entry in Firefox's policies: the PKCS#11 module for every user of the machine."""

from keyfit.core import firefoxpolicy
from keyfit.engine.steps import textfile
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
            before={"old": textfile.encoded(old),
                    "made": list(host.missing_directories(change.path))})

    def expect(self, change: FirefoxPolicy, host: Host, before: State, fetch: Fetch) -> State:
        """The file with the module added beside whatever else it says."""
        return {"new": textfile.encoded(firefoxpolicy.add(textfile.decoded(before["old"]), change.name, change.module))}

    def apply(self, change: FirefoxPolicy, host: Host, before: State, fetch: Fetch) -> State:
        """Write that file."""
        old = textfile.decoded(before["old"])
        new = firefoxpolicy.add(old, change.name, change.module)
        host.write_bytes(change.path, new, expected=old)
        return {"new": textfile.encoded(new)}

    def undo(self, change: FirefoxPolicy, host: Host, before: State, after: State) -> str:
        """The file as it was; if others changed it since, only our entry is taken out."""
        kept = host.settle(change.path)
        now = host.read_bytes(change.path)
        old = textfile.decoded(before["old"])
        if now is None and old is None:
            host.remove_empty_directories(change.path, before["made"])
        if now is None or now == old:
            return kept
        if now in (textfile.decoded(after.get("new")), firefoxpolicy.add(old, change.name, change.module)):
            if old is not None:
                host.write_bytes(change.path, old, expected=now)
            else:
                host.remove_file(change.path, expected=now)
                host.remove_empty_directories(change.path, before["made"])
            return kept
        if firefoxpolicy.module(now, change.name) != change.module:
            return f"{change.path} was changed by somebody else since, so it was left as it is"
        theirs = None if old is None else firefoxpolicy.module(old, change.name)
        host.write_bytes(change.path, firefoxpolicy.take_back(now, change.name, theirs), expected=now)
        return kept
