"""Own one instance: apply events, store the record, carry out the duty.

`Controller.apply` is the only place where the record of a slot changes. It is
synchronous: step, write, keep. So there is one writer, no lock, and what is
intended is on disk before anything is done about it. The owner task (`run`)
does what the record asks for, one command at a time, until the record asks for
something else.
"""

import asyncio
import contextlib
import math
import random
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter
from typing import Any, Protocol

import structlog

from ollama_proxy.base import log
from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import (
    BackendError,
    CapacityError,
    CredentialsError,
    IllegalTransition,
    SpecError,
    StoreError,
)
from ollama_proxy.core.lifecycle.boot_stages import StageSpan, Timeline
from ollama_proxy.core.lifecycle.commands import (
    Command,
    Start,
    Stop,
    Watch,
    command_for,
)
from ollama_proxy.core.lifecycle.deadlines import next_deadline
from ollama_proxy.core.lifecycle.events import (
    Accepted,
    Event,
    Failed,
    Gone,
    Lost,
    Progressed,
    Ready,
    Restored,
    StopFailed,
    Tick,
    Used,
)
from ollama_proxy.core.lifecycle.journal import Transition
from ollama_proxy.core.lifecycle.record import (
    Fault,
    LaunchId,
    Policy,
    Progress,
    Record,
    Stage,
    State,
)
from ollama_proxy.core.lifecycle.transitions import step
from ollama_proxy.core.ports import RecordStore
from ollama_proxy.fleet.backend import (
    Backend,
    Observation,
    Phase,
    SupportsHeartbeat,
    Upstream,
)
from ollama_proxy.fleet.connect_faults import ConnectFault
from ollama_proxy.fleet.endings import ended, failed, refused
from ollama_proxy.fleet.fingerprint import fingerprint
from ollama_proxy.fleet.readiness import PreparationError, Probe
from ollama_proxy.fleet.reports import cleaned, without

_LONGEST_SLEEP_S = 30.0  # a machine that was asleep notices its deadlines by then
_USE_GRAIN_S = 15.0
_USE_GRAIN_LEAST_S = 1.0
_CALL_TIMEOUT_S = 120.0
_PAUSE_S = 1.0
_PAUSE_MAX_S = 60.0
_PROBE_EVERY_S = 10.0
_PROBE_MISSES = 3
_FORGIVEN_S = 300.0
_CRASH_LIMIT = 3
_STOP_OVERDUE_S = 300.0


class LaunchTimes(Protocol):
    """Takes in how long launches take."""

    def add_launch(self, offer: str, duration_s: float) -> None:
        """Remember how long a launch took from wake to ready."""


Observer = Callable[[Record, Record], None]
"""Told the records before and after each change of state; it must not wait."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A backend under a name, and the models that its instances must have.

    ``spec``: the settings from which its instances are made. ``secrets`` are kept out
    of what is told of them.
    """

    name: str
    backend: Backend
    models: Sequence[str] = ()
    spec: object = None
    secrets: Collection[str] = field(default=(), repr=False)


