"""Carry out what the record of a slot asks for, one command at a time.

The executor is a reconciler: it compares the command that the record asks for with the
command in progress, and replaces it if they differ. Start and stop are repeated until
the cloud gives a clear answer.
"""

import asyncio
import random

import structlog
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    retry_if_exception_type,
    retry_if_result,
)

from ollama_proxy.base import log
from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import BackendError, TransientError
from ollama_proxy.base.retry import GrowingPause, Sleep, error_of
from ollama_proxy.base.tasks import cancel_and_wait, scoped_task, start_task
from ollama_proxy.base.timing import Timing
from ollama_proxy.core.lifecycle.commands import (
    Command,
    Start,
    Stop,
    Watch,
    command_for,
)
from ollama_proxy.core.lifecycle.deadlines import next_deadline, overdue
from ollama_proxy.core.lifecycle.events import (
    Accepted,
    Failed,
    Gone,
    StopFailed,
    Tick,
    Unanswered,
)
from ollama_proxy.core.lifecycle.launch_limit import GAVE_WAY
from ollama_proxy.core.lifecycle.record import Fault, LaunchId, Record, State
from ollama_proxy.fleet.backend import Observation, Phase
from ollama_proxy.fleet.backend_calls import BackendCalls
from ollama_proxy.fleet.endings import refused
from ollama_proxy.fleet.reports import without
from ollama_proxy.fleet.slot import Slot
from ollama_proxy.fleet.start_patience import REFUSALS, StartPatience
from ollama_proxy.fleet.watch import InstanceWatch

_CRASH_LIMIT = 3


