"""Define the rules of a restart: the record with which a new process continues."""

from dataclasses import replace

from ollama_proxy.base.moments import is_impossible, restored_moment
from ollama_proxy.core.lifecycle.deadlines import backoff_s
from ollama_proxy.core.lifecycle.events import Event
from ollama_proxy.core.lifecycle.launch_limit import restored
from ollama_proxy.core.lifecycle.record import Policy, Progress, Record, Stage, State
from ollama_proxy.core.lifecycle.stopping import stopping


def restore(rec: Record, _event: Event, now: float, policy: Policy) -> Record:
    """Forget what died with the old process, and mistrust moments to come."""
    return replace(
        restored(rec, now, policy),
        leases=0,
        yielding=0,
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
    """Go on with a launch, unless it ended with the process that began it.

    If its start call has no answer on record, that process may have died within it.
    """
    if policy.ends_with_proxy:
        return _clear_up(rec, event, now, policy)
    resumed = restore(rec, event, now, policy)
    return resumed if rec.accepted else replace(resumed, doubtful=True)


def _clear_up(rec: Record, event: Event, now: float, policy: Policy) -> Record:
    """Stop the remains of an instance that ended with the previous process.

    That is no failure. The next request reports that the server is being connected to
    again.
    """
    over = stopping(restore(rec, event, now, policy), now, policy)
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
    return stopping(restore(rec, event, now, policy), now, policy)
