"""How many instances a pool starts, drains and keeps: rules and a table of cases."""

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ollama_proxy.core.pool_facts import (
    Demand,
    InstanceFacts,
    Phase,
    PoolFacts,
    Waiting,
)
from ollama_proxy.core.pool_plan import Plan, plan
from ollama_proxy.core.pool_policy import PoolPolicy

NOW = 10_000.0
MEASURED = Demand(
    service_s=20.0,
    boot_s=300.0,
    slots=4,
    is_service_measured=True,
    is_boot_measured=True,
)
FIVE = PoolPolicy(max_instances=5)


def instances(*phases: Phase, slots: int = 4) -> tuple[InstanceFacts, ...]:
    """Return slots in these phases, the busy ones full."""
    return tuple(
        InstanceFacts(
            f"default/{index}",
            phase,
            slots=slots,
            in_flight=slots if phase is Phase.READY else 0,
            eta_s=300.0 if phase is Phase.STARTING else 0.0,
            idle_since=NOW,
        )
        for index, phase in enumerate(phases)
    )


REST, STARTING, READY = Phase.AT_REST, Phase.STARTING, Phase.READY
ASLEEP = instances(REST, REST, REST, REST, REST)


def idle(name: str, idle_s: float) -> InstanceFacts:
    return InstanceFacts(name, READY, slots=4, idle_since=NOW - idle_s)


def box(phase: Phase = READY, *, in_flight: int = 4) -> InstanceFacts:
    return InstanceFacts("box", phase, slots=4, in_flight=in_flight, is_external=True)


def planned(
    slots: tuple[InstanceFacts, ...],
    waking: int = 0,
    *,
    policy: PoolPolicy = FIVE,
    oldest_s: float = 1.0,
    load: float = 0.0,
    demand: Demand = MEASURED,
    others: int = 0,
    obstacle: str = "",
) -> Plan:
    facts = PoolFacts(
        policy=policy,
        instances=slots,
        waiting=Waiting(waking, oldest_s if waking else 0.0, others),
        demand=replace(demand, load=load),
        obstacle=obstacle,
    )
    return plan(facts, NOW)


def test_the_first_request_starts_one_at_once() -> None:
    assert planned(ASLEEP, 1, oldest_s=0.0).start == ("default/0",)


def test_a_crowd_at_a_cold_pool_starts_as_many_as_may_start_at_once() -> None:
    assert planned(ASLEEP, 400).wanted == 5
    assert planned(ASLEEP, 400).start == ("default/0", "default/1")


def test_as_many_as_one_instance_serves_within_a_boot_start_one() -> None:
    assert planned(ASLEEP, 60).wanted == 1
    assert planned(ASLEEP, 70).wanted == 2


def test_a_long_queue_at_a_full_instance_starts_another() -> None:
    full = instances(READY, REST, REST)

    assert planned(full, 60, load=4.0).start == ("default/1",)


def test_a_short_queue_that_is_gone_before_the_boot_ends_starts_none() -> None:
    full = instances(READY, REST, REST)

    assert planned(full, 8, load=1.0).start == ()


def test_one_that_is_ready_soon_counts_almost_in_full() -> None:
    soon = replace(instances(STARTING)[0], eta_s=10.0)
    slots = (soon, *instances(REST, REST)[1:])

    assert planned(slots, 30, load=2.0).start == ()


def test_one_request_starts_one_instance_and_a_second_later_no_other() -> None:
    """Whatever the boot takes: its slot is on its way."""
    for boot_s, slots in ((5.0, 1), (5.0, 4), (20.0, 1), (20.0, 4), (300.0, 1)):
        demand = replace(MEASURED, boot_s=boot_s, slots=slots)
        started = replace(
            instances(STARTING, slots=slots)[0], eta_s=max(0.0, boot_s - 1.0)
        )
        load = 20.0 / max(120.0, boot_s)

        made = planned((started, *ASLEEP[1:]), 1, demand=demand, load=load)

        assert made.start == (), (boot_s, slots)


def test_requests_that_fit_into_starting_slots_start_no_other() -> None:
    slots = (instances(STARTING)[0], *ASLEEP[1:])
    busy = replace(MEASURED, service_s=600.0)

    assert planned(slots, 4, demand=busy, load=9.0).start == ()
    assert planned(slots, 5, demand=busy, load=9.0).start == ("default/1",)


