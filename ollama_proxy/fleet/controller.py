"""Keep the record of one instance: apply events, store first, tell observers.

`Controller.apply` is the only place where the record of a slot changes. It is
synchronous (transition, write, keep), so there is one writer and no lock. Only a launch
has to be durable before it begins: `Controller.wake` reserves it and waits for the
disk. The executor (`run`) carries out the command that the record asks for.
"""

import contextlib
import random
from collections.abc import Callable
from dataclasses import fields, replace
from operator import attrgetter
from typing import Protocol

import structlog

from ollama_proxy.base import log
from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import IllegalTransition, StoreError
from ollama_proxy.base.tasks import TaskOwner
from ollama_proxy.base.timing import STANDARD, Timing
from ollama_proxy.core.lifecycle.boot_stages import StageSpan, Timeline
from ollama_proxy.core.lifecycle.commands import command_for
from ollama_proxy.core.lifecycle.events import (
    Event,
    Failed,
    Gone,
    Lost,
    Restored,
    StopRequested,
    Used,
    Wake,
)
from ollama_proxy.core.lifecycle.journal import Transition
from ollama_proxy.core.lifecycle.record import AT_REST, LaunchId, Policy, Record, State
from ollama_proxy.core.lifecycle.transitions import Step, step
from ollama_proxy.core.ports import RecordStore
from ollama_proxy.fleet.backend import Upstream
from ollama_proxy.fleet.backend_calls import BackendCalls
from ollama_proxy.fleet.executor import Executor
from ollama_proxy.fleet.offer import Offer, policy_for
from ollama_proxy.fleet.readiness import Probe
from ollama_proxy.fleet.reports import cleaned
from ollama_proxy.fleet.reservation import Reservation
from ollama_proxy.fleet.watch import InstanceWatch


class LaunchTimes(Protocol):
    """Learns how long launches take."""

    def add_launch(self, offer: str, duration_s: float) -> None:
        """Remember how long a launch took from wake to ready."""


Observer = Callable[[Record, Record], None]
"""Called with the records before and after each change of state; it must not wait."""


