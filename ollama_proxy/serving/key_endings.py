"""End what goes on with a key that was removed or disabled."""

import asyncio
from collections.abc import Iterable

from ollama_proxy.core.access.keys import Key
from ollama_proxy.serving.active_requests import ActiveRequests
from ollama_proxy.serving.pool_services import PoolServices


class KeyEndings:
    """Ends the requests of a key, and the pulls that only it has asked for."""

    def __init__(self, active: ActiveRequests, pools: Iterable[PoolServices]) -> None:
        self._active = active
        self._pools = tuple(pools)

    def end(self, key: Key, message: str) -> None:
        """End all of that soon; ``message``: why, in words for its clients.

        The request that is being served right now is spared: it gave the order.
        """
        self._active.interrupt(key.id, message)
        # After the requests: their clients should read of the key, not of a pull.
        asyncio.get_running_loop().call_soon(self._end_pulls, key)

    def _end_pulls(self, key: Key) -> None:
        for services in self._pools:
            services.pulls.disown(key.id, f"the end of the key {key.name!r}")


def ended_words(before: Key, after: Key | None) -> str:
    """Say why a key is taken no more, from what it was and is; None: it is gone."""
    if after is None:
        return f"the key {before.name!r} was removed"
    if after.is_disabled:
        return f"the key {before.name!r} was disabled"
    return f"the key {before.name!r} was replaced"
