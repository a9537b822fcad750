"""Bring an accepted launch to readiness, and watch the instance until it is lost."""

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import replace

from tenacity import AsyncRetrying, retry_if_not_result

from ollama_proxy.base.clock import Clock
from ollama_proxy.base.retry import Sleep
from ollama_proxy.base.tasks import scoped_task
from ollama_proxy.base.timing import Timing
from ollama_proxy.core.health import Health
from ollama_proxy.core.lifecycle.events import Failed, Lost, Progressed, Ready
from ollama_proxy.core.lifecycle.record import LaunchId, Progress, Stage, State
from ollama_proxy.fleet.backend import (
    Observation,
    Phase,
    SupportsHeartbeat,
    Traits,
    Upstream,
)
from ollama_proxy.fleet.backend_calls import BackendCalls
from ollama_proxy.fleet.connect_faults import ConnectFault
from ollama_proxy.fleet.endings import ended, failed
from ollama_proxy.fleet.readiness import PreparationError, Probe
from ollama_proxy.fleet.slot import Slot


class InstanceWatch:
    """Looks at one instance through its backend and through Ollama's own API."""

    def __init__(
        self,
        slot: Slot,
        calls: BackendCalls,
        probe: Probe,
        clock: Clock,
        rng: random.Random,
        timing: Timing,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._slot = slot
        self._calls = calls
        self._probe = probe
        self._clock = clock
        self._rng = rng
        self._timing = timing
        self._sleep = sleep
        self._received = False
        self._nudged = asyncio.Event()

    @property
    def _traits(self) -> Traits:
        """Return the backend's traits as they are now: a deploy may change them."""
        return self._slot.offer.backend.traits

    def mark_alive(self) -> None:
        """Record that the instance just sent bytes, so it needs no probe."""
        self._received = True

    def check_now(self) -> None:
        """Look at the instance now: a request could not reach it."""
        self._nudged.set()

    async def run(self, launch_id: LaunchId) -> None:
        """Bring a launch to readiness, and watch it until it is lost."""
        async with scoped_task(self._heartbeat(launch_id), name="heartbeat"):
            await self._bring_up_and_watch(launch_id)

    async def _heartbeat(self, launch_id: LaunchId) -> None:
        """Tell the instance every ``traits.renew_s`` that it is wanted."""
        while isinstance(self._slot.offer.backend, SupportsHeartbeat):
            await self._calls.renew(launch_id)
            await asyncio.sleep(self._jittered(self._traits.renew_s))

    async def _bring_up_and_watch(self, launch_id: LaunchId) -> None:
        if self._slot.record.state is State.STARTING:
            upstream = await self._until_running(launch_id)
            if upstream is None:
                return
            self._slot.upstream = upstream
            if not await self._prepare(launch_id, upstream):
                return
            await self._calls.renew(launch_id)
        await self._until_lost(launch_id)

    async def _until_running(self, launch_id: LaunchId) -> Upstream | None:
        """Look until the instance runs; None if it ended or will never serve."""
        looks = self._looks_until(_is_settled)
        seen: Observation = await looks(self._look_and_show, launch_id)
        if _is_over(seen):
            await self._end(launch_id, seen)
            return None
        self._slot.timeline.guest = seen.spans or self._slot.timeline.guest
        return seen.upstream

    async def _end(self, launch_id: LaunchId, seen: Observation) -> None:
        """Apply how a launch ended before it was ready."""
        if seen.phase is Phase.GONE:
            self._slot.end_launch(ended(launch_id, seen, self._calls.last_words))
        else:
            await self._calls.give_up(failed(launch_id, seen))

    async def _look_and_show(self, launch_id: LaunchId) -> Observation | None:
        """Inspect once, and show how far the boot is."""
        seen = await self._calls.inspect(launch_id)
        if seen is not None and not _is_settled(seen):
            booting = Progress(
                Stage.BOOTING,
                detail=seen.detail,
                problem=seen.problem,
                step=seen.step,
                needs_person=seen.needs_person,
            )
            self._slot.apply(Progressed(launch_id, booting))
        return seen

    async def _until_over(self, launch_id: LaunchId) -> Observation:
        """Look until the instance has ended or will never serve; return that look."""
        await self._sleep(self._poll_s())
        looks = self._looks_until(_is_over)
        seen: Observation = await looks(self._calls.inspect, launch_id)
        return seen

    def _looks_until(
        self, is_enough: Callable[[Observation | None], bool]
    ) -> AsyncRetrying:
        """Return a loop that looks every ``traits.poll_s`` seconds, ± 10 %.

        It has no limit of its own: the start time-out in the record ends the command.
        """
        return AsyncRetrying(
            retry=retry_if_not_result(is_enough),
            wait=lambda _state: self._poll_s(),
            sleep=self._sleep,
            reraise=True,
        )

    async def _prepare(self, launch_id: LaunchId, upstream: Upstream) -> bool:
        """Make the instance ready while watching that it does not vanish."""
        preparing = self._prepare_alone(launch_id, upstream)
        async with (
            scoped_task(preparing, name="prepare") as ready,
            scoped_task(self._until_over(launch_id), name="vanished") as over,
        ):
            await asyncio.wait({over, ready}, return_when=asyncio.FIRST_COMPLETED)
            if ready.done():
                return ready.result()
            seen = over.result()
        # Outside the block: the preparation must have ended before a report is
        # fetched, or it might still call the launch ready.
        await self._end(launch_id, seen)
        return False

    async def _prepare_alone(self, launch_id: LaunchId, upstream: Upstream) -> bool:
        models = self._slot.offer.models
        steps = self._probe.prepare(upstream, models, self._slot.record.model)
        try:
            async with contextlib.aclosing(steps):
                async for progress in steps:
                    shown = self._alarming(progress)
                    self._slot.apply(Progressed(launch_id, shown))
        except PreparationError as error:
            await self._calls.give_up(Failed(launch_id, error.fault))
            return False
        self._slot.apply(Ready(launch_id))
        return True

    def _alarming(self, progress: Progress) -> Progress:
        """Mark a problem of a server that somebody else manages as an error.

        A server that a launch has just created may need a moment before it answers, so
        its problem is no error yet.
        """
        alarms = self._traits.externally_managed and bool(progress.problem)
        return replace(progress, needs_person=True) if alarms else progress

    async def _until_lost(self, launch_id: LaunchId) -> None:
        """Look at a ready instance until it is lost: the cloud's word, or silence."""
        health, fault = Health(), None
        now = heard_at = looked_at = self._clock.now()
        interval_s = min(self._timing.probe_every_s, self._traits.watch_s)
        # No `repeat`: this loop goes on for as long as the instance is healthy.
        while not health.is_down(now, over_s=self._slot.policy.lost_after_s):
            nudged = await self._nap(interval_s, patient=health.failures > 0)
            now = self._clock.now()
            if nudged or health.failures or now - looked_at >= self._traits.watch_s:
                looked_at = now
                seen = await self._calls.inspect(launch_id)
                if seen is not None and _is_over(seen):
                    words = self._calls.last_words
                    self._slot.end_launch(ended(launch_id, seen, words))
                    return
            fault = await self._silence()
            silent_s = now - heard_at
            if fault is None:
                health, heard_at = health.good(now), now
            elif not self._slot.problem or silent_s > self._timing.explained_silence_s:
                health = health.failed(now)
            else:  # the backend explains the silence: look again soon
                health = health.doubtful(now)
        message = f"the instance did not answer {health.failures} probes in a row"
        if fault is not None:
            message += f": {fault.message}"
        self._slot.end_launch(Lost(launch_id, message))

    async def _silence(self) -> ConnectFault | None:
        """Return why the instance is silent; None if it sent bytes, or answers."""
        received, self._received = self._received, False
        if received or self._slot.upstream is None:
            return None
        return await self._probe.look(self._slot.upstream)

    async def _nap(self, length_s: float, *, patient: bool) -> bool:
        """Sleep until the next look is due; True if a look was requested.

        While a silent instance is probed the nap is ``patient``: it is short, and a
        request for a look does not shorten it, so that a burst of failing requests
        counts as one failure.
        """
        if patient:
            await asyncio.sleep(self._jittered(self._timing.retry_pause_s))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0 if patient else self._jittered(length_s)):
                await self._nudged.wait()
        nudged = self._nudged.is_set()
        self._nudged.clear()
        return nudged

    def _poll_s(self) -> float:
        return self._jittered(self._traits.poll_s)

    def _jittered(self, length_s: float) -> float:
        return length_s * self._rng.uniform(0.9, 1.1)


def _is_over(seen: Observation | None) -> bool:
    return seen is not None and seen.phase in {Phase.GONE, Phase.FAILED}


def _is_settled(seen: Observation | None) -> bool:
    """Tell whether a launch need not be looked at again: it is over, or it runs."""
    if seen is None:
        return False
    runs = seen.phase is Phase.RUNNING and seen.upstream is not None
    return runs or _is_over(seen)
