"""Wait until an instance of a pool is ready, and wake none for it."""

import asyncio
from collections.abc import Collection, Iterable
from typing import Final

from ollama_proxy.core.lifecycle.record import Record, State
from ollama_proxy.fleet.house import NodeChange
from ollama_proxy.serving.pool_services import PoolServices

MOST_WATCHERS: Final = 1000
"""How many may wait at once."""


class TooManyWatchersError(Exception):
    """Reports that no more may wait."""


class ReadyWatch:
    """Ends waits when an instance gets ready, or when the proxy ends."""

    def __init__(
        self, pools: Iterable[PoolServices], most: int = MOST_WATCHERS
    ) -> None:
        self._most = most
        self._waiting: set[asyncio.Future[None]] = set()
        self._ends = False
        for services in pools:
            for controller in services.pool.controllers:
                controller.subscribe(self._note)
            for house in services.pool.houses:
                house.subscribe(self._note_node)

    async def wait(
        self, pools: Collection[PoolServices], within_s: float
    ) -> PoolServices | None:
        """Return the first of the pools that is ready; None if the time is over.

        Raises `TooManyWatchersError`.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within_s
        while True:
            found = next((one for one in pools if one.pool.is_ready), None)
            left_s = deadline - loop.time()
            if found is not None or left_s <= 0 or self._ends:
                return found
            await self._change(left_s)

    async def _change(self, within_s: float) -> None:
        """Wait until any instance gets ready, but no longer than that."""
        if len(self._waiting) >= self._most:
            raise TooManyWatchersError
        change = asyncio.get_running_loop().create_future()
        self._waiting.add(change)
        try:
            await asyncio.wait({change}, timeout=within_s)
        finally:
            self._waiting.discard(change)

    def release(self) -> None:
        """End every wait: the proxy ends."""
        self._ends = True
        self._wake()

    def _note(self, before: Record, after: Record) -> None:
        if after.state is State.READY and before.state is not State.READY:
            self._wake()

    def _note_node(self, change: NodeChange) -> None:
        self._note(change.before or Record(), change.node.record)

    def _wake(self) -> None:
        for change in self._waiting:
            if not change.done():
                change.set_result(None)
