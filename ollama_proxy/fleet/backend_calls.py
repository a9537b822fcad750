"""Call a backend about one launch: bounded in time, failures logged and shown."""

import asyncio
from dataclasses import replace

import structlog

from ollama_proxy.base import log
from ollama_proxy.base.errors import (
    BackendError,
    CredentialsError,
    SpecError,
    StoreError,
)
from ollama_proxy.base.tasks import TaskOwner, start_task
from ollama_proxy.base.timing import Timing
from ollama_proxy.core.lifecycle.events import Failed, Progressed
from ollama_proxy.core.lifecycle.record import LaunchId, State
from ollama_proxy.fleet.backend import (
    Observation,
    Phase,
    SupportsHeartbeat,
    SupportsReport,
)
from ollama_proxy.fleet.reports import without
from ollama_proxy.fleet.slot import Slot


class BackendCalls:
    """Calls the backend of a slot.

    ``last_words``: the backend's latest message about the pending instance. It is the
    best explanation available if the next look finds the instance gone.
    """

    def __init__(self, slot: Slot, timing: Timing) -> None:
        self._slot = slot
        self._backend = slot.offer.backend
        self._limit_s = timing.backend_call_s
        self._timing = timing
        self._tasks = TaskOwner()
        self._log = structlog.get_logger().bind(slot=slot.slot, backend=slot.offer.name)
        self.last_words = ""

    async def start(self, launch_id: LaunchId) -> None:
        """Call start and wait for its end, even if the launch is no longer wanted.

        If the call went on in the background after its cancellation, it could create an
        instance after the stop that follows.
        """
        call = start_task(self._bounded_start(launch_id), name="start call")
        try:
            await asyncio.shield(call)
        except asyncio.CancelledError:
            await asyncio.wait({call})
            if not call.cancelled():
                call.exception()
            raise

    async def _bounded_start(self, launch_id: LaunchId) -> None:
        async with asyncio.timeout(self._limit_s):
            await self._backend.start(launch_id)

    async def stop(self, launch_id: LaunchId) -> Observation:
        """Call stop, and return what there is of the instance afterwards."""
        async with asyncio.timeout(self._limit_s):
            await self._backend.stop(launch_id)
            return await self._backend.inspect(launch_id)

    async def inspect(self, launch_id: LaunchId) -> Observation | None:
        """Inspect once; None if that failed, which says nothing about the instance."""
        try:
            async with asyncio.timeout(self._limit_s):
                seen = await self._backend.inspect(launch_id)
        except (BackendError, TimeoutError) as error:
            self.note_failure("inspect", launch_id, error)
            return None
        self._slot.problem, self._slot.notice = seen.problem, seen.notice
        self._slot.driver = seen.driver or self._slot.driver
        if seen.phase in {Phase.PENDING, Phase.RUNNING}:
            self.last_words = seen.detail if seen.phase is Phase.PENDING else ""
        return seen

    async def renew(self, launch_id: LaunchId) -> None:
        """Send one heartbeat to an instance whose backend supports it."""
        if not isinstance(self._backend, SupportsHeartbeat):
            return
        serves = self._slot.record.state is not State.STARTING
        try:
            async with asyncio.timeout(self._limit_s):
                await self._backend.renew(launch_id, serves=serves)
        except (BackendError, StoreError, TimeoutError) as error:
            self.note_failure("renew", launch_id, error)

    async def give_up(self, event: Failed) -> None:
        """Apply the failure of a launch, with the backend's report if it has none yet.

        The report may take ``report_s`` at most: the instance costs money until it is
        stopped.
        """
        if not event.report:
            event = replace(event, report=await self.report(event.launch_id))
        self._slot.end_launch(event)

    async def report(self, launch_id: LaunchId) -> str:
        """Return the backend's report on a launch, or the reason why there is none.

        Empty if the backend does not support reports.
        """
        if not isinstance(self._backend, SupportsReport):
            return ""
        asking = self._tasks.spawn(self._ask(self._backend, launch_id), name="report")
        try:
            # Not `asyncio.timeout`, which waits for the call to end: a backend that
            # ignores its cancellation would hold up the stop.
            await asyncio.wait({asking}, timeout=self._timing.report_s)
            if asking.done():
                return asking.result()
        finally:
            asking.cancel()
        return f"no report of the instance came within {self._timing.report_s:.0f} s"

    async def _ask(self, backend: SupportsReport, launch_id: LaunchId) -> str:
        try:
            return await backend.report(launch_id)
        except Exception as error:
            # A failing report must never keep the launch from being stopped.
            self.note_failure("report", launch_id, error)
            return f"no report of the instance could be fetched: {self.message(error)}"

    def message(self, error: BaseException) -> str:
        """Return the message of a failed call, without secrets of the settings."""
        return without(self._slot.offer.secrets, str(error) or type(error).__name__)

    def note_failure(
        self, call: str, launch_id: LaunchId, error: BaseException
    ) -> None:
        """Log a call that failed, and show it while a launch waits for it."""
        message = self.message(error)
        self._log.warning(
            log.INSTANCE_CALL_FAILED,
            call=call,
            launch_id=launch_id,
            reason=getattr(error, "reason", "timeout"),
            error=message,
        )
        record = self._slot.record
        if call in {"start", "inspect"} and record.state is State.STARTING:
            needs_person = isinstance(error, CredentialsError | SpecError)
            hindered = replace(
                record.progress, problem=message, needs_person=needs_person
            )
            self._slot.apply(Progressed(launch_id, hindered))
