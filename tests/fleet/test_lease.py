"""A lease ends with its instance."""

import asyncio

import pytest

from ollama_proxy.core.lifecycle.events import Lost
from ollama_proxy.core.lifecycle.record import Policy, State
from tests.fleet.rig import Deployment
from tests.virtual_time import in_virtual_time


@in_virtual_time
async def test_a_request_ends_when_its_instance_is_lost() -> None:
    deployment = Deployment()
    lease = await deployment.lease()
    ended_after_s: list[float] = []

    async def request() -> None:
        begun = asyncio.get_running_loop().time()
        with pytest.raises(TimeoutError), lease:
            async with lease.until_cut():
                await asyncio.sleep(3600.0)
        ended_after_s.append(asyncio.get_running_loop().time() - begun)

    asking = asyncio.ensure_future(request())
    await asyncio.sleep(5.0)
    deployment.controller.apply(Lost(lease.launch_id, "no route to host"))
    await asking
    await deployment.pool.aclose()

    assert lease.was_cut
    assert ended_after_s == [pytest.approx(5.0)]
    assert deployment.pool.in_flight == 0


@in_virtual_time
async def test_every_request_on_an_instance_that_is_stopped_is_ended() -> None:
    deployment = Deployment(policy=Policy(drain_timeout_s=30.0))
    leases = [await deployment.lease() for _ in range(3)]
    deployment.pool.stop()
    draining = [lease.was_cut for lease in leases]
    await asyncio.sleep(31.0)
    await deployment.pool.aclose()

    assert draining == [False] * 3
    assert [lease.was_cut for lease in leases] == [True] * 3


@in_virtual_time
async def test_a_lease_that_was_released_is_not_cut() -> None:
    deployment = Deployment()
    lease, other = await deployment.lease(), await deployment.lease()
    lease.release()
    deployment.controller.apply(Lost(other.launch_id, "no route to host"))
    await deployment.pool.aclose()

    assert (lease.was_cut, other.was_cut) == (False, True)


@in_virtual_time
async def test_a_scope_that_is_entered_after_the_cut_ends_at_once() -> None:
    deployment = Deployment()
    lease = await deployment.lease()
    lease.cut()

    async def request() -> None:
        async with lease.until_cut(60.0):
            await asyncio.sleep(1.0)

    with pytest.raises(TimeoutError):
        await request()
    lease.lift_limit()
    lease.release()
    lease.release()
    await deployment.pool.aclose()

    assert deployment.record.leases == 0


@in_virtual_time
async def test_a_limit_that_is_lifted_ends_nothing() -> None:
    deployment = Deployment()
    with await deployment.lease() as lease:
        async with lease.until_cut(1.0):
            lease.lift_limit()
            await asyncio.sleep(10.0)
    await deployment.pool.aclose()

    assert deployment.state is State.READY
