"""Which instance answers: the one with the first token soonest."""

import time
import timeit
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_proxy.core.instance_choice import Candidate, choose, cost_s

NOW = 1_000.0
IDLE = Candidate("idle", slots=4, loaded=("m",), load_s=30.0)


def chosen(*candidates: Candidate, model: str | None = "m", **how: int) -> str:
    picked = choose(
        candidates,
        model,
        NOW,
        is_packing=bool(how.get("is_packing")),
        cursor=how.get("cursor", 0),
    )
    assert picked is not None
    return picked.name


def test_nobody_ready_is_no_choice() -> None:
    assert choose([], "m", NOW) is None


def test_one_that_has_the_model_in_memory_goes_first() -> None:
    other = replace(IDLE, name="other", loaded=("x",))
    busier = replace(IDLE, name="busier", in_flight=3)

    assert chosen(other, busier) == "busier"


def test_in_memory_is_not_free() -> None:
    """Its queue may take longer than to load the model elsewhere."""
    full = replace(IDLE, name="full", slots=1, in_flight=3, service_s=20.0)
    other = replace(IDLE, name="other", loaded=(), load_s=30.0)

    assert chosen(full, other) == "other"
    assert chosen(full, replace(other, load_s=90.0)) == "full"


def test_what_is_in_memory_may_be_unknown_and_then_costs_nothing() -> None:
    assert cost_s(replace(IDLE, loaded=None), "m", NOW) == 0.0
    assert cost_s(replace(IDLE, loaded=()), "m", NOW) == 30.0
    assert cost_s(replace(IDLE, loaded=()), None, NOW) == 0.0


def test_one_that_fails_fast_attracts_nothing_and_heals_with_time() -> None:
    failing = replace(IDLE, name="failing")
    failing.failed(NOW - 1.0)
    busy = replace(IDLE, name="busy", in_flight=2)

    assert chosen(failing, busy) == "busy"
    assert cost_s(failing, "m", NOW - 1.0) == pytest.approx(5.0)
    assert cost_s(failing, "m", NOW + 59.0) == pytest.approx(1.84, abs=0.01)
    assert int(10.0 * cost_s(failing, "m", NOW + 300.0)) == 0


def test_failures_add_up() -> None:
    failing = replace(IDLE)
    for _ in range(3):
        failing.failed(NOW)

    assert cost_s(failing, "m", NOW) == pytest.approx(15.0)


def test_requests_spread_to_where_fewest_are_in_flight() -> None:
    one = replace(IDLE, name="one", in_flight=2)
    two = replace(IDLE, name="two", in_flight=1)

    assert chosen(one, two) == "two"


def test_requests_are_packed_where_most_are_in_flight_but_not_on_a_full_one() -> None:
    full = replace(IDLE, name="full", in_flight=4)
    fuller = replace(IDLE, name="fuller", in_flight=3)
    empty = replace(IDLE, name="empty")

    assert chosen(full, empty, fuller, is_packing=1) == "fuller"
    at_once = [replace(one, service_s=0.0) for one in (full, fuller)]
    assert chosen(*at_once, is_packing=1) == "fuller"


def test_equals_take_turns() -> None:
    names = [
        chosen(IDLE, replace(IDLE, name="other"), cursor=turn) for turn in range(4)
    ]

    assert names == ["idle", "other", "idle", "other"]


def test_the_own_box_goes_first_while_it_has_a_free_slot() -> None:
    box = replace(IDLE, name="box", is_external=True, in_flight=3, loaded=())
    cloud = replace(IDLE, name="cloud")

    assert chosen(cloud, box) == "box"
    assert chosen(cloud, replace(box, in_flight=4)) == "cloud"


def test_without_a_limit_of_slots_there_is_no_queue() -> None:
    assert cost_s(Candidate("any", slots=0, in_flight=900), "m", NOW) == 0.0


CANDIDATES = st.lists(
    st.builds(
        Candidate,
        name=st.text("abc", min_size=1),
        slots=st.integers(0, 4),
        in_flight=st.integers(0, 6),
        loaded=st.sampled_from([None, (), ("m",)]),
        load_s=st.floats(0.0, 100.0),
        failures=st.floats(0.0, 5.0),
        failed_at=st.floats(0.0, NOW),
        is_external=st.booleans(),
    ),
    min_size=1,
    max_size=8,
)


@given(CANDIDATES, st.booleans(), st.integers(0, 99))
def test_no_full_one_is_chosen_over_a_free_one_that_costs_nothing(
    candidates: list[Candidate], is_packing: bool, cursor: int
) -> None:
    picked = choose(candidates, "m", NOW, is_packing=is_packing, cursor=cursor)

    assert picked in candidates
    free = [one for one in candidates if not one.slots or one.in_flight < one.slots]
    if any(cost_s(one, "m", NOW) == 0.0 for one in free):
        assert picked in free


def test_a_choice_of_fifty_takes_microseconds() -> None:
    """About 10 on the machine of its author; the bound is for a loaded one."""
    many = [replace(IDLE, in_flight=number % 4) for number in range(50)]

    took_s = timeit.repeat(
        lambda: choose(many, "m", NOW), number=100, repeat=20, timer=time.process_time
    )

    assert min(took_s) / 100 < 100e-6
