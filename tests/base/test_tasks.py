"""Tasks with an owner: a crash is logged, an end is waited for."""

import asyncio

import pytest
from structlog.testing import LogCapture

from ollama_proxy.base import log
from ollama_proxy.base.tasks import TaskOwner, cancel_and_wait, scoped_task, start_task


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


async def forever(ended: list[str]) -> None:
    try:
        await asyncio.sleep(3600)
    finally:
        await asyncio.sleep(0)
        ended.append("ended")


async def failing() -> None:
    raise ValueError("on purpose")


async def test_a_scoped_task_has_ended_when_its_block_has() -> None:
    ended: list[str] = []
    async with scoped_task(forever(ended), name="one") as task:
        await asyncio.sleep(0)
        assert task.get_name() == "one"

    assert ended == ["ended"]
    assert task.cancelled()


async def test_a_scoped_task_ends_with_a_block_that_raises() -> None:
    ended: list[str] = []

    async def block() -> None:
        async with scoped_task(forever(ended)):
            await asyncio.sleep(0)
            raise KeyError

    with pytest.raises(KeyError):
        await block()

    assert ended == ["ended"]


async def test_the_error_of_a_scoped_task_is_raised_at_the_end_of_its_block() -> None:
    async def block() -> None:
        async with scoped_task(failing()) as task:
            await asyncio.wait({task})

    with pytest.raises(ValueError, match="on purpose"):
        await block()


async def test_a_result_that_is_there_survives_the_end_of_the_block() -> None:
    async def quick() -> int:
        return 3

    async with scoped_task(quick()) as task:
        await asyncio.wait({task})

    assert task.result() == 3


async def test_what_is_cancelled_and_awaited_may_raise() -> None:
    task = start_task(failing())
    await asyncio.wait({task})
    with pytest.raises(ValueError, match="on purpose"):
        await cancel_and_wait(task)
    await cancel_and_wait(None)
