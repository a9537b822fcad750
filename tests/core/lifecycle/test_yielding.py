"""Requests that may not wake an instance don't keep one either."""

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given, settings

from ollama_proxy.base.errors import IllegalTransition
from ollama_proxy.core.lifecycle.commands import Stop
from ollama_proxy.core.lifecycle.deadlines import next_deadline
from ollama_proxy.core.lifecycle.events import (
    Event,
    Gone,
    LeaseGranted,
    Ready,
    Released,
    Restored,
    StopRequested,
    Surplus,
    Tick,
    Used,
    Wake,
)
from ollama_proxy.core.lifecycle.record import LaunchId, Policy, Record, State
from ollama_proxy.core.lifecycle.transitions import step
from tests.core.lifecycle.scripts import Script, play, scripts_of

ONE = LaunchId("one")
POLICY = Policy(idle_timeout_s=300, start_timeout_s=600, drain_timeout_s=60)
READY = Record(State.READY, 1000.0, ONE, accepted=True, last_used=1000.0)
GRANTED, ENDED = LeaseGranted(ONE, yields=True), Released(ONE, yields=True)


def after(
    record: Record, *events: Event, now: float = 1000.0, policy: Policy = POLICY
) -> Record:
    for event in events:
        record = step(record, event, now=now, policy=policy).record
    return record


def test_a_request_that_yields_does_not_hold_off_the_idle_time_out() -> None:
    busy = after(READY, GRANTED, now=1100.0)

    assert next_deadline(busy, POLICY) == 1300.0
    assert after(busy, Tick(), now=1299.0).state is State.READY
    assert after(busy, Tick(), now=1300.0).state is State.DRAINING


def test_it_gets_the_time_to_end_that_a_stop_gives() -> None:
    draining = after(after(READY, GRANTED), Tick(), now=1300.0)

    assert after(draining, Tick(), now=1359.0).state is State.DRAINING
    assert after(draining, Tick(), now=1360.0).state is State.STOPPING


def test_the_last_that_ends_while_it_drains_ends_the_instance() -> None:
    draining = after(after(READY, GRANTED, GRANTED), Tick(), now=1300.0)
    one_left = after(draining, ENDED, now=1310.0)

    assert one_left.state is State.DRAINING
    assert after(one_left, ENDED, now=1320.0).state is State.STOPPING


def test_one_that_keeps_the_instance_keeps_it_for_those_that_yield() -> None:
    busy = after(READY, GRANTED, LeaseGranted(ONE))
    long_after = after(busy, Tick(), now=9000.0)

    assert long_after.state is State.READY
    assert after(long_after, Released(ONE), now=9000.0).state is State.DRAINING


def test_its_end_does_not_begin_the_idle_time_anew() -> None:
    assert after(READY, GRANTED, ENDED, now=1200.0) == READY


def test_an_instance_that_drains_for_them_has_forgotten_its_failures() -> None:
    busy = after(replace(READY, failures=2), GRANTED)

    assert after(busy, Tick(), now=1300.0).failures == 0


def test_an_instance_that_is_kept_stays_whoever_asks() -> None:
    kept = replace(POLICY, is_kept=True)
    busy = after(READY, GRANTED, policy=kept)

    assert after(busy, Tick(), now=9000.0, policy=kept).state is State.READY


@pytest.mark.parametrize("event", [StopRequested(), Surplus()])
def test_a_stop_gives_them_time_as_it_does_to_others(event: Event) -> None:
    assert after(READY, GRANTED, event).state is State.DRAINING


@pytest.mark.parametrize(
    ("granted", "released"),
    [(GRANTED, Released(ONE)), (LeaseGranted(ONE), ENDED)],
)
def test_a_lease_ends_as_it_was_granted(granted: Event, released: Event) -> None:
    with pytest.raises(IllegalTransition, match="without a lease"):
        after(READY, granted, released)


def test_a_new_process_has_no_lease_of_either_sort() -> None:
    restored = after(READY, GRANTED, LeaseGranted(ONE), Restored())

    assert (restored.leases, restored.yielding) == (0, 0)


EVENTS: tuple[Event, ...] = (
    Wake(ONE),
    Ready(ONE),
    GRANTED,
    ENDED,
    LeaseGranted(ONE),
    Used(ONE),
    Released(ONE),
    Released(ONE, used=True),
    StopRequested(),
    Surplus(),
    Restored(),
    Gone(ONE),
    Tick(),
)
SCRIPTS = scripts_of(EVENTS)


@settings(max_examples=300, deadline=None)
@given(SCRIPTS)
def test_those_that_yield_are_some_of_the_leases(script: Script) -> None:
    for _, record in play(script, POLICY):
        assert 0 <= record.yielding <= record.leases


@settings(max_examples=300, deadline=None)
@given(SCRIPTS)
def test_what_runs_ends_although_requests_that_yield_never_do(script: Script) -> None:
    now, record = play(script, POLICY)[-1]
    while record.keeping:
        record = after(record, Released(ONE), now=now)
    if record.state is State.STARTING:
        record = after(record, Ready(ONE), GRANTED, now=now)
    for _ in range(3):
        deadline = next_deadline(record, POLICY)
        if deadline is None:
            break
        assert deadline <= now + POLICY.idle_timeout_s
        now = max(now, deadline)
        outcome = step(record, Tick(), now=now, policy=POLICY)
        record = outcome.record
        if isinstance(outcome.command, Stop):
            record = after(record, Gone(ONE), now=now)

    assert record.launch_id is None or record.state is State.STOPPING


@settings(max_examples=300, deadline=None)
@given(SCRIPTS)
def test_an_instance_is_ready_only_while_another_request_or_use_keeps_it(
    script: Script,
) -> None:
    for now, record in play(script, POLICY):
        ticked = after(record, Tick(), now=now)
        if ticked.state is State.READY:
            is_recent = now < ticked.last_used + POLICY.idle_timeout_s
            assert ticked.keeping or is_recent


@settings(max_examples=300, deadline=None)
@given(SCRIPTS)
def test_requests_that_yield_are_never_use(script: Script) -> None:
    for now, record in play(script, POLICY):
        for event in (GRANTED, ENDED):
            with contextlib.suppress(IllegalTransition):
                assert after(record, event, now=now).last_used == record.last_used
