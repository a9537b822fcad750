"""Decide how many instances a pool starts and which of them it drains.

Pure: the pool's owner carries a plan out, and asks for a new one at every event and
every second. Only waiting requests buy an instance. `docs/scaling.md` explains the law
and compares it with others.
"""

from dataclasses import dataclass

from ollama_proxy.core.pool_facts import Phase, PoolFacts
from ollama_proxy.core.scaling_law import Reckoning, Tally, count, reckon


@dataclass(frozen=True, slots=True)
class Plan:
    """Says what to do now, by the names of instances.

    - ``start``: to start, in this order.
    - ``drain``: get no new request, and stop once they have none.
    - ``kept``: exempt from the idle time-out.
    - ``wanted``: how many instances of ours the pool should have.
    - ``is_packing``: more are ready than that, so requests go to the fullest one with a
      free slot.
    """

    start: tuple[str, ...]
    drain: tuple[str, ...]
    kept: tuple[str, ...]
    wanted: int
    is_packing: bool
    reckoning: Reckoning


def plan(facts: PoolFacts, now: float) -> Plan:
    """Return what the pool does at the moment ``now``."""
    tally = count(facts.instances)
    figures = reckon(facts, tally)
    policy = facts.policy
    wanted = max(figures.wanted_before_limits, policy.min_instances)
    wanted = min(wanted, policy.max_instances)
    kept = _kept(tally, policy.min_instances)
    return Plan(
        start=_to_start(facts, tally, figures, wanted),
        drain=_to_drain(facts, tally, kept, now),
        kept=kept,
        wanted=wanted,
        is_packing=len(tally.ready) > wanted,
        reckoning=figures,
    )


def _to_start(
    facts: PoolFacts, tally: Tally, figures: Reckoning, wanted: int
) -> tuple[str, ...]:
    """Return the slots to start, the first at rest first."""
    policy = facts.policy
    if figures.held_s > 0.0:
        wanted = min(wanted, policy.min_instances)
    number = min(
        wanted - tally.running,
        policy.max_instances - tally.occupied,
        policy.max_starting - len(tally.starting),
    )
    if number <= 0 or facts.obstacle:
        return ()
    names = [one.name for one in tally.resting if one.may_start]
    return tuple(names[:number])


def _kept(tally: Tally, number: int) -> tuple[str, ...]:
    """Return the ready instances that stay without work: those used last."""
    if number <= 0:
        return ()
    newest = sorted(tally.ready, key=lambda one: (one.in_flight == 0, -one.idle_since))
    return tuple(one.name for one in newest[:number])


def keep_extra_s(facts: PoolFacts) -> float:
    """Return how long an extra instance stays without work: as set, else one boot.

    Beside an external server, an instance that was started within the idle time-out
    after the last drain stays for the idle time-out: that server is too small for the
    demand, and each further start would cost again.
    """
    policy = facts.policy
    if policy.keep_extra_s is not None:
        return policy.keep_extra_s
    if facts.drained_at is not None and any(x.is_external for x in facts.instances):
        soon = facts.drained_at + policy.idle_timeout_s
        for one in facts.instances:
            if one.phase is Phase.READY and facts.drained_at <= one.started_at < soon:
                return max(policy.idle_timeout_s, facts.demand.boot_s)
    return facts.demand.boot_s


def _to_drain(
    facts: PoolFacts, tally: Tally, kept: tuple[str, ...], now: float
) -> tuple[str, ...]:
    """Return the extra instances that had no work for long enough.

    Extra are all but one; all, while an external server is ready. Nothing is drained
    while a request waits that it could serve.
    """
    extra = len(tally.ready) - (0 if tally.is_external_ready else 1)
    if facts.waiting.waking or extra <= 0:
        return ()
    keep_s = keep_extra_s(facts)
    idle = [
        one
        for one in tally.ready
        if one.in_flight == 0
        and now - one.idle_since >= keep_s
        and one.name not in kept
    ]
    idle.sort(key=lambda one: one.idle_since)
    return tuple(one.name for one in idle[:extra])
