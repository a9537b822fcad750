"""Decide when requests must not launch: after final faults, or too many launches.

Pure: `transitions.step` calls it. Moments are those of `Clock.now`.

A lockout ends when a person wakes the instance, when the settings that it depends on
change, or at its own end, if it has one.
"""

from collections.abc import Iterable
from dataclasses import replace

from ollama_proxy.base.moments import is_impossible, restored_moment
from ollama_proxy.core.lifecycle.record import (
    Fault,
    Lockout,
    Policy,
    Progress,
    Record,
    Stage,
    State,
)

WINDOW_S = 3600.0
"""The period to which the limit of launches without a served request applies."""

_FINAL_AT_SECOND = frozenset({"driver", "disk", "gpu"})
"""Faults one machine may have by chance; twice in a row the settings cause them."""

_NEEDS_PERSON = frozenset({"credentials", "program"})
"""Refused before anything is bought, and mended without telling the proxy: so a request
may try again after the back-off, but no request waits for that."""


NO_CAPACITY = "capacity"
"""Reason of a launch that its cloud had no room for; another offer may have some."""

GAVE_WAY = "transient"
"""Reason of a launch left to other offers, because its cloud accepted no call."""

WITHOUT_ROOM = frozenset({NO_CAPACITY, GAVE_WAY})
"""Reasons after which an offer is skipped for a while in favour of the next one."""

_REFUSALS = frozenset({*WITHOUT_ROOM, "credentials", "program", "spec"})
"""Reasons of a start call that has certainly created nothing."""


def judged(fault: Fault, before: Fault | None, policy: Policy) -> Fault:
    """Return the fault of a launch, made final if it repeats ``before``.

    A key that is refused is final where other offers have keys of their own.
    """
    if policy.gives_way and fault.reason == "credentials":
        return replace(fault, final=True)
    again = before is not None and before.reason == fault.reason
    if again and fault.reason in _FINAL_AT_SECOND:
        return replace(fault, final=True)
    return fault


def failures_after(rec: Record, fault: Fault, policy: Policy) -> int:
    """Return how many failures in a row there are with this one."""
    if fault.final or fault.reason in _NEEDS_PERSON:
        return max(rec.failures + 1, policy.failure_limit)
    return rec.failures + 1


def timed_out(progress: Progress, limit_s: float) -> Fault:
    """Return the fault of a launch that got no further for ``limit_s`` seconds."""
    if progress.problem and progress.stage is Stage.CREATING:
        message = f"the cloud took no launch for {limit_s:.0f} s: {progress.problem}"
        return Fault("start_timeout", message)
    if progress.problem:
        message = f"the instance could not be reached for {limit_s:.0f} s"
        return Fault("unreachable", f"{message}: {progress.problem}")
    words = f" ({progress.detail})" if progress.detail else ""
    message = (
        f"the launch made no progress for {limit_s:.0f} s at stage"
        f" {progress.stage.value!r}{words} and was given up"
    )
    return Fault("start_timeout", message)


def recent(launches: tuple[float, ...], now: float) -> tuple[float, ...]:
    """Return the launches of the last hour; a future moment is replaced by ``now``.

    It is from before the clock was set back: a launch of unknown age counts.
    """
    return tuple(min(at, now) for at in launches if at > now - WINDOW_S)


def with_launch(rec: Record, now: float, policy: Policy) -> Record:
    """Count a launch that a cloud accepted, if launches cost anything there."""
    if policy.launch_limit is None or rec.accepted:
        return rec
    launches = (*recent(rec.paid_launches, now), now)
    return replace(rec, paid_launches=launches[-policy.launch_limit :])


def with_doubtful_launch(
    rec: Record, fault: Fault | None, now: float, policy: Policy
) -> Record:
    """Count a launch that is stopped before its cloud has answered: it may be paid for.

    A launch that the cloud refused costs nothing and does not count.
    """
    if rec.state is not State.STARTING or rec.accepted or _is_refused(rec, fault):
        return rec
    return replace(with_launch(rec, now, policy), accepted=True)


