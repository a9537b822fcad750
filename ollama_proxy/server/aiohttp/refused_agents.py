"""Bound the log lines about agents that are refused: they send the same again for ever.

A peer without a key reaches their routes, and 3 000 refusals a second would be 100 GB
of log a day.
"""

from typing import Final

from ollama_proxy.core.access.rate_limits import Bucket
from ollama_proxy.core.nodes.hub_routes import AUTHORITY, HEARTBEAT, JOIN, RENEW, TUNNEL

LINES_A_MINUTE: Final = 60

_OF_AGENTS = frozenset({HEARTBEAT, JOIN, AUTHORITY, RENEW, TUNNEL})
_FIRST_ERROR = 400


class RefusedAgents:
    """Tells which refusals are logged: 60 at once, then one a second."""

    def __init__(self) -> None:
        self._bucket = Bucket(LINES_A_MINUTE, LINES_A_MINUTE, 0.0)

    def is_too_many(self, path: str, status: int, now: float) -> bool:
        """Tell whether a request gets no line, since many like it have one.

        ``status``: 0 if the peer left before its answer.
        """
        if path not in _OF_AGENTS or 0 < status < _FIRST_ERROR:
            return False
        self._bucket = self._bucket.refilled(LINES_A_MINUTE, now)
        if self._bucket.level < 1:
            return True
        self._bucket = self._bucket.without_one()
        return False
