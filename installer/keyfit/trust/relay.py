"""A repository whose files another process hands over: for who verifies but must not have a network (security A3, C4).

Nothing of what comes is believed because of where it came from; the same client workflow is gone through as over the network.
"""

from collections.abc import Callable, Mapping

from keyfit.trust.limits import CHUNK_BYTES, Limits
from keyfit.trust.transport import Answer, Transport

ADDRESS = "https://handed-over.invalid/"
"""Stands for the repository in such a client. The name can never be resolved (RFC 6761, section 6.4)."""


class RelayTransport(Transport):
    """Asks `ask` for every file.

    Args:
        ask: path below the repository -> its bytes, or None if there is no such file; raises NetworkError.
    """

    def __init__(self, limits: Limits, ask: Callable[[str], bytes | None]) -> None:
        super().__init__(limits)
        self._ask = ask

    def get(self, url: str, *, seconds: float, allowed_hosts: frozenset[str],
            headers: Mapping[str, str] | None = None, may_be_gzip: bool = False) -> Answer:
        """See `Transport.get`; no redirects, no coding, and the other side keeps its own deadlines."""
        data = self._ask(url.removeprefix(ADDRESS))
        if data is None:
            return Answer(url, 404, {}, iter(()))
        return Answer(url, 200, {}, (data[at:at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)))
