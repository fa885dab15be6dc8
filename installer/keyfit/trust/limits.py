"""How long and how much anything from outside may take (security A7)."""

from msgspec import Struct
from msgspec.structs import replace


class Limits(Struct, frozen=True, kw_only=True):
    """Times in seconds, sizes in bytes. The defaults are our own choice; tests use smaller ones.

    Attributes:
        connect_s: until a connection stands.
        silence_s: longest pause between two pieces of an answer, and until its first line.
        metadata_s: one metadata or manifest request, from name lookup to last byte.
        payload_s: one payload, all attempts together, beside the time that `payload_rate` gives for its length.
        payload_rate: bytes per second on which a payload's total time is reckoned.
        window_s: every stretch of this length has to bring at least `window_rate` bytes per second.
        redirects: followed for one request.
        resumes: further attempts at one address, as long as each brought something.
        lock_wait_s: for another Keyfit process to finish with the same directory.
        disk_reserve: left free on the disk beside the payload.
        clock_slack_s: by which the clock may lag behind the newest signed date.
    """

    connect_s: float = 15.0
    silence_s: float = 20.0
    metadata_s: float = 60.0
    payload_s: float = 120.0
    payload_rate: int = 20_000
    window_s: float = 30.0
    window_rate: int = 1_000
    redirects: int = 3
    resumes: int = 3
    lock_wait_s: float = 60.0
    disk_reserve: int = 16_000_000
    clock_slack_s: float = 86_400.0

    def hasty(self) -> "Limits":
        """For what can be done without: looking at a further address when one has answered."""
        return replace(self, connect_s=min(self.connect_s, 3.0), silence_s=min(self.silence_s, 3.0),
                       metadata_s=min(self.metadata_s, 6.0))


MANIFEST_BYTES = 1_000_000
"""Largest manifest. The largest one compiled from today's brand data is about a hundredth of this."""
MANIFEST_DEPTH = 16
"""Deepest nesting in a manifest; the types in `model.catalog` need 8."""
CHUNK_BYTES = 131_072