def test_no_more_start_than_the_waiting_requests_fill() -> None:
    full = instances(READY, REST, REST, REST)

    assert planned(full, 4, load=40.0).wanted == 2
    assert planned(full, 5, load=40.0).wanted == 3


def test_a_starting_instance_counts_from_the_moment_it_is_ready() -> None:
    late = (instances(STARTING)[0], *ASLEEP[1:])
    soon = (replace(late[0], eta_s=0.0), *ASLEEP[1:])

    assert planned(late, 100, load=4.0).wanted == 4
    assert planned(soon, 100, load=4.0).wanted == 3


def test_what_the_others_get_done_in_a_span_after_the_boot_starts_none() -> None:
    full = instances(READY, REST)

    assert planned(full, 60, load=1.0).start == ()
    assert planned(full, 60, load=3.9).start == ("default/1",)


def test_the_span_is_no_shorter_than_a_request() -> None:
    """The slots are free again before another instance has done anything."""
    local = replace(MEASURED, boot_s=5.0)

    assert planned(instances(READY, REST), 2, demand=local, load=2.0).start == ()


def test_load_alone_buys_nothing_while_nothing_waits() -> None:
    assert planned(instances(READY, REST), load=40.0).start == ()


def test_requests_that_only_one_instance_can_serve_start_none() -> None:
    assert planned(ASLEEP, 0, others=50).start == ()


def test_a_request_that_waited_two_boots_with_nothing_starting_starts_one() -> None:
    full = instances(READY, REST)

    assert planned(full, 1, oldest_s=590.0).start == ()
    assert planned(full, 1, oldest_s=610.0).start == ("default/1",)


def test_the_guard_waits_for_what_is_starting() -> None:
    slots = (instances(READY)[0], *instances(REST, STARTING, REST)[1:])

    assert planned(slots, 1, oldest_s=610.0).start == ()


def test_what_drains_or_leaves_still_counts_towards_the_limit() -> None:
    slots = instances(Phase.DRAINING, Phase.LEAVING, REST)

    assert planned(slots, 5, policy=PoolPolicy(max_instances=2)).start == ()
    assert planned(slots, 5, policy=PoolPolicy(max_instances=3)).start == ("default/2",)


def test_a_slot_that_pauses_after_a_failed_launch_is_passed_over() -> None:
    paused = replace(ASLEEP[0], may_start=False)

    assert planned((paused, *ASLEEP[1:]), 1).start == ("default/1",)
    assert planned((paused,), 1).start == ()


def test_nothing_starts_while_no_offer_can() -> None:
    made = planned(ASLEEP, 9, obstacle="every offer is off")

    assert made.start == ()
    assert made.wanted == 1


def test_as_many_as_are_to_stay_start_without_a_request() -> None:
    policy = PoolPolicy(min_instances=3, max_instances=5)

    assert planned(ASLEEP, policy=policy).start == ("default/0", "default/1")


def test_an_extra_instance_leaves_after_one_boot_time_without_work() -> None:
    busy = instances(READY)[0]

    assert planned((busy, idle("default/1", 299.0))).drain == ()
    assert planned((busy, idle("default/1", 300.0))).drain == ("default/1",)


def test_an_extra_instance_leaves_after_the_time_that_is_set() -> None:
    slots = (instances(READY)[0], idle("default/1", 61.0))

    made = planned(slots, policy=PoolPolicy(max_instances=5, keep_extra_s=60.0))

    assert made.drain == ("default/1",)


def test_one_that_works_since_long_ago_is_no_idle_one() -> None:
    long = replace(instances(READY)[0], idle_since=NOW - 900.0)

    assert planned((long, idle("default/1", 10.0))).drain == ()


def test_the_last_is_left_to_its_own_idle_time_out() -> None:
    assert planned((idle("default/0", 9_000.0),)).drain == ()


def test_of_several_idle_ones_the_one_used_last_stays() -> None:
    slots = (idle("default/0", 400.0), idle("default/1", 900.0), idle("default/2", 500))

    assert planned(slots).drain == ("default/1", "default/2")


def test_what_is_to_stay_is_neither_drained_nor_ended_for_idleness() -> None:
    slots = (idle("default/0", 400.0), idle("default/1", 900.0), idle("default/2", 500))

    made = planned(slots, policy=PoolPolicy(min_instances=2, max_instances=5))

    assert made.drain == ("default/1",)
    assert made.kept == ("default/0", "default/2")


