"""What each key may use, however many requests it sends at once."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from ollama_proxy.base.errors import StoreError
from ollama_proxy.core.access.decision import KeyRefusal, RefusalReason
from ollama_proxy.core.access.keys import Key, KeyId, Rights
from ollama_proxy.core.access.route_classes import RouteClass
from ollama_proxy.core.access.work import Work
from ollama_proxy.gateway.key_limits import KeyLimits
from ollama_proxy.gateway.permits import Permit
from ollama_proxy.gateway.spending import Spending
from ollama_proxy.store.memory import MemoryStore

EVENING = datetime(2026, 11, 29, 23, 0, tzinfo=UTC).timestamp()
HOUR_S = 3600.0
CHAT = RouteClass.CHAT


@dataclass
class HandClock:
    """A clock set by hand: its moments, and its date."""

    moment: float = EVENING
    date: float = EVENING

    def now(self) -> float:
        return self.moment

    def wall(self) -> float:
        return self.date

    def advance(self, seconds: float) -> None:
        self.moment += seconds
        self.date += seconds


class CountingStore(MemoryStore):
    """A store that counts commitments; it may be full, or unreadable."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0
        self.is_full = False
        self.is_unreadable = False

    def put_commitment(self, key: KeyId, kind: str, period: str, amount: int) -> None:
        if self.is_full:
            raise StoreError("the state can't be written: disk full")
        self.writes += 1
        super().put_commitment(key, kind, period, amount)

    def commitments(self, key: KeyId) -> dict[tuple[str, str], int]:
        if self.is_unreadable:
            raise StoreError("the state can't be read: no disk")
        return super().commitments(key)


def limits_of(store: MemoryStore, clock: HandClock) -> KeyLimits:
    return KeyLimits(store, clock, Spending(store, clock, lambda _: None))


class Rig:
    """The limits of one key, across restarts."""

    def __init__(self, **rights: Any) -> None:
        self.clock, self.store = HandClock(), CountingStore()
        self.limits = limits_of(self.store, self.clock)
        self.key = Key(KeyId("0a1b2c3d"), "ci", b"", Rights(**rights))

    def edit(self, **rights: Any) -> None:
        self.key = Key(self.key.id, "ci", b"", Rights(**rights))

    def ask(self, prompt: int = 10, output: int | None = 10) -> Permit | KeyRefusal:
        work = Work(CHAT, "m", prompt, output)
        return self.limits.admit(self.key, work, self.clock.now())

    def begin(self, prompt: int = 10, output: int | None = 10) -> Permit:
        permit = self.ask(prompt, output)
        assert isinstance(permit, Permit), permit
        return permit

    def refused(self, prompt: int = 10, output: int | None = 10) -> RefusalReason:
        refusal = self.ask(prompt, output)
        assert isinstance(refusal, KeyRefusal)
        return refusal.reason

    def is_admitted(self) -> bool:
        """Send a request that ends at once."""
        admitted = self.ask()
        if isinstance(admitted, Permit):
            admitted.settle(None, None)
        return isinstance(admitted, Permit)

    def use(self, tokens: int) -> None:
        self.begin(tokens, 0).settle(tokens, 0)

    @property
    def tokens(self) -> int:
        found = self.limits.tokens_of(self.key)
        assert found is not None
        return found

    def crash(self) -> None:
        self.limits = limits_of(self.store, self.clock)

    def restart(self) -> None:
        self.limits.close()
        self.crash()


def test_a_key_without_limits_is_never_refused_and_never_written() -> None:
    rig = Rig()
    for _ in range(1000):
        rig.begin()

    assert rig.limits.in_flight(rig.key.id) == 1000
    assert rig.store.writes == 0


# Requests at once.


def test_a_sixth_request_is_refused_until_one_has_ended() -> None:
    rig = Rig(parallel=5)
    permits = [rig.begin() for _ in range(5)]

    assert rig.refused() is RefusalReason.PARALLEL
    permits[2].settle(1, 1)
    rig.begin()
    assert rig.refused() is RefusalReason.PARALLEL


