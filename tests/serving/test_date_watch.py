"""A date that is set while we run is on disk, and in the log."""

import asyncio
import contextlib
from dataclasses import dataclass

from structlog.testing import capture_logs

from ollama_proxy.serving.date_watch import DateWatch
from tests.virtual_time import LoopClock, in_virtual_time

YEARS_S = 56 * 365.25 * 86_400.0


@dataclass(slots=True)
class Counting:
    """Counts the marks."""

    marks: int = 0

    def put_mark(self) -> None:
        self.marks += 1


async def watched(clock: LoopClock, marks: Counting, *, for_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(for_s):
            await DateWatch(clock, marks).run()


@in_virtual_time
async def test_a_date_that_is_set_is_marked_once_and_told() -> None:
    clock, marks = LoopClock(YEARS_S), Counting()
    with capture_logs() as told:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(watched(clock, marks, for_s=600.0))
            await asyncio.sleep(60.0)
            clock.date_ahead_s = 2 * YEARS_S

    assert marks.marks == 1
    assert [(one["event"], one["moved_s"]) for one in told] == [("date.set", YEARS_S)]
    assert told[0]["date"].startswith("2082-")


@in_virtual_time
async def test_a_clock_that_is_corrected_in_small_steps_is_left_alone() -> None:
    clock, marks = LoopClock(YEARS_S), Counting()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(watched(clock, marks, for_s=900.0))
        for _ in range(800):
            await asyncio.sleep(1.0)
            clock.date_ahead_s += 0.0005

    assert marks.marks == 0


@in_virtual_time
async def test_a_machine_without_a_date_is_told_of_at_the_start() -> None:
    with capture_logs() as told:
        await watched(LoopClock(), Counting(), for_s=60.0)

    assert [one["event"] for one in told] == ["date.unset"]
    assert "this machine's date is 1970-01-12; set its clock" in told[0]["reason"]
