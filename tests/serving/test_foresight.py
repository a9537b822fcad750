"""What a request will cost by the state of its pool, and which key pays a launch."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from ollama_proxy.core.access.keys import Key, KeyId, Rights
from ollama_proxy.core.access.route_classes import RouteClass
from ollama_proxy.core.access.spending import Forecast
from ollama_proxy.core.access.work import Work
from ollama_proxy.core.lifecycle.record import Policy
from ollama_proxy.fleet.backend import Prices, Traits
from ollama_proxy.fleet.lease import Lease
from ollama_proxy.fleet.offer import Offer
from ollama_proxy.fleet.pool import Pool
from ollama_proxy.gateway.key_limits import KeyLimits
from ollama_proxy.gateway.permits import Permit
from ollama_proxy.gateway.spending import Spending
from ollama_proxy.serving.foresight import NamedPool, PoolForesight, price_of
from tests.fakes.cloud import FakeCloud
from tests.fleet.houses import a_house, a_node
from tests.fleet.pools import MeasuredBoots, SeveralOffers
from tests.fleet.rig import Deployment
from tests.virtual_time import LoopClock, in_virtual_time

CHAT = Work(RouteClass.CHAT, "m", 10, 10)
BOOT_S, IDLE_S = 100.0, 300.0
FREE = Traits(externally_managed=True)


@dataclass(slots=True, eq=False)
class PricedCloud(FakeCloud):
    """A fake cloud with a price an hour; 3.6 is a thousand millionths a second."""

    per_hour: float | None = 3.6

    @property
    def prices(self) -> Prices:
        return Prices(self.per_hour)


@dataclass
class OnePool:
    """A pool of the name "default", which serves every model."""

    pool: Pool
    name: str = "default"
    of_model: Callable[[str], str | None] = field(default=lambda _model: "default")

    def __iter__(self) -> Iterator[NamedPool]:
        return iter([self])

    def __getitem__(self, name: str) -> NamedPool:
        return self


class Rig:
    """A pool over a cloud with prices, and a key that pays."""

    def __init__(self, cloud: FakeCloud | None = None, **rights: Any) -> None:
        self.cloud = cloud or PricedCloud()
        policy = Policy(idle_timeout_s=IDLE_S)
        self.deployment = Deployment(policy, cloud=self.cloud)
        self.key = Key(KeyId("0a1b2c3d"), "ci", b"", Rights(**rights))
        self.begin_process()

    def begin_process(self) -> None:
        store, clock = self.deployment.store, LoopClock()
        self.spending = Spending(store, clock, lambda _: self.key)
        self.limits = KeyLimits(store, clock, self.spending)
        pools = OnePool(self.deployment.pool)
        self.foresight = PoolForesight(pools, MeasuredBoots(BOOT_S))
        self.foresight.watch(self.spending)
        self.foresight.adopt(self.spending)

    async def restart(self) -> None:
        self.limits.close()
        await self.deployment.restart()
        self.begin_process()

    def forecast(self, *, may_wake: bool = True) -> Forecast:
        return self.foresight.forecast(CHAT, may_wake=may_wake)

    def begin(self) -> Permit:
        permit = self.limits.admit(self.key, CHAT, LoopClock().now())
        assert isinstance(permit, Permit), permit
        return permit

    async def ask(self) -> tuple[Permit, Lease]:
        """Send a request that wakes, as the servers do."""
        permit = self.begin()
        permit.wish("default")
        lease = await self.deployment.lease()
        permit.enter(lease.launch_id)
        return permit, lease

    def spent(self) -> int:
        self.spending.charge()
        return self.spending.totals(self.key)[0]

    async def aclose(self) -> None:
        await self.deployment.pool.aclose()


@pytest.mark.parametrize(
    ("offer", "price"),
    [
        (Offer("a", PricedCloud()), 3_600_000),
        (Offer("a", PricedCloud(per_hour=None)), None),
        (Offer("a", PricedCloud(per_hour=None), price_per_hour=2.0), 2_000_000),
        (Offer("a", FakeCloud()), None),
        (Offer("a", FakeCloud(), price_per_hour=1.5), 1_500_000),
        (Offer("a", FakeCloud(traits=FREE), price_per_hour=1.5), 0),
        (Offer("a", FakeCloud(traits=Traits(child_process=True))), 0),
    ],
)
def test_an_offer_has_a_price_is_free_or_neither(
    offer: Offer, price: int | None
) -> None:
    assert price_of(offer) == price


@in_virtual_time
async def test_a_request_wakes_until_a_launch_is_under_way() -> None:
    rig = Rig()
    cold = rig.forecast()
    await rig.deployment.pool.wake("m")
    starting = rig.forecast()
    lease = await rig.deployment.lease()

    assert cold == Forecast(3_600_000, True, BOOT_S, IDLE_S)
    assert replace(cold, wakes=False) != cold
    assert starting.wakes is rig.forecast().wakes is False
    assert starting.price == rig.forecast().price == 3_600_000
    lease.release()
    await rig.aclose()


@in_virtual_time
async def test_a_key_that_may_not_wake_reserves_no_boot() -> None:
    rig = Rig()

    assert rig.forecast(may_wake=False) == Forecast(3_600_000)
    await rig.aclose()


@in_virtual_time
async def test_an_offer_without_a_price_is_named_with_what_to_set() -> None:
    rig = Rig(PricedCloud(per_hour=None), budget_day=1)

    assert rig.forecast().unpriced == (
        "the price of the offer 'fake' is not known; set its price_per_hour"
        " (in the environment: …_PRICE_PER_HOUR)"
    )
    await rig.aclose()


@in_virtual_time
async def test_a_price_that_becomes_known_or_changes_counts_for_the_next_launch() -> (
    None
):
    cloud = PricedCloud(per_hour=None)
    rig = Rig(cloud, budget_day=10**9)
    cloud.per_hour = 3.6
    assert rig.forecast().price == 3_600_000
    cloud.per_hour = 7.2
    await rig.deployment.pool.wake("m")

    assert rig.forecast().price == 7_200_000
    await rig.aclose()


@in_virtual_time
async def test_where_all_is_free_nothing_is_forecast() -> None:
    rig = Rig(FakeCloud(traits=Traits(child_process=True)))

    assert rig.forecast() == Forecast()
    assert not rig.spending.is_needed
    await rig.aclose()


@in_virtual_time
async def test_the_key_whose_request_woke_an_instance_pays_until_it_is_gone() -> None:
    rig = Rig(budget_day=10**9)
    permit, lease = await rig.ask()
    await asyncio.sleep(20.0)
    permit.settle(1, 1)
    lease.mark_used()
    lease.release()
    await asyncio.sleep(2000.0)

    assert rig.deployment.record.launch_id is None
    lived_s = rig.spent() / 1000
    assert IDLE_S + 20.0 < lived_s < IDLE_S + 120.0
    await rig.aclose()


@in_virtual_time
async def test_the_waker_is_known_after_a_restart() -> None:
    rig = Rig(budget_day=10**9)
    permit, lease = await rig.ask()
    permit.settle(1, 1)
    lease.mark_used()
    lease.release()
    before = rig.spent()
    await rig.restart()
    await asyncio.sleep(2000.0)

    assert rig.deployment.record.launch_id is None
    assert IDLE_S * 1000 < rig.spent() < before + 120_000
    await rig.aclose()


@in_virtual_time
async def test_a_launch_that_no_request_asked_for_is_paid_by_no_key() -> None:
    rig = Rig(budget_day=10**9)
    await rig.deployment.pool.wake("m", forced=True)
    await asyncio.sleep(2000.0)

    assert rig.spent() == 0
    await rig.aclose()


@in_virtual_time
async def test_a_launch_that_fails_is_paid_only_while_it_lasted() -> None:
    rig = Rig(budget_day=10**9)
    rig.cloud.faults.never_boots = True
    permit = rig.begin()
    permit.wish("default")
    assert await rig.deployment.pool.lease("m", wait_s=10_000.0) is None
    permit.settle(None, None)
    rig.deployment.pool.stop()
    await asyncio.sleep(600.0)

    spent = rig.spent()
    await asyncio.sleep(600.0)
    assert 0 < spent == rig.spent()
    await rig.aclose()


@in_virtual_time
async def test_what_only_the_cloud_has_costs_a_launch_beside_a_ready_node() -> None:
    house = a_house()
    pools = SeveralOffers(("cloud",), houses=[house], boot_s=BOOT_S)
    for controller in pools.pool.controllers:
        controller.offer = replace(controller.offer, price_per_hour=3.6)
    house.put(a_node("attic", ["m"]))
    pools.pool.spill(lambda model, _plain: model == "large")
    foresight = PoolForesight(OnePool(pools.pool), MeasuredBoots(BOOT_S))
    of_node, of_cloud = (
        foresight.forecast(Work(RouteClass.CHAT, model, 10, 10), may_wake=True)
        for model in ("m", "large")
    )
    unwoken = foresight.forecast(Work(RouteClass.CHAT, "large", 10, 10), may_wake=False)
    await pools.pool.aclose()

    assert of_node == Forecast()
    assert (of_cloud.wakes, of_cloud.boot_s) == (True, BOOT_S)
    assert not unwoken.wakes
