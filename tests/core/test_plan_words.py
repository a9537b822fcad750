"""What a plan says of itself."""

from dataclasses import replace

import pytest

from ollama_proxy.core.plan_words import explain
from ollama_proxy.core.pool_facts import (
    Demand,
    InstanceFacts,
    Phase,
    PoolFacts,
    Waiting,
)
from ollama_proxy.core.pool_plan import plan
from ollama_proxy.core.pool_policy import PoolPolicy

NOW = 1_000.0
RESTING = tuple(InstanceFacts(f"default/{index}", Phase.AT_REST) for index in range(3))
FULL = InstanceFacts("default/0", Phase.READY, slots=4, in_flight=4)
IDLE = InstanceFacts("default/1", Phase.READY, slots=4, idle_since=NOW - 400.0)
STARTING = InstanceFacts("default/1", Phase.STARTING, slots=4, eta_s=80.0)
BOX = InstanceFacts("box", Phase.READY, slots=4, in_flight=4, is_external=True)
FACTS = PoolFacts(
    policy=PoolPolicy(max_instances=3),
    instances=RESTING,
    waiting=Waiting(waking=3, oldest_s=12.0),
    demand=Demand(load=2.4, slots=4, is_service_measured=True, is_boot_measured=True),
)


def words(facts: PoolFacts) -> str:
    return " ".join(explain(facts, plan(facts, NOW), NOW))


def test_it_tells_what_waits_what_runs_what_is_reckoned_and_what_it_does() -> None:
    assert words(FACTS) == (
        "3 requests wait for a slot, the oldest for 12 s. No instance runs. Arrivals"
        " keep 2.4 slots busy on average; a request takes 20 s. A new instance takes"
        " 300 s to be ready and has 4 slots. 1 instance of ours is wanted. Start"
        " default/0."
    )


def test_it_tells_which_slots_other_pools_have_taken() -> None:
    shared = replace(BOX, in_flight=1, elsewhere=3)
    told = words(replace(FACTS, instances=(shared, *RESTING)))

    assert "is ready: 4 of 4 slots are taken, 3 of them by other pools." in told


def test_what_is_assumed_is_marked_as_such() -> None:
    told = words(replace(FACTS, demand=Demand(slots=1)))

    assert "a request takes 20 s (assumed until measured)" in told
    assert "takes 300 s to be ready (assumed until measured) and has 1 slot." in told


def test_it_tells_what_each_instance_does() -> None:
    told = words(
        replace(FACTS, instances=(FULL, STARTING, BOX, *RESTING), waiting=Waiting())
    )

    assert "Nothing waits that may start an instance." in told
    assert "default/0 is ready: 4 of 4 slots are taken; " in told
    assert "default/1 is starting, in about 80 s; " in told
    assert "box (not ours to start or stop) is ready: " in told


def test_it_tells_of_an_instance_without_a_limit() -> None:
    told = words(replace(FACTS, instances=(replace(IDLE, slots=0),)))

    assert "default/1 is ready: 0 requests in flight, no limit, idle for 400 s." in told


def test_it_tells_what_would_be_undone() -> None:
    long = Waiting(waking=60, oldest_s=5.0)
    told = words(replace(FACTS, instances=(FULL, *RESTING[1:]), waiting=long))

    assert (
        "An instance started now would have 240 slot-seconds of work left to do; it"
        " would do 1200 in 300 s."
    ) in told
    assert "Start default/1." in told


def test_it_tells_of_the_guard() -> None:
    late = Waiting(waking=1, oldest_s=700.0)
    told = words(replace(FACTS, instances=(FULL, *RESTING[1:]), waiting=late))

    assert "waited for more than two boot times and nothing starts" in told


def test_it_tells_what_waits_and_starts_none() -> None:
    told = words(replace(FACTS, waiting=Waiting(others=2)))

    assert "2 more wait that may start none." in told


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (replace(FACTS, obstacle="every offer is off"), "every offer is off"),
        (
            replace(FACTS, instances=(BOX, *RESTING), waiting=Waiting(60, 4.0)),
            "spill_after leaves the server that is there 6 s more of 10 s",
        ),
        (
            replace(
                FACTS,
                instances=(STARTING, *RESTING),
                policy=PoolPolicy(max_instances=3, max_starting=1),
                waiting=Waiting(400, 4.0),
            ),
            "1 start already, by max_starting no more may",
        ),
        (
            replace(
                FACTS,
                instances=(replace(FULL, phase=Phase.LEAVING), *RESTING),
                policy=PoolPolicy(max_instances=1),
            ),
            "by max_instances, one of 1 has to be gone first",
        ),
        (
            replace(FACTS, instances=(replace(RESTING[0], may_start=False),)),
            "each slot at rest pauses after a failed launch",
        ),
    ],
    ids=["obstacle", "spill", "starting", "occupied", "paused"],
)
def test_it_tells_why_what_is_wanted_does_not_start(
    facts: PoolFacts, reason: str
) -> None:
    assert f"Start none: {reason}." in words(facts)


def test_it_tells_which_limit_holds() -> None:
    many = words(replace(FACTS, waiting=Waiting(900, 1.0)))
    few = words(
        replace(
            FACTS,
            waiting=Waiting(),
            policy=PoolPolicy(min_instances=2, max_instances=3),
        )
    )

    assert "15 instances are needed; 3 wanted, for max_instances is 3." in many
    assert "0 instances are needed; 2 wanted, for min_instances is 2." in few


def test_it_tells_what_stops_and_what_is_kept() -> None:
    quiet = replace(FACTS, instances=(FULL, IDLE), waiting=Waiting())
    kept = replace(quiet, policy=PoolPolicy(min_instances=1, max_instances=3))

    assert "Stop default/1: without work for one boot time, 300 s, and not" in words(
        quiet
    )
    assert "Kept without work by min_instances: default/0." in words(kept)


def test_it_names_the_idle_time_out_where_one_that_came_back_had_to_stay_for_it() -> (
    None
):
    again = replace(IDLE, idle_since=NOW - 1_900.0, started_at=NOW - 2_000.0)
    box = replace(BOX, in_flight=0)
    flapping = replace(
        FACTS, instances=(box, again), waiting=Waiting(), drained_at=NOW - 2_100.0
    )

    assert "without work for the idle time-out, 1800 s" in words(flapping)
