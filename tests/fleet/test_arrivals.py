"""What a pool counts as arrived: each request once, when it asks."""

import asyncio

import pytest

from ollama_proxy.base.errors import CapacityError, HoldLimitError
from ollama_proxy.core.demand import SERVICE_PRIOR_S, Arrival
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.core.pool_policy import PoolPolicy
from ollama_proxy.fleet.pool import Pool
from tests.fleet.pools import SeveralOffers
from tests.virtual_time import in_virtual_time

WINDOW_S = 120.0

NONE = LaunchId("none")


def counted(pool: Pool) -> int:
    """Return for how many requests the load of a pool stands."""
    meter = pool._meter
    return round(meter.load(pool._clock.now(), 1.0) * WINDOW_S / meter.service_s)


def arrived(pools: SeveralOffers) -> int:
    return counted(pools.pool)


@in_virtual_time
async def test_each_request_counts_when_it_asks_and_not_again_with_its_slot() -> None:
    pools = SeveralOffers(("only",), most=2, slots=1, max_waiting=100)
    held = await pools.lease()
    pools.clouds["only"].start_error = CapacityError("no room")  # for a second one
    waits = [asyncio.ensure_future(pools.pool.lease("m", wait_s=0.0)) for _ in range(9)]
    await asyncio.sleep(1.0)
    assert (arrived(pools), pools.pool.waiting) == (1 + 9, 9)
    held.release()
    for waiting in waits:
        lease = await waiting
        assert lease is not None
        lease.release()
    await pools.pool.aclose()

    assert arrived(pools) == 1 + 9


@in_virtual_time
async def test_a_crowd_before_a_cold_pool_is_counted_one_by_one() -> None:
    pools = SeveralOffers(most=2, load_s=10.0)
    waits = [asyncio.ensure_future(pools.lease()) for _ in range(7)]
    await asyncio.sleep(1.0)
    before = arrived(pools)
    for lease in await asyncio.gather(*waits):
        lease.release()
    await pools.pool.aclose()

    assert (before, arrived(pools)) == (7, 7)


@in_virtual_time
async def test_who_got_a_503_is_counted_once_however_often_it_asks_again() -> None:
    pools = SeveralOffers(most=2, load_s=20.0)
    for _ in range(15):
        assert await pools.pool.lease("m", wait_s=1.0, arrival=Arrival("one")) is None
    for _ in range(5):
        pools.pool.note_refused(Arrival("two"))  # at once, without a wait
        await asyncio.sleep(0.1)
    assert arrived(pools) == 2
    await pools.lease()  # of a third
    for client in ("one", "two"):
        assert pools.pool.try_lease(model="m", arrival=Arrival(client)) is not None
    assert arrived(pools) == 3
    assert pools.pool.try_lease(model="m", arrival=Arrival("one")) is not None
    await pools.pool.aclose()

    assert arrived(pools) == 4


@in_virtual_time
async def test_a_request_that_finds_the_queue_full_is_counted_once_as_well() -> None:
    pools = SeveralOffers(most=2, slots=1, max_waiting=1, load_s=60.0)
    first = asyncio.ensure_future(pools.lease(90.0))
    await asyncio.sleep(0.1)
    for _ in range(4):
        with pytest.raises(HoldLimitError):
            await pools.pool.lease("m", wait_s=60.0, arrival=Arrival("full"))
    assert arrived(pools) == 2
    await first
    await pools.pool.aclose()


@in_virtual_time
async def test_a_request_whose_instance_failed_counts_once() -> None:
    pools = SeveralOffers(most=2)
    request = Arrival("a client")
    for _ in range(3):
        lease = await pools.pool.lease("m", wait_s=60.0, arrival=request)
        assert lease is not None
        lease.release()
    await pools.pool.aclose()

    assert arrived(pools) == 1


@in_virtual_time
async def test_reads_and_what_yields_are_no_arrivals_a_pin_is_one_with_its_slot() -> (
    None
):
    pools = SeveralOffers(("only",), most=2, slots=1)
    held = await pools.lease()
    assert await pools.pool.lease(None, wait_s=0.0, takes_slot=False) is not None
    assert await pools.pool.lease("m", wait_s=0.0, yields=True, only=NONE) is None
    pinned = asyncio.ensure_future(
        pools.pool.lease("m", wait_s=0.0, joins=True, only=held.launch_id)
    )
    await asyncio.sleep(1.0)
    assert arrived(pools) == 1
    held.release()
    assert await pinned is not None
    await pools.pool.aclose()

    assert arrived(pools) == 2


@in_virtual_time
async def test_a_queue_that_lasts_starts_what_its_arrivals_need() -> None:
    """One every five seconds, each for 20 s: four slots are busy, and one is there."""
    policy = PoolPolicy(max_instances=8, max_starting=8)
    pools = SeveralOffers(("only",), most=8, slots=1, policy=policy, boot_s=60.0)
    pools.clouds["only"].faults.boot_s = 60.0
    loop = asyncio.get_running_loop()
    waited_s: list[float] = []

    async def ask() -> None:
        began = loop.time()
        with await pools.lease(3600.0) as lease:
            waited_s.append(loop.time() - began)
            lease.mark_used()
            await asyncio.sleep(SERVICE_PRIOR_S)

    await pools.serve(300.0)
    asking = []
    for _ in range(240):
        asking.append(asyncio.ensure_future(ask()))
        await asyncio.sleep(5.0)
    await asyncio.gather(*asking)
    await pools.pool.aclose()

    # 12 s and 7 launches where each counted when it got its slot.
    assert sum(waited_s) / len(waited_s) < 9.0
    assert pools.launches["only"] <= 7