class Controller:
    """One slot: at most one instance, and everything that happens to it."""

    def __init__(
        self,
        slot: str,
        offer: Offer,
        *,
        store: RecordStore,
        launches: LaunchTimes,
        probe: Probe,
        clock: Clock,
        policy: Policy,
        rng: random.Random,
    ) -> None:
        traits = offer.backend.traits
        self.slot = slot
        self.offer = offer
        self.policy = _policy_for(offer, policy)
        self.use_grain_s = _use_grain_s(self.policy)
        self.upstream: Upstream | None = None
        self.timeline = Timeline()
        self._traits = traits
        self._store = store
        self._launches = launches
        self._probe = probe
        self._clock = clock
        self._dice = rng
        self._observers: list[Observer] = []
        self._changed = asyncio.Event()
        self._nudged = asyncio.Event()
        self._heard = False
        self._is_restored = False
        self._crashes = 0
        self._wakes_at = 0.0
        self._last_words = ""
        self.problem = ""
        self.notice = ""
        self.driver = ""
        self._log = structlog.get_logger().bind(slot=slot, backend=offer.name)
        self._record = store.get(slot) or Record(since=clock.now())
        self._stored = self._record

    @property
    def record(self) -> Record:
        """What is known and intended now."""
        return self._record

    def subscribe(self, observer: Observer) -> None:
        """Have ``observer`` called after each change of state."""
        self._observers.append(observer)

    def touch(self) -> None:
        """Take note that the instance just sent bytes, so it is alive."""
        self._heard = True

    def note_use(self, launch_id: LaunchId) -> None:
        """Have the disk know that a request is at work, in case we end before it.

        In steps, so that a request does not cost a write; its end counts anyway.
        """
        if self._clock.now() - self._stored.last_used >= self.use_grain_s:
            self.apply(Used(launch_id))

    def check_now(self) -> None:
        """Look at the instance now: a request could not reach it."""
        self._nudged.set()

    def apply(self, event: Event) -> None:
        """Let an event change the record; on disk first, then in memory.

        Raises `StoreError`, with the record unchanged, if a new launch can't be
        written. Any other change goes on without the disk: an instance that is
        there has to be stopped all the same.
        """
        before, now = self._record, self._clock.now()
        try:
            outcome = step(before, event, now=now, policy=self.policy)
        except IllegalTransition as error:
            self._log.error(log.ILLEGAL_TRANSITION, error=str(error))
            return
        after = outcome.record
        if after is before:
            return
        try:
            self._write(before, after, event)
        except StoreError as error:
            if after.launch_id not in {None, before.launch_id}:
                raise
            self._log.error(log.STORE_FAILED, error=str(error))
        self._record = after
        if after.progress is not before.progress or after.state is not before.state:
            self._note_stage(self.timeline.see(before, after, now))
        if outcome.command != command_for(before) or self._due_before_wakening(after):
            self._changed.set()
        if after.state is not before.state:
            self._tell(before, after, event)

    def _note_stage(self, ended: StageSpan | None) -> None:
        if ended is not None:
            stage, took_s = ended.name, round(ended.seconds, 3)
            launch_id = self.timeline.launch_id
            self._log.debug(
                log.STAGE_ENDED, launch_id=launch_id, stage=stage, lasted_s=took_s
            )

    def _tell(self, before: Record, after: Record, event: Event) -> None:
        """Tell of a transition; nobody who fails to listen can undo it."""
        if after.state not in {State.STARTING, State.READY, State.DRAINING}:
            self.upstream = None
            self.problem = self.notice = self.driver = ""
        for observer in self._observers:
            try:
                observer(before, after)
            except Exception:
                self._log.exception(log.TASK_CRASHED, task="observer")
        self._note_transition(before, after, event)

    def _due_before_wakening(self, record: Record) -> bool:
        """Tell whether the owner task sleeps longer than the record allows."""
        deadline = next_deadline(record, self.policy)
        return deadline is not None and deadline < self._wakes_at

    def _write(self, before: Record, after: Record, event: Event) -> None:
        if not _differs_on_disk(self._stored, after, self.use_grain_s):
            return
        transition = None
        if after.state is not before.state:
            transition = Transition(
                at=self._clock.wall(),
                slot=self.slot,
                launch_id=after.launch_id or before.launch_id,
                before=before.state.value,
                after=after.state.value,
                event=type(event).__name__,
                fault=after.fault.message if after.fault else None,
                report=getattr(event, "report", "") or None,
            )
        self._store.put(self.slot, after, transition)
        self._stored = after

    def _note_transition(self, before: Record, after: Record, event: Event) -> None:
        if after.state is State.READY and not after.adopted:
            with contextlib.suppress(StoreError):
                self._launches.add_launch(self.offer.name, after.since - after.woken_at)
        keys = {
            "launch_id": after.launch_id or before.launch_id,
            "before": before.state.value,
            "after": after.state.value,
            "event_name": type(event).__name__,
            "lasted_s": round(after.since - before.since, 3),
        }
        if after.fault is not None and after.state is not State.STARTING:
            self._log.warning(
                log.INSTANCE_TRANSITION,
                **keys,
                reason=after.fault.reason,
                fault=after.fault.message,
            )
        else:
            self._log.info(log.INSTANCE_TRANSITION, **keys)

    def restore(self) -> None:
        """Take up what an earlier process left, once, before anything is asked."""
        if not self._is_restored:
            self._is_restored = True
            self.apply(Restored())

    def take_traits(self) -> None:
        """Go by what the backend makes from now on, while there is no instance.

        A lockout by what it made before ends, as it does with new settings.
        """
        self._traits = self.offer.backend.traits
        self.policy = _policy_for(self.offer, self.policy)
        self.apply(Restored())

    async def run(self) -> None:
        """Own the instance until cancelled. The instance outlives this task.

        Whatever goes wrong inside is told and begun again: an instance without
        an owner would never be stopped.
        """
        self.restore()
        while True:
            try:
                await self._own()
            except Exception:
                self._log.exception(log.TASK_CRASHED, task="owner")
            await asyncio.sleep(_PAUSE_S)

    async def _own(self) -> None:
        command: Command | None = None
        work: asyncio.Task[None] | None = None
        try:
            while True:
                self._changed.clear()
                self.apply(Tick())
                wanted = command_for(self._record)
                if wanted == command and work is not None and work.done():
                    await asyncio.sleep(_PAUSE_S)  # it achieved nothing: again, slowly
                if wanted != command or (work is not None and work.done()):
                    await _end(work)
                    self._crashes = self._crashes if wanted == command else 0
                    command, work = wanted, self._begin(wanted)
                await self._until_something_happens(work)
        finally:
            await _end(work)

    async def _until_something_happens(self, work: asyncio.Task[None] | None) -> None:
        """Wait for a change, the end of the work, or the record's next deadline."""
        deadline = next_deadline(self._record, self.policy)
        sleep_s = _LONGEST_SLEEP_S
        if deadline is not None:
            sleep_s = min(sleep_s, max(0.0, deadline - self._clock.now()))
        self._wakes_at = self._clock.now() + sleep_s
        changed = asyncio.get_running_loop().create_task(self._changed.wait())
        try:
            waits = {changed} if work is None else {changed, work}
            await asyncio.wait(
                waits, timeout=sleep_s + 0.001, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            changed.cancel()

    def _begin(self, command: Command | None) -> "asyncio.Task[None] | None":
        if command is None:
            return None
        name = f"{type(command).__name__.lower()} {self.slot}"
        work = self._guarded(command)
        return asyncio.get_running_loop().create_task(work, name=name)

    async def _guarded(self, command: Command) -> None:
        """Let no fault of a backend end the owner task; it is tried again."""
        try:
            match command:
                case Start(launch_id):
                    await self._start(launch_id)
                case Watch(launch_id):
                    await self._follow(launch_id)
                case Stop(launch_id):
                    await self._stop(launch_id)
        except Exception as error:
            self._log.exception(log.TASK_CRASHED, task="instance")
            self._count_crash(command, error)

    def _count_crash(self, command: Command, error: Exception) -> None:
        """Give up a launch whose backend or server keeps surprising us."""
        self._crashes += 1
        call = f"{type(error).__name__} in {type(command).__name__.lower()}"
        surprise = without(self.offer.secrets, f"{call}: {error}")
        if isinstance(command, Stop):
            self.apply(StopFailed(command.launch_id, surprise))
        elif self._crashes >= _CRASH_LIMIT and self._record.state is State.STARTING:
            self._end_launch(Failed(command.launch_id, Fault("internal", surprise)))

    def _end_launch(self, event: Failed | Gone | Lost) -> None:
        """Take in how an instance ended, and log what else its backend says of it."""
        told = cleaned(event, self.offer.secrets)
        if told.report:
            self._log.warning(
                log.LAUNCH_REPORT, launch_id=told.launch_id, report=told.report
            )
        self.apply(told)

    async def _call_start(self, launch_id: LaunchId) -> None:
        """Call start and see it through, even if the launch is no longer wanted.

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
        async with asyncio.timeout(_CALL_TIMEOUT_S):
            await self.offer.backend.start(launch_id)

    async def _start(self, launch_id: LaunchId) -> None:
        """Repeat the start call until the cloud accepts or refuses for good."""
        self._last_words = ""
        for pause_s in _growing_pauses(self._dice):
            try:
                await self._call_start(launch_id)
            except (CapacityError, CredentialsError, SpecError) as error:
                self._end_launch(refused(launch_id, error))
                return
            except (BackendError, TimeoutError) as error:
                self._note_call("start", launch_id, error)
            else:
                self.apply(Accepted(launch_id))
                return
            await asyncio.sleep(pause_s)

    async def _stop(self, launch_id: LaunchId) -> None:
        """Repeat the stop call until the cloud says that the instance is gone."""
        backend = self.offer.backend
        begun_at = self._clock.now()
        for pause_s in _growing_pauses(self._dice):
            try:
                async with asyncio.timeout(_CALL_TIMEOUT_S):
                    await backend.stop(launch_id)
                    seen = await backend.inspect(launch_id)
            except (BackendError, TimeoutError) as error:
                self._note_call("stop", launch_id, error)
                self.apply(StopFailed(launch_id, self._said(error)))
            else:
                if seen.phase is Phase.GONE:
                    self.apply(Gone(launch_id))
                    return
                took_s = self._clock.now() - begun_at
                if took_s > _STOP_OVERDUE_S:
                    message = f"it is still there {took_s:.0f} s after the stop"
                    self.apply(StopFailed(launch_id, message))
            await asyncio.sleep(min(pause_s, self._traits.poll_s))

    async def _follow(self, launch_id: LaunchId) -> None:
        """Bring an accepted launch to readiness, and watch it until it is lost."""
        renewing = asyncio.get_running_loop().create_task(self._renew(launch_id))
        try:
            await self._bring_up_and_watch(launch_id)
        finally:
            await _end(renewing)

    async def _renew(self, launch_id: LaunchId) -> None:
        """Tell the instance again and again that it is wanted."""
        while isinstance(self.offer.backend, SupportsHeartbeat):
            await self._renew_once(launch_id)
            await asyncio.sleep(self._jittered(self._traits.renew_s))

    async def _renew_once(self, launch_id: LaunchId) -> None:
        backend = self.offer.backend
        if not isinstance(backend, SupportsHeartbeat):
            return
        serves = self._record.state is not State.STARTING
        try:
            async with asyncio.timeout(_CALL_TIMEOUT_S):
                await backend.renew(launch_id, serves=serves)
        except (BackendError, StoreError, TimeoutError) as error:
            self._note_call("renew", launch_id, error)

    async def _bring_up_and_watch(self, launch_id: LaunchId) -> None:
        if self._record.state is State.STARTING:
            upstream = await self._until_running(launch_id)
            if upstream is None:
                return
            self.upstream = upstream
            if not await self._prepare(launch_id, upstream):
                return
            await self._renew_once(launch_id)
        await self._watch(launch_id)

    async def _until_running(self, launch_id: LaunchId) -> Upstream | None:
        """Look until the instance runs; None if the cloud says it is gone."""
        while True:
            seen = await self._look(launch_id)
            if seen is not None:
                if seen.phase is Phase.GONE:
                    self._end_launch(ended(launch_id, seen, self._last_words))
                    return None
                if seen.phase is Phase.FAILED:
                    self._end_launch(failed(launch_id, seen))
                    return None
                if seen.phase is Phase.RUNNING and seen.upstream is not None:
                    self.timeline.guest = seen.spans or self.timeline.guest
                    return seen.upstream
                booting = Progress(
                    Stage.BOOTING,
                    detail=seen.detail,
                    problem=seen.problem,
                    step=seen.step,
                    needs_person=seen.needs_person,
                )
                self.apply(Progressed(launch_id, booting))
            await asyncio.sleep(self._jittered(self._traits.poll_s))

    async def _look(self, launch_id: LaunchId) -> Observation | None:
        """Inspect once; None if the look failed, which says nothing."""
        try:
            async with asyncio.timeout(_CALL_TIMEOUT_S):
                seen = await self.offer.backend.inspect(launch_id)
        except (BackendError, TimeoutError) as error:
            self._note_call("inspect", launch_id, error)
            return None
        self.problem, self.notice = seen.problem, seen.notice
        self.driver = seen.driver or self.driver
        if seen.phase in {Phase.PENDING, Phase.RUNNING}:
            self._last_words = seen.detail if seen.phase is Phase.PENDING else ""
        return seen

    async def _prepare(self, launch_id: LaunchId, upstream: Upstream) -> bool:
        """Make the instance ready while watching that it does not vanish."""
        gone = asyncio.get_running_loop().create_task(self._until_gone(launch_id))
        ready = asyncio.get_running_loop().create_task(
            self._prepare_alone(launch_id, upstream)
        )
        try:
            await asyncio.wait({gone, ready}, return_when=asyncio.FIRST_COMPLETED)
            if ready.done():
                return ready.result()
            seen = gone.result()
            is_gone = seen.phase is Phase.GONE
            words = self._last_words
            self._end_launch(
                ended(launch_id, seen, words) if is_gone else failed(launch_id, seen)
            )
            return False
        finally:
            await _end(gone)
            await _end(ready)

    async def _prepare_alone(self, launch_id: LaunchId, upstream: Upstream) -> bool:
        steps = self._probe.prepare(upstream, self.offer.models, self._record.model)
        try:
            async with contextlib.aclosing(steps):
                async for progress in steps:
                    told = self._alarming(progress)
                    self.apply(Progressed(launch_id, told))
        except PreparationError as error:
            self._end_launch(Failed(launch_id, error.fault))
            return False
        self.apply(Ready(launch_id))
        return True

    def _alarming(self, progress: Progress) -> Progress:
        """Return how far a launch is; a server that is there anyway has no excuse."""
        alarms = self._traits.externally_managed and bool(progress.problem)
        return replace(progress, needs_person=True) if alarms else progress

    async def _until_gone(self, launch_id: LaunchId) -> Observation:
        """Look until the instance is gone or will never serve; say which."""
        while True:
            await asyncio.sleep(self._jittered(self._traits.poll_s))
            seen = await self._look(launch_id)
            if seen is not None and seen.phase in {Phase.GONE, Phase.FAILED}:
                return seen

    async def _watch(self, launch_id: LaunchId) -> None:
        """Look at a ready instance until it is lost: the cloud's word, or silence."""
        misses, fault = 0, None
        heard_at = looked_at = self._clock.now()
        interval_s = min(_PROBE_EVERY_S, self._traits.watch_s)
        while misses < _PROBE_MISSES:
            nudged = await self._nap(interval_s, patient=misses > 0)
            now = self._clock.now()
            if nudged or misses or now - looked_at >= self._traits.watch_s:
                looked_at = now
                seen = await self._look(launch_id)
                if seen is not None and seen.phase in {Phase.GONE, Phase.FAILED}:
                    self._end_launch(ended(launch_id, seen, self._last_words))
                    return
            fault = await self._silence()
            if fault is None:
                misses, heard_at = 0, now
            elif not self.problem or now - heard_at > _FORGIVEN_S:
                misses += 1
            else:  # looked at again soon, without being given up
                misses = max(misses, 1)
        message = f"the instance did not answer {misses} probes in a row"
        if fault is not None:
            message += f": {fault.message}"
        self._end_launch(Lost(launch_id, message))

    async def _silence(self) -> ConnectFault | None:
        """Return why the instance says nothing; None if it sent bytes, or answers."""
        heard, self._heard = self._heard, False
        if heard or self.upstream is None:
            return None
        return await self._probe.look(self.upstream)

    async def _nap(self, length_s: float, *, patient: bool) -> bool:
        """Sleep until the next look is due; True if somebody asked for one.

        Between two probes of a silent instance a ``patient`` nap is short, and
        nobody can make it shorter: a burst of failures is one failure.
        """
        if patient:
            await asyncio.sleep(self._jittered(_PAUSE_S))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0 if patient else self._jittered(length_s)):
                await self._nudged.wait()
        nudged = self._nudged.is_set()
        self._nudged.clear()
        return nudged

    def _jittered(self, length_s: float) -> float:
        return length_s * self._dice.uniform(0.9, 1.1)

    def _said(self, error: Exception) -> str:
        """Return what a call said that failed, without secrets of the settings."""
        return without(self.offer.secrets, str(error) or type(error).__name__)

    def _note_call(self, call: str, launch_id: LaunchId, error: Exception) -> None:
        """Log a call that failed, and tell of it while a launch waits for it."""
        said = self._said(error)
        self._log.warning(
            log.INSTANCE_CALL_FAILED,
            call=call,
            launch_id=launch_id,
            reason=getattr(error, "reason", "timeout"),
            error=said,
        )
        if call in {"start", "inspect"} and self._record.state is State.STARTING:
            needs_person = isinstance(error, CredentialsError | SpecError)
            hindered = replace(
                self._record.progress, problem=said, needs_person=needs_person
            )
            self.apply(Progressed(launch_id, hindered))


