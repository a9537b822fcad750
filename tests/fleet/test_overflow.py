"""A pool's own box and the cloud beside it, for hours of a load around its size."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from ollama_proxy.core.pool_policy import PoolPolicy
from tests.fakes.cloud import CloudFaults
from tests.fleet.pools import POLICY, SeveralOffers
from tests.virtual_time import in_virtual_time

TWO_HOURS_S = 7200.0


DRAWN = tuple(random.Random(7).randint(3, 6) for _ in range(121))
IN_TURN = tuple(6 if minute // 10 % 2 else 3 for minute in range(121))
"""How many requests are in flight, minute by minute."""


async def keep_busy(pools: SeveralOffers, levels: Sequence[int], takes_s: float) -> int:
    """Have so many in flight for two hours; return how many got no instance."""
    rng, lost = random.Random(7), 0
    loop = asyncio.get_running_loop()
    begin = loop.time()

    async def client(number: int) -> None:
        nonlocal lost
        while (passed_s := loop.time() - begin) < TWO_HOURS_S:
            if number >= levels[int(passed_s / 60.0)]:
                await asyncio.sleep(1.0)
                continue
            lease = await pools.pool.lease("m", wait_s=600.0)
            if lease is None:
                lost += 1
                continue
            with lease:
                lease.mark_used()
                await asyncio.sleep(rng.uniform(0.5, 1.5) * takes_s)

    async with asyncio.TaskGroup() as clients:
        for number in range(max(levels)):
            clients.create_task(client(number))
    return lost


@pytest.mark.parametrize("takes_s", [20.0, 60.0])
@pytest.mark.parametrize("levels", [DRAWN, IN_TURN], ids=["drawn", "in turn"])
def test_a_load_around_the_size_of_the_box_starts_the_cloud_twice_at_most(
    levels: Sequence[int], takes_s: float
) -> None:
    @in_virtual_time
    async def play() -> None:
        pools = SeveralOffers(
            ["cloud"],
            box=True,
            slots=4,
            most=2,
            policy=PoolPolicy(max_instances=2, idle_timeout_s=1800.0),
            record_policy=replace(POLICY, idle_timeout_s=1800.0),
        )
        pools.clouds["cloud"].faults = CloudFaults(boot_s=60.0)
        await pools.serve()

        lost = await keep_busy(pools, levels, takes_s)
        launches = pools.launches["cloud"]
        await asyncio.sleep(TWO_HOURS_S)

        assert lost == 0
        assert launches <= 2
        assert pools.paid == {"cloud": 0}
        await pools.pool.aclose()

    play()


@in_virtual_time
async def test_requests_that_only_one_instance_can_serve_start_no_other() -> None:
    pools = SeveralOffers(["cloud"], slots=1, most=2)
    with await pools.lease() as lease:
        lease.mark_used()
        only = pools.record("cloud").launch_id
        assert only is not None
        waits = [
            asyncio.get_running_loop().create_task(
                pools.pool.lease("made", wait_s=60.0, only=only)
            )
            for _ in range(9)
        ]
        await asyncio.sleep(TWO_HOURS_S / 2.0)

        assert pools.launches == {"cloud": 1}
    for wait in waits:
        served = await wait
        assert served is not None
        with served:
            served.mark_used()
    await pools.pool.aclose()


@in_virtual_time
async def test_each_request_counts_once_as_demand_however_long_it_waits() -> None:
    pools = SeveralOffers(["cloud"], slots=1, most=2)

    async def ask() -> None:
        with await pools.lease() as lease:
            lease.mark_used()
            await asyncio.sleep(20.0)

    async with asyncio.TaskGroup() as clients:
        for _ in range(5):  # one after the other, for there is one slot
            clients.create_task(ask())

    demand = pools.pool._wakes.facts().demand
    assert demand.load == pytest.approx(5 * demand.service_s / demand.boot_s)
    await pools.pool.aclose()


@pytest.mark.parametrize("box", [False, True])
def test_a_day_without_a_request_starts_nothing(*, box: bool) -> None:
    @in_virtual_time
    async def play() -> None:
        pools = SeveralOffers(["first", "second"], box=box, slots=4, most=3)

        await asyncio.sleep(86_400.0)

        assert pools.starts == {"first": 0, "second": 0}
        await pools.pool.aclose()

    play()
