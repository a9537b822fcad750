"""Tasks with an owner: a crash is told, an end is waited for."""

import asyncio

from structlog.testing import LogCapture

from ollama_proxy.base import log
from ollama_proxy.base.tasks import TaskOwner


async def test_a_crash_is_logged_with_the_name_of_the_task(
    errors_logged: LogCapture,
) -> None:
    async def crash() -> None:
        raise RuntimeError("on purpose")

    owner = TaskOwner()
    owner.spawn(crash(), name="fragile")
    await asyncio.sleep(0.01)
    entry = errors_logged.entries.pop()

    assert (entry["event"], entry["task"]) == (log.TASK_CRASHED, "fragile")


async def test_closing_cancels_and_waits() -> None:
    ended = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    owner = TaskOwner()
    owner.spawn(work(), name="work")
    await asyncio.sleep(0)
    await owner.aclose()

    assert ended == [True]
