"""Say when time alone changes a record: idleness, end of life, patience, back-off."""

import math

from ollama_proxy.core.lifecycle.launch_limit import WITHOUT_ROOM, timed_out
from ollama_proxy.core.lifecycle.record import Fault, Policy, Record, Stage, State

_NO_ROOM_S, _NO_ROOM_MAX_S = 60.0, 900.0


def next_deadline(record: Record, policy: Policy) -> float | None:
    """Return the moment at which a `Tick` next changes the record, if any."""
    match record.state:
        case State.STARTING:
            return min(given_up_at(record, policy), end_of_life(record, policy))
        case State.READY:
            deadline = end_of_life(record, policy)
            if not record.keeping and not policy.is_kept:
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


def overdue(record: Record, now: float, policy: Policy) -> Fault | None:
    """Return why a launch is given up at this moment; None if it is not."""
    if record.state is not State.STARTING or now >= end_of_life(record, policy):
        return None
    if now < given_up_at(record, policy):
        return None
    return timed_out(record.progress, policy.start_timeout_s)


def backoff_s(failures: int, policy: Policy) -> float:
    """Return the pause after the n-th failure in a row: doubling, bounded."""
    doublings = min(max(failures - 1, 0), 30)
    return float(min(policy.backoff_max_s, policy.backoff_s * 2.0**doublings))


def no_room_pause_s(refusals: int) -> float:
    """Return for how long an offer that had no room n times is not asked: doubling."""
    doublings = min(max(refusals - 1, 0), 30)
    return float(min(_NO_ROOM_MAX_S, _NO_ROOM_S * 2.0**doublings))


def retry_after_failure(record: Record, now: float, policy: Policy) -> float:
    """Return when to launch again what failed, and has just gone.

    Where there are other offers, one without room is remembered from its word on,
    however long it took to see that nothing is left of the launch.
    """
    refused = record.fault is not None and record.fault.reason in WITHOUT_ROOM
    if policy.gives_way and refused:
        return max(now, record.since + no_room_pause_s(record.failures))
    return now + backoff_s(record.failures, policy)


def end_of_life(record: Record, policy: Policy) -> float:
    """Return the moment at which an instance is stopped, even if it is in use.

    Records of older versions have no launch time; then ``since`` is used.
    """
    return (record.launched_at or record.since) + policy.max_lifetime_s


def given_up_at(record: Record, policy: Policy) -> float:
    """Return the moment at which a launch that gets no further is given up."""
    if policy.is_always_on and record.progress.stage is Stage.CONNECTING:
        return math.inf
    return record.progress_at + policy.start_timeout_s


def is_idle(record: Record, now: float, policy: Policy) -> bool:
    """Tell whether an instance has been unused for the whole idle timeout.

    Requests that may not wake one don't hold it off, though they may still run.
    """
    if record.keeping or policy.is_kept:
        return False
    return now >= record.last_used + policy.idle_timeout_s
