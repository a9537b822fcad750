"""Count what this node works on, and tell whether it takes more."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator

from aiohttp import web

from ollama_proxy.node.refusals import refuse

MOST_REQUESTS = 512


class Workload:
    """Counts requests of the hub. Two reasons to take no new ones: end and drain.

    ``is_ending``: a signal has come. ``is_drained``: the hub wants this node to rest.
    ``on_news``: called when the hub should soon learn something: that Ollama can't be
    asked, or that a request may have changed its models.
    """

    def __init__(self) -> None:
        self.on_news: Callable[[], None] = _ignore
        self.in_flight = 0
        self.is_ending = False
        self.is_drained = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def is_draining(self) -> bool:
        """Tell whether new requests are refused."""
        return self.is_ending or self.is_drained

    def refusal(self) -> web.Response | None:
        """Return the answer to a request that is not taken; None if it is."""
        if self.is_ending:
            message = "this agent is ending and takes no new work; ask another node"
            return refuse(503, message)
        if self.is_drained:
            message = "the hub drains this node, which takes no new work until the hub"
            return refuse(503, f"{message} undrains it; ask another node")
        if self.in_flight >= MOST_REQUESTS:
            message = f"this agent has {MOST_REQUESTS} requests, its most; ask again"
            return refuse(503, f"{message} soon", {"Retry-After": "1"})
        return None

    async def wait_idle(self) -> None:
        """Wait until no request goes on."""
        await self._idle.wait()

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Count a request for as long as it goes on."""
        self.in_flight += 1
        self._idle.clear()
        try:
            yield
        finally:
            self.in_flight -= 1
            if self.in_flight == 0:
                self._idle.set()


def _ignore() -> None:
    """Do nothing: no beat waits to go."""
