"""What is use of an instance and what is none: how long an idle one is kept."""

import asyncio

from ollama_proxy.core.lifecycle.record import State
from ollama_proxy.fleet.lease import Lease
from tests.fleet.rig import Deployment
from tests.virtual_time import in_virtual_time


@in_virtual_time
async def test_an_idle_instance_goes_at_its_timeout_and_not_before() -> None:
    deployment = Deployment()
    lease = await deployment.lease()
    await asyncio.sleep(10_000)
    assert deployment.cloud.paid == 1
    lease.mark_used()
    lease.release()
    await asyncio.sleep(299)
    assert deployment.cloud.paid == 1
    await asyncio.sleep(5)

    assert deployment.cloud.paid == 0
    await deployment.pool.aclose()


@in_virtual_time
async def test_requests_that_are_no_use_keep_no_instance() -> None:
    deployment = Deployment()
    (await deployment.lease()).release()
    begun = asyncio.get_running_loop().time()
    while (lease := deployment.pool.try_lease()) is not None:
        await asyncio.sleep(0.5)
        lease.release()
        await asyncio.sleep(0.2)

    assert 290 < asyncio.get_running_loop().time() - begun < 301
    await deployment.pool.aclose()


@in_virtual_time
async def test_requests_without_a_pause_between_them_keep_no_instance() -> None:
    deployment = Deployment()
    lease: Lease | None = await deployment.lease()
    begun = asyncio.get_running_loop().time()
    while lease is not None:
        await asyncio.sleep(0.5)
        lease.release()
        lease = deployment.pool.try_lease()

    assert asyncio.get_running_loop().time() - begun < 301
    await deployment.pool.aclose()


@in_virtual_time
async def test_looks_that_overlap_keep_no_instance() -> None:
    deployment = Deployment()
    (await deployment.lease()).release()
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + 310

    async def look() -> None:
        while loop.time() < ends_at and (lease := deployment.pool.observe()):
            await asyncio.sleep(2.0)
            lease.release()

    looks = []
    for _ in range(3):
        looks.append(asyncio.ensure_future(look()))
        await asyncio.sleep(0.7)
    await asyncio.sleep(303)

    assert deployment.cloud.paid == 0
    await asyncio.gather(*looks)
    await deployment.pool.aclose()


@in_virtual_time
async def test_looks_are_let_through_as_long_as_a_request_is_at_work() -> None:
    deployment = Deployment()
    await deployment.lease()
    await asyncio.sleep(1000)

    assert deployment.pool.observe() is not None
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_request_that_was_use_keeps_it_from_its_end_on() -> None:
    deployment = Deployment()
    lease = await deployment.lease()
    lease.mark_used()
    await asyncio.sleep(1000)
    lease.release()
    await asyncio.sleep(299)

    assert deployment.state is State.READY
    await deployment.pool.aclose()


@in_virtual_time
async def test_bytes_that_move_are_use_when_they_move_and_not_later() -> None:
    deployment = Deployment()
    lease = await deployment.lease()
    await asyncio.sleep(1000)
    lease.mark_moving()
    await asyncio.sleep(200)
    lease.release()
    assert deployment.state is State.READY
    await asyncio.sleep(101)

    assert deployment.cloud.paid == 0
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_lease_that_only_holds_is_no_use_whatever_comes_of_it() -> None:
    deployment = Deployment()
    (await deployment.lease()).release()
    lease = deployment.pool.observe()
    assert lease is not None
    lease.mark_used()
    lease.mark_moving()
    await asyncio.sleep(1000)
    assert deployment.state is State.READY
    lease.release()
    await asyncio.sleep(1)

    assert deployment.cloud.paid == 0
    await deployment.pool.aclose()


@in_virtual_time
async def test_without_a_disk_what_runs_is_still_stopped_for_idleness() -> None:
    deployment = Deployment()
    lease = await deployment.lease()
    deployment.store.is_full = True
    await asyncio.sleep(100)
    lease.release()
    await asyncio.sleep(400)

    assert deployment.cloud.paid == 0
    await deployment.pool.aclose()
