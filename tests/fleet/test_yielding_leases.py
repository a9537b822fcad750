"""Requests of keys that may not wake: served by what is awake, and keep nothing."""

import asyncio

import pytest

from ollama_proxy.core.lifecycle.record import Policy, State
from ollama_proxy.core.pool_policy import PoolPolicy
from ollama_proxy.fleet.lease import Lease
from ollama_proxy.fleet.pool import Pool
from tests.fleet.pools import SeveralOffers, until
from tests.fleet.rig import Deployment
from tests.virtual_time import in_virtual_time


async def _used(deployment: Deployment) -> None:
    """Have the instance used now: its idle time begins."""
    with await deployment.lease() as lease:
        lease.mark_used()


async def _ask_on(pool: Pool, *, pause_s: float = 0.2, answer_s: float = 2.0) -> None:
    """Send one request after another for as long as they are served."""
    while (lease := pool.try_lease(yields=True)) is not None:
        with lease:
            lease.mark_used()
            lease.mark_moving()
            await asyncio.sleep(answer_s)
        await asyncio.sleep(pause_s)


@in_virtual_time
async def test_a_request_that_may_not_wake_starts_nothing_and_joins_nothing() -> None:
    deployment = Deployment()

    assert await deployment.pool.lease("m", wait_s=60.0, yields=True) is None
    assert deployment.state is State.COLD
    assert deployment.cloud.launches == 0
    await deployment.pool.aclose()


@in_virtual_time
async def test_it_may_wait_for_a_launch_that_another_caused() -> None:
    deployment = Deployment()
    await deployment.pool.request_instance("m", wait_s=0.0)
    launched_at = deployment.record.last_used
    await asyncio.sleep(0.1)
    lease = await deployment.pool.lease("m", wait_s=60.0, yields=True)

    assert lease is not None
    assert (deployment.record.keeping, deployment.record.yielding) == (0, 1)
    assert deployment.record.woken_at == launched_at
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_stream_of_such_requests_keeps_no_instance() -> None:
    deployment = Deployment()
    await _used(deployment)
    begun = asyncio.get_running_loop().time()
    await asyncio.gather(*(_ask_on(deployment.pool) for _ in range(3)))

    assert 295 < asyncio.get_running_loop().time() - begun < 305
    await asyncio.sleep(5.0)
    assert deployment.cloud.paid == 0
    await deployment.pool.aclose()


@in_virtual_time
async def test_an_answer_that_never_ends_is_cut_after_the_time_to_drain() -> None:
    deployment = Deployment(Policy(idle_timeout_s=300.0, drain_timeout_s=60.0))
    await _used(deployment)
    lease = deployment.pool.try_lease(yields=True)
    assert lease is not None
    lease.mark_used()
    await asyncio.sleep(302.0)
    draining = deployment.state
    refused = deployment.pool.try_lease(yields=True)
    await asyncio.sleep(61.0)

    assert (draining, refused) == (State.DRAINING, None)
    assert lease.was_cut
    assert deployment.cloud.paid == 0
    await deployment.pool.aclose()


@in_virtual_time
async def test_one_that_may_wake_waits_while_it_drains_and_has_the_next_one() -> None:
    deployment = Deployment(Policy(idle_timeout_s=300.0, drain_timeout_s=60.0))
    await _used(deployment)
    deployment.pool.try_lease(yields=True)
    await asyncio.sleep(310.0)
    assert deployment.state is State.DRAINING
    lease = await deployment.pool.lease("m", wait_s=600.0)

    assert lease is not None
    assert deployment.cloud.launches == 2
    await deployment.pool.aclose()


@in_virtual_time
async def test_looks_hold_the_instance_as_ever_beside_such_a_request() -> None:
    deployment = Deployment()
    await _used(deployment)
    look = deployment.pool.observe()
    deployment.pool.try_lease(yields=True)
    assert look is not None
    await asyncio.sleep(400.0)
    held = deployment.state
    look.release()

    assert (held, deployment.state) == (State.READY, State.DRAINING)
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_look_of_such_a_key_holds_nothing() -> None:
    deployment = Deployment(Policy(idle_timeout_s=300.0, drain_timeout_s=60.0))
    await _used(deployment)
    deployment.pool.observe(yields=True)
    await asyncio.sleep(302.0)

    assert deployment.state is State.DRAINING
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_lease_that_begins_to_keep_is_one_like_others() -> None:
    deployment = Deployment()
    await _used(deployment)
    lease = deployment.pool.try_lease(yields=True)
    assert lease is not None
    lease.keep()
    lease.keep()
    lease.mark_used()
    await asyncio.sleep(1000.0)
    kept = deployment.state
    lease.release()
    await asyncio.sleep(299.0)

    assert (kept, deployment.state) == (State.READY, State.READY)
    assert deployment.record.leases == deployment.record.yielding == 0
    await deployment.pool.aclose()


