"""Hold how long requests may wait for an instance."""

from dataclasses import dataclass

from ollama_proxy.core.http.headers import Headers, preferred_wait_s


@dataclass(frozen=True, slots=True)
class HoldPolicy:
    """Holds how long a request may wait, in seconds.

    ``silent_s``: pause before the first heartbeat; ``beat_s``: between two. Both are
    below the 60 s after which common reverse proxies time out.
    """

    hold_s: float = 0.0
    max_hold_s: float = 600.0
    silent_s: float = 25.0
    beat_s: float = 15.0

    def granted_s(self, headers: Headers) -> float:
        """Return how long a request may wait, by its ``Prefer`` if it has one."""
        preferred_s = preferred_wait_s(headers)
        return self.hold_s if preferred_s is None else min(preferred_s, self.max_hold_s)
