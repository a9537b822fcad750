"""Reckon how many instances the waiting requests need: the law of pools.

Pure. `docs/scaling.md` explains the law and compares it with others.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from ollama_proxy.core.pool_facts import Demand, InstanceFacts, Phase, PoolFacts

_BOOTS_OF_PATIENCE = 2.0


@dataclass(slots=True)
class Tally:
    """Sorts and counts the instances of a pool.

    - ``resting``, ``starting``, ``ready``: instances of ours; ``occupied`` also counts
      those that drain or leave.
    - ``ready_slots``: of all ready instances, external servers among them, without
      those that other pools have taken.
    - ``is_unlimited``: some ready instance has no limit of slots.
    """

    resting: list[InstanceFacts] = field(default_factory=list)
    starting: list[InstanceFacts] = field(default_factory=list)
    ready: list[InstanceFacts] = field(default_factory=list)
    occupied: int = 0
    ready_slots: int = 0
    is_unlimited: bool = False
    has_external: bool = False
    is_external_ready: bool = False

    @property
    def running(self) -> int:
        """Return how many instances of ours are ready or starting."""
        return len(self.ready) + len(self.starting)


@dataclass(frozen=True, slots=True)
class Reckoning:
    """Holds the figures behind a plan.

    - ``running``: our instances that are ready or starting; ``starting``: those that
      are starting; ``ready``: those that are ready. ``occupied``: also those that drain
      or leave.
    - ``undone_s``: slot-seconds of work that would be left for an instance started now;
      negative if the others do it all.
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
    undone_s: float
    wanted_before_limits: int
    is_guard: bool
    held_s: float


def count(instances: Iterable[InstanceFacts]) -> Tally:
    """Return the instances of a pool, sorted and counted.

    An external server that is not ready is no capacity: it may stay away. Nor is one
    whose slots other pools have taken: they need not give them back.
    """
    tally = Tally()
    for one in instances:
        phase = one.phase
        if one.is_external:
            tally.has_external = True
            tally.is_external_ready = tally.is_external_ready or one.has_capacity
        elif phase is Phase.AT_REST:
            tally.resting.append(one)
        else:
            tally.occupied += 1
            if phase is Phase.STARTING:
                tally.starting.append(one)
            elif phase is Phase.READY:
                tally.ready.append(one)
        if phase is Phase.READY:
            tally.ready_slots += max(0, one.slots - one.elsewhere)
            tally.is_unlimited = tally.is_unlimited or one.slots == 0
    return tally


def reckon(facts: PoolFacts, tally: Tally) -> Reckoning:
    """Return the figures of the law for a pool."""
    demand, waiting = facts.demand, facts.waiting
    undone_s = _undone_s(facts, tally)
    is_guard = (
        waiting.waking > 0
        and not tally.starting
        and waiting.oldest_s > _BOOTS_OF_PATIENCE * demand.boot_s
    )
    if waiting.waking:
        wanted = tally.running + _more(facts, tally, undone_s, is_guard=is_guard)
    else:
        wanted = min(tally.running, _enough(demand, tally))
    return Reckoning(
        running=tally.running,
        starting=len(tally.starting),
        ready=len(tally.ready),
        occupied=tally.occupied,
        undone_s=undone_s,
        wanted_before_limits=wanted,
        is_guard=is_guard,
        held_s=_held_s(facts, tally),
    )


def span_s(demand: Demand) -> float:
    """Return the time in which new instances should do what is left.

    One boot time, or the time that a request takes if that is longer, for none ends
    sooner.
    """
    return max(demand.boot_s, demand.service_s)


def _undone_s(facts: PoolFacts, tally: Tally) -> float:
    """Return the slot-seconds of work that are left for an instance started now.

    Waiting requests and arrivals until it is ready, minus what ready instances can do
    until then, and starting ones once they are ready; and minus what all of these can
    do on top of the arrivals in the span after that: an instance for that part would be
    ready just before it is idle. Minus infinity if the number of slots has no limit.
    """
    if tally.is_unlimited or any(one.slots == 0 for one in tally.starting):
        return -math.inf
    demand = facts.demand
    work_s = facts.waiting.waking * demand.service_s
    work_s += (demand.load - tally.ready_slots) * demand.boot_s
    slots = tally.ready_slots
    for one in tally.starting:
        work_s -= one.slots * max(0.0, demand.boot_s - one.eta_s)
        slots += one.slots
    return work_s - max(0.0, slots - demand.load) * span_s(demand)


def _more(facts: PoolFacts, tally: Tally, undone_s: float, *, is_guard: bool) -> int:
    """Return how many more instances the waiting requests need.

    The first one comes at once; with it, those that clear a crowd. Requests that fit
    into the slots of starting instances need no other: those are ready sooner.
    """
    demand, waiting = facts.demand, facts.waiting
    is_first = tally.running == 0 and not tally.is_external_ready
    least = 1 if is_first or is_guard else 0
    if demand.slots == 0:
        return least
    if is_first:
        undone_s = waiting.waking * demand.service_s
    if undone_s <= 0.0:
        return least
    more = math.floor(
        undone_s / (demand.slots * span_s(demand)) + facts.policy.impatience
    )
    unplaced = waiting.waking - sum(one.slots for one in tally.starting)
    return max(least, min(more, math.ceil(unplaced / demand.slots)))


def _enough(demand: Demand, tally: Tally) -> int:
    """Return how many instances carry what is in flight and what arrives.

    At least one, whose own idle time-out ends it.
    """
    if demand.slots == 0:
        return 1
    in_flight = sum(one.in_flight for one in tally.ready)
    return max(1, math.ceil(max(float(in_flight), demand.load) / demand.slots))


def _held_s(facts: PoolFacts, tally: Tally) -> float:
    """Return how much longer the oldest request must wait before it may start one.

    Only if the pool has an external server, which may be busy or away for a moment.
    """
    if not tally.has_external:
        return 0.0
    return max(0.0, facts.policy.spill_after_s - facts.waiting.oldest_s)