def test_nothing_is_drained_while_a_request_waits() -> None:
    slots = (instances(READY)[0], idle("default/1", 900.0))

    assert planned(slots, 1).drain == ()


def test_a_server_that_is_there_anyway_is_capacity_and_no_instance_of_ours() -> None:
    slots = (box(), *ASLEEP)

    assert planned(slots, 8, oldest_s=60.0, load=3.0).start == ()
    made = planned(slots, 8, oldest_s=60.0, load=6.0)
    assert (made.start, made.wanted) == (("default/0",), 1)


def test_the_cloud_starts_only_once_a_request_has_waited_long_enough() -> None:
    slots = (box(), *ASLEEP)

    assert planned(slots, 8, oldest_s=9.0, load=6.0).start == ()
    assert planned(slots, 8, oldest_s=10.0, load=6.0).start == ("default/0",)


def test_an_away_server_is_no_capacity_but_is_given_its_time_to_come_back() -> None:
    slots = (box(REST), *ASLEEP)

    assert planned(slots, 1, oldest_s=9.0).start == ()
    assert planned(slots, 1, oldest_s=10.0).start == ("default/0",)


def test_a_server_that_is_still_looked_for_is_no_capacity() -> None:
    """It may stay away for ever."""
    slots = (box(STARTING, in_flight=0), *ASLEEP)

    assert planned(slots, 1, oldest_s=10.0).start == ("default/0",)
    full = (slots[0], *instances(READY, REST))
    assert planned(full, 60, oldest_s=10.0, load=3.9).start == ("default/1",)


def test_the_only_cloud_instance_leaves_as_an_extra_beside_a_server() -> None:
    extra = idle("default/0", 300.0)

    assert planned((box(in_flight=0), extra)).drain == ("default/0",)
    assert planned((box(REST), extra)).drain == ()


def test_one_that_was_started_again_soon_beside_a_server_stays_for_the_idle_time() -> (
    None
):
    """A load that comes and goes around the server's size starts one, not dozens."""
    again = replace(idle("default/0", 1_799.0), started_at=NOW - 2_000.0)
    facts = PoolFacts(
        FIVE, (box(in_flight=0), again), Waiting(), MEASURED, drained_at=NOW - 2_100.0
    )

    assert plan(facts, NOW).drain == ()
    assert plan(facts, NOW + 1.0).drain == ("default/0",)
    long_ago = replace(facts, drained_at=NOW - 4_000.0)
    assert plan(long_ago, NOW).drain == ("default/0",)
    as_set = replace(facts, policy=replace(FIVE, keep_extra_s=60.0))
    assert plan(as_set, NOW).drain == ("default/0",)
    alone = replace(facts, instances=(again, instances(READY)[0]))
    assert plan(alone, NOW).drain == ("default/0",)


def test_no_limit_of_slots_means_one_instance_for_any_number() -> None:
    unlimited = replace(MEASURED, slots=0)

    made = planned(instances(REST, REST, slots=0), 500, demand=unlimited)
    assert made.start == ("default/0",)
    full = instances(READY, REST, slots=0)
    assert planned(full, 500, demand=unlimited, load=90.0).start == ()


def test_requests_are_packed_as_soon_as_fewer_instances_would_do() -> None:
    busy = replace(instances(READY)[0], in_flight=2)
    slots = (busy, idle("default/1", 10.0))

    assert planned(slots).is_packing
    assert not planned(slots, load=6.0).is_packing
    assert not planned(instances(READY, READY), 9).is_packing


def test_a_boot_of_no_time_divides_by_no_zero() -> None:
    local = replace(MEASURED, boot_s=0.0)

    assert planned(instances(READY, REST), 4, demand=local, load=9.0).wanted == 2


