"""The table of the lifecycle, row by row, and its promises under any script."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings

from ollama_proxy.base.errors import IllegalTransition
from ollama_proxy.core.lifecycle import transitions
from ollama_proxy.core.lifecycle.commands import Start, Stop, Watch
from ollama_proxy.core.lifecycle.deadlines import backoff_s, next_deadline
from ollama_proxy.core.lifecycle.events import (
    Accepted,
    Event,
    Failed,
    Gone,
    LeaseGranted,
    Lost,
    Progressed,
    Ready,
    Released,
    Restored,
    StopFailed,
    StopRequested,
    Tick,
    Used,
    Wake,
)
from ollama_proxy.core.lifecycle.record import (
    Fault,
    LaunchId,
    Policy,
    Progress,
    Record,
    Stage,
    State,
)
from ollama_proxy.core.lifecycle.transitions import step
from tests.core.lifecycle.scripts import Script, play, scripts_of

ONE, TWO = LaunchId("one"), LaunchId("two")
POLICY = Policy(idle_timeout_s=300, start_timeout_s=600, drain_timeout_s=60)
OOM = Fault("load", "out of memory")


def make_record(state: State, **fields: object) -> Record:
    launch_id = None if state in {State.COLD, State.COOLDOWN} else ONE
    accepted = launch_id is not None
    base = Record(state=state, since=1000.0, launch_id=launch_id, accepted=accepted)
    return replace(base, last_used=1000.0, progress_at=1000.0, **fields)  # type: ignore[arg-type]  # any field


def after(record: Record, *events: Event, now: float = 1000.0) -> Record:
    for event in events:
        record = step(record, event, now=now, policy=POLICY).record
    return record


def test_a_wake_launches_and_asks_the_cloud() -> None:
    new = step(Record(), Wake(ONE, "m"), now=5.0, policy=POLICY)

    assert new.record.state is State.STARTING
    assert new.record.model == "m"
    assert new.command == Start(ONE)


def test_the_second_wake_joins_the_first() -> None:
    record = after(Record(), Wake(ONE), Wake(TWO))

    assert record.launch_id == ONE


def test_an_accepted_launch_is_followed_and_never_started_again() -> None:
    new = step(after(Record(), Wake(ONE)), Accepted(ONE), now=6.0, policy=POLICY)

    assert new.command == Watch(ONE)


def test_a_ready_instance_is_idle_from_the_end_of_its_last_lease() -> None:
    busy = after(make_record(State.READY), LeaseGranted(ONE), now=1000.0)
    long_after = after(busy, Tick(), now=9000.0)
    released = after(long_after, Released(ONE, used=True), now=9000.0)

    assert long_after.state is State.READY
    assert after(released, Tick(), now=9299.0).state is State.READY
    assert after(released, Tick(), now=9300.0).state is State.STOPPING


def test_a_request_that_was_no_use_leaves_the_idle_clock_as_it_was() -> None:
    ready = make_record(State.READY)
    failed = after(
        after(ready, LeaseGranted(ONE), now=1200.0), Released(ONE), now=1250.0
    )

    assert failed == ready
    assert next_deadline(failed, POLICY) == 1300.0


def test_requests_that_are_no_use_hold_the_instance_only_while_they_run() -> None:
    busy = after(
        make_record(State.READY), LeaseGranted(ONE), LeaseGranted(ONE), now=1299.0
    )
    one_left = after(busy, Tick(), Released(ONE), Tick(), now=2000.0)

    assert one_left.state is State.READY
    assert after(one_left, Released(ONE), now=2000.0).state is State.STOPPING


def test_an_end_that_was_use_counts_beside_one_that_was_none() -> None:
    busy = after(
        make_record(State.READY), LeaseGranted(ONE), LeaseGranted(ONE), now=1100.0
    )
    one_left = after(busy, Released(ONE, used=True), now=1200.0)

    assert after(one_left, Released(ONE), now=1250.0).last_used == 1200.0


def test_use_counts_when_it_happens_however_its_request_ends() -> None:
    busy = after(make_record(State.READY), LeaseGranted(ONE), now=1100.0)
    used = after(busy, Used(ONE), now=1200.0)

    assert (used.last_used, used.leases) == (1200.0, 1)
    assert after(used, Released(ONE), now=1499.0).state is State.READY
    assert after(used, Released(ONE), now=1500.0).state is State.STOPPING


@pytest.mark.parametrize("state", [State.DRAINING, State.STOPPING])
def test_use_keeps_nothing_that_is_going(state: State) -> None:
    going = make_record(state, leases=1)

    assert after(going, Used(ONE), now=1200.0) == going


def test_a_wish_is_no_use_of_a_ready_instance() -> None:
    ready = make_record(State.READY)

    assert after(ready, Wake(TWO, forced=True), now=1299.0) == ready


def test_a_wish_for_an_instance_that_is_adopted_is_not_in_vain() -> None:
    adopted = after(make_record(State.READY), Restored(), now=1290.0)
    wished = after(adopted, Wake(TWO), now=1295.0)
    ready = after(wished, Ready(ONE), Tick(), now=1310.0)

    assert (ready.state, ready.last_used) == (State.READY, 1295.0)


def test_an_instance_in_use_drains_when_its_life_is_over() -> None:
    policy = replace(POLICY, max_lifetime_s=1000.0)
    woken = step(Record(), Wake(ONE), now=500.0, policy=policy).record
    used = after(woken, Accepted(ONE), Ready(ONE), LeaseGranted(ONE), now=1400.0)
    before = step(used, Tick(), now=1499.0, policy=policy).record
    over = step(used, Tick(), now=1500.0, policy=policy).record

    assert next_deadline(used, policy) == 1500.0
    assert before.state is State.READY
    assert over.state is State.DRAINING


def test_a_restart_of_the_proxy_does_not_prolong_an_instances_life() -> None:
    policy = replace(POLICY, max_lifetime_s=1000.0)
    ready = make_record(State.READY, launched_at=500.0)
    adopted = step(ready, Restored(), now=1400.0, policy=policy).record
    over = step(adopted, Tick(), now=1500.0, policy=policy).record

    assert adopted.state is State.STARTING
    assert over.state is State.STOPPING


def test_a_wake_while_stopping_changes_nothing_until_it_is_cold() -> None:
    stopping = make_record(State.STOPPING)

    assert after(stopping, Wake(TWO)) == stopping
    assert after(stopping, Gone(ONE)).state is State.COLD


def test_a_stop_while_starting_stops_without_counting_a_failure() -> None:
    record = after(make_record(State.STARTING), StopRequested(), Gone(ONE))

    assert (record.state, record.failures) == (State.COLD, 0)


def test_a_stop_drains_the_leases_first() -> None:
    draining = after(
        make_record(State.READY), LeaseGranted(ONE), LeaseGranted(ONE), StopRequested()
    )

    assert draining.state is State.DRAINING
    assert after(draining, Released(ONE)).state is State.DRAINING
    assert after(draining, Released(ONE), Released(ONE)).state is State.STOPPING


def test_draining_ends_at_its_timeout() -> None:
    draining = after(make_record(State.READY), LeaseGranted(ONE), StopRequested())

    assert after(draining, Tick(), now=1059.0).state is State.DRAINING
    assert after(draining, Tick(), now=1060.0).state is State.STOPPING


def test_an_instance_lost_after_long_service_is_no_failed_launch() -> None:
    record = after(make_record(State.READY), Lost(ONE, "silent"), now=2000.0)

    assert after(record, Gone(ONE)).state is State.COLD


def test_an_instance_that_dies_when_ready_counts_as_a_failed_launch() -> None:
    lost = after(make_record(State.READY, failures=1), Lost(ONE, "silent"), now=1010.0)
    record = after(lost, Gone(ONE), now=1020.0)

    assert (record.state, record.failures) == (State.COOLDOWN, 2)


def test_the_start_timeout_counts_from_the_last_progress() -> None:
    moving = after(
        make_record(State.STARTING),
        Progressed(ONE, Progress(Stage.PULLING, 0.5)),
        now=1500.0,
    )

    assert after(moving, Tick(), now=2099.0).state is State.STARTING
    given_up = after(moving, Tick(), now=2100.0)
    assert given_up.state is State.STOPPING
    assert given_up.fault is not None
    assert "no progress for 600 s at stage 'pulling'" in given_up.fault.message


def test_progress_that_does_not_move_is_no_progress() -> None:
    progress = Progressed(ONE, Progress(Stage.PULLING, 0.5))
    moving = after(make_record(State.STARTING), progress, now=1100.0)

    assert after(moving, progress, now=1500.0).progress_at == 1100.0


def test_the_back_off_doubles_up_to_its_bound() -> None:
    waits = [backoff_s(n, POLICY) for n in (1, 2, 3, 4, 50)]

    assert waits == [10.0, 20.0, 40.0, 80.0, 900.0]


def test_a_failed_launch_is_stopped_before_it_cools_down() -> None:
    failed = step(
        make_record(State.STARTING), Failed(ONE, OOM), now=1000.0, policy=POLICY
    )

    assert failed.command == Stop(ONE)
    assert after(failed.record, Gone(ONE)).state is State.COOLDOWN


def test_nothing_is_tried_before_the_back_off_is_over() -> None:
    cooling = make_record(State.COOLDOWN, failures=1, retry_at=1010.0)

    assert after(cooling, Wake(TWO), now=1009.0).state is State.COOLDOWN
    assert after(cooling, Wake(TWO), now=1010.0).state is State.STARTING


def test_below_the_limit_the_cool_down_ends_by_itself() -> None:
    cooling = make_record(State.COOLDOWN, failures=2, retry_at=1010.0)

    assert after(cooling, Tick(), now=1010.0).state is State.COLD


def test_at_the_limit_only_a_request_or_a_person_launches_again() -> None:
    cooling = make_record(State.COOLDOWN, failures=3, retry_at=1010.0)

    assert after(cooling, Tick(), now=9999.0).state is State.COOLDOWN
    assert after(cooling, Wake(TWO), now=9999.0).state is State.STARTING
    assert after(cooling, Wake(TWO, forced=True), now=1001.0).state is State.STARTING


def test_a_final_fault_is_at_the_limit_at_once() -> None:
    record = after(
        make_record(State.STARTING),
        Failed(ONE, Fault("credentials", "key expired", final=True)),
        Gone(ONE),
    )

    assert record.failures == POLICY.failure_limit


def test_failures_are_forgiven_once_an_instance_has_been_stable() -> None:
    ready = make_record(State.READY, failures=2)

    assert after(ready, Tick(), now=1059.0).failures == 2
    assert after(ready, Tick(), now=1060.0).failures == 0


def test_a_failed_stop_is_told_and_asked_again() -> None:
    new = step(
        make_record(State.STOPPING),
        StopFailed(ONE, "denied"),
        now=1000.0,
        policy=POLICY,
    )

    assert new.record.stop_error == "denied"
    assert new.command == Stop(ONE)


def test_a_restored_instance_proves_itself_before_it_serves() -> None:
    adopted = step(
        make_record(State.READY, leases=3), Restored(), now=1100.0, policy=POLICY
    )

    assert adopted.record.state is State.STARTING
    assert adopted.record.leases == 0
    assert adopted.command == Watch(ONE)


def test_adoption_does_not_reset_the_idle_clock() -> None:
    adopted = after(make_record(State.READY), Restored(), Ready(ONE), now=1200.0)

    assert adopted.last_used == 1000.0
    assert after(adopted, Tick(), now=1300.0).state is State.STOPPING


def test_an_adopted_instance_that_is_gone_is_no_failed_launch() -> None:
    record = after(make_record(State.READY), Restored(), Gone(ONE), Gone(ONE))

    assert (record.state, record.failures) == (State.COLD, 0)


def test_news_of_another_launch_changes_nothing() -> None:
    record = make_record(State.READY)

    assert after(record, Gone(TWO)) is record


@pytest.mark.parametrize("state", [State.COLD, State.STARTING, State.STOPPING])
def test_an_illegal_pair_is_an_error_naming_both(state: State) -> None:
    with pytest.raises(IllegalTransition, match=f"'LeaseGranted'.*'{state.value}'"):
        after(make_record(state), LeaseGranted(ONE))


def test_a_lease_of_another_launch_is_an_error() -> None:
    with pytest.raises(IllegalTransition, match="of launch 'two'"):
        after(make_record(State.READY), LeaseGranted(TWO))


def test_a_lease_of_an_earlier_launch_does_not_keep_the_next_one() -> None:
    lost = after(
        make_record(State.READY), LeaseGranted(ONE), Lost(ONE, "silent"), Gone(ONE)
    )
    record = after(lost, Wake(TWO, forced=True))

    assert record.leases == 0
    assert after(record, Released(ONE)) == record


def test_a_release_without_a_lease_is_an_error() -> None:
    with pytest.raises(IllegalTransition, match="without a lease"):
        after(make_record(State.READY), Released(ONE))


def test_the_next_deadline_is_when_a_tick_changes_something() -> None:
    records = [
        make_record(State.STARTING),
        make_record(State.READY),
        make_record(State.READY, failures=1),
        make_record(State.READY, failures=1, leases=1),
        make_record(State.DRAINING, leases=1),
        make_record(State.COOLDOWN, failures=1, retry_at=1010.0),
    ]

    for record in records:
        deadline = next_deadline(record, POLICY)
        assert deadline is not None
        assert after(record, Tick(), now=deadline - 0.001) == record
        assert after(record, Tick(), now=deadline) != record


EVENTS: tuple[Event, ...] = (
    Wake(ONE),
    Wake(TWO),
    Wake(TWO, forced=True),
    Accepted(ONE),
    Progressed(ONE, Progress(Stage.BOOTING)),
    Ready(ONE),
    Ready(TWO),
    Failed(ONE, OOM),
    Lost(ONE, "silent"),
    Gone(ONE),
    Gone(TWO),
    StopFailed(ONE, "denied"),
    LeaseGranted(ONE),
    LeaseGranted(ONE, yields=True),
    LeaseGranted(TWO),
    Used(ONE),
    Used(TWO),
    Released(ONE),
    Released(ONE, used=True),
    Released(ONE, yields=True),
    Released(TWO),
    StopRequested(),
    Restored(),
    Tick(),
)
SCRIPTS = scripts_of(EVENTS)


def records(script: Script) -> list[Record]:
    return [record for _, record in play(script, POLICY)]


@settings(max_examples=300, deadline=None)
@given(SCRIPTS)
def test_what_may_exist_always_has_a_launch_on_record(script: Script) -> None:
    for record in records(script):
        may_exist = record.state not in {State.COLD, State.COOLDOWN}
        assert may_exist == (record.launch_id is not None)


@settings(max_examples=300, deadline=None)
@given(SCRIPTS)
def test_a_launch_ends_only_on_the_clouds_clear_word(script: Script) -> None:
    for before, record in itertools.pairwise(records(script)):
        if before.launch_id is not None and record.launch_id != before.launch_id:
            assert before.state is State.STOPPING
            assert record.state in {State.COLD, State.COOLDOWN}


@settings(max_examples=300, deadline=None)
@given(SCRIPTS)
def test_when_the_world_goes_quiet_nothing_is_left(script: Script) -> None:
    record, now = records(script)[-1], 1e6
    for _ in range(20):
        now += 3600.0
        while record.leases:
            assert record.launch_id is not None
            done = Released(record.launch_id, yields=record.yielding > 0)
            record = step(record, done, now=now, policy=POLICY).record
        match step(record, Tick(), now=now, policy=POLICY).command:
            case Stop(launch_id):
                event: Event = Gone(launch_id)
            case _:
                event = Tick()
        record = step(record, event, now=now, policy=POLICY).record

    assert record.launch_id is None


@settings(max_examples=200, deadline=None)
@given(SCRIPTS)
def test_leases_are_never_negative_and_only_ready_grants_them(script: Script) -> None:
    for before, record in itertools.pairwise(records(script)):
        assert record.leases >= 0
        if record.leases > before.leases:
            assert before.state is State.READY


@settings(max_examples=200, deadline=None)
@given(SCRIPTS)
def test_only_use_and_the_beginning_put_off_the_end_of_a_ready_instance(
    script: Script,
) -> None:
    record, now = Record(), 0.0
    for event, pause_s in script:
        now += pause_s
        try:
            new = step(record, event, now=now, policy=POLICY).record
        except IllegalTransition:
            continue
        is_use = isinstance(event, Used) or getattr(event, "used", False)
        if record.state is new.state is State.READY and not is_use:
            assert new.last_used == record.last_used
        record = new


def test_every_state_knows_wake_tick_stop_and_restore() -> None:
    for state, kind in itertools.product(State, (Wake, Tick, StopRequested, Restored)):
        assert (state, kind) in transitions._TABLE
