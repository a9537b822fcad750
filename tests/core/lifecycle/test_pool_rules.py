"""What concerns a whole pool, on the record of one slot: row by row."""

from dataclasses import replace

import pytest

from ollama_proxy.core.lifecycle.commands import Stop
from ollama_proxy.core.lifecycle.deadlines import no_room_pause_s
from ollama_proxy.core.lifecycle.events import (
    Abandoned,
    Accepted,
    Event,
    Failed,
    Forgiven,
    Gone,
    LimitReached,
    Restored,
    Served,
    StopRequested,
    Surplus,
    Unanswered,
    Wake,
)
from ollama_proxy.core.lifecycle.launch_limit import limit_lockout, unserved
from ollama_proxy.core.lifecycle.record import (
    Fault,
    LaunchId,
    Lockout,
    Policy,
    Record,
    State,
)
from ollama_proxy.core.lifecycle.transitions import step

ONE, OTHER = LaunchId("one"), LaunchId("other")
NOW = 1000.0
POLICY = Policy(launch_limit=5, gives_way=True)
ALONE = Policy(launch_limit=5)
NO_ROOM = Fault("capacity", "no GPU is free in at-vie-2")
LIMIT = Lockout("launch_limit", "5 launches within an hour served no request")
FINAL = Lockout("final", "it would fail again", 90_000.0)


def after(
    record: Record, *events: Event, now: float = NOW, policy: Policy = POLICY
) -> Record:
    for event in events:
        record = step(record, event, now=now, policy=policy).record
    return record


def running(state: State) -> Record:
    return Record(state, 900.0, ONE, accepted=True, paid_launches=(900.0,))


def test_a_launch_without_room_leaves_beside_the_next_until_it_is_gone() -> None:
    leaving = after(Record(), Wake(ONE), Failed(ONE, NO_ROOM))
    gone = after(leaving, Gone(ONE), now=NOW + 5.0)

    assert (leaving.state, leaving.leaving) == (State.STOPPING, True)
    assert step(leaving, Forgiven(), now=NOW, policy=POLICY).command == Stop(ONE)
    assert not gone.leaving
    assert leaving.paid_launches == ()


@pytest.mark.parametrize("reason", ["driver", "spec", "start_timeout", "transient"])
def test_no_other_fault_lets_a_launch_leave_beside_the_next(reason: str) -> None:
    assert not after(Record(), Wake(ONE), Failed(ONE, Fault(reason, "no"))).leaving


def test_what_was_accepted_and_has_no_room_after_all_is_waited_for() -> None:
    ended = after(Record(), Wake(ONE), Accepted(ONE), Failed(ONE, NO_ROOM))

    assert (ended.state, ended.leaving) == (State.STOPPING, False)


def test_an_instance_that_served_does_not_leave_beside_the_next() -> None:
    ended = after(running(State.READY), Gone(ONE, "preempted", "capacity"))

    assert (ended.state, ended.leaving) == (State.STOPPING, False)


def test_no_room_is_remembered_from_the_word_on_a_minute_doubling_to_15() -> None:
    assert [no_room_pause_s(n) for n in (1, 2, 3, 4, 5, 99)] == [
        60.0,
        120.0,
        240.0,
        480.0,
        900.0,
        900.0,
    ]
    leaving = after(Record(), Wake(ONE), Failed(ONE, NO_ROOM))
    assert after(leaving, Gone(ONE), now=NOW + 5.0).retry_at == NOW + 60.0
    assert after(leaving, Gone(ONE), now=NOW + 500.0).retry_at == NOW + 500.0
    alone = after(leaving, Gone(ONE), now=NOW + 5.0, policy=ALONE)
    assert alone.retry_at == NOW + 5.0 + ALONE.backoff_s


def test_a_refused_key_is_final_where_there_are_other_offers() -> None:
    refused = Failed(ONE, Fault("credentials", "the key has expired"))
    off = after(Record(), Wake(ONE), refused)
    alone = after(Record(), Wake(ONE), refused, policy=ALONE)

    assert off.lockout is not None
    assert off.lockout.until == NOW + POLICY.final_s
    assert alone.lockout is None


def test_the_fault_of_another_slot_counts_as_the_offers_first() -> None:
    driver = Fault("driver", "nvidia-smi failed")
    first = after(Record(), Wake(ONE), Failed(ONE, driver))
    second = after(Record(), Wake(ONE, fault=driver), Failed(ONE, driver))

    assert first.lockout is None
    assert second.lockout is not None


