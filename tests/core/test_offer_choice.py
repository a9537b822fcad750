"""Which offer is asked next, by what is known of each: case by case."""

from dataclasses import replace

import pytest

from ollama_proxy.core.lifecycle.record import (
    Fault,
    LaunchId,
    Lockout,
    Policy,
    Record,
    State,
)
from ollama_proxy.core.offer_choice import (
    NoRoom,
    OfferFacts,
    gives_way,
    is_limit_reached,
    may_start_more,
    no_room,
    obstacle,
    obstacles,
)

NOW = 10_000.0
POLICY = Policy(launch_limit=5, gives_way=True)
ALONE = Policy(launch_limit=5)
NO_GPU = Fault("capacity", "no GPU is free")
DRIVER = Fault("driver", "nvidia-smi failed")
NO_MODEL = Fault("pull", "no such model: 'x'", final=True)
FINAL = Lockout("final", "it would fail again", NOW + 500.0)


def offer(*records: Record, policy: Policy = POLICY, **known: NoRoom) -> OfferFacts:
    return OfferFacts("one", records or (Record(),), policy, known.get("no_room"))


def pausing(fault: Fault, until: float, failures: int = 1) -> Record:
    return Record(State.COOLDOWN, retry_at=until, fault=fault, failures=failures)


def test_an_offer_of_which_nothing_is_known_may_be_asked() -> None:
    assert obstacle(offer(), NOW) is None
    assert obstacle(offer(Record(State.READY), Record()), NOW) is None


@pytest.mark.parametrize(
    ("facts", "until", "is_off", "ends_waits"),
    [
        (offer(no_room=NoRoom(1, NOW + 60.0, "no GPU")), NOW + 60.0, False, False),
        (offer(pausing(NO_GPU, NOW + 60.0, 9)), NOW + 60.0, False, False),
        (offer(pausing(DRIVER, NOW + 10.0)), NOW + 10.0, False, False),
        (offer(Record(), pausing(DRIVER, NOW + 10.0)), NOW + 10.0, False, False),
        (offer(pausing(DRIVER, NOW + 10.0, 3)), NOW + 10.0, False, True),
        (offer(pausing(NO_GPU, NOW + 9.0, 3), policy=ALONE), NOW + 9.0, False, True),
        (offer(replace(pausing(DRIVER, 0.0), lockout=FINAL)), FINAL.until, True, True),
    ],
)
def test_what_keeps_an_offer_from_being_asked_and_for_how_long(
    facts: OfferFacts, until: float, is_off: bool, ends_waits: bool
) -> None:
    found = obstacle(facts, NOW)

    assert found is not None
    assert (found.until, found.is_off, found.ends_waits) == (until, is_off, ends_waits)


@pytest.mark.parametrize(
    "facts",
    [
        offer(no_room=NoRoom(1, NOW, "no GPU")),
        offer(pausing(DRIVER, NOW)),
        offer(Record(State.COOLDOWN, lockout=replace(FINAL, until=NOW))),
    ],
)
def test_each_obstacle_is_over_at_its_end(facts: OfferFacts) -> None:
    assert obstacle(facts, NOW) is None


def test_while_a_failed_launch_is_being_stopped_nobody_knows_for_how_long() -> None:
    stopping = Record(State.STOPPING, launch_id=LaunchId("l"), failed=True)
    failed = obstacle(offer(replace(stopping, fault=DRIVER)), NOW)
    leaving = replace(stopping, fault=NO_GPU, leaving=True)

    assert failed is not None
    assert failed.until is None
    assert obstacle(offer(leaving), NOW) is None  # what is remembered counts
    assert obstacle(offer(leaving, policy=ALONE), NOW) is not None


def test_a_missing_model_is_in_the_way_of_every_offer() -> None:
    vain = Record(State.COOLDOWN, fault=NO_MODEL, lockout=FINAL)
    found = obstacles([offer(), offer(vain), offer()], NOW)
    later = obstacles([offer(), offer(vain), offer()], NOW + 501.0)

    assert [one and one.message for one in found] == [NO_MODEL.message] * 3
    assert later == [None] * 3


def test_no_room_doubles_only_if_it_comes_again_soon() -> None:
    first = no_room(None, "no GPU", NOW)
    at_once = no_room(first, "no GPU", NOW + 1.0)
    second = no_room(first, "no GPU", NOW + 61.0)
    late = no_room(second, "no GPU", NOW + 5000.0)

    assert (first.refusals, first.until) == (1, NOW + 60.0)
    assert at_once is first
    assert (second.refusals, second.until) == (2, NOW + 61.0 + 120.0)
    assert late.refusals == 1


def test_three_tries_or_half_a_minute() -> None:
    tried = [gives_way(2, 29.0), gives_way(3, 1.0), gives_way(1, 30.0)]

    assert tried == [False, True, True]


def test_launches_under_way_count_as_in_vain_until_their_cloud_has_answered() -> None:
    bought = Record(paid_launches=(NOW - 1.0,) * 3)
    asking = Record(State.STARTING, launch_id=LaunchId("l"))
    accepted = replace(asking, accepted=True, paid_launches=(NOW,))

    assert may_start_more([offer(bought)], 0, NOW)
    assert may_start_more([offer(bought), offer(asking)], 0, NOW)
    assert not may_start_more([offer(bought, asking), offer(asking)], 0, NOW)
    assert not may_start_more([offer(bought), offer(asking)], 1, NOW)
    assert may_start_more([offer(bought), offer(accepted)], 0, NOW)
    assert not may_start_more([offer(bought), offer(accepted, bought)], 0, NOW)
    assert may_start_more([offer(bought, asking, asking, policy=Policy())], 9, NOW)


def test_the_limit_counts_over_all_offers_that_cost_something() -> None:
    bought = Record(paid_launches=(NOW - 1.0,) * 3)
    free = offer(policy=Policy())

    assert is_limit_reached([offer(bought), offer(bought)], NOW)
    assert not is_limit_reached([offer(bought), free], NOW)
    assert not is_limit_reached([free], NOW)
