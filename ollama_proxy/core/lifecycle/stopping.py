"""Write the record of an instance that is being stopped, whatever ended it."""

from dataclasses import replace

from ollama_proxy.core.lifecycle.launch_limit import (
    NO_CAPACITY,
    failures_after,
    judged,
    with_doubtful_launch,
    with_lockout,
)
from ollama_proxy.core.lifecycle.record import Fault, Policy, Record, State


def stopping(
    rec: Record,
    now: float,
    policy: Policy,
    *,
    failures: int | None = None,
    fault: Fault | None = None,
    failed: bool = False,
) -> Record:
    """Return the record of an instance that is stopped from now on.

    ``failed``: its launch counts as a failure, so a pause follows.
    """
    ended = replace(
        with_doubtful_launch(rec, fault, now, policy),
        state=State.STOPPING,
        since=now,
        failed=failed,
        failures=rec.failures if failures is None else failures,
        fault=fault,
    )
    return with_lockout(ended, now, policy)


def retiring(rec: Record, now: float, policy: Policy) -> Record:
    """Return the record of an instance whose idle time is over.

    Requests that did not keep it may still run there: these get the time that requests
    get when an instance is stopped.
    """
    if not rec.leases:
        return stopping(rec, now, policy, failures=0)
    return replace(rec, state=State.DRAINING, since=now, failures=0)


def failing(rec: Record, fault: Fault, now: float, policy: Policy) -> Record:
    """Return the record after a failed launch: its remains are stopped, it counts."""
    fault = judged(fault, rec.fault, policy)
    failures = failures_after(rec, fault, policy)
    ended = stopping(rec, now, policy, failures=failures, fault=fault, failed=True)
    is_refused = fault.reason == NO_CAPACITY and not rec.accepted
    return replace(ended, leaving=is_refused)
