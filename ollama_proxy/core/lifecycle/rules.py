"""Define the rules of the table: the record that follows an event.

Each takes the record, the event, the time and the policy, and returns the record
after it: the same object if nothing changes. `transitions` says which holds when.
"""

from dataclasses import replace

from ollama_proxy.base.errors import IllegalTransition
from ollama_proxy.base.moments import is_impossible, restored_moment
from ollama_proxy.core.lifecycle.deadlines import (
    backoff_s,
    end_of_life,
    is_idle,
    overdue,
)
from ollama_proxy.core.lifecycle.events import (
    Event,
    Failed,
    Gone,
    LeaseGranted,
    Lost,
    Progressed,
    Released,
    StopFailed,
    Wake,
)
from ollama_proxy.core.lifecycle.launch_limit import (
    failures_after,
    is_locked_out,
    judged,
    restored,
    with_doubtful_launch,
    with_launch,
    with_lockout,
    with_service,
    without_late_lockout,
)
from ollama_proxy.core.lifecycle.record import (
    Fault,
    Policy,
    Progress,
    Record,
    Stage,
    State,
)


def stay(rec: Record, _event: Event, _now: float, _policy: Policy) -> Record:
    """Change nothing."""
    return rec


def launch(rec: Record, event: Event, now: float, _policy: Policy) -> Record:
    """Begin a launch, unless a wake has to wait for one that failed."""
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


def unlock(rec: Record, event: Event, _now: float, _policy: Policy) -> Record:
    """Let an order count that comes while a failed launch is being stopped.

    It ends the pause and the lockout that would follow, as it does in a cool-down.
    """
    assert isinstance(event, Wake)  # noqa: S101 - the table pairs them
    if not event.forced or not (rec.failed or rec.lockout):
        return rec
    return replace(rec, failed=False, lockout=None)


def join(rec: Record, _event: Event, now: float, _policy: Policy) -> Record:
    """Note that one more request waits for the launch: it is not idle."""
    return replace(rec, last_used=now)


def accept(rec: Record, _event: Event, now: float, policy: Policy) -> Record:
    """Go on to the boot: the cloud has taken the order, and bills from now on."""
    return replace(
        with_launch(rec, now, policy),
        accepted=True,
        progress=Progress(Stage.BOOTING),
        progress_at=now,
    )


def advance(rec: Record, event: Event, now: float, _policy: Policy) -> Record:
    """Note how far a launch is; only what is news counts as progress."""
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


def ready(rec: Record, _event: Event, now: float, _policy: Policy) -> Record:
    """Let the instance serve."""
    return replace(
        rec,
        state=State.READY,
        since=now,
        fault=None,
        last_used=rec.last_used if rec.adopted else now,
    )


def fail(rec: Record, event: Event, now: float, policy: Policy) -> Record:
    """Stop what a failed launch left, and count the failure."""
    assert isinstance(event, Failed)  # noqa: S101 - the table pairs them
    return _failing(rec, event.fault, now, policy)


def lose_launch(rec: Record, event: Event, now: float, policy: Policy) -> Record:
    """Stop what a launch left that vanished; one that was adopted did not fail."""
    fault = _loss(event)
    if rec.adopted and fault.reason == "lost":
        return _stopping(rec, now, policy, fault=fault)
    return _failing(rec, fault, now, policy)


def lose(rec: Record, event: Event, now: float, policy: Policy) -> Record:
    """Stop a lost instance; one that served for long does not count as failed."""
    fault = _loss(event)
    if now - rec.since >= policy.stable_s:
        return _stopping(rec, now, policy, failures=0, fault=fault)
    failures = rec.failures + 1
    return _stopping(rec, now, policy, failures=failures, fault=fault, failed=True)


def lose_drained(rec: Record, event: Event, now: float, policy: Policy) -> Record:
    """Stop a lost instance that was draining."""
    return _stopping(rec, now, policy, fault=_loss(event))


def lease(rec: Record, event: Event, _now: float, _policy: Policy) -> Record:
    """Count one more request at the instance."""
    assert isinstance(event, LeaseGranted)  # noqa: S101 - the table pairs them
    if event.launch_id != rec.launch_id:
        raise IllegalTransition(
            f"event 'LeaseGranted' of launch {event.launch_id!r} can't happen in state "
            f"{rec.state.value!r} of launch {rec.launch_id!r}"
        )
    return rec.leased(rec.leases + 1, rec.last_used)


def use(rec: Record, _event: Event, now: float, _policy: Policy) -> Record:
    """Note that the instance does work now."""
    return with_service(rec.leased(rec.leases, now))


