"""Tell in words what a plan of a pool does, and why."""

from ollama_proxy.core.pool_facts import InstanceFacts, Phase, PoolFacts
from ollama_proxy.core.pool_plan import Plan, keep_extra_s
from ollama_proxy.core.scaling_law import span_s


def explain(facts: PoolFacts, plan: Plan, now: float) -> tuple[str, ...]:
    """Return sentences on what waits, what runs, what is reckoned and decided."""
    return (
        _waiting(facts),
        _instances(facts, now),
        _demand(facts),
        *_need(facts, plan),
        *_starts(facts, plan),
        *_drains(facts, plan),
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s"


def _waiting(facts: PoolFacts) -> str:
    waiting = facts.waiting
    others = ""
    if waiting.others:
        others = f" {waiting.others} more wait that may start none."
    if waiting.waking == 0:
        return f"Nothing waits that may start an instance.{others}"
    verb = "waits" if waiting.waking == 1 else "wait"
    return (
        f"{_count(waiting.waking, 'request')} {verb} for a slot, the oldest for"
        f" {_seconds(waiting.oldest_s)}.{others}"
    )


def _instances(facts: PoolFacts, now: float) -> str:
    running = [one for one in facts.instances if one.phase is not Phase.AT_REST]
    if not running:
        return "No instance runs."
    return "; ".join(_instance(one, now) for one in running) + "."


def _instance(one: InstanceFacts, now: float) -> str:
    owner = " (not ours to start or stop)" if one.is_external else ""
    about = f"{one.name}{owner} is {one.phase.value}"
    if one.phase is Phase.STARTING:
        return f"{about}, in about {_seconds(one.eta_s)}"
    if one.phase is not Phase.READY:
        return about
    taken = one.in_flight + one.elsewhere
    slots = f"{taken} of {one.slots} slots are taken"
    if one.elsewhere:
        slots += f", {one.elsewhere} of them by other pools"
    if one.slots == 0:
        slots = f"{_count(one.in_flight, 'request')} in flight, no limit"
    idle = f", idle for {_seconds(now - one.idle_since)}" if not taken else ""
    return f"{about}: {slots}{idle}"


def _assumed(is_measured: bool) -> str:  # noqa: FBT001 - one fact, its word
    return "" if is_measured else " (assumed until measured)"


def _demand(facts: PoolFacts) -> str:
    demand = facts.demand
    slots = f"{_count(demand.slots, 'slot')}" if demand.slots else "no limit of slots"
    return (
        f"Arrivals keep {demand.load:.1f} slots busy on average; a request takes"
        f" {_seconds(demand.service_s)}{_assumed(demand.is_service_measured)}. A new"
        f" instance takes {_seconds(demand.boot_s)} to be ready"
        f"{_assumed(demand.is_boot_measured)} and has {slots}."
    )


def _need(facts: PoolFacts, plan: Plan) -> list[str]:
    figures = plan.reckoning
    told: list[str] = []
    if facts.waiting.waking and facts.demand.slots and figures.running:
        told.append(
            f"An instance started now would have"
            f" {max(0.0, figures.undone_s):.0f} slot-seconds of work left to do; it"
            f" would do {facts.demand.slots * span_s(facts.demand):.0f} in"
            f" {_seconds(span_s(facts.demand))}."
        )
    if figures.is_guard:
        told.append(
            "The oldest request has waited for more than two boot times and nothing"
            " starts, so one more is wanted."
        )
    told.append(_wanted(facts, plan))
    return told


def _wanted(facts: PoolFacts, plan: Plan) -> str:
    policy, figures = facts.policy, plan.reckoning
    needed = figures.wanted_before_limits
    reason = ""
    if plan.wanted < needed:
        reason = f", for max_instances is {policy.max_instances}"
    elif plan.wanted > needed:
        reason = f", for min_instances is {policy.min_instances}"
    verb = "is" if needed == 1 else "are"
    if reason:
        return (
            f"{_count(needed, 'instance')} {verb} needed; {plan.wanted} wanted{reason}."
        )
    verb = "is" if plan.wanted == 1 else "are"
    return f"{_count(plan.wanted, 'instance')} of ours {verb} wanted."


def _starts(facts: PoolFacts, plan: Plan) -> list[str]:
    if plan.start:
        return [f"Start {', '.join(plan.start)}."]
    if plan.wanted <= plan.reckoning.running:
        return []
    return [f"Start none: {_why_none(facts, plan)}."]


def _why_none(facts: PoolFacts, plan: Plan) -> str:
    """Return why an instance that is wanted does not start."""
    figures, policy = plan.reckoning, facts.policy
    if facts.obstacle:
        return facts.obstacle
    if figures.held_s > 0.0:
        return (
            f"spill_after leaves the server that is there"
            f" {_seconds(figures.held_s)} more of {_seconds(policy.spill_after_s)}"
        )
    if figures.starting >= policy.max_starting:
        return f"{figures.starting} start already, by max_starting no more may"
    if figures.occupied >= policy.max_instances:
        return f"by max_instances, one of {figures.occupied} has to be gone first"
    return "each slot at rest pauses after a failed launch"


def _drains(facts: PoolFacts, plan: Plan) -> list[str]:
    told: list[str] = []
    if plan.drain:
        keep_s = keep_extra_s(facts)
        if facts.policy.keep_extra_s is not None:
            source = "keep_extra"
        else:
            is_boot = keep_s == facts.demand.boot_s
            source = "one boot time" if is_boot else "the idle time-out"
        told.append(
            f"Stop {', '.join(plan.drain)}: without work for {source},"
            f" {_seconds(keep_s)}, and not the last."
        )
    if plan.kept:
        told.append(f"Kept without work by min_instances: {', '.join(plan.kept)}.")
    return told
