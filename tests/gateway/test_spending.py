"""Which key pays for which second of an instance, and what its budget allows."""

import asyncio
import math
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from ollama_proxy.base.errors import StoreError
from ollama_proxy.core.access.decision import KeyRefusal, RefusalReason
from ollama_proxy.core.access.keys import Key, KeyId, Rights
from ollama_proxy.core.access.route_classes import RouteClass
from ollama_proxy.core.access.spending import Forecast
from ollama_proxy.core.access.work import Work
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.gateway.key_limits import KeyLimits
from ollama_proxy.gateway.launch_meter import LaunchTerms
from ollama_proxy.gateway.permits import Permit
from ollama_proxy.gateway.spending import Spending
from tests.gateway.test_key_limits import CountingStore, HandClock

HOUR_S = 3600.0
CENT = 10_000
PRICE = 3_600_000  # an hour; so a second costs 1000
BOOT_S, IDLE_S, REQUEST_S = 100.0, 600.0, 60.0
ONE, TWO = LaunchId("l0000000000000001"), LaunchId("l0000000000000002")
CHAT = Work(RouteClass.CHAT, "m", 10, 10)
MONTH_END = datetime(2026, 11, 30, 23, 0, tzinfo=UTC).timestamp()


class Prices:
    """What requests cost, set by hand."""

    costs_anything = True

    def __init__(self) -> None:
        self.next = Forecast(PRICE)

    def forecast(self, work: Work, *, may_wake: bool) -> Forecast:
        return self.next if may_wake else replace(self.next, wakes=False)

    def forecast_wake(self, pool: str) -> Forecast:
        return self.next