def _policy_for(offer: Offer, policy: Policy) -> Policy:
    """Return the policy for the instances of an offer, by what they are."""
    traits = offer.backend.traits
    spec = [traits.spec, offer.spec]
    policy = replace(
        policy,
        fingerprint=fingerprint(offer.name, offer.models, spec),
        ends_with_proxy=traits.child_process or traits.externally_managed,
    )
    if traits.externally_managed or traits.child_process:
        policy = replace(policy, launch_limit=None)
    if traits.externally_managed:
        policy = replace(
            policy,
            idle_timeout_s=math.inf,
            max_lifetime_s=math.inf,
            final_s=0.0,
            is_always_on=True,
        )
    return policy


def _use_grain_s(policy: Policy) -> float:
    """Return in what steps the time of last use is written, in seconds.

    What is idle for longer goes, so a short idle time has smaller steps.
    """
    return max(_USE_GRAIN_LEAST_S, min(_USE_GRAIN_S, policy.idle_timeout_s / 4.0))


def _differs_on_disk(stored: Record, after: Record, use_grain_s: float) -> bool:
    """Tell whether the change matters to a later process.

    Leases and progress die with this one; the time of last use is written in
    steps, so that a request does not cost a write.
    """
    if abs(after.last_used - stored.last_used) >= use_grain_s:
        return True
    return _durable(after) != _durable(stored)


_FLEETING = {"leases", "last_used", "progress", "progress_at", "furthest"}
_durable = attrgetter(
    *(field.name for field in fields(Record) if field.name not in _FLEETING)
)


def _growing_pauses(rng: random.Random) -> Iterator[float]:
    """Yield the pauses between repeated calls: growing, bounded, spread."""
    length_s = _PAUSE_S
    while True:
        yield length_s * rng.uniform(0.8, 1.2)
        length_s = min(_PAUSE_MAX_S, length_s * 2.0)


async def _end(task: asyncio.Task[Any] | None) -> None:
    """Cancel a task and wait until it has ended; its result is not wanted."""
    if task is None:
        return
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled() and (error := task.exception()) is not None:
        raise error
