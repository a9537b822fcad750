"""Define the rules of a pool: the record after an event for all its instances."""

from dataclasses import replace

from ollama_proxy.core.lifecycle.events import Event, LimitReached
from ollama_proxy.core.lifecycle.launch_limit import with_service, without_launch
from ollama_proxy.core.lifecycle.record import Policy, Record, State
from ollama_proxy.core.lifecycle.stopping import stopping


def serve(rec: Record, _event: Event, now: float, _policy: Policy) -> Record:
    """Forget the launches before a served request, and a lockout for their number."""
    served = with_service(rec)
    if served.lockout is None and rec.lockout is not None:
        return _cold(served, now) if rec.state is State.COOLDOWN else served
    return served


def limit(rec: Record, event: Event, now: float, _policy: Policy) -> Record:
    """Let no request launch anything any more."""
    assert isinstance(event, LimitReached)  # noqa: S101 - the table pairs them
    if rec.lockout is not None:
        return rec
    locked = replace(rec, lockout=event.lockout)
    is_cold = rec.state is State.COLD
    return replace(locked, state=State.COOLDOWN, since=now) if is_cold else locked


def forgive(rec: Record, _event: Event, now: float, _policy: Policy) -> Record:
    """End the pause and the lockout after failed launches, or those to come."""
    pardoned = replace(rec, failed=False, failures=0, lockout=None)
    return _cold(pardoned, now) if rec.state is State.COOLDOWN else pardoned


def abandon(rec: Record, _event: Event, now: float, policy: Policy) -> Record:
    """Leave a launch to the sweep, without waiting for the cloud's answer.

    It counts as paid for, since the cloud never stated that nothing exists.
    """
    ended = rec if rec.state is State.STOPPING else stopping(rec, now, policy)
    return replace(without_launch(ended), since=now, last_used=rec.last_used)


def _cold(rec: Record, now: float) -> Record:
    return replace(rec, state=State.COLD, since=now, retry_at=0.0)