def test_a_permit_ends_once() -> None:
    rig = Rig(parallel=1, tokens_per_day=1000)
    permit = rig.begin()
    permit.settle(10, 10)
    permit.settle(10, 10)
    permit.undo()
    permit.grow(10**6)

    assert rig.limits.in_flight(rig.key.id) == 0
    assert rig.tokens == 20


def test_a_limit_that_is_set_later_counts_what_is_in_flight() -> None:
    rig = Rig()
    rig.begin()
    rig.edit(parallel=1)

    assert rig.refused() is RefusalReason.PARALLEL


@pytest.mark.parametrize("route_class", [RouteClass.READ, RouteClass.ADMIN])
def test_reads_and_orders_count_as_nothing(route_class: RouteClass) -> None:
    rig = Rig(routes=frozenset(RouteClass), rpm=1, parallel=1, tokens_per_day=1)
    for _ in range(9):
        permit = rig.limits.admit(rig.key, Work(route_class), rig.clock.now())
        assert isinstance(permit, Permit)
        permit.grow(10**9)

    rig.begin()
    assert rig.limits.in_flight(rig.key.id) == 1


# Requests a minute.


def test_a_request_that_is_refused_takes_nothing_of_the_rate() -> None:
    rig = Rig(rpm=2, parallel=1)
    permit = rig.begin()
    for _ in range(100):
        assert rig.refused() is RefusalReason.PARALLEL
    permit.settle(None, None)

    rig.begin().settle(None, None)
    assert rig.refused() is RefusalReason.RATE


def test_a_request_that_is_undone_takes_nothing() -> None:
    rig = Rig(rpm=1, parallel=1, tokens_per_day=100)
    for _ in range(10):
        rig.begin().undo()

    rig.begin()
    assert rig.tokens == 20


def test_a_changed_date_allows_no_request_more() -> None:
    rig = Rig(rpm=2)
    rig.begin()
    rig.begin()
    for jump_s in (1e8, -2e8, 1e8):
        rig.clock.date += jump_s
        assert rig.refused() is RefusalReason.RATE
    rig.clock.advance(30.0)

    assert rig.is_admitted()


@pytest.mark.parametrize("ends", ["crash", "restart"])
def test_a_restart_allows_no_request_more(ends: str) -> None:
    rig = Rig(rpm=60)
    for _ in range(60):
        rig.begin()
    for _ in range(5):
        getattr(rig, ends)()
        assert rig.refused() is RefusalReason.RATE
    rig.clock.advance(120.0)

    assert sum(rig.is_admitted() for _ in range(100)) == 60


def test_a_clean_end_leaves_the_rest_of_the_rate() -> None:
    rig = Rig(rpm=60)
    for _ in range(20):
        rig.begin()
    rig.restart()

    assert sum(rig.is_admitted() for _ in range(100)) == 40


def test_a_rate_is_written_once_a_minute() -> None:
    rig = Rig(rpm=6000)
    for _ in range(600):
        rig.begin()
        rig.clock.advance(1.0)

    assert rig.store.writes <= 11


def test_a_rate_that_can_not_be_recorded_stops_nobody() -> None:
    rig = Rig(rpm=60)
    rig.store.is_full = rig.store.is_unreadable = True

    assert sum(rig.is_admitted() for _ in range(100)) == 60


# Tokens a day.


def test_a_request_is_refused_once_what_is_used_and_reserved_reaches_the_limit() -> (
    None
):
    rig = Rig(tokens_per_day=100)
    rig.use(60)
    permit = rig.begin(30, 10)

    refusal = rig.ask()
    assert isinstance(refusal, KeyRefusal)
    assert refusal.reason is RefusalReason.TOKENS
    assert (refusal.retry_after, refusal.resets_at) == (1.0, None)
    permit.settle(30, 2)
    assert rig.tokens == 92
    assert rig.is_admitted()


def test_a_request_is_refused_until_the_next_day_once_the_limit_is_used() -> None:
    rig = Rig(tokens_per_day=100)
    rig.use(100)

    refusal = rig.ask()
    assert isinstance(refusal, KeyRefusal)
    assert refusal.resets_at == EVENING + HOUR_S


