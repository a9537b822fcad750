"""The state of a node: one function of facts, at every border."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_proxy.core.nodes.node_state import (
    NodeState,
    StateFacts,
    StateLimits,
    is_removed,
    next_change,
    node_state,
    takes_work,
)

NOW = 1_000_000.0


def aged(age_s: float, failures: int = 0, failed_s_ago: float = 0.0) -> StateFacts:
    return StateFacts(NOW - age_s, failures, NOW - failed_s_ago)


@pytest.mark.parametrize(
    ("facts", "state", "works"),
    [
        (aged(0), NodeState.ONLINE, True),
        (aged(89), NodeState.ONLINE, True),
        (aged(90), NodeState.ONLINE, True),
        (aged(91), NodeState.OFFLINE, False),
        (aged(179), NodeState.OFFLINE, False),
        (aged(1, failures=2), NodeState.ONLINE, True),
        (aged(1, failures=3), NodeState.DEGRADED, False),
        (aged(1, failures=3, failed_s_ago=29.9), NodeState.DEGRADED, False),
        (aged(1, failures=3, failed_s_ago=30), NodeState.DEGRADED, True),
        (aged(1, failures=400, failed_s_ago=31), NodeState.DEGRADED, True),
        (aged(91, failures=3, failed_s_ago=31), NodeState.OFFLINE, False),
    ],
)
def test_the_state_follows_from_the_facts(
    facts: StateFacts, state: NodeState, works: bool
) -> None:
    assert node_state(facts, NOW) is state
    assert takes_work(facts, NOW) is works
    assert not takes_work(replace(facts, is_draining=True), NOW)
    assert node_state(replace(facts, is_draining=True), NOW) is state


@pytest.mark.parametrize(("age_s", "removed"), [(91, False), (180, False), (181, True)])
def test_a_node_is_forgotten_after_its_second_limit(
    age_s: float, removed: bool
) -> None:
    assert is_removed(aged(age_s), NOW) is removed


def test_the_limits_are_those_of_the_settings() -> None:
    limits = StateLimits(ttl_s=10, forget_s=20, max_failures=1, retry_s=5)

    assert node_state(aged(11), NOW, limits) is NodeState.OFFLINE
    assert node_state(aged(1, failures=1), NOW, limits) is NodeState.DEGRADED
    assert takes_work(aged(1, failures=1, failed_s_ago=5), NOW, limits)
    assert is_removed(aged(21), NOW, limits)


def test_a_node_is_not_forgotten_before_it_is_offline() -> None:
    limits = StateLimits(ttl_s=300, forget_s=180)

    assert not is_removed(aged(299), NOW, limits)


@given(
    st.builds(
        StateFacts,
        st.floats(0, 2 * NOW),
        st.integers(0, 10),
        st.floats(0, 2 * NOW),
        st.booleans(),
    ),
    st.floats(0, 200),
)
def test_silence_only_makes_it_worse(facts: StateFacts, more_s: float) -> None:
    if node_state(facts, NOW) is NodeState.OFFLINE:
        assert node_state(facts, NOW + more_s) is NodeState.OFFLINE
        assert not takes_work(facts, NOW)
    if is_removed(facts, NOW):
        assert node_state(facts, NOW) is NodeState.OFFLINE


@given(
    st.builds(
        StateFacts,
        st.integers(int(NOW) - 200, int(NOW)),
        st.integers(0, 5),
        st.integers(int(NOW) - 60, int(NOW)),
    ),
    st.floats(0, 0.999),
)
def test_until_its_next_change_a_node_stays_as_it_is(
    facts: StateFacts, part: float
) -> None:
    due = next_change(facts, NOW)
    later = NOW + part * (due - NOW)

    assert due >= NOW
    assert node_state(facts, later) is node_state(facts, NOW)
    assert takes_work(facts, later) is takes_work(facts, NOW)
    if due > NOW and not is_removed(facts, NOW):
        assert not is_removed(facts, later)