class Rig:
    """Keys that spend, across restarts."""

    def __init__(self) -> None:
        self.clock, self.store = HandClock(), CountingStore()
        self.prices = Prices()
        self.keys: dict[KeyId, Key] = {}
        self.begin_process()

    def begin_process(self) -> None:
        self.spending = Spending(self.store, self.clock, self.keys.get)
        self.spending.foresight = self.prices
        self.limits = KeyLimits(self.store, self.clock, self.spending)

    def restart(self) -> None:
        self.limits.close()
        self.begin_process()

    def key(self, name: str = "ci", **rights: Any) -> Key:
        key_id = KeyId(name.ljust(8, "0"))
        key = Key(key_id, name, b"", Rights(**rights))
        self.keys[key_id] = key
        return key

    def ask(self, key: Key) -> Permit | KeyRefusal:
        return self.limits.admit(key, CHAT, self.clock.now())

    def begin(self, key: Key, on: LaunchId | None = None) -> Permit:
        permit = self.ask(key)
        assert isinstance(permit, Permit), permit
        if on is not None:
            permit.enter(on)
        return permit

    def refusal(self, key: Key) -> KeyRefusal:
        refused = self.ask(key)
        assert isinstance(refused, KeyRefusal)
        return refused

    def wake(self, key: Key, launch: LaunchId = ONE) -> Permit:
        self.prices.next = Forecast(PRICE, True, BOOT_S, IDLE_S)
        permit = self.begin(key)
        permit.wish("default")
        self.launched(launch)
        self.prices.next = Forecast(PRICE)
        return permit

    def launched(
        self,
        launch: LaunchId = ONE,
        *,
        is_new: bool = True,
        unattended_s: float = math.inf,
    ) -> None:
        terms = LaunchTerms(PRICE, BOOT_S, IDLE_S, unattended_s)
        self.spending.launched(launch, "default", terms, is_new=is_new)

    def pass_s(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.spending.charge()

    def spent(self, key: Key) -> int:
        """Return what is spent, once nothing is reserved any more."""
        return self.spending.totals(key)[0]


def test_a_request_pays_for_the_time_that_it_is_on_an_instance() -> None:
    rig = Rig()
    key = rig.key(budget_day=100 * CENT)
    rig.launched()
    permit = rig.begin(key, ONE)
    rig.pass_s(10.0)
    permit.leave()
    rig.pass_s(1000.0)
    permit.settle(1, 1)

    assert rig.spent(key) == 10_000


def test_the_time_is_shared_equally_among_keys_not_among_requests() -> None:
    rig = Rig()
    ci, laptop = rig.key(budget_day=10**9), rig.key("laptop", budget_day=10**9)
    rig.launched()
    permits = [rig.begin(key, ONE) for key in (ci, laptop, laptop, laptop)]
    rig.pass_s(10.0)
    permits[0].settle(1, 1)
    rig.pass_s(10.0)
    for permit in permits[1:]:
        permit.settle(1, 1)

    assert (rig.spent(ci), rig.spent(laptop)) == (5_000, 15_000)


def test_a_key_without_a_budget_pays_its_share_too() -> None:
    rig = Rig()
    ci, free = rig.key(budget_day=10**9), rig.key("free")
    rig.launched()
    permits = [rig.begin(ci, ONE), rig.begin(free, ONE)]
    rig.pass_s(10.0)
    for permit in permits:
        permit.settle(1, 1)

    assert rig.spent(ci) == 5_000


def test_boot_and_idle_time_is_paid_by_the_key_that_woke_the_instance() -> None:
    rig = Rig()
    waker, other = rig.key(budget_day=10**9), rig.key("other", budget_day=10**9)
    permit = rig.wake(waker)
    rig.pass_s(100.0)
    permit.enter(ONE)
    rig.pass_s(5.0)
    permit.settle(1, 1)
    rig.pass_s(50.0)
    served = rig.begin(other, ONE)
    rig.pass_s(7.0)
    served.settle(1, 1)
    rig.pass_s(600.0)
    rig.spending.gone(ONE)

    assert rig.spent(waker) == 1000 * (100 + 5 + 50 + 600)
    assert rig.spent(other) == 1000 * 7


def test_what_no_key_woke_is_paid_by_no_key() -> None:
    rig = Rig()
    key = rig.key(budget_day=10**9)
    rig.launched()
    rig.pass_s(1000.0)

    assert rig.spent(key) == 0


def test_the_key_whose_request_waits_longest_woke_the_instance() -> None:
    rig = Rig()
    first, second = rig.key(budget_day=10**9), rig.key("second", budget_day=10**9)
    for key in (first, second):
        rig.begin(key).wish("default")
    rig.launched()
    rig.pass_s(10.0)
    rig.spending.gone(ONE)

    assert rig.spent(first) == 10_000 + 60_000
    assert rig.spent(second) == 60_000


def test_a_request_that_got_its_503_at_once_woke_the_instance_all_the_same() -> None:
    rig = Rig()
    key = rig.key(budget_day=10**9)
    permit = rig.begin(key)
    permit.wish("default")
    permit.settle(None, None)
    rig.pass_s(30.0)  # the former instance stops first
    rig.launched()
    rig.pass_s(10.0)
    rig.spending.gone(ONE)

    assert rig.spent(key) == 10_000


def test_a_wish_that_was_met_wakes_nothing_more() -> None:
    rig = Rig()
    key = rig.key(budget_day=10**9)
    permit = rig.wake(key)
    permit.settle(None, None)
    rig.spending.ready(ONE, "default")
    rig.spending.gone(ONE)
    before = rig.spent(key)
    rig.launched(TWO)
    rig.pass_s(10.0)

    assert rig.spent(key) == before


def test_a_key_that_may_not_wake_never_pays_for_a_boot() -> None:
    rig = Rig()
    key = rig.key(budget_day=10**9, may_wake=False)
    rig.begin(key).wish("default")
    rig.launched()
    rig.pass_s(10.0)

    assert rig.spent(key) == 60_000


def test_everything_that_an_instance_costs_is_paid_once() -> None:
    rig = Rig()
    keys = [rig.key(name, budget_day=10**12) for name in "abc"]
    permits = [rig.wake(keys[0])]
    for step in range(200):
        rig.pass_s(0.25)
        if step % 3 == 0:
            permits.append(rig.begin(keys[step % 3 - step % 2], ONE))
        if step % 7 == 0 and permits:
            permits.pop(0).settle(1, 1)
    for permit in permits:
        permit.settle(1, 1)
    rig.spending.gone(ONE)

    assert sum(rig.spent(key) for key in keys) == 200 * 250


# Budgets.


def test_a_request_that_would_wake_reserves_the_boot_and_the_idle_time() -> None:
    rig = Rig()
    key = rig.key(budget_day=10**9)
    rig.prices.next = Forecast(PRICE, True, BOOT_S, IDLE_S)
    rig.begin(key)

    assert rig.spent(key) == 700_000


def test_an_instance_that_is_ready_reserves_idle_time_alone() -> None:
    rig = Rig()
    key = rig.key(budget_day=10**9)
    permit = rig.wake(key)
    permit.settle(None, None)
    rig.pass_s(10.0)
    assert rig.spent(key) == 700_000
    rig.spending.ready(ONE, "default")

    assert rig.spent(key) == 10_000 + 600_000


def test_a_request_on_a_ready_instance_reserves_what_such_requests_take() -> None:
    rig = Rig()
    key = rig.key(budget_day=10**9)
    rig.launched()
    permit = rig.begin(key, ONE)
    assert rig.spent(key) == 60_000
    rig.pass_s(10.0)
    assert rig.spent(key) == 60_000
    permit.settle(1, 1)
    for _ in range(20):
        permit = rig.begin(key, ONE)
        rig.clock.advance(3.0)
        permit.settle(1, 1)
    before = rig.spent(key)
    rig.begin(key, ONE)

    assert rig.spent(key) - before == 3_000


def test_a_budget_that_is_spent_or_reserved_refuses() -> None:
    rig = Rig()
    key = rig.key(budget_day=100_000, budget_month=10**9)
    rig.begin(key)
    rig.begin(key)
    refusal = rig.refusal(key)

    assert refusal.reason is RefusalReason.MONEY
    assert refusal.resets_at == rig.clock.wall() + HOUR_S
    assert refusal.message.startswith("the key 'ci' may spend 0.10 a day, and 0.12 are")


def test_the_month_is_a_budget_of_its_own() -> None:
    rig = Rig()
    key = rig.key(budget_month=100_000)
    rig.launched()
    permit = rig.begin(key, ONE)
    rig.pass_s(100.0)
    permit.settle(1, 1)

    rig.clock.date += 24 * HOUR_S  # still November
    assert rig.refusal(key).resets_at == datetime(2026, 12, 1, tzinfo=UTC).timestamp()
    rig.clock.date += 24 * HOUR_S
    assert isinstance(rig.ask(key), Permit)


def test_a_running_answer_may_exceed_the_budget_and_the_next_request_may_not() -> None:
    rig = Rig()
    key = rig.key(budget_day=100_000)
    rig.launched()
    permit = rig.begin(key, ONE)
    rig.pass_s(500.0)
    assert rig.refusal(key).reason is RefusalReason.MONEY
    permit.settle(1, 1)

    assert rig.spent(key) == 500_000


@pytest.mark.parametrize("count", [1, 5, 50])
def test_parallel_requests_exceed_a_budget_by_the_time_of_one(count: int) -> None:
    rig = Rig()
    key, longest_s = rig.key(budget_day=10**6, parallel=count), 300.0
    rig.launched()
    permits: list[Permit] = []
    for _ in range(3000):
        admitted = rig.ask(key)
        if isinstance(admitted, Permit):
            admitted.enter(ONE)
            permits.append(admitted)
        elif not permits:
            break
        if len(permits) == count or isinstance(admitted, KeyRefusal):
            rig.pass_s(longest_s)
            for permit in permits:
                permit.settle(1, 1)
            permits.clear()

    assert 10**6 <= rig.spent(key) <= 10**6 + 1000 * longest_s


def test_an_instance_that_is_started_for_waiting_requests_may_exceed_a_budget() -> None:
    rig = Rig()
    key = rig.key(budget_day=100_000)
    rig.launched()
    permit = rig.begin(key)  # an instance is ready, so it does not wake by itself
    permit.wish("default")  # but has no free slot
    rig.launched(TWO)

    assert rig.spent(key) == 60_000 + 700_000
    assert rig.refusal(key).reason is RefusalReason.MONEY


def test_an_offer_without_a_price_refuses_keys_with_a_budget_alone() -> None:
    rig = Rig()
    rig.prices.next = Forecast(unpriced="the price of the offer 'gpu' is not known")
    refusal = rig.refusal(rig.key(budget_day=10**9))

    assert refusal.message == (
        "the key 'ci' has a budget, and the price of the offer 'gpu' is not known"
    )
    assert refusal.retry_after is None
    assert isinstance(rig.ask(rig.key("other")), Permit)


def test_what_is_free_is_free_for_a_spent_budget_too() -> None:
    rig = Rig()
    rig.prices.next = Forecast()
    key = rig.key(budget_day=1)

    for _ in range(5):
        rig.begin(key)
    assert rig.spent(key) == 0


def test_a_key_with_the_right_to_give_orders_has_its_budget_too() -> None:
    rig = Rig()
    key = rig.key(budget_day=0, routes=frozenset(RouteClass))

    assert rig.refusal(key).reason is RefusalReason.MONEY


def test_a_budget_that_can_not_be_recorded_refuses() -> None:
    rig = Rig()
    key = rig.key(budget_day=10**9, budget_month=10**9)
    rig.store.is_full = True

    assert rig.refusal(key).reason is RefusalReason.RECORD
    rig.store.is_full = False
    assert rig.spent(key) == 0


def test_when_one_budget_can_not_be_recorded_the_other_holds_nothing() -> None:
    rig = Rig()
    key = rig.key(budget_day=10**9, budget_month=10**9)
    put = rig.store.put_commitment

    def refuse_month(key: KeyId, kind: str, period: str, amount: int) -> None:
        if kind == "money month":
            raise StoreError("full")
        put(key, kind, period, amount)

    rig.store.put_commitment = refuse_month  # type: ignore[method-assign]  # a fault
    rig.refusal(key)

    assert rig.spending.totals(key) == (0, 0)


# Time.


def test_idle_time_is_reserved_in_the_new_day_after_midnight() -> None:
    rig = Rig()
    key = rig.key(budget_day=10**9)
    rig.wake(key).settle(None, None)
    rig.pass_s(100.0)
    assert rig.spent(key) == 100_000 + 600_000
    rig.pass_s(HOUR_S)

    assert rig.spent(key) >= 600_000
    rig.pass_s(10.0)
    before = rig.spent(key)
    rig.spending.gone(ONE)
    assert before - rig.spent(key) == 600_000


@pytest.mark.parametrize("jump_s", [-HOUR_S, -1e8])
def test_a_moment_that_goes_back_charges_nothing_twice(jump_s: float) -> None:
    rig = Rig()
    key = rig.key(budget_day=10**9)
    rig.launched()
    permit = rig.begin(key, ONE)
    rig.pass_s(10.0)
    rig.clock.moment += jump_s
    rig.spending.charge()
    rig.clock.moment -= jump_s
    rig.spending.charge()
    permit.settle(1, 1)

    assert rig.spent(key) == 10_000


# Restarts.


def test_a_crash_forgets_no_money_that_was_spent_or_reserved() -> None:
    rig = Rig()
    key = rig.key(budget_day=10**7, budget_month=10**8)
    rig.wake(key).settle(None, None)
    rig.pass_s(1000.0)
    spent = rig.spending.totals(key)
    rig.begin_process()

    day, month = rig.spending.totals(key)
    assert spent[0] <= day <= spent[0] + 10**7 // 50
    assert spent[1] <= month <= spent[1] + 10**8 // 50


def test_a_clean_restart_goes_on_charging_the_waker_for_the_time_between() -> None:
    rig = Rig()
    key = rig.key(budget_day=10**9)
    rig.wake(key).settle(None, None)
    rig.pass_s(100.0)
    rig.restart()
    rig.clock.advance(50.0)
    rig.launched(is_new=False)
    rig.pass_s(10.0)
    assert rig.spent(key) == 160_000 + 600_000
    rig.spending.gone(ONE)

    assert rig.spent(key) == 160_000


@pytest.mark.parametrize("sleeps", [True, False])
def test_a_time_without_proxy_costs_no_more_than_an_instance_runs_alone(
    sleeps: bool,
) -> None:
    rig = Rig()
    key = rig.key(budget_day=10**9)
    rig.launched()
    rig.spending.gone(ONE)
    permit = rig.begin(key)
    permit.wish("default")
    rig.launched(unattended_s=900.0)
    permit.settle(None, None)
    rig.pass_s(100.0)
    if sleeps:
        rig.clock.advance(80_000.0)
    else:
        rig.restart()
        rig.clock.advance(80_000.0)
        rig.launched(is_new=False, unattended_s=900.0)
    rig.clock.date -= 80_000.0  # the same day
    rig.spending.charge()
    rig.spending.gone(ONE)

    assert rig.spent(key) == 1000 * (100 + 900)


def test_a_launch_that_an_unknown_key_woke_is_paid_by_no_key() -> None:
    rig = Rig()
    key = rig.key(budget_day=10**9)
    rig.wake(key).settle(None, None)
    rig.restart()
    del rig.keys[key.id]
    rig.launched(is_new=False)
    rig.pass_s(10.0)
    rig.spending.gone(ONE)


def test_a_note_that_can_not_be_read_charges_no_key() -> None:
    rig = Rig()
    rig.store.notes_of("spending").put_note(ONE, b"\xff")
    rig.launched(is_new=False)
    rig.pass_s(10.0)
    rig.spending.gone(ONE)

    assert rig.store.notes_of("spending").notes() == {}


async def test_the_time_is_charged_every_second_while_an_instance_runs() -> None:
    rig = Rig()
    key = rig.key(budget_day=10**9)
    task = asyncio.ensure_future(rig.spending.run())
    await asyncio.sleep(0)
    rig.wake(key).settle(None, None)
    rig.clock.advance(650.0)
    before = rig.spent(key)
    async with asyncio.timeout(20):
        while rig.spent(key) == before:
            await asyncio.sleep(0.05)
    task.cancel()

    rig.spending.gone(ONE)
    assert rig.spent(key) == 650_000