def test_a_single_large_request_may_exceed_the_limit() -> None:
    rig = Rig(tokens_per_day=100)

    rig.begin(10**6, 10**6).settle(10**6, 5)
    assert rig.refused() is RefusalReason.TOKENS


def test_parallel_requests_exceed_the_limit_by_one_answer_each_at_most() -> None:
    rig = Rig(tokens_per_day=1000, parallel=5)
    answer, permits = 300, []
    for _ in range(1000):
        admitted = rig.ask(1, 100)
        if isinstance(admitted, Permit):
            permits.append(admitted)
        if len(permits) == 5:
            for permit in permits:
                permit.grow(answer)
                permit.settle(1, answer)
            permits.clear()

    assert 1000 <= rig.tokens <= 1000 + 5 * (answer + 1)


def test_an_answer_that_outgrows_its_reservation_reserves_more_meanwhile() -> None:
    rig = Rig(tokens_per_day=1000)
    permit = rig.begin(10, 20)
    permit.grow(20)
    assert rig.tokens == 30
    permit.grow(21)
    assert rig.tokens == 10 + 21 + 64
    permit.grow(1000)
    assert rig.refused() is RefusalReason.TOKENS
    permit.settle(10, 1001)
    assert rig.tokens == 1011


def test_an_answer_without_limit_reserves_what_the_model_usually_needs() -> None:
    rig = Rig(tokens_per_day=10**6)
    permit = rig.begin(10, None)
    assert rig.tokens == 522
    permit.settle(10, 100)
    for _ in range(30):
        rig.begin(10, None).settle(10, 100)
    used = rig.tokens

    rig.begin(10, None)
    assert rig.tokens - used == 110


def test_estimated_answers_teach_nothing() -> None:
    rig = Rig(tokens_per_day=10**6)
    for _ in range(30):
        rig.begin(10, None).settle(10, 9, is_measured=False)
    used = rig.tokens

    rig.begin(10, None)
    assert rig.tokens - used == 522


@pytest.mark.parametrize(
    ("used", "tokens"),
    [
        ((None, None), 0),
        ((7, None), 7 + 10),
        ((None, 7), 10 + 7),
        ((0, 0), 0),
        ((-5, -5), 0),
        ((10**30, 1), 10**12),
    ],
)
def test_what_is_not_known_counts_as_it_was_reserved(
    used: tuple[int | None, int | None], tokens: int
) -> None:
    rig = Rig(tokens_per_day=1000)
    rig.begin(10, 10).settle(*used)

    assert rig.tokens == tokens


def test_the_limit_is_free_again_at_midnight() -> None:
    rig = Rig(tokens_per_day=100)
    rig.use(100)
    rig.clock.advance(HOUR_S - 1)
    assert rig.refused() is RefusalReason.TOKENS
    rig.clock.advance(1)

    assert rig.is_admitted()


def test_a_request_counts_in_the_day_in_which_it_began() -> None:
    rig = Rig(tokens_per_day=100)
    permit = rig.begin(10, 10)
    rig.clock.advance(2 * HOUR_S)
    permit.settle(10, 95)

    assert rig.tokens == 0
    rig.clock.advance(-2 * HOUR_S)
    assert rig.refused() is RefusalReason.TOKENS


@pytest.mark.parametrize("ends", [None, "crash", "restart"])
def test_a_date_that_goes_back_over_midnight_finds_the_day_as_it_was(
    ends: str | None,
) -> None:
    rig = Rig(tokens_per_day=100)
    rig.use(100)
    for _ in range(5):
        for jump_s in (HOUR_S, 24 * HOUR_S, -25 * HOUR_S):
            rig.clock.date += jump_s
            rig.is_admitted()
            if ends is not None:
                getattr(rig, ends)()
        assert rig.refused() is RefusalReason.TOKENS


def test_a_day_is_found_again_after_others_that_a_wrong_date_made() -> None:
    rig = Rig(tokens_per_day=100)
    rig.use(100)
    for _ in range(3):
        rig.clock.date += 24 * HOUR_S
        rig.use(1)
    rig.clock.date = EVENING

    assert rig.refused() is RefusalReason.TOKENS