class Controller:
    """Owns one slot: at most one instance, and everything that happens to it.

    ``upstream``, ``problem``, ``notice`` and ``driver``: see `Slot`. ``report``: the
    backend's report on the last failed launch, kept until a launch is ready.
    """

    node_id: str | None = None  # nodes have no controller
    serves_all = True

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
        timing: Timing = STANDARD,
    ) -> None:
        self.slot = slot
        self.offer = offer
        self.policy = policy_for(offer, policy)
        self.use_grain_s = _use_grain_s(self.policy, timing)
        self.upstream: Upstream | None = None
        self.timeline = Timeline()
        self.problem = ""
        self.notice = ""
        self.driver = ""
        self.report = ""
        self._store = store
        self._launches = launches
        self._clock = clock
        self._observers: list[Observer] = []
        self._is_restored = False
        self._reservation: Reservation | None = None
        self._tasks = TaskOwner()
        self._log = structlog.get_logger().bind(slot=slot, backend=offer.name)
        self._record = store.get(slot) or Record(since=clock.now())
        self._note_stored(self._record)
        calls = BackendCalls(self, timing)
        self._watch = InstanceWatch(self, calls, probe, clock, rng, timing)
        self._executor = Executor(self, calls, self._watch, clock, rng, timing)
        self.mark_alive = self._watch.mark_alive
        self.check_now = self._watch.check_now

    @property
    def record(self) -> Record:
        """Return the known and intended state."""
        return self._record

    def request_failed(self, _reason: str) -> None:
        """Look at the instance now, whose probes alone decide whether it is lost."""
        self.check_now()

    def request_answered(self) -> None:
        """Conclude nothing, for the same reason."""

    def subscribe(self, observer: Observer) -> None:
        """Have ``observer`` called after each change of state."""
        self._observers.append(observer)

    def note_use(self, launch_id: LaunchId) -> None:
        """Save that a request is in progress, in case the process ends before it.

        The time is saved in steps, so that not every request costs a disk write. The
        end of the request is recorded in any case.
        """
        if self._clock.now() - self._stored_use >= self.use_grain_s:
            self.apply(Used(launch_id))

    def restore(self) -> None:
        """Take up what an earlier process left, once, before anything is asked."""
        if not self._is_restored:
            self._is_restored = True
            self.apply(Restored())

    def take_traits(self) -> None:
        """Adopt the backend's changed traits, while there is no instance.

        Ends a lockout that the former traits caused, as new settings do.
        """
        self.policy = policy_for(self.offer, self.policy)
        self.apply(Restored())

    def keep(self, *, kept: bool) -> None:
        """Exempt the instance from the idle time-out, or no longer."""
        if kept is not self.policy.is_kept:
            self.policy = replace(self.policy, is_kept=kept)
            self._executor.wake_up()

    async def run(self) -> None:
        """Own the instance until cancelled. The instance outlives this task."""
        self.restore()
        try:
            await self._executor.run()
        finally:
            await self._tasks.aclose()

    @property
    def is_reserving(self) -> bool:
        """Tell whether a launch is being written down, which begins then."""
        return self._reservation is not None

    def would_launch(self, wake: Wake) -> bool:
        """Tell whether a wake would begin a launch now."""
        if self._record.state not in AT_REST:
            return False
        after = step(self._record, wake, now=self._clock.now(), policy=self.policy)
        return after.record.launch_id == wake.launch_id

    async def wake(self, wake: Wake) -> None:
        """Begin a launch once it is on disk, or join the current launch.

        Raises `StoreError` if it can't be written; then no launch begins.
        """
        if self._reservation is not None:
            self._reservation.is_withdrawn = False  # the latest order wins
        elif self.would_launch(wake):
            self._reservation = Reservation()
            settling = self._settle(self._reservation, wake)
            self._tasks.spawn(settling, name=f"reserve {self.slot}")
        else:
            self.apply(wake)
            return
        await self._reservation.settled()

    async def _settle(self, reservation: Reservation, wake: Wake) -> None:
        """Reserve a launch, and report the result to the requests that wait for it."""
        try:
            await self._reserve(reservation, wake)
        except StoreError as error:
            reservation.fail(error)
        except BaseException:
            reservation.fail(StoreError("the proxy ends; no instance is started"))
            raise
        else:
            reservation.settle()
        finally:
            self._reservation = None

    async def _reserve(self, reservation: Reservation, wake: Wake) -> None:
        """Write a launch to disk, then begin it, unless a stop is requested in between.

        The record may change during the write, for example when a cool-down ends. Then
        the launch on disk is outdated, so it is written again.
        """
        while True:
            before, now = self._record, self._clock.now()
            outcome = step(before, wake, now=now, policy=self.policy)
            after = outcome.record
            line = self._line(before, after, wake)
            await self._store.reserve(self.slot, after, line)
            self._note_stored(after)
            if reservation.is_withdrawn or not self.would_launch(wake):
                self._save(after, self._record, StopRequested())
                return
            if self._record is before:
                self._keep(outcome, wake, now)
                return

    def apply(self, event: Event) -> None:
        """Change the record by an event: on disk first, then in memory.

        If the disk fails the change is applied all the same: an existing instance has
        to be stopped. A launch begins only in `wake`, never here.
        """
        if isinstance(event, StopRequested) and self._reservation is not None:
            self._reservation.is_withdrawn = True
        before, now = self._record, self._clock.now()
        try:
            outcome = step(before, event, now=now, policy=self.policy)
        except IllegalTransition as error:
            self._log.error(log.ILLEGAL_TRANSITION, error=str(error))
            return
        after = outcome.record
        if after.launch_id not in {None, before.launch_id}:
            message = "a launch that was not reserved can't begin"
            self._log.error(log.ILLEGAL_TRANSITION, error=message)
        elif after is not before:
            self._save(before, after, event)
            self._keep(outcome, event, now)

    def _save(self, before: Record, after: Record, event: Event) -> None:
        """Write a change down if it matters to a later process, and if it can be."""
        if not self._differs_on_disk(after):
            return
        changes = after.state is not before.state
        line = self._line(before, after, event) if changes else None
        try:
            self._store.put(self.slot, after, line)
        except StoreError as error:
            self._log.error(log.STORE_FAILED, error=str(error))
        else:
            self._note_stored(after)

    def _differs_on_disk(self, after: Record) -> bool:
        """Tell whether a change matters to a later process.

        Leases and progress are only valid in this process; the next one doubts every
        launch without an answer. The time of last use is saved in steps, so that not
        every request costs a disk write.
        """
        if abs(after.last_used - self._stored_use) >= self.use_grain_s:
            return True
        return _durable(after) != self._stored

    def _note_stored(self, record: Record) -> None:
        """Keep what is on disk, to know whether a change matters: each lease is one."""
        self._stored_use, self._stored = record.last_used, _durable(record)

    def _keep(self, outcome: Step, event: Event, now: float) -> None:
        """Keep the record after a transition, and trigger its command."""
        before, after = self._record, outcome.record
        self._record = after
        if after.progress is not before.progress or after.state is not before.state:
            self._note_stage(self.timeline.see(before, after, now))
        if outcome.command != command_for(before) or self._executor.oversleeps(after):
            self._executor.wake_up()
        if after.state is not before.state:
            self._tell(before, after, event)

    def end_launch(self, event: Failed | Gone | Lost) -> None:
        """Apply the end of an instance, without secrets, and log its report."""
        event = cleaned(event, self.offer.secrets)
        self.report = event.report
        if event.report:
            self._log.warning(
                log.LAUNCH_REPORT, launch_id=event.launch_id, report=event.report
            )
        self.apply(event)

    def _note_stage(self, ended: StageSpan | None) -> None:
        if ended is not None:
            stage, took_s = ended.name, round(ended.seconds, 3)
            launch_id = self.timeline.launch_id
            self._log.debug(
                log.STAGE_ENDED, launch_id=launch_id, stage=stage, lasted_s=took_s
            )

    def _tell(self, before: Record, after: Record, event: Event) -> None:
        """Call the observers; one that raises stops neither the others nor us."""
        if after.state is State.READY:
            self.report = ""
        if after.state not in {State.STARTING, State.READY, State.DRAINING}:
            self.upstream = None
            self.problem = self.notice = self.driver = ""
        for observer in self._observers:
            try:
                observer(before, after)
            except Exception:
                self._log.exception(log.TASK_CRASHED, task="observer")
        self._note_transition(before, after, event)

    def _line(self, before: Record, after: Record, event: Event) -> Transition:
        """Return the line of the journal for a change of state."""
        return Transition(
            at=self._clock.wall(),
            slot=self.slot,
            launch_id=after.launch_id or before.launch_id,
            before=before.state.value,
            after=after.state.value,
            event=type(event).__name__,
            fault=after.fault.message if after.fault else None,
            report=getattr(event, "report", "") or None,
        )

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


def _use_grain_s(policy: Policy, timing: Timing) -> float:
    """Return the step, in seconds, in which the time of last use is saved.

    A quarter of the idle time-out, within the bounds of ``timing``.
    """
    quarter_s = policy.idle_timeout_s / 4.0
    return max(timing.use_grain_least_s, min(timing.use_grain_s, quarter_s))


_FLEETING = {
    "doubtful",
    "leases",
    "yielding",
    "last_used",
    "progress",
    "progress_at",
    "furthest",
}
_durable = attrgetter(
    *(field.name for field in fields(Record) if field.name not in _FLEETING)
)