def release(rec: Record, event: Event, now: float, _policy: Policy) -> Record:
    """Count one request less; if it was use, the idle time begins now."""
    assert isinstance(event, Released)  # noqa: S101 - the table pairs them
    if not rec.leases:
        raise IllegalTransition(
            f"event {type(event).__name__!r} can't happen in state "
            f"{rec.state.value!r} without a lease"
        )
    if event.used:
        return with_service(rec.leased(rec.leases - 1, now))
    return rec.leased(rec.leases - 1, rec.last_used)


def release_ready(rec: Record, event: Event, now: float, policy: Policy) -> Record:
    """End a lease; without use, the idle time goes on from where it was.

    Its idle time may be over by then. It goes at once, or the next such request,
    if there is always one, would keep it.
    """
    new = release(rec, event, now, policy)
    is_over = is_idle(new, now, policy)
    return _stopping(new, now, policy, failures=0) if is_over else new


def release_drained(rec: Record, event: Event, now: float, policy: Policy) -> Record:
    """End a lease; the last one ends the instance."""
    new = release(rec, event, now, policy)
    return new if new.leases else _stopping(new, now, policy)


def stop(rec: Record, _event: Event, now: float, policy: Policy) -> Record:
    """Stop the instance at once."""
    return _stopping(rec, now, policy)


def drain(rec: Record, _event: Event, now: float, policy: Policy) -> Record:
    """Stop the instance once its requests have ended."""
    if not rec.leases:
        return _stopping(rec, now, policy)
    return replace(rec, state=State.DRAINING, since=now)


def vanish(rec: Record, _event: Event, now: float, policy: Policy) -> Record:
    """Return to cold once the instance is gone; after a failure, pause first."""
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


def note_stop_failure(
    rec: Record, event: Event, _now: float, _policy: Policy
) -> Record:
    """Note why the instance could not be stopped: it may still cost money."""
    assert isinstance(event, StopFailed)  # noqa: S101 - the table pairs them
    return replace(rec, stop_error=event.message)


def tick_starting(rec: Record, _event: Event, now: float, policy: Policy) -> Record:
    """Give up a launch that is too old, or gets no further."""
    if now >= end_of_life(rec, policy):
        return _stopping(rec, now, policy)
    if (fault := overdue(rec, now, policy)) is None:
        return rec
    return _failing(rec, fault, now, policy)


def tick_ready(rec: Record, event: Event, now: float, policy: Policy) -> Record:
    """Stop an instance that is idle or too old; forgive failures in time."""
    if now >= end_of_life(rec, policy):
        return drain(rec, event, now, policy)
    if is_idle(rec, now, policy):
        return _stopping(rec, now, policy, failures=0)
    if rec.failures and now >= rec.since + policy.stable_s:
        return replace(rec, failures=0)
    return rec


def tick_draining(rec: Record, _event: Event, now: float, policy: Policy) -> Record:
    """Stop an instance whose requests have ended, or had time to."""
    if rec.leases and now < rec.since + policy.drain_timeout_s:
        return rec
    return _stopping(rec, now, policy)


def tick_cooldown(rec: Record, _event: Event, now: float, policy: Policy) -> Record:
    """End the pause after a failure, once it is over."""
    if rec.lockout is not None:
        return without_late_lockout(rec, now, policy)
    if now < rec.retry_at or rec.failures >= policy.failure_limit:
        return rec
    return replace(rec, state=State.COLD, since=now, retry_at=0.0)


def restore(rec: Record, _event: Event, now: float, policy: Policy) -> Record:
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


def resume(rec: Record, event: Event, now: float, policy: Policy) -> Record:
    """Go on with a launch, unless it ended with the process that began it."""
    if policy.ends_with_proxy:
        return _clear_up(rec, event, now, policy)
    return restore(rec, event, now, policy)


def _clear_up(rec: Record, event: Event, now: float, policy: Policy) -> Record:
    """Stop the remains of an instance that ended with the process before.

    That is no failure. The next request finds the server being joined anew.
    """
    over = _stopping(restore(rec, event, now, policy), now, policy)
    return replace(over, woken_at=now)


def adopt(rec: Record, event: Event, now: float, policy: Policy) -> Record:
    """Take over an instance: it has to prove itself before it serves again."""
    if policy.ends_with_proxy:
        return _clear_up(rec, event, now, policy)
    return replace(
        restore(rec, event, now, policy),
        state=State.STARTING,
        since=now,
        woken_at=now,
        adopted=True,
        progress=Progress(Stage.CONNECTING),
    )


def restore_drained(rec: Record, event: Event, now: float, policy: Policy) -> Record:
    """Stop an instance whose requests ended with the process before."""
    return _stopping(restore(rec, event, now, policy), now, policy)


def _failing(rec: Record, fault: Fault, now: float, policy: Policy) -> Record:
    fault = judged(fault, rec.fault)
    failures = failures_after(rec, fault, policy)
    return _stopping(rec, now, policy, failures=failures, fault=fault, failed=True)


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
