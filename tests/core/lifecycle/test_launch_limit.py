"""Launches that fail for a reason that stays, or too often: requests start none."""

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from ollama_proxy.core.lifecycle.deadlines import is_given_up, next_deadline
from ollama_proxy.core.lifecycle.events import (
    Accepted,
    Event,
    Failed,
    Gone,
    LeaseGranted,
    Lost,
    Ready,
    Released,
    Restored,
    StopRequested,
    Tick,
    Used,
    Wake,
)
from ollama_proxy.core.lifecycle.fault_words import error_of, failure_words
from ollama_proxy.core.lifecycle.record import (
    Fault,
    LaunchId,
    Lockout,
    Policy,
    Record,
    State,
)
from ollama_proxy.core.lifecycle.transitions import step
from ollama_proxy.store.sqlite.store import SqliteStore

ONE = LaunchId("one")
DAY_S = 86_400.0
POLICY = Policy(launch_limit=5, fingerprint="now", backoff_s=1.0, backoff_max_s=10.0)


def play(record: Record, *events: Event, now: float, policy: Policy = POLICY) -> Record:
    for event in events:
        record = step(record, event, now=now, policy=policy).record
    return record


def failing(record: Record, fault: Fault, now: float, *, forced: bool = True) -> Record:
    """Return the record after a launch that failed."""
    events = (Wake(ONE, forced=forced), Accepted(ONE), Failed(ONE, fault), Gone(ONE))
    return play(record, *events, now=now)


@pytest.mark.parametrize("reason", ["driver", "disk"])
def test_bad_luck_is_a_verdict_when_it_comes_twice_in_a_row(reason: str) -> None:
    fault = Fault(reason, "again")
    once = failing(Record(), fault, 0.0)
    between = failing(once, Fault("capacity", "no room"), 10.0)
    after_another = failing(between, fault, 20.0)
    twice = failing(after_another, fault, 30.0)

    assert once.lockout is None
    assert after_another.lockout is None
    assert twice.lockout is not None
    assert twice.lockout.until == 30.0 + DAY_S


def test_an_instance_that_served_in_between_breaks_the_row() -> None:
    fault = Fault("disk", "full")
    once = failing(Record(), fault, 0.0)
    woken = play(once, Wake(ONE, forced=True), Accepted(ONE), Ready(ONE), now=10.0)
    over = play(woken, StopRequested(), Gone(ONE), now=20.0)

    assert failing(over, fault, 30.0).lockout is None


def limited(now: float = 0.0) -> Record:
    record = Record()
    for number in range(5):
        fault = Fault("instance", "broken")
        record = failing(record, fault, now + 60.0 * number, forced=number > 2)
    return record


def test_a_lockout_says_why_and_what_to_do() -> None:
    said = error_of(limited(), 300.0)

    assert said == (
        "broken; 5 launches within an hour served no request, so requests start no"
        " instance until somebody runs `ollama-proxy wake` or changes its settings"
    )
    final = failing(Record(), Fault("spec", "no image", final=True), 0.0)
    assert failure_words(final, 3600.0) == (
        "the instance could not be started: no image; it would fail again, so requests"
        " start no instance until somebody runs `ollama-proxy wake` or changes its"
        " settings, or 23 h pass"
    )


def test_the_fifth_launch_within_an_hour_locks_out_and_the_fifth_in_two_does_not() -> (
    None
):
    slow = Record()
    for number in range(12):
        slow = failing(slow, Fault("instance", "broken"), 900.0 * number)

    assert limited().lockout is not None
    assert slow.lockout is None


def test_a_served_request_begins_the_count_anew() -> None:
    record = limited()
    woken = play(record, Wake(ONE, forced=True), Accepted(ONE), Ready(ONE), now=400.0)
    used = play(woken, LeaseGranted(ONE), Released(ONE, used=True), now=401.0)

    assert len(woken.paid_launches) == 5
    assert used.paid_launches == ()
    assert (
        len(play(woken, LeaseGranted(ONE), Released(ONE), now=401.0).paid_launches) == 5
    )
    assert play(woken, LeaseGranted(ONE), Used(ONE), now=401.0).paid_launches == ()
    assert play(used, Lost(ONE, "silent"), now=402.0).lockout is None


