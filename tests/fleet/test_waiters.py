"""Requests that wait for an instance: how long, how many, and what ends it."""

import asyncio

import pytest

from ollama_proxy.base.errors import HoldLimitError
from ollama_proxy.core.lifecycle.record import State
from tests.fleet.rig import Deployment
from tests.virtual_time import in_virtual_time


@in_virtual_time
async def test_the_waiting_are_released_in_a_ramp_and_within_250_ms() -> None:
    deployment = Deployment()
    moments: list[float] = []
    loop = asyncio.get_running_loop()

    async def ask() -> None:
        await deployment.pool.lease("m", wait_s=60)
        moments.append(loop.time())

    await asyncio.gather(*(ask() for _ in range(2000)))

    assert len([m for m in moments if m == moments[0]]) <= 8
    assert moments[-1] - moments[0] < 0.25
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_wait_ends_at_its_deadline_and_the_launch_goes_on() -> None:
    deployment = Deployment()
    deployment.probe.load_s = 100.0
    begun = asyncio.get_running_loop().time()
    lease = await deployment.pool.lease("m", wait_s=30)

    assert lease is None
    assert asyncio.get_running_loop().time() - begun == pytest.approx(30)
    assert deployment.pool.waiting == 0
    assert deployment.state is State.STARTING
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_wait_outlives_the_stop_that_was_under_way() -> None:
    deployment = Deployment()
    (await deployment.lease()).release()
    deployment.pool.stop()
    lease = await deployment.pool.lease("m", wait_s=60)

    assert lease is not None
    assert deployment.cloud.launches == 2
    assert deployment.cloud.most_paid == 1
    await deployment.pool.aclose()


@in_virtual_time
async def test_no_more_may_wait_than_the_bound() -> None:
    deployment = Deployment(max_waiting=2)
    waits = [
        asyncio.ensure_future(deployment.pool.lease("m", wait_s=60)) for _ in range(2)
    ]
    await asyncio.sleep(0)
    with pytest.raises(HoldLimitError, match="2 requests wait already"):
        await deployment.pool.lease("m", wait_s=60)

    assert None not in await asyncio.gather(*waits)
    await deployment.pool.aclose()


@in_virtual_time
async def test_ending_lets_nobody_wait_and_wakes_nothing() -> None:
    deployment = Deployment()
    waiting = asyncio.ensure_future(deployment.pool.lease("m", wait_s=60))
    await asyncio.sleep(0)
    deployment.pool.stop_admitting()

    assert await waiting is None
    calls = deployment.cloud.launches
    assert await deployment.pool.lease("m", wait_s=0) is None
    assert deployment.cloud.launches == calls
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_stop_gives_up_who_waits() -> None:
    deployment = Deployment()
    waiting = asyncio.ensure_future(deployment.pool.lease("m", wait_s=600))
    await asyncio.sleep(1)
    deployment.pool.stop()

    assert await waiting is None
    await asyncio.sleep(60)
    assert deployment.cloud.paid == 0
    await deployment.pool.aclose()
