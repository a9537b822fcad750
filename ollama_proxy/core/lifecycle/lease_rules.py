"""Define the rules of leases: the record after a request began, worked or ended."""

from ollama_proxy.base.errors import IllegalTransition
from ollama_proxy.core.lifecycle.deadlines import is_idle
from ollama_proxy.core.lifecycle.events import Event, LeaseGranted, Released
from ollama_proxy.core.lifecycle.launch_limit import with_service
from ollama_proxy.core.lifecycle.record import Policy, Record
from ollama_proxy.core.lifecycle.stopping import retiring, stopping


def lease(rec: Record, event: Event, _now: float, _policy: Policy) -> Record:
    """Count one more request at the instance."""
    assert isinstance(event, LeaseGranted)  # noqa: S101 - the table pairs them
    if event.launch_id != rec.launch_id:
        raise IllegalTransition(
            f"event 'LeaseGranted' of launch {event.launch_id!r} can't happen in state "
            f"{rec.state.value!r} of launch {rec.launch_id!r}"
        )
    yielding = rec.yielding + event.yields
    return rec.leased(rec.leases + 1, rec.last_used, yielding)


def use(rec: Record, _event: Event, now: float, _policy: Policy) -> Record:
    """Note that the instance does work now."""
    return with_service(rec.leased(rec.leases, now))


def release(rec: Record, event: Event, now: float, _policy: Policy) -> Record:
    """Count one request less; if it was use, the idle time begins now."""
    assert isinstance(event, Released)  # noqa: S101 - the table pairs them
    if not (rec.yielding if event.yields else rec.keeping):
        raise IllegalTransition(
            f"event {type(event).__name__!r} can't happen in state "
            f"{rec.state.value!r} without a lease"
        )
    yielding = rec.yielding - event.yields
    if event.used:
        return with_service(rec.leased(rec.leases - 1, now, yielding))
    return rec.leased(rec.leases - 1, rec.last_used, yielding)


def release_ready(rec: Record, event: Event, now: float, policy: Policy) -> Record:
    """End a lease; without use, the idle time goes on from its former start.

    If the idle time is over, end it at once: otherwise a steady flow of such requests
    would keep the instance for ever.
    """
    new = release(rec, event, now, policy)
    return retiring(new, now, policy) if is_idle(new, now, policy) else new


def release_drained(rec: Record, event: Event, now: float, policy: Policy) -> Record:
    """End a lease; the last one ends the instance."""
    new = release(rec, event, now, policy)
    return new if new.leases else stopping(new, now, policy)