PHASES = st.sampled_from(list(Phase))
INSTANCES = st.builds(
    InstanceFacts,
    name=st.just(""),
    phase=PHASES,
    slots=st.integers(0, 8),
    in_flight=st.integers(0, 9),
    eta_s=st.floats(0.0, 1000.0),
    idle_since=st.floats(0.0, NOW),
    is_external=st.booleans(),
    may_start=st.booleans(),
)
POLICIES = st.builds(
    lambda least, more, starting, keep_s, impatience: PoolPolicy(
        min_instances=least,
        max_instances=max(1, least + more),
        max_starting=starting,
        keep_extra_s=keep_s,
        impatience=impatience,
    ),
    st.integers(0, 3),
    st.integers(0, 5),
    st.integers(1, 4),
    st.none() | st.floats(0.0, 1000.0),
    st.floats(0.5, 0.9),
)
FACTS = st.builds(
    lambda policy, instances, waking, oldest_s, others, demand: PoolFacts(
        policy=policy,
        instances=tuple(
            replace(one, name=f"default/{index}") for index, one in enumerate(instances)
        ),
        waiting=Waiting(waking, oldest_s if waking else 0.0, others),
        demand=demand,
    ),
    POLICIES,
    st.lists(INSTANCES, max_size=10),
    st.just(0) | st.integers(0, 12) | st.integers(0, 500),
    st.floats(0.0, 5000.0),
    st.integers(0, 9),
    st.builds(
        Demand,
        load=st.floats(0.0, 100.0),
        service_s=st.floats(0.0, 600.0),
        boot_s=st.floats(0.0, 1000.0),
        slots=st.integers(0, 8),
    ),
)


def own(facts: PoolFacts, *phases: Phase) -> int:
    return sum(one.phase in phases and not one.is_external for one in facts.instances)


RUNNING = (STARTING, READY, Phase.DRAINING, Phase.LEAVING)


@given(FACTS)
def test_never_more_run_or_start_than_the_policy_allows(facts: PoolFacts) -> None:
    made, policy = plan(facts, NOW), facts.policy

    assert made.wanted <= policy.max_instances
    if made.start:
        running = own(facts, *RUNNING) + len(made.start)
        assert running <= policy.max_instances
        assert own(facts, STARTING) + len(made.start) <= policy.max_starting


@given(FACTS)
def test_only_slots_at_rest_start_and_only_idle_ready_ones_drain(
    facts: PoolFacts,
) -> None:
    made = plan(facts, NOW)
    by_name = {one.name: one for one in facts.instances}

    assert len({*made.start}) == len(made.start)
    for name in made.start:
        assert by_name[name].phase is REST
        assert by_name[name].may_start
        assert not by_name[name].is_external
    for name in made.drain:
        assert by_name[name].phase is READY
        assert by_name[name].in_flight == 0
        assert not by_name[name].is_external
        assert name not in made.kept


@given(FACTS)
def test_nothing_waiting_starts_nothing_but_what_is_to_stay(facts: PoolFacts) -> None:
    quiet = replace(facts, waiting=Waiting(others=facts.waiting.others))

    made = plan(quiet, NOW)

    missing = facts.policy.min_instances - own(facts, STARTING, READY)
    assert len(made.start) <= max(0, missing)


@given(FACTS, st.integers(1, 200))
def test_more_waiting_never_wants_fewer(facts: PoolFacts, more: int) -> None:
    waiting = facts.waiting
    longer = replace(waiting, waking=waiting.waking + more)

    assert plan(facts, NOW).wanted <= plan(replace(facts, waiting=longer), NOW).wanted


@given(FACTS)
def test_one_more_that_starts_never_makes_more_start(facts: PoolFacts) -> None:
    assume(own(facts, STARTING, READY))  # the first is decided by what waits alone
    started = InstanceFacts("more", STARTING, slots=4, eta_s=0.0)
    with_it = replace(facts, instances=(*facts.instances, started))

    assert len(plan(with_it, NOW).start) <= len(plan(facts, NOW).start)


@given(FACTS)
def test_a_drain_leaves_the_minimum_and_one(facts: PoolFacts) -> None:
    made = plan(facts, NOW)

    has_external = any(
        one.is_external and one.phase is READY for one in facts.instances
    )
    if made.drain:
        left = own(facts, READY) - len(made.drain)
        assert left >= max(facts.policy.min_instances, 0 if has_external else 1)


@given(FACTS)
def test_the_same_facts_make_the_same_plan(facts: PoolFacts) -> None:
    assert plan(facts, NOW) == plan(facts, NOW)


@pytest.mark.parametrize("waking", [0, 1, 7, 300])
def test_a_full_pool_starts_none_however_many_wait(waking: int) -> None:
    full = instances(READY, READY)

    made = planned(full, waking, policy=PoolPolicy(max_instances=2), oldest_s=9e9)

    assert made.start == ()
    assert made.wanted <= 2