def test_a_request_that_ends_with_its_instance_counts_as_served() -> None:
    woken = play(limited(), Wake(ONE, forced=True), Accepted(ONE), Ready(ONE), now=400)
    broken = play(woken, LeaseGranted(ONE), Lost(ONE, "silent"), now=401.0)

    assert broken.lockout is not None
    assert play(broken, Released(ONE, used=True), now=401.0).lockout is None
    assert play(broken, Released(ONE), now=401.0).lockout is not None


def test_an_order_that_comes_while_the_failed_launch_is_being_stopped_counts() -> None:
    stopping = play(
        Record(),
        Wake(ONE),
        Accepted(ONE),
        Failed(ONE, Fault("spec", "no image", final=True)),
        now=0.0,
    )
    assert is_given_up(stopping, POLICY)
    assert play(stopping, Wake(ONE), now=1.0) is stopping
    ordered = play(stopping, Wake(ONE, forced=True), Gone(ONE), now=1.0)

    assert ordered.state is State.COLD
    assert not is_given_up(ordered, POLICY)


def test_a_clock_that_was_set_back_locks_nobody_out_for_longer() -> None:
    year_s = 365 * DAY_S
    final = failing(Record(), Fault("spec", "no image", final=True), year_s)
    back = play(final, Restored(), Tick(), now=0.0)
    counted = play(limited(year_s), Restored(), now=0.0)

    assert back.lockout is not None
    assert back.lockout.until == DAY_S
    assert next_deadline(back, POLICY) == DAY_S
    assert counted.paid_launches == (0.0,) * 5


def test_a_day_later_a_request_may_try_again() -> None:
    final = failing(Record(), Fault("spec", "no image", final=True), 0.0)
    before = play(final, Tick(), Wake(ONE), now=DAY_S - 1)
    after = play(final, Tick(), Wake(ONE), now=DAY_S)

    assert next_deadline(final, POLICY) == DAY_S
    assert before == final
    assert after.state is State.STARTING


def test_new_settings_lift_the_limit_and_forget_what_failed() -> None:
    other = replace(POLICY, fingerprint="new")
    restored = play(limited(), Restored(), now=400.0, policy=other)

    assert (restored.state, restored.fault, restored.failures) == (State.COLD, None, 0)
    assert play(restored, Wake(ONE), now=400.0).state is State.STARTING


def test_a_lockout_is_read_as_it_was_written_and_old_records_have_none() -> None:
    written = msgspec.json.encode(limited())
    old = b'{"state":"cool-down","failures":3,"fault":{"reason":"a","message":"b"}}'

    assert msgspec.json.decode(written, type=Record) == limited()
    assert msgspec.json.decode(old, type=Record).lockout is None


@pytest.mark.parametrize("reached", [(), (Accepted(ONE),), (Accepted(ONE), Ready(ONE))])
def test_a_launch_that_died_with_the_proxy_is_no_failure(
    reached: tuple[Event, ...],
) -> None:
    policy = replace(POLICY, launch_limit=None, ends_with_proxy=True)
    record = Record()
    for number in range(6):
        record = play(record, Wake(ONE), *reached, now=float(number), policy=policy)
        record = play(record, Restored(), now=number + 0.5, policy=policy)
        assert record.state is State.STOPPING
        record = play(record, Gone(ONE), now=number + 0.5, policy=policy)

    assert (record.state, record.fault, record.failures) == (State.COLD, None, 0)


def test_a_lockout_has_a_reason_a_message_and_perhaps_an_end() -> None:
    assert limited().lockout == Lockout(
        "launch_limit", "5 launches within an hour served no request", None, "now"
    )


async def test_who_forgets_a_launch_forgets_no_limit(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    locked = replace(limited(), state=State.STOPPING, launch_id=ONE)
    store.put("default-0", locked, None)
    store.forget([ONE])
    kept = store.get("default-0")
    store.close()

    assert kept is not None
    assert (kept.state, kept.launch_id) == (State.COOLDOWN, None)
    assert kept.lockout == locked.lockout
    assert kept.paid_launches == locked.paid_launches
