"""Hold how long requests may wait for an instance."""

from dataclasses import dataclass

from ollama_proxy.core.access.keys import Caller
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

    def granted_s(self, headers: Headers, caller: Caller) -> float:
        """Return how long a request may wait, by its ``Prefer`` if it has one."""
        preferred_s = preferred_wait_s(headers)
        if preferred_s is None:
            return self.held_s(caller)
        return _at_most(caller, min(preferred_s, self.max_hold_s))

    def held_s(self, caller: Caller) -> float:
        """Return how long a request without ``Prefer`` may wait."""
        return _at_most(caller, self.hold_s)

    def longest_s(self, caller: Caller) -> float:
        """Return how long a request may wait at most, however much it asks for."""
        return _at_most(caller, self.max_hold_s)


def _at_most(caller: Caller, wait_s: float) -> float:
    """Shorten a wait to what the caller's key allows."""
    key = caller.key
    if key is None or key.rights.max_hold_s is None:
        return wait_s
    return min(wait_s, key.rights.max_hold_s)