def test_a_limit_that_is_raised_or_lowered_counts_at_once() -> None:
    rig = Rig(tokens_per_day=100)
    rig.use(100)
    rig.edit(tokens_per_day=200)
    rig.use(50)
    rig.edit(tokens_per_day=140)

    assert rig.refused() is RefusalReason.TOKENS


# What the store holds.


def test_a_crash_forgets_nothing_that_was_used_or_reserved() -> None:
    rig = Rig(tokens_per_day=1000)
    rig.use(300)
    rig.begin(100, 400)
    rig.crash()

    rig.ask()
    assert 800 <= rig.tokens <= 800 + 20 + 20
    assert rig.store.commitments(rig.key.id)["tokens", "2026-11-29"] >= 800


def test_a_crash_costs_a_fiftieth_of_the_limit_at_most() -> None:
    rig = Rig(tokens_per_day=1000)
    rig.use(1)
    rig.crash()
    rig.ask(0, 0)

    assert rig.tokens <= 1 + 20 + 1


def test_a_clean_end_records_what_was_used_exactly() -> None:
    rig = Rig(tokens_per_day=1000)
    rig.use(123)
    rig.restart()

    assert rig.store.commitments(rig.key.id)["tokens", "2026-11-29"] == 123


def test_a_commitment_is_written_before_the_request_is_admitted() -> None:
    rig = Rig(tokens_per_day=1000, parallel=1000)
    for _ in range(90):
        rig.begin(10, 0)
        on_record = rig.store.commitments(rig.key.id)["tokens", "2026-11-29"]
        assert on_record >= rig.tokens


def test_a_day_takes_few_writes() -> None:
    rig = Rig(tokens_per_day=100_000)
    for _ in range(10_000):
        rig.begin(5, 500).settle(5, 4)

    assert rig.store.writes <= 60


def test_large_reservations_are_taken_back_now_and_then() -> None:
    rig = Rig(tokens_per_day=10_000)
    for _ in range(100):
        rig.begin(5, 8000).settle(5, 4)
        rig.clock.advance(1.0)

    assert rig.store.writes <= 10
    rig.clock.advance(60.0)
    rig.use(1)
    rig.crash()
    rig.use(1)
    assert rig.tokens <= 1200


def test_what_can_not_be_recorded_is_refused_in_words() -> None:
    rig = Rig(tokens_per_day=1000)
    rig.store.is_full = True

    refusal = rig.ask()
    assert refusal == KeyRefusal(
        503,
        RefusalReason.RECORD,
        "what the key 'ci' uses can't be recorded, so it may use nothing: the state"
        " can't be written: disk full",
        retry_after=30.0,
    )
    assert (rig.tokens, rig.limits.in_flight(rig.key.id)) == (0, 0)
    rig.store.is_full = False
    assert rig.is_admitted()


def test_what_can_not_be_read_is_refused() -> None:
    rig = Rig(tokens_per_day=1000)
    rig.store.is_unreadable = True

    assert rig.refused() is RefusalReason.RECORD


def test_a_full_disk_stops_no_key_without_such_a_limit() -> None:
    rig = Rig(parallel=5, rpm=60)
    rig.store.is_full = True

    rig.begin().settle(1, 1)


def test_an_answer_goes_on_when_its_growth_can_not_be_recorded() -> None:
    rig = Rig(tokens_per_day=1000)
    permit = rig.begin(10, 10)
    rig.store.is_full = True
    permit.grow(500)
    permit.settle(10, 600)

    assert rig.tokens == 610
    assert rig.refused(10, 500) is RefusalReason.RECORD


def test_keys_have_limits_of_their_own() -> None:
    rig = Rig(tokens_per_day=100, rpm=1, parallel=1)
    rig.use(100)
    other = Key(KeyId("ffffffff"), "other", b"", rig.key.rights)

    admitted = rig.limits.admit(other, Work(CHAT, "m", 1, 1), rig.clock.now())
    assert isinstance(admitted, Permit)


def test_a_moment_that_is_not_a_number_allows_nothing_more() -> None:
    rig = Rig(rpm=1)
    rig.begin()
    rig.clock.moment = math.inf
    rig.clock.moment = EVENING

    assert rig.refused() is RefusalReason.RATE