class Executor:
    """Runs the commands of one slot in a task of their own."""

    def __init__(
        self,
        slot: Slot,
        calls: BackendCalls,
        watch: InstanceWatch,
        clock: Clock,
        rng: random.Random,
        timing: Timing,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._slot = slot
        self._calls = calls
        self._watch = watch
        self._clock = clock
        self._timing = timing
        self._sleep = sleep
        self._pauses = GrowingPause(
            timing.retry_pause_s, timing.retry_pause_max_s, rng=rng
        )
        self._changed = asyncio.Event()
        self._crashes = 0
        self._wakes_at = 0.0
        self._log = structlog.get_logger().bind(slot=slot.slot, backend=slot.offer.name)

    def wake_up(self) -> None:
        """Look at the record now."""
        self._changed.set()

    def oversleeps(self, record: Record) -> bool:
        """Tell whether the next look would come after the record's next deadline."""
        deadline = next_deadline(record, self._slot.policy)
        return deadline is not None and deadline < self._wakes_at

    async def run(self) -> None:
        """Carry out commands until cancelled.

        Any exception in the loop is logged and the loop goes on: without it, the
        instance would never be stopped.
        """
        while True:
            try:
                await self._reconcile()
            except Exception:
                self._log.exception(log.TASK_CRASHED, task="owner")
            await asyncio.sleep(self._timing.retry_pause_s)

    async def _reconcile(self) -> None:
        command: Command | None = None
        work: asyncio.Task[None] | None = None
        try:
            while True:
                self._changed.clear()
                await self._give_up_overdue()
                self._slot.apply(Tick())
                wanted = command_for(self._slot.record)
                if wanted == command and work is not None and work.done():
                    # The work ended and the record still asks for it: it achieved
                    # nothing. The pause keeps us from trying in a busy loop.
                    await asyncio.sleep(self._timing.retry_pause_s)
                if wanted != command or (work is not None and work.done()):
                    await cancel_and_wait(work)
                    self._crashes = self._crashes if wanted == command else 0
                    command, work = wanted, self._begin(wanted)
                await self._until_something_happens(work)
        finally:
            await cancel_and_wait(work)

    async def _give_up_overdue(self) -> None:
        """Fail a launch that made no progress for too long, with a report of it.

        The record is checked again after the report: meanwhile the launch may have made
        progress, or a stop may have been requested, which does not wait for the report.
        """
        record, policy = self._slot.record, self._slot.policy
        launch_id = record.launch_id
        if launch_id is None or overdue(record, self._clock.now(), policy) is None:
            return
        report = ""
        async with scoped_task(self._calls.report(launch_id), name="report") as asking:
            while command_for(self._slot.record) == command_for(record):
                self._changed.clear()
                async with scoped_task(self._changed.wait()) as changed:
                    await asyncio.wait(
                        {asking, changed}, return_when=asyncio.FIRST_COMPLETED
                    )
                if asking.done():
                    report = asking.result()
                    break
        fault = overdue(self._slot.record, self._clock.now(), policy)
        if fault is not None and self._slot.record.launch_id == launch_id:
            self._slot.end_launch(Failed(launch_id, fault, report))

    async def _until_something_happens(self, work: asyncio.Task[None] | None) -> None:
        """Wait for a change, the end of the work, or the record's next deadline."""
        deadline = next_deadline(self._slot.record, self._slot.policy)
        sleep_s = self._timing.longest_sleep_s
        if deadline is not None:
            sleep_s = min(sleep_s, max(0.0, deadline - self._clock.now()))
        self._wakes_at = self._clock.now() + sleep_s
        async with scoped_task(self._changed.wait()) as changed:
            await asyncio.wait(
                {changed} if work is None else {changed, work},
                timeout=sleep_s + 0.001,
                return_when=asyncio.FIRST_COMPLETED,
            )

    def _begin(self, command: Command | None) -> "asyncio.Task[None] | None":
        if command is None:
            return None
        name = f"{type(command).__name__.lower()} {self._slot.slot}"
        return start_task(self._guarded(command), name=name)

    async def _guarded(self, command: Command) -> None:
        """Carry out a command; a fault of a backend does not end the executor."""
        try:
            match command:
                case Start(launch_id):
                    await self._start(launch_id)
                case Watch(launch_id):
                    await self._watch.run(launch_id)
                case Stop(launch_id):
                    await self._stop(launch_id)
        except Exception as error:
            self._log.exception(log.TASK_CRASHED, task="instance")
            await self._count_crash(command, error)

    async def _count_crash(self, command: Command, error: Exception) -> None:
        """Give up a launch whose backend or server raised unexpectedly three times."""
        self._crashes += 1
        call = f"{type(error).__name__} in {type(command).__name__.lower()}"
        message = without(self._slot.offer.secrets, f"{call}: {error}")
        is_starting = self._slot.record.state is State.STARTING
        if isinstance(command, Start):
            self._slot.apply(Unanswered(command.launch_id))
        if isinstance(command, Stop):
            self._slot.apply(StopFailed(command.launch_id, message))
        elif self._crashes >= _CRASH_LIMIT and is_starting:
            fault = Fault("internal", message)
            await self._calls.give_up(Failed(command.launch_id, fault))

    async def _start(self, launch_id: LaunchId) -> None:
        """Repeat the start call until the cloud accepts, or refuses finally."""

        def note(state: RetryCallState) -> None:
            if (error := error_of(state)) is not None:
                self._calls.note_failure("start", launch_id, error)
            if patience.may_have_acted:
                self._slot.apply(Unanswered(launch_id))

        self._calls.last_words = ""
        patience = StartPatience(self._slot.policy, self._clock)
        # No `stop`: the start time-out in the record ends this command.
        repeated = AsyncRetrying(
            retry=retry_if_exception(patience.is_worth_repeating),
            wait=self._pauses,
            before_sleep=note,
            sleep=self._sleep,
            reraise=True,
        )
        try:
            await repeated(self._calls.start, launch_id)
        except REFUSALS as error:
            self._slot.end_launch(refused(launch_id, error))
        except TransientError as error:
            fault = Fault(GAVE_WAY, self._calls.message(error))
            self._slot.end_launch(Failed(launch_id, fault, error.report))
        else:
            self._slot.apply(Accepted(launch_id))

    async def _stop(self, launch_id: LaunchId) -> None:
        """Repeat the stop call until the cloud confirms that the instance is gone."""
        started_at = self._clock.now()

        def note(state: RetryCallState) -> None:
            if (error := error_of(state)) is not None:
                self._calls.note_failure("stop", launch_id, error)
                self._slot.apply(StopFailed(launch_id, self._calls.message(error)))
                return
            took_s = self._clock.now() - started_at
            if took_s > self._timing.stop_overdue_s:
                message = f"it is still there {took_s:.0f} s after the stop"
                self._slot.apply(StopFailed(launch_id, message))

        poll_s = self._slot.offer.backend.traits.poll_s
        # No `stop`: only the cloud's clear answer ends it. Giving up would leave an
        # instance that goes on costing money.
        repeated = AsyncRetrying(
            retry=retry_if_exception_type((BackendError, TimeoutError))
            | retry_if_result(_is_there),
            wait=lambda state: min(self._pauses(state), poll_s),
            before_sleep=note,
            sleep=self._sleep,
            reraise=True,
        )
        await repeated(self._calls.stop, launch_id)
        self._slot.apply(Gone(launch_id))


def _is_there(seen: Observation) -> bool:
    return seen.phase is not Phase.GONE
