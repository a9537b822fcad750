"""Tasks that have an owner and a name."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

from ollama_proxy.base import log


class TaskOwner:
    """Keeps the background tasks of one object, and ends them with it.

    A task that crashes is logged with its name; it never goes unnoticed.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._log = structlog.get_logger()

    def spawn(self, coro: Coroutine[Any, Any, None], *, name: str) -> None:
        """Run ``coro`` until it ends or `aclose` cancels it."""
        task = asyncio.get_running_loop().create_task(coro, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error(log.TASK_CRASHED, task=task.get_name(), exc_info=error)

    async def aclose(self) -> None:
        """Cancel what still runs, and wait for it."""
        tasks = [task for task in self._tasks if not task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def cancel_and_wait(task: asyncio.Task[Any] | None) -> None:
    """Cancel a task and wait until it has ended; raise what it raised, if anything."""
    if task is None:
        return
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled() and (error := task.exception()) is not None:
        raise error