@in_virtual_time
async def test_the_copy_of_such_a_lease_keeps_nothing_either() -> None:
    deployment = Deployment(Policy(idle_timeout_s=300.0, drain_timeout_s=60.0))
    await _used(deployment)
    lease = deployment.pool.try_lease(yields=True)
    assert lease is not None
    copy = deployment.pool.duplicate(lease)
    lease.release()
    assert copy is not None
    copy.mark_used()
    await asyncio.sleep(302.0)

    assert deployment.state is State.DRAINING
    await deployment.pool.aclose()


@in_virtual_time
async def test_they_take_slots_and_start_no_further_instance() -> None:
    pools = SeveralOffers(["first"], most=3, slots=1)
    await pools.serve()
    held: list[Lease] = []

    async def ask() -> None:
        lease = await pools.pool.lease("m", wait_s=600.0, yields=True)
        assert lease is not None
        held.append(lease)
        lease.mark_used()
        await asyncio.sleep(30.0)
        lease.release()

    asked = asyncio.gather(*(ask() for _ in range(5)))
    await asyncio.sleep(1.0)
    at_once, waiting = pools.pool.in_flight, pools.pool.waiting
    await asked

    assert (at_once, waiting, len(held)) == (1, 4, 5)
    assert pools.launches == {"first": 1}
    await pools.pool.aclose()


@in_virtual_time
async def test_they_are_no_demand_when_one_that_may_wake_waits_beside_them() -> None:
    pools = SeveralOffers(["first"], most=3, slots=1)
    await pools.serve()
    before = pools.pool._meter.load(0.0, 300.0), pools.pool._meter.service_s
    for _ in range(50):
        lease = pools.pool.try_lease(model="m", yields=True)
        assert lease is not None
        with lease:
            lease.mark_used()

    assert (pools.pool._meter.load(0.0, 300.0), pools.pool._meter.service_s) == before
    await pools.pool.aclose()


@in_virtual_time
async def test_an_instance_to_spare_goes_although_such_requests_run_on_it() -> None:
    policy = PoolPolicy(max_instances=2, keep_extra_s=30.0)
    pools = SeveralOffers(["first"], most=2, slots=1, policy=policy)
    busy = [await pools.lease(600.0) for _ in range(2)]
    assert pools.paid == {"first": 2}
    for lease in busy:
        lease.mark_used()
        lease.release()
    held = [pools.pool.try_lease(yields=True) for _ in range(2)]
    await until(lambda: pools.pool.ready_count == 1)

    assert all(lease is not None for lease in held)
    await pools.pool.aclose()


@in_virtual_time
async def test_a_server_of_others_serves_them_and_stays_connected() -> None:
    pools = SeveralOffers(["first"], box=True)
    await until(lambda: pools.pool.is_ready)
    lease = pools.pool.try_lease(yields=True)
    assert lease is not None
    lease.mark_used()
    await asyncio.sleep(10_000.0)

    assert pools.record("box").state is State.READY
    assert not lease.was_cut
    await pools.pool.aclose()


@pytest.mark.parametrize("wait_s", [0.0, 600.0])
@in_virtual_time
async def test_once_the_idle_time_is_over_they_get_no_instance(wait_s: float) -> None:
    deployment = Deployment(Policy(idle_timeout_s=300.0, drain_timeout_s=60.0))
    await _used(deployment)
    look = deployment.pool.observe()  # which holds it beyond its time
    assert look is not None
    await asyncio.sleep(400.0)
    begun = asyncio.get_running_loop().time()
    lease = await deployment.pool.lease("m", wait_s=wait_s, yields=True)

    assert lease is None
    assert asyncio.get_running_loop().time() - begun <= wait_s
    look.release()
    await deployment.pool.aclose()
