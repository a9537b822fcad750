"""Register the requests in progress: of whom, since when, and how far each has come.

A request is registered for as long as its task runs, on whichever server. One that is
answered in the moment in which it arrives has no task and is never registered.
"""

import asyncio
from collections.abc import Iterator
from typing import Any

from ollama_proxy.core.access.keys import KeyId
from ollama_proxy.serving.request_context import RequestContext


class ActiveRequests:
    """Holds the requests in progress, in the order of their arrival.

    `begin` and `end` take 0.5 µs together: the fast path calls them for each request.
    """

    def __init__(self) -> None:
        # By identity, since the contexts of two requests may have equal contents.
        self._tasks: dict[int, tuple[RequestContext, asyncio.Task[Any] | None]] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[RequestContext]:
        """Iterate over those that are in progress now; they may end meanwhile."""
        return iter([context for context, _ in self._tasks.values()])

    def begin(self, context: RequestContext, now: float) -> None:
        """Register a request, which the current task serves from now on.

        ``now``: in time of the event loop.
        """
        context.begun_at = now
        self._tasks[id(context)] = (context, asyncio.current_task())

    def end(self, context: RequestContext) -> None:
        """Remove a request; it must have been registered."""
        del self._tasks[id(context)]

    def interrupt(self, key_id: KeyId, message: str) -> None:
        """End the requests of a key soon; ``message`` is for their clients.

        The request that is being served right now is spared: it gave the order.
        """
        loop, current = asyncio.get_running_loop(), asyncio.current_task()
        # A request whose access was checked just before has a task that starts in the
        # loop's next turn, and is registered when this is called.
        loop.call_soon(self._interrupt, key_id, message, current)

    def _interrupt(
        self, key_id: KeyId, message: str, spared: asyncio.Task[Any] | None
    ) -> None:
        for context, task in list(self._tasks.values()):
            key = context.caller.key
            is_meant = key is not None and key.id == key_id and task is not spared
            if task is not None and is_meant and not context.interrupted_by:
                context.interrupted_by = message
                task.cancel()
