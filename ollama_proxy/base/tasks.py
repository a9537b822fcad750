"""Start tasks: each has an owner that ends it.

`start_task` is the only way to start a task; lint and a test ban all others. Its caller
owns the task. `scoped_task` is for a task that must not outlive a block of code,
`TaskOwner` for the tasks of an object.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

import structlog

from ollama_proxy.base import log

T = TypeVar("T")


def start_task(
    coro: Coroutine[Any, Any, T], *, name: str | None = None
) -> asyncio.Task[T]:
    """Start a task and return it; the caller keeps it and awaits its end."""
    return asyncio.get_running_loop().create_task(coro, name=name)


@contextlib.asynccontextmanager
async def scoped_task(
    coro: Coroutine[Any, Any, T], *, name: str | None = None
) -> AsyncIterator[asyncio.Task[T]]:
    """Run a task beside a block of code; when the block ends, cancel and await it.

    An exception of the task is raised at the end of the block.
    """
    task = start_task(coro, name=name)
    try:
        yield task
    finally:
        await cancel_and_wait(task)


class TaskOwner:
    """Keeps the background tasks of one object, and ends them with it.

    A crash of a task is logged with its name.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._log = structlog.get_logger()

    def spawn(self, coro: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """Run ``coro`` until it ends or `aclose` cancels it."""
        task = start_task(coro, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

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
    """Cancel a task and wait until it has ended; raise its exception, if any."""
    if task is None:
        return
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled() and (error := task.exception()) is not None:
        raise error
