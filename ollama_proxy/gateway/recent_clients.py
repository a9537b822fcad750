"""Remember which clients asked without a key lately: the first key refuses them."""

from dataclasses import dataclass
from typing import Final

from ollama_proxy.base.clock import Clock
from ollama_proxy.gateway.key_text import hide_keys

LATELY_S: Final = 3600.0
MOST_CLIENTS: Final = 100
_LONGEST_AGENT: Final = 120


@dataclass(frozen=True, slots=True)
class RecentClient:
    """Holds a client as it shows itself, and how long ago it asked last."""

    address: str
    user_agent: str
    ago_s: float


class RecentClients:
    """Remembers clients by address and user agent: those that asked last.

    A request costs one dict access; the memory of `MOST_CLIENTS` is its bound, whatever
    clients write into their headers.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since = clock.now()
        self._seen: dict[tuple[str, str], float] = {}

    def note(self, address: str, user_agent: str) -> None:
        """Remember a request without a key that was taken."""
        client = (address, user_agent[:_LONGEST_AGENT])
        self._seen.pop(client, None)  # put at the end: the first one asked longest ago
        self._seen[client] = self._clock.now()
        if len(self._seen) > MOST_CLIENTS:
            del self._seen[next(iter(self._seen))]

    def seen(self) -> list[RecentClient]:
        """Return the clients of the last hour, the last one first."""
        now = self._clock.now()
        return [
            RecentClient(address, hide_keys(agent), round(now - at, 1))
            for (address, agent), at in reversed(self._seen.items())
            if now - at < LATELY_S
        ]

    @property
    def watched_s(self) -> float:
        """Return for how long clients were noted, at most an hour."""
        return min(LATELY_S, self._clock.now() - self._since)