def _is_refused(rec: Record, fault: Fault | None) -> bool:
    """Tell whether a cloud has certainly created nothing for a launch.

    "No room" also answers the calls before it: a backend looks for what they made
    before it asks for more. A 500 or a refused key says nothing of them.
    """
    if fault is None:
        return False
    is_of_all_calls = fault.reason == NO_CAPACITY or not rec.doubtful
    return is_of_all_calls and fault.reason in _REFUSALS


def with_service(rec: Record) -> Record:
    """Forget the launches before a request that was served, and their limit.

    The limit of a pool also locks slots that launched nothing themselves.
    """
    is_limited = rec.lockout is not None and rec.lockout.reason == "launch_limit"
    if not (rec.paid_launches or is_limited):
        return rec
    lockout = None if is_limited else rec.lockout
    return replace(rec, paid_launches=(), lockout=lockout)


def with_lockout(rec: Record, now: float, policy: Policy) -> Record:
    """Lock requests out if the launch that is being stopped gives reason to."""
    lockout = rec.lockout or _lockout_after(rec, now, policy)
    return rec if lockout is rec.lockout else replace(rec, lockout=lockout)


def _lockout_after(rec: Record, now: float, policy: Policy) -> Lockout | None:
    if rec.failed and rec.fault is not None and rec.fault.final and policy.final_s:
        why = "it would fail again"
        return Lockout("final", why, now + policy.final_s, policy.fingerprint)
    limit = policy.launch_limit
    if limit is not None and len(recent(rec.paid_launches, now)) >= limit:
        return limit_lockout(limit, now, policy)
    return None


def limit_lockout(limit: int, now: float, policy: Policy) -> Lockout:
    """Return why requests launch nothing after so many launches that served none.

    With other offers it ends by itself after ``policy.final_s``.
    """
    times = "launch" if limit == 1 else "launches"
    why = f"{limit} {times} within an hour served no request"
    until = now + policy.final_s if policy.gives_way else None
    return Lockout("launch_limit", why, until, policy.fingerprint)


def unserved(records: Iterable[Record], now: float) -> int:
    """Return how many launches of the last hour served no request, of several slots."""
    return sum(len(recent(record.paid_launches, now)) for record in records)


def is_locked_out(rec: Record, now: float) -> bool:
    """Tell whether a request launches nothing."""
    if rec.lockout is None:
        return False
    return rec.lockout.until is None or now < rec.lockout.until


def without_late_lockout(rec: Record, now: float, policy: Policy) -> Record:
    """End a lockout whose time is over; limit its end to the longest time from now."""
    lockout = rec.lockout
    if lockout is None or lockout.until is None:
        return rec
    if now >= lockout.until:
        return replace(rec, state=State.COLD, since=now, retry_at=0.0, lockout=None)
    if lockout.until > now + policy.final_s:  # the clock was set back
        bounded = replace(lockout, until=now + policy.final_s)
        return replace(rec, lockout=bounded)
    return rec


def restored(rec: Record, now: float, policy: Policy) -> Record:
    """Return the record as a new process reads it: new settings end a lockout."""
    if rec.paid_launches:
        launches = tuple(restored_moment(at, now) for at in rec.paid_launches)
        rec = replace(rec, paid_launches=recent(launches, now))
    if rec.lockout is None:
        return rec
    if rec.lockout.fingerprint == policy.fingerprint:
        return replace(rec, lockout=_restored_lockout(rec.lockout, now, policy))
    state = State.COLD if rec.state is State.COOLDOWN else rec.state
    return replace(
        rec,
        state=state,
        failed=False,
        failures=0,
        retry_at=0.0,
        fault=None,
        lockout=None,
    )


def _restored_lockout(lockout: Lockout, now: float, policy: Policy) -> Lockout:
    if lockout.until is None or not is_impossible(lockout.until, now):
        return lockout
    return replace(lockout, until=now + policy.final_s)


def without_launch(rec: Record) -> Record:
    """Return the record after the end of its launch; limits stay in force."""
    return Record(
        state=State.COLD if rec.lockout is None else State.COOLDOWN,
        fault=rec.fault if rec.lockout is not None else None,
        paid_launches=rec.paid_launches,
        lockout=rec.lockout,
    )