def test_a_request_served_elsewhere_forgets_launches_and_the_lockout_for_them() -> None:
    cold = Record(State.COOLDOWN, paid_launches=(900.0, 950.0), lockout=LIMIT)
    served = after(cold, Served())

    assert (served.state, served.lockout) == (State.COLD, None)
    assert served.paid_launches == ()
    idle = after(Record(), LimitReached(LIMIT))  # it launched nothing itself
    assert idle.lockout == LIMIT
    assert after(idle, Served()) == replace(idle, state=State.COLD, lockout=None)
    for state in set(State) - {State.COOLDOWN, State.COLD}:
        there = after(running(state), Served())
        assert (there.state, there.paid_launches) == (state, ())


def test_a_request_served_elsewhere_does_not_mend_an_offer_that_is_off() -> None:
    off = Record(State.COOLDOWN, paid_launches=(900.0,), lockout=FINAL)

    assert after(off, Served()).lockout == FINAL
    assert after(off, Served()).state is State.COOLDOWN


def test_a_limit_that_is_reached_locks_what_is_at_rest_and_stops_nothing() -> None:
    event = LimitReached(LIMIT)
    locked = after(Record(), event)

    assert (locked.state, locked.lockout) == (State.COOLDOWN, LIMIT)
    assert after(locked, Wake(OTHER)) is locked
    assert after(running(State.STOPPING), event).lockout == LIMIT
    for state in (State.STARTING, State.READY, State.DRAINING):
        assert after(running(state), event) == running(state)


def test_the_limit_of_several_offers_ends_after_a_day_and_that_of_one_never() -> None:
    assert limit_lockout(5, NOW, POLICY).until == NOW + 86_400.0
    assert limit_lockout(5, NOW, ALONE).until is None


def test_the_launches_of_all_slots_count_if_they_are_of_the_last_hour() -> None:
    records = [
        Record(paid_launches=(5000.0,)),
        Record(paid_launches=(5000.0, 8000.0)),
    ]

    assert unserved(records, 8100.0) == 3
    assert unserved(records, 9000.0) == 1


def test_a_person_ends_every_pause_and_lockout() -> None:
    off = Record(State.COOLDOWN, failures=3, retry_at=5000.0, lockout=FINAL)
    cold = after(off, Forgiven())

    assert (cold.state, cold.failures, cold.lockout) == (State.COLD, 0, None)
    assert cold.retry_at == 0.0
    failed = after(Record(), Wake(ONE), Failed(ONE, NO_ROOM), Forgiven())
    assert failed.leaving
    assert after(failed, Gone(ONE)).state is State.COLD
    assert after(running(State.READY), Forgiven()) == running(State.READY)


def test_surplus_drains_what_is_ready_and_nothing_else() -> None:
    assert after(running(State.READY), Surplus()).state is State.STOPPING
    for state in set(State) - {State.READY}:
        assert after(running(state), Surplus()) == running(state)


@pytest.mark.parametrize("event", [None, StopRequested()])
def test_an_abandoned_launch_frees_its_slot_and_counts_as_paid(
    event: Event | None,
) -> None:
    unknown = after(Record(), Wake(ONE), *([event] if event else []))
    freed = after(unknown, Abandoned(ONE))

    assert (freed.state, freed.launch_id) == (State.COLD, None)
    assert freed.paid_launches == (NOW,)


def test_what_serves_and_what_is_another_launch_is_not_abandoned() -> None:
    for state in (State.READY, State.DRAINING):
        assert after(running(state), Abandoned(ONE)) == running(state)
    unknown = after(Record(), Wake(ONE))
    assert after(unknown, Abandoned(OTHER)) is unknown


@pytest.mark.parametrize("reason", ["transient", "credentials", "program", "spec"])
@pytest.mark.parametrize("event", [Unanswered(ONE), Restored()])
def test_a_refusal_says_nothing_of_a_call_before_it_that_may_have_acted(
    event: Event, reason: str
) -> None:
    failed = Failed(ONE, Fault(reason, "no"))
    refused = after(Record(), Wake(ONE), failed)
    doubtful = after(Record(), Wake(ONE), event, failed)
    again = after(doubtful, Gone(ONE), Forgiven(), Wake(ONE), failed)

    assert refused.paid_launches == ()
    assert doubtful.paid_launches == (NOW,)
    assert again.paid_launches == (NOW,)  # the next launch begins without doubt


@pytest.mark.parametrize("event", [Unanswered(ONE), Restored()])
def test_no_room_is_an_answer_about_the_calls_before_it_as_well(event: Event) -> None:
    refused = after(Record(), Wake(ONE), event, Failed(ONE, NO_ROOM))

    assert (refused.paid_launches, refused.leaving) == ((), True)


def test_a_launch_whose_answers_were_lost_is_counted_once() -> None:
    unanswered = after(Record(), Wake(ONE), Unanswered(ONE), Unanswered(ONE))
    accepted = after(unanswered, Accepted(ONE), now=NOW + 5.0)
    failed = after(accepted, Failed(ONE, Fault("instance", "broken")), now=NOW + 9.0)

    assert failed.paid_launches == (NOW + 5.0,)
