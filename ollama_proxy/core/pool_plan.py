"""Decide how many instances a pool starts and which of them it drains.

Pure: the pool's owner carries a plan out, and asks for a new one at every event and
every second. Only waiting requests buy an instance. `docs/scaling.md` explains the law
and compares it with others.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ollama_proxy.core.pool_facts import Demand, InstanceFacts, Phase, PoolFacts


@dataclass(frozen=True, slots=True)
class Reckoning:
    """Holds the figures behind a plan.

    - ``running``: our instances that are ready or starting; ``starting``: those that
      are starting. ``occupied``: also those that drain or leave.
    - ``free_slots``: None if some instance has no limit.
    - ``undone_s``: slot-seconds of work that remain when an instance started now would
      be ready.
    - ``wanted_before_limits``: how many instances the work needs, without the pool's
      limits.
    - ``is_guard``: the oldest request has waited for longer than two boots, so one more
      instance is wanted.
    - ``held_s``: how much longer a request must wait for an external server before it
      may start an instance.
    """

    running: int
    starting: int
    ready: int
    occupied: int
    free_slots: int | None
    undone_s: float
    wanted_before_limits: int
    is_guard: bool
    held_s: float


@dataclass(frozen=True, slots=True)
class Plan:
    """Says what to do now, by the names of instances.

    - ``start``: to start, in this order.
    - ``drain``: get no new request, and stop once they have none.
    - ``kept``: exempt from the idle time-out.
    - ``grant``: how many of the oldest waiting requests get a free slot.
    - ``wanted``: how many instances of ours the pool should have.
    - ``is_packing``: more are ready than that, so requests go to the fullest one with a
      free slot.
    """

    start: tuple[str, ...]
    drain: tuple[str, ...]
    kept: tuple[str, ...]
    grant: int
    wanted: int
    is_packing: bool
    reckoning: Reckoning


def plan(facts: PoolFacts, now: float) -> Plan:
    """Return what the pool does at the moment ``now``."""
    own = [one for one in facts.instances if not one.is_external]
    ready = [one for one in own if one.phase is Phase.READY]
    figures = reckon(facts, own)
    wanted = _within_limits(facts, figures)
    kept = _kept(ready, facts.policy.min_instances)
    return Plan(
        start=_to_start(facts, own, figures, wanted),
        drain=_to_drain(facts, ready, kept, now),
        kept=kept,
        grant=_grant(facts, figures.free_slots),
        wanted=wanted,
        is_packing=len(ready) > wanted,
        reckoning=figures,
    )


def reckon(facts: PoolFacts, own: Sequence[InstanceFacts]) -> Reckoning:
    """Return the figures of the law; ``own`` are the instances that are ours."""
    starting = sum(one.phase is Phase.STARTING for one in own)
    ready = sum(one.phase is Phase.READY for one in own)
    running = starting + ready
    undone_s = undone_work_s(facts)
    held_s = _held_s(facts)
    is_guard = (
        starting == 0
        and facts.waiting.waking > 0
        and facts.waiting.oldest_s > 2.0 * facts.demand.boot_s
    )
    return Reckoning(
        running=running,
        starting=starting,
        ready=ready,
        occupied=sum(one.phase is not Phase.AT_REST for one in own),
        free_slots=_free_slots(facts.instances),
        undone_s=undone_s,
        wanted_before_limits=_wanted(facts, own, running, undone_s, is_guard=is_guard),
        is_guard=is_guard,
        held_s=held_s,
    )


def undone_work_s(facts: PoolFacts) -> float:
    """Return the slot-seconds of work left when an instance started now would be ready.

    Waiting requests and arrivals until then, minus what ready instances can do until
    then, and starting ones once they are ready. Minus infinity if one of these has no
    limit of slots.
    """
    demand = facts.demand
    work_s = facts.waiting.waking * demand.service_s + demand.load * demand.boot_s
    for one in facts.instances:
        if one.phase is Phase.READY:
            helps_s = demand.boot_s
        elif one.phase is Phase.STARTING:
            helps_s = max(0.0, demand.boot_s - one.eta_s)
        else:
            continue
        if one.slots == 0:
            return -math.inf
        work_s -= one.slots * helps_s
    return work_s


def _wanted(
    facts: PoolFacts,
    own: Sequence[InstanceFacts],
    running: int,
    undone_s: float,
    *,
    is_guard: bool,
) -> int:
    """Return how many instances of ours the work needs, whatever the limits are."""
    if facts.waiting.waking == 0:
        return min(running, _needed_for(facts.demand, own))
    is_first = running == 0 and not any(
        one.is_external and one.phase is Phase.READY for one in facts.instances
    )
    if is_first:
        undone_s = facts.waiting.waking * facts.demand.service_s
    more = _instances_for(undone_s, facts)
    return running + max(more, 1 if is_first or is_guard else 0)


def _instances_for(work_s: float, facts: PoolFacts) -> int:
    """Return how many instances do the work within one boot time of being ready.

    Or within the duration of one request, if that is longer: no request ends sooner.
    """
    demand = facts.demand
    if demand.slots == 0 or work_s <= 0.0:
        return 0
    share = work_s / (demand.slots * max(demand.boot_s, demand.service_s))
    return math.floor(share + facts.policy.impatience)


def _needed_for(demand: Demand, own: Sequence[InstanceFacts]) -> int:
    """Return how many instances are needed for requests in flight and arrivals.

    At least one, which its own idle time-out ends.
    """
    in_flight = sum(one.in_flight for one in own if one.phase is Phase.READY)
    if demand.slots == 0:
        return 1
    return max(1, math.ceil(max(float(in_flight), demand.load) / demand.slots))


def _within_limits(facts: PoolFacts, figures: Reckoning) -> int:
    """Return how many instances the pool should have by its limits."""
    policy = facts.policy
    wanted = max(figures.wanted_before_limits, policy.min_instances)
    return min(wanted, policy.max_instances)


def _to_start(
    facts: PoolFacts, own: Sequence[InstanceFacts], figures: Reckoning, wanted: int
) -> tuple[str, ...]:
    """Return the slots to start, the first at rest first."""
    policy = facts.policy
    if facts.obstacle:
        return ()
    if figures.held_s > 0.0:
        wanted = min(wanted, policy.min_instances)
    count = min(
        wanted - figures.running,
        policy.max_instances - figures.occupied,
        policy.max_starting - figures.starting,
    )
    if count <= 0:
        return ()
    resting = [one.name for one in own if one.phase is Phase.AT_REST and one.may_start]
    return tuple(resting[:count])


def _held_s(facts: PoolFacts) -> float:
    """Return how much longer the oldest request waits before it may start one.

    Only if the pool has an external server, which may be busy or unreachable only for a
    moment.
    """
    if not any(one.is_external for one in facts.instances):
        return 0.0
    return max(0.0, facts.policy.spill_after_s - facts.waiting.oldest_s)


def _kept(ready: Sequence[InstanceFacts], count: int) -> tuple[str, ...]:
    """Return the ready instances that stay without work: those used last."""
    if count <= 0:
        return ()
    newest = sorted(ready, key=lambda one: (one.in_flight == 0, -one.idle_since))
    return tuple(one.name for one in newest[:count])


def _to_drain(
    facts: PoolFacts, ready: Sequence[InstanceFacts], kept: Sequence[str], now: float
) -> tuple[str, ...]:
    """Return the extra instances that have been without work long enough.

    All but one are extra; all of them, while an external server is ready. Nothing is
    drained while a request waits that it could serve.
    """
    if facts.waiting.waking > 0:
        return ()
    has_external = any(
        one.is_external and one.phase is Phase.READY for one in facts.instances
    )
    extra = len(ready) - (0 if has_external else 1)
    keep_s = facts.policy.keep_extra_s
    if keep_s is None:
        keep_s = facts.demand.boot_s
    idle = [
        one
        for one in ready
        if one.in_flight == 0
        and now - one.idle_since >= keep_s
        and one.name not in kept
    ]
    idle.sort(key=lambda one: one.idle_since)
    return tuple(one.name for one in idle[: max(extra, 0)])


def _free_slots(instances: Sequence[InstanceFacts]) -> int | None:
    """Return how many requests the ready instances take now; None: any number."""
    free = 0
    for one in instances:
        if one.phase is Phase.READY:
            if one.slots == 0:
                return None
            free += max(0, one.slots - one.in_flight)
    return free


def _grant(facts: PoolFacts, free_slots: int | None) -> int:
    """Return how many of the waiting requests may have a slot now."""
    waiting = facts.waiting.waking + facts.waiting.others
    return waiting if free_slots is None else min(waiting, free_slots)
