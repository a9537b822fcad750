"""Decide how one instance lives: `step` and its table.

This module is the only place where an instance changes state. It is pure: time
comes in as ``now`` (seconds since the epoch), nothing is awaited, read or
written. It knows nothing of clouds, sockets or clients.

`step` looks up the pair (state, event) in a table. A pair that is not in the
table is a defect of the caller and raises `IllegalTransition` with both names.
An event about another launch than the record's is late news and changes
nothing.

What has to be done in a state is a function of the record alone (`command_for`), not
of the event that led there. So a repeated `Tick` repeats the duty, and work
that was cut short by a crash is taken up again.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from ollama_proxy.base.errors import IllegalTransition
from ollama_proxy.base.moments import is_impossible, restored_moment
from ollama_proxy.core.lifecycle.events import (
    Accepted,
    Command,
    Event,
    Failed,
    Gone,
    LeaseGranted,
    Lost,
    Progressed,
    Ready,
    Released,
    Restored,
    Start,
    Stop,
    StopFailed,
    StopRequested,
    Tick,
    Used,
    Wake,
    Watch,
)
from ollama_proxy.core.lifecycle.launch_limit import (
    failures_after,
    is_locked_out,
    judged,
    restored,
    timed_out,
    with_doubtful_launch,
    with_launch,
    with_lockout,
    with_service,
    without_late_lockout,
)
from ollama_proxy.core.lifecycle.record import (
    Fault,
    LaunchId,
    Policy,
    Progress,
    Record,
    Stage,
    State,
)


@dataclass(frozen=True, slots=True)
class Step:
    """The record after an event, and what has to be done now."""

    record: Record
    command: Command | None


def step(record: Record, event: Event, *, now: float, policy: Policy) -> Step:
    """Return the record after ``event``, and what to do about it.

    Raises `IllegalTransition` for a pair of state and event that can't happen.
    """
    launch_id = getattr(event, "launch_id", None)
    is_of_another = launch_id != record.launch_id and launch_id is not None
    if is_of_another and not isinstance(event, (Wake, LeaseGranted)):
        return Step(record, command_for(record))
    rule = _TABLE.get((record.state, type(event)))
    if rule is None:
        raise IllegalTransition(
            f"event {type(event).__name__!r} can't happen in state "
            f"{record.state.value!r}"
        )
    new = rule(record, event, now, policy)
    return Step(new, command_for(new))


def command_for(record: Record) -> Command | None:
    """Return what has to be done as long as the record stays as it is."""
    if record.launch_id is None:
        return None
    return _duty(record.state, record.launch_id, accepted=record.accepted)


@functools.lru_cache(maxsize=64)  # asked for with each lease
def _duty(state: State, launch_id: LaunchId, *, accepted: bool) -> Command | None:
    match state:
        case State.STARTING if not accepted:
            return Start(launch_id)
        case State.STARTING | State.READY | State.DRAINING:
            return Watch(launch_id)
        case State.STOPPING:
            return Stop(launch_id)
        case _:
            return None


def next_deadline(record: Record, policy: Policy) -> float | None:
    """Return the moment at which a `Tick` next changes the record, if any."""
    match record.state:
        case State.STARTING:
            return min(_given_up_at(record, policy), _end_of_life(record, policy))
        case State.READY:
            deadline = _end_of_life(record, policy)
            if not record.leases:
                deadline = min(deadline, record.last_used + policy.idle_timeout_s)
            if record.failures:
                deadline = min(deadline, record.since + policy.stable_s)
            return deadline
        case State.DRAINING:
            return record.since + policy.drain_timeout_s
        case State.COOLDOWN if record.lockout is not None:
            return record.lockout.until
        case State.COOLDOWN if record.failures < policy.failure_limit:
            return record.retry_at
        case _:
            return None


def is_given_up(record: Record, policy: Policy) -> bool:
    """Tell whether no launch comes by itself any more: a person has to act."""
    if record.lockout is not None:
        return True
    ended = record.state is State.COOLDOWN or (
        record.state is State.STOPPING and record.failed
    )
    return ended and record.failures >= policy.failure_limit


def backoff_s(failures: int, policy: Policy) -> float:
    """Return the pause after the n-th failure in a row: doubling, bounded."""
    doublings = min(max(failures - 1, 0), 30)
    return float(min(policy.backoff_max_s, policy.backoff_s * 2.0**doublings))


def _end_of_life(record: Record, policy: Policy) -> float:
    """Return the moment at which an instance goes, used or not.

    A record of an older version does not tell when it was launched.
    """
    return (record.launched_at or record.since) + policy.max_lifetime_s


def _given_up_at(record: Record, policy: Policy) -> float:
    """Return the moment at which a launch that gets no further is given up."""
    if policy.is_always_on and record.progress.stage is Stage.CONNECTING:
        return math.inf
    return record.progress_at + policy.start_timeout_s


Rule = Callable[[Record, Event, float, Policy], Record]


def _stay(rec: Record, _event: Event, _now: float, _policy: Policy) -> Record:
    return rec


def _launch(rec: Record, event: Event, now: float, _policy: Policy) -> Record:
    assert isinstance(event, Wake)  # noqa: S101 - the table pairs them
    is_too_soon = rec.state is State.COOLDOWN and now < rec.retry_at
    if not event.forced and (is_too_soon or is_locked_out(rec, now)):
        return rec
    return Record(
        state=State.STARTING,
        since=now,
        launch_id=event.launch_id,
        model=event.model,
        woken_at=now,
        launched_at=now,
        progress_at=now,
        last_used=now,
        failures=rec.failures,
        fault=rec.fault,
        paid_launches=rec.paid_launches,
    )


def _unlock(rec: Record, event: Event, _now: float, _policy: Policy) -> Record:
    """Let an order count that comes while a failed launch is being stopped.

    It ends the pause and the lockout that would follow, as it does in a cool-down.
    """
    assert isinstance(event, Wake)  # noqa: S101 - the table pairs them
    if not event.forced or not (rec.failed or rec.lockout):
        return rec
    return replace(rec, failed=False, lockout=None)


def _join(rec: Record, _event: Event, now: float, _policy: Policy) -> Record:
    return replace(rec, last_used=now)


def _accept(rec: Record, _event: Event, now: float, policy: Policy) -> Record:
    return replace(
        with_launch(rec, now, policy),
        accepted=True,
        progress=Progress(Stage.BOOTING),
        progress_at=now,
    )


def _advance(rec: Record, event: Event, now: float, _policy: Policy) -> Record:
    assert isinstance(event, Progressed)  # noqa: S101 - the table pairs them
    if event.progress == rec.progress:
        return rec
    stages = list(Stage)
    reached = max(rec.furthest, event.progress.stage, key=stages.index)
    told, before = (
        replace(one, problem="", needs_person=False)
        for one in (event.progress, rec.progress)
    )
    is_news = event.progress.stage == reached and told != before
    return replace(
        rec,
        progress=event.progress,
        furthest=reached,
        progress_at=now if is_news else rec.progress_at,
    )


def _ready(rec: Record, _event: Event, now: float, _policy: Policy) -> Record:
    return replace(
        rec,
        state=State.READY,
        since=now,
        fault=None,
        last_used=rec.last_used if rec.adopted else now,
    )


def _fail(rec: Record, event: Event, now: float, policy: Policy) -> Record:
    assert isinstance(event, Failed)  # noqa: S101 - the table pairs them
    fault = judged(event.fault, rec.fault)
    failures = failures_after(rec, fault, policy)
    return _stopping(rec, now, policy, failures=failures, fault=fault, failed=True)


def _lose_launch(rec: Record, event: Event, now: float, policy: Policy) -> Record:
    fault = _loss(event)
    if rec.adopted and fault.reason == "lost":
        return _stopping(rec, now, policy, fault=fault)
    return _fail(rec, Failed(rec.launch_id or LaunchId(""), fault), now, policy)


def _lose(rec: Record, event: Event, now: float, policy: Policy) -> Record:
    fault = _loss(event)
    if now - rec.since >= policy.stable_s:
        return _stopping(rec, now, policy, failures=0, fault=fault)
    failures = rec.failures + 1
    return _stopping(rec, now, policy, failures=failures, fault=fault, failed=True)


def _lose_drained(rec: Record, event: Event, now: float, policy: Policy) -> Record:
    return _stopping(rec, now, policy, fault=_loss(event))


def _lease(rec: Record, event: Event, _now: float, _policy: Policy) -> Record:
    assert isinstance(event, LeaseGranted)  # noqa: S101 - the table pairs them
    if event.launch_id != rec.launch_id:
        raise IllegalTransition(
            f"event 'LeaseGranted' of launch {event.launch_id!r} can't happen in state "
            f"{rec.state.value!r} of launch {rec.launch_id!r}"
        )
    return rec.leased(rec.leases + 1, rec.last_used)


def _use(rec: Record, _event: Event, now: float, _policy: Policy) -> Record:
    return with_service(rec.leased(rec.leases, now))


def _release(rec: Record, event: Event, now: float, _policy: Policy) -> Record:
    assert isinstance(event, Released)  # noqa: S101 - the table pairs them
    if not rec.leases:
        raise IllegalTransition(
            f"event {type(event).__name__!r} can't happen in state "
            f"{rec.state.value!r} without a lease"
        )
    if event.used:
        return with_service(rec.leased(rec.leases - 1, now))
    return rec.leased(rec.leases - 1, rec.last_used)


def _release_ready(rec: Record, event: Event, now: float, policy: Policy) -> Record:
    """End a lease; one that was no use leaves the instance as idle as it was.

    Its idle time may be over by then. It goes at once, or the next such request,
    if there is always one, would keep it.
    """
    new = _release(rec, event, now, policy)
    is_idle = _is_idle(new, now, policy)
    return _stopping(new, now, policy, failures=0) if is_idle else new


def _is_idle(rec: Record, now: float, policy: Policy) -> bool:
    return not rec.leases and now >= rec.last_used + policy.idle_timeout_s


def _release_drained(rec: Record, event: Event, now: float, policy: Policy) -> Record:
    new = _release(rec, event, now, policy)
    return new if new.leases else _stopping(new, now, policy)


def _stop(rec: Record, _event: Event, now: float, policy: Policy) -> Record:
    return _stopping(rec, now, policy)


def _drain(rec: Record, _event: Event, now: float, policy: Policy) -> Record:
    if not rec.leases:
        return _stopping(rec, now, policy)
    return replace(rec, state=State.DRAINING, since=now)


def _vanish(rec: Record, _event: Event, now: float, policy: Policy) -> Record:
    kept = Record(
        since=now,
        last_used=rec.last_used,
        failures=rec.failures,
        fault=rec.fault,
        paid_launches=rec.paid_launches,
        lockout=rec.lockout,
    )
    if not rec.failed and rec.lockout is None:
        return kept
    retry_at = now + backoff_s(rec.failures, policy)
    return replace(kept, state=State.COOLDOWN, retry_at=retry_at)


def _note_stop_failure(
    rec: Record, event: Event, _now: float, _policy: Policy
) -> Record:
    assert isinstance(event, StopFailed)  # noqa: S101 - the table pairs them
    return replace(rec, stop_error=event.message)


def _tick_starting(rec: Record, _event: Event, now: float, policy: Policy) -> Record:
    if now >= _end_of_life(rec, policy):
        return _stopping(rec, now, policy)
    if now < _given_up_at(rec, policy):
        return rec
    fault = timed_out(rec.progress, policy.start_timeout_s)
    return _fail(rec, Failed(rec.launch_id or LaunchId(""), fault), now, policy)


def _tick_ready(rec: Record, event: Event, now: float, policy: Policy) -> Record:
    if now >= _end_of_life(rec, policy):
        return _drain(rec, event, now, policy)
    if _is_idle(rec, now, policy):
        return _stopping(rec, now, policy, failures=0)
    if rec.failures and now >= rec.since + policy.stable_s:
        return replace(rec, failures=0)
    return rec


def _tick_draining(rec: Record, _event: Event, now: float, policy: Policy) -> Record:
    if rec.leases and now < rec.since + policy.drain_timeout_s:
        return rec
    return _stopping(rec, now, policy)


def _tick_cooldown(rec: Record, _event: Event, now: float, policy: Policy) -> Record:
    if rec.lockout is not None:
        return without_late_lockout(rec, now, policy)
    if now < rec.retry_at or rec.failures >= policy.failure_limit:
        return rec
    return replace(rec, state=State.COLD, since=now, retry_at=0.0)


def _restore(rec: Record, _event: Event, now: float, policy: Policy) -> Record:
    """Forget what died with the old process, and mistrust moments to come."""
    return replace(
        restored(rec, now, policy),
        leases=0,
        since=restored_moment(rec.since, now),
        woken_at=restored_moment(rec.woken_at, now),
        launched_at=restored_moment(rec.launched_at, now),
        last_used=restored_moment(rec.last_used, now),
        retry_at=_restored_retry(rec, now, policy),
        progress_at=now,
    )


def _restored_retry(rec: Record, now: float, policy: Policy) -> float:
    if is_impossible(rec.retry_at, now):
        return now + backoff_s(rec.failures, policy)
    return min(rec.retry_at, now + policy.backoff_max_s)


def _resume(rec: Record, event: Event, now: float, policy: Policy) -> Record:
    """Go on with a launch, unless it ended with the process that began it."""
    if policy.ends_with_proxy:
        return _clear_up(rec, event, now, policy)
    return _restore(rec, event, now, policy)


def _clear_up(rec: Record, event: Event, now: float, policy: Policy) -> Record:
    """Remove what is left of an instance that ended with the process before.

    That is no failure. The next request finds the server being joined anew.
    """
    over = _stopping(_restore(rec, event, now, policy), now, policy)
    return replace(over, woken_at=now)


def _adopt(rec: Record, event: Event, now: float, policy: Policy) -> Record:
    """Take over an instance: it has to prove itself before it serves again."""
    if policy.ends_with_proxy:
        return _clear_up(rec, event, now, policy)
    return replace(
        _restore(rec, event, now, policy),
        state=State.STARTING,
        since=now,
        woken_at=now,
        adopted=True,
        progress=Progress(Stage.CONNECTING),
    )


def _restore_drained(rec: Record, event: Event, now: float, policy: Policy) -> Record:
    return _stopping(_restore(rec, event, now, policy), now, policy)


def _stopping(
    rec: Record,
    now: float,
    policy: Policy,
    *,
    failures: int | None = None,
    fault: Fault | None = None,
    failed: bool = False,
) -> Record:
    stopping = replace(
        with_doubtful_launch(rec, fault, now, policy),
        state=State.STOPPING,
        since=now,
        failed=failed,
        failures=rec.failures if failures is None else failures,
        fault=fault,
    )
    return with_lockout(stopping, now, policy)


def _loss(event: Event) -> Fault:
    assert isinstance(event, Gone | Lost)  # noqa: S101 - the table pairs them
    return Fault(event.reason, event.message)


_TABLE: dict[tuple[State, type[Event]], Rule] = {
    (State.COLD, Wake): _launch,
    (State.COLD, StopRequested): _stay,
    (State.COLD, Restored): _restore,
    (State.COLD, Tick): _stay,
    (State.STARTING, Wake): _join,
    (State.STARTING, Accepted): _accept,
    (State.STARTING, Progressed): _advance,
    (State.STARTING, Ready): _ready,
    (State.STARTING, Failed): _fail,
    (State.STARTING, Lost): _lose_launch,
    (State.STARTING, Gone): _lose_launch,
    (State.STARTING, StopRequested): _stop,
    (State.STARTING, Restored): _resume,
    (State.STARTING, Tick): _tick_starting,
    (State.READY, Wake): _stay,  # only what is answered is use
    (State.READY, Lost): _lose,
    (State.READY, Gone): _lose,
    (State.READY, LeaseGranted): _lease,
    (State.READY, Used): _use,
    (State.READY, Released): _release_ready,
    (State.READY, StopRequested): _drain,
    (State.READY, Restored): _adopt,
    (State.READY, Tick): _tick_ready,
    (State.DRAINING, Wake): _stay,  # the waiter still waits when it is cold
    (State.DRAINING, Lost): _lose_drained,
    (State.DRAINING, Gone): _lose_drained,
    (State.DRAINING, Used): _stay,
    (State.DRAINING, Released): _release_drained,
    (State.DRAINING, StopRequested): _stay,
    (State.DRAINING, Restored): _restore_drained,
    (State.DRAINING, Tick): _tick_draining,
    (State.STOPPING, Wake): _unlock,  # the waiter still waits when it is cold
    (State.STOPPING, Accepted): _stay,  # what was under way when the stop came
    (State.STOPPING, Progressed): _stay,
    (State.STOPPING, Ready): _stay,
    (State.STOPPING, Failed): _stay,
    (State.STOPPING, Lost): _stay,
    (State.STOPPING, Gone): _vanish,
    (State.STOPPING, StopFailed): _note_stop_failure,
    (State.STOPPING, Used): _stay,
    (State.STOPPING, Released): _release,
    (State.STOPPING, StopRequested): _stay,
    (State.STOPPING, Restored): _restore,
    (State.STOPPING, Tick): _stay,
    (State.COOLDOWN, Wake): _launch,
    (State.COOLDOWN, StopRequested): _stay,
    (State.COOLDOWN, Restored): _restore,
    (State.COOLDOWN, Tick): _tick_cooldown,
}
