"""The choice among machines of different speeds, as pure functions."""

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from ollama_proxy.core.instance_choice import Candidate
from ollama_proxy.core.node_choice import (
    choose_of_many,
    is_hot,
    seconds_to_begin,
    take_turn,
)
from ollama_proxy.core.pace import MOST_MODELS, Pace

NAME = "m:latest"


def box(name: str = "box", **facts: Any) -> Candidate:
    """A node with a free slot, the model in memory and 20 s a request."""
    known: dict[str, Any] = {"slots": 1, "loaded": {NAME}, "load_s": 10.0}
    return Candidate(name, **known | facts)


def chosen(candidates: Sequence[Candidate], seed: int = 1, **options: Any) -> str:
    usual: dict[str, Any] = {
        "suits": lambda _one: True,
        "draw": random.Random(seed).random,
    }
    best = choose_of_many(candidates, model=NAME, now=0.0, **usual | options)
    assert best is not None
    return best.name


@pytest.mark.parametrize(
    ("facts", "seconds"),
    [
        ({}, 0.0),
        ({"loaded": None}, 0.0),
        ({"loaded": set()}, 10.0),
        ({"in_flight": 1}, 20.0),
        ({"foreign": 1}, 20.0),
        ({"foreign": 3, "slots": 4}, 0.0),
        ({"foreign": 5, "slots": 4}, 10.0),
        ({"is_hot": True}, 20.0),
        ({"is_hot": True, "service_s": 4.0}, 4.0),
        ({"foreign": 1, "service_s": 4.0}, 4.0),
        ({"foreign": 1, "service_s": 4.0, "pace_s": {NAME: 7.0}}, 7.0),
        ({"foreign": 1, "loaded": set()}, 50.0),
        ({"in_flight": 1, "slots": 2, "loaded": set()}, 30.0),
        ({"failures": 1.0}, 5.0),
    ],
)
def test_the_seconds_until_the_first_token_are_estimated(
    facts: dict[str, Any], seconds: float
) -> None:
    assert seconds_to_begin(box(**facts), NAME, 0.0) == pytest.approx(seconds)


def test_to_load_the_model_on_an_idle_box_is_quicker_than_the_queue_of_another() -> (
    None
):
    busy = box("resident", foreign=1)
    idle = box("idle", loaded=set())

    assert chosen([busy, idle]) == "idle"
    assert chosen([box("resident"), idle]) == "resident"


def test_a_slow_box_with_a_queue_loses_to_a_quick_one() -> None:
    slow = box("slow", foreign=1, service_s=30.0)

    assert chosen([slow, box("quick", foreign=1, service_s=3.0)]) == "quick"


def test_a_box_that_just_failed_waits_behind_the_others() -> None:
    failing = box("failing")
    failing.failed(0.0)

    assert chosen([failing, box("well")]) == "well"


@pytest.mark.parametrize(
    ("cpu", "has_gpu", "busy", "hot"),
    [
        (0.95, False, 0, True),
        (0.9, False, 0, False),
        (0.95, True, 0, False),
        (0.95, False, 1, False),
    ],
)
def test_a_machine_is_hot_that_works_at_something_else_than_models(
    *, cpu: float, has_gpu: bool, busy: int, hot: bool
) -> None:
    assert is_hot(cpu=cpu, has_gpu=has_gpu, busy=busy) is hot


def test_a_node_with_a_free_slot_is_before_an_instance_that_costs_money() -> None:
    cloud = box("cloud", slots=4)
    node = box("node", is_external=True, loaded=set())
    full = box("full", is_external=True, foreign=1)

    assert chosen([cloud, node]) == "node"
    assert chosen([cloud, full]) == "cloud"


def test_among_equals_the_smallest_part_of_the_slots_is_in_use() -> None:
    candidates = [box("half", slots=2, in_flight=1), box("third", slots=3, in_flight=1)]

    assert chosen(candidates) == "third"


def test_instances_of_ours_are_filled_up_while_there_are_more_than_needed() -> None:
    candidates = [box("half", slots=2, in_flight=1), box("idle", slots=2)]

    assert chosen(candidates, is_packing=True) == "half"


def test_only_what_suits_a_request_is_chosen() -> None:
    candidates = [box(f"b{n}") for n in range(20)]

    for seed in range(20):
        name = chosen(candidates, seed, suits=lambda one: one.name == "b7")
        assert name == "b7"
    none = choose_of_many(
        candidates,
        model=NAME,
        now=0.0,
        suits=lambda _one: False,
        draw=random.Random(1).random,
    )
    assert none is None


def test_equals_get_requests_in_proportion_to_their_pace() -> None:
    boxes = [box("a", service_s=1.0), box("b", service_s=2.0), box("c", service_s=4.0)]
    counts: Counter[str] = Counter()
    began = 0.0
    for _ in range(700):
        best = choose_of_many(
            boxes,
            model=NAME,
            now=0.0,
            suits=lambda _one: True,
            draw=random.Random(1).random,
        )
        assert best is not None
        began = take_turn(best, NAME, began)
        counts[best.name] += 1

    assert counts["a"] == pytest.approx(400, rel=0.02)
    assert counts["b"] == pytest.approx(200, rel=0.02)


def test_a_box_that_joins_gets_its_part_and_not_all_that_the_others_had() -> None:
    boxes = [box("a"), box("b")]
    began = 0.0
    for one in boxes * 50:
        began = take_turn(one, NAME, began)
    boxes.append(box("new"))
    counts: Counter[str] = Counter()
    for _ in range(30):
        best = choose_of_many(
            boxes,
            model=NAME,
            now=0.0,
            suits=lambda _one: True,
            draw=random.Random(1).random,
        )
        assert best is not None
        began = take_turn(best, NAME, began)
        counts[best.name] += 1

    assert counts["new"] in {10, 11}


def test_two_of_many_are_drawn_with_the_model_loaded_and_a_slot_free() -> None:
    many = [
        *(box(f"full{n}", foreign=1) for n in range(20)),
        *(box(f"cold{n}", loaded=set()) for n in range(20)),
        *(box(f"warm{n}") for n in range(10)),
    ]
    counts = Counter(chosen(many, seed) for seed in range(2000))

    assert {name[:4] for name in counts} == {"warm"}
    assert len(counts) == 10
    assert max(counts.values()) < 2 * min(counts.values())


def test_of_many_without_the_model_loaded_one_with_a_slot_free_is_chosen() -> None:
    many = [
        *(box(f"full{n}", foreign=1) for n in range(20)),
        *(box(f"cold{n}", loaded=set()) for n in range(10)),
    ]

    assert {chosen(many, seed)[:4] for seed in range(50)} == {"cold"}
    assert chosen(many[:20]).startswith("full")


def test_the_pace_of_a_machine_is_the_mean_of_the_first_then_a_moving_one() -> None:
    pace = Pace()
    assert pace.service_s is None
    for seconds in (1.0, 2.0, 6.0):
        pace.served("m", seconds)
    assert pace.service_s == pytest.approx(3.0)
    for _ in range(200):
        pace.served("n", 9.0)

    assert pace.by_model["m"] == pytest.approx(3.0)
    assert pace.service_s == pytest.approx(9.0, rel=0.01)


def test_the_paces_of_64_models_are_known() -> None:
    pace = Pace()
    for n in range(MOST_MODELS + 5):
        pace.served(f"m{n}", 1.0)

    assert len(pace.by_model) == MOST_MODELS
    assert "m0" not in pace.by_model
    assert f"m{MOST_MODELS + 4}" in pace.by_model
