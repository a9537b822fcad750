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
from ollama_proxy.base.timing import Timing
from ollama_proxy.core.lifecycle.events import Progressed
from ollama_proxy.core.lifecycle.record import LaunchId, State
from ollama_proxy.fleet.backend import Observation, Phase, SupportsHeartbeat
from ollama_proxy.fleet.reports import without
from ollama_proxy.fleet.slot import Slot


class BackendCalls:
    """The calls to the backend of a slot.

    ``last_words`` is what the backend said of the instance when it last saw it
    pending: the best reason there is if it is gone at the next look.
    """

    def __init__(self, slot: Slot, timing: Timing) -> None:
        self._slot = slot
        self._backend = slot.offer.backend
        self._limit_s = timing.backend_call_s
        self._log = structlog.get_logger().bind(slot=slot.slot, backend=slot.offer.name)
        self.last_words = ""

    async def start(self, launch_id: LaunchId) -> None:
        """Call start and wait for its end, even if the launch is no longer wanted.

        A call that goes on after its cancellation could make an instance behind
        the back of the stop that follows.
        """
        call = asyncio.get_running_loop().create_task(self._bounded_start(launch_id))
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

    def message(self, error: BaseException) -> str:
        """Return what a failed call said, without secrets of the settings."""
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
