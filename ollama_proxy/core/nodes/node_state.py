"""Compute the state of a node from facts; nothing else in the hub sets it.

A beat proves that the agent lives, a request that its Ollama works: they are separate
facts, so a beat never heals a node that fails its requests.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class NodeState(StrEnum):
    """Names the states of a node; one that was removed has none."""

    ONLINE = "online"
    OFFLINE = "offline"
    DEGRADED = "degraded"


@dataclass(frozen=True, slots=True)
class StateLimits:
    """Holds the limits of states, in seconds and failures; see the settings."""

    ttl_s: float = 90.0
    forget_s: float = 180.0
    max_failures: int = 3
    retry_s: float = 30.0


@dataclass(frozen=True, slots=True)
class StateFacts:
    """Holds what the state of a node follows from; moments are those of our clock.

    ``beaten_at``: when the last beat arrived. ``failures``: how many requests in a row
    failed there, the last one at ``failed_at``. ``is_draining``: by the agent's word or
    by order.
    """

    beaten_at: float
    failures: int = 0
    failed_at: float = 0.0
    is_draining: bool = False


STANDARD_LIMITS: Final = StateLimits()


def node_state(
    facts: StateFacts, now: float, limits: StateLimits = STANDARD_LIMITS
) -> NodeState:
    """Return the state of a node at a moment."""
    if now - facts.beaten_at > limits.ttl_s:
        return NodeState.OFFLINE
    if facts.failures >= limits.max_failures:
        return NodeState.DEGRADED
    return NodeState.ONLINE


def is_removed(
    facts: StateFacts, now: float, limits: StateLimits = STANDARD_LIMITS
) -> bool:
    """Tell whether a node has been silent for so long that it is forgotten."""
    return now - facts.beaten_at > max(limits.forget_s, limits.ttl_s)


def takes_work(
    facts: StateFacts, now: float, limits: StateLimits = STANDARD_LIMITS
) -> bool:
    """Tell whether a node may get a request.

    A degraded one gets a try once its last failure is ``retry_s`` old; whether the try
    fails or succeeds decides on the next.
    """
    if facts.is_draining:
        return False
    state = node_state(facts, now, limits)
    if state is NodeState.DEGRADED:
        return now - facts.failed_at >= limits.retry_s
    return state is NodeState.ONLINE


def next_change(
    facts: StateFacts, now: float, limits: StateLimits = STANDARD_LIMITS
) -> float:
    """Return when a node may change by itself next: until then it is as it is now."""
    longest_s = max(limits.forget_s, limits.ttl_s)
    moments = [facts.beaten_at + limits.ttl_s, facts.beaten_at + longest_s]
    if facts.failures >= limits.max_failures:
        moments.append(facts.failed_at + limits.retry_s)
    later = [moment for moment in moments if moment >= now]
    return min(later, default=now)
