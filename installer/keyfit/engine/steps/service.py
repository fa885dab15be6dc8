"""A systemd unit that has to be enabled and running."""

from keyfit.engine.steps.base import Detected, Fetch, State
from keyfit.errors import HostError
from keyfit.model.plan import ServiceState
from keyfit.ports import Host


class Kind:
    """See `base.StepKind`."""

    def detect(self, change: ServiceState, host: Host) -> Detected:
        """Both states, so that both can be put back."""
        before = {"enabled": _is(host, "is-enabled", change.unit), "active": _is(host, "is-active", change.unit)}
        return Detected(satisfied=before["enabled"] and before["active"], before=before)

    def expect(self, change: ServiceState, host: Host, before: State, fetch: Fetch) -> State:
        """Both states."""
        return {"enabled": True, "active": True}

    def apply(self, change: ServiceState, host: Host, before: State, fetch: Fetch) -> State:
        """Enable it and start it."""
        done = host.run(["systemctl", "enable", "--now", change.unit])
        if done.returncode or not _is(host, "is-active", change.unit):
            raise HostError("service-not-started", f"{change.unit} did not start: {done.stderr.strip()[:300]}",
                            hint=f"Look at: systemctl status {change.unit}")
        return {"enabled": True, "active": True}

    def undo(self, change: ServiceState, host: Host, before: State, after: State) -> str:
        """Put both back."""
        if not before["active"] and _is(host, "is-active", change.unit):
            host.run(["systemctl", "stop", change.unit])
        if not before["enabled"] and _is(host, "is-enabled", change.unit):
            host.run(["systemctl", "disable", change.unit])
        return ""


def _is(host: Host, question: str, unit: str) -> bool:
    return host.run(["systemctl", question, "--quiet", unit]).returncode == 0
