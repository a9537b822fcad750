"""Define the rules of the table: the record that follows an event.

Each rule takes the record, the event, the time and the policy, and returns the next
record: the same object if nothing changes. `transitions` maps events to rules. The
rules of requests are in `lease_rules`, those of a new process in `restart_rules`.
"""

from dataclasses import replace

from ollama_proxy.core.lifecycle.deadlines import (
    end_of_life,
    is_idle,
    overdue,
    retry_after_failure,
)
from ollama_proxy.core.lifecycle.events import (
    Event,
    Failed,
    Gone,
    Lost,
    Progressed,
    StopFailed,
    Wake,
)
from ollama_proxy.core.lifecycle.launch_limit import (
    is_locked_out,
    with_launch,
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
from ollama_proxy.core.lifecycle.stopping import failing, retiring, stopping


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
        fault=event.fault or rec.fault,
        paid_launches=rec.paid_launches,
    )


def unlock(rec: Record, event: Event, _now: float, _policy: Policy) -> Record:
    """Accept a forced wake while a failed launch is being stopped.

    It prevents the pause and the lockout that would follow, as it ends them in a
    cool-down.
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


def doubt(rec: Record, _event: Event, _now: float, _policy: Policy) -> Record:
    """Note that an instance may exist, although no cloud has accepted the launch."""
    return rec if rec.doubtful else replace(rec, doubtful=True)


def advance(rec: Record, event: Event, now: float, _policy: Policy) -> Record:
    """Record how far a launch is; a repeated state is no progress."""
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
    return failing(rec, event.fault, now, policy)


def lose_launch(rec: Record, event: Event, now: float, policy: Policy) -> Record:
    """Stop what a launch left that vanished; one that was adopted did not fail."""
    fault = _loss(event)
    if rec.adopted and fault.reason == "lost":
        return stopping(rec, now, policy, fault=fault)
    return failing(rec, fault, now, policy)


def lose(rec: Record, event: Event, now: float, policy: Policy) -> Record:
    """Stop a lost instance; one that served for long does not count as failed."""
    fault = _loss(event)
    if now - rec.since >= policy.stable_s:
        return stopping(rec, now, policy, failures=0, fault=fault)
    failures = rec.failures + 1
    return stopping(rec, now, policy, failures=failures, fault=fault, failed=True)


def lose_drained(rec: Record, event: Event, now: float, policy: Policy) -> Record:
    """Stop a lost instance that was draining."""
    return stopping(rec, now, policy, fault=_loss(event))


def stop(rec: Record, _event: Event, now: float, policy: Policy) -> Record:
    """Stop the instance at once."""
    return stopping(rec, now, policy)


def drain(rec: Record, _event: Event, now: float, policy: Policy) -> Record:
    """Stop the instance once its requests have ended."""
    if not rec.leases:
        return stopping(rec, now, policy)
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
    retry_at = retry_after_failure(rec, now, policy)
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
        return stopping(rec, now, policy)
    if (fault := overdue(rec, now, policy)) is None:
        return rec
    return failing(rec, fault, now, policy)


def tick_ready(rec: Record, event: Event, now: float, policy: Policy) -> Record:
    """End an instance that is idle or too old; forgive failures in time."""
    if now >= end_of_life(rec, policy):
        return drain(rec, event, now, policy)
    if is_idle(rec, now, policy):
        return retiring(rec, now, policy)
    if rec.failures and now >= rec.since + policy.stable_s:
        return replace(rec, failures=0)
    return rec


def tick_draining(rec: Record, _event: Event, now: float, policy: Policy) -> Record:
    """Stop an instance whose requests have ended, or had time to."""
    if rec.leases and now < rec.since + policy.drain_timeout_s:
        return rec
    return stopping(rec, now, policy)


def tick_cooldown(rec: Record, _event: Event, now: float, policy: Policy) -> Record:
    """End the pause after a failure, once it is over."""
    if rec.lockout is not None:
        return without_late_lockout(rec, now, policy)
    if now < rec.retry_at or rec.failures >= policy.failure_limit:
        return rec
    return replace(rec, state=State.COLD, since=now, retry_at=0.0)


def _loss(event: Event) -> Fault:
    assert isinstance(event, Gone | Lost)  # noqa: S101 - the table pairs them
    return Fault(event.reason, event.message)
