"""A server of one's own first, and a cloud for what it can't take."""

import asyncio
from dataclasses import replace

from ollama_proxy.core.lifecycle.record import State
from ollama_proxy.core.pool_policy import PoolPolicy
from tests.fleet.pools import POLICY, SeveralOffers, until
from tests.virtual_time import in_virtual_time

HOUR_S = 3600.0


async def box_and_cloud(boot_s: float = 60.0, **options: object) -> SeveralOffers:
    pools = SeveralOffers(
        ("cloud",),
        most=1,
        slots=4,
        box=True,
        policy=PoolPolicy(max_instances=1),
        boot_s=boot_s,
        load_s=1.0,
        record_policy=replace(POLICY, idle_timeout_s=1800.0),
        **options,  # type: ignore[arg-type]  # those of the class
    )
    pools.clouds["cloud"].faults.boot_s = boot_s
    await until(lambda: pools.pool.is_ready)
    return pools


def on_box(pools: SeveralOffers) -> int:
    return pools.record("box").leases


@in_virtual_time
async def test_the_box_gets_every_request_that_it_has_a_slot_for() -> None:
    pools = await box_and_cloud()
    leases = [await pools.lease() for _ in range(4)]
    await asyncio.sleep(HOUR_S)
    await pools.pool.aclose()

    assert len(leases) == 4
    assert pools.starts == {"cloud": 0}


@in_virtual_time
async def test_a_cloud_is_asked_once_a_request_has_waited_ten_seconds() -> None:
    pools = await box_and_cloud()
    held = [await pools.lease() for _ in range(4)]
    waits = [
        asyncio.ensure_future(pools.pool.lease("m", wait_s=0.0)) for _ in range(30)
    ]
    await asyncio.sleep(9.0)
    assert pools.starts == {"cloud": 0}
    await asyncio.sleep(3.0)
    assert pools.starts == {"cloud": 1}
    await until(waits[3].done)
    assert pools.record("cloud").leases == 4
    for lease in held:
        lease.release()
    await asyncio.gather(*waits[:8])
    await pools.pool.aclose()
    await asyncio.gather(*waits)


@in_virtual_time
async def test_a_box_that_is_down_for_eight_seconds_starts_no_cloud() -> None:
    pools = await box_and_cloud()
    await pools.serve()
    pools.probes["box"].answers = False
    pools.pool.check_now()
    for _ in range(8):
        if (lease := pools.pool.try_lease(model="m")) is not None:
            lease.check_now()
            lease.release()
        await asyncio.sleep(1.0)
    pools.probes["box"].answers = True
    await asyncio.sleep(HOUR_S)
    await pools.serve()
    await pools.pool.aclose()

    assert pools.starts == {"cloud": 0}


@in_virtual_time
async def test_while_the_box_is_down_a_cloud_answers_and_leaves_once_it_is_back() -> (
    None
):
    pools = await box_and_cloud()
    pools.probes["box"].answers = False
    pools.pool.check_now()
    await until(lambda: pools.record("box").state is not State.READY, 60.0)
    lease = await pools.lease(300.0)
    lease.mark_used()
    assert pools.record("cloud").leases == 1
    pools.probes["box"].answers = True
    await until(lambda: pools.record("box").state is State.READY, 60.0)
    await asyncio.sleep(20.0)
    with await pools.lease():
        assert on_box(pools) == 0  # it has been good for too short a time
    await asyncio.sleep(15.0)
    with await pools.lease():
        assert on_box(pools) == 1
    lease.release()  # the cloud keeps what it had
    await asyncio.sleep(600.0)
    await pools.pool.aclose()

    assert not lease.was_cut
    assert pools.paid == {"cloud": 0}


@in_virtual_time
async def test_a_client_that_polls_does_not_put_off_the_cloud() -> None:
    pools = await box_and_cloud()
    pools.probes["box"].answers = False
    pools.pool.check_now()
    await until(lambda: pools.record("box").state is not State.READY, 60.0)
    for _ in range(15):
        assert await pools.pool.lease("m", wait_s=0.0) is None
        await asyncio.sleep(1.0)
    await pools.pool.aclose()

    assert pools.starts == {"cloud": 1}


@in_virtual_time
async def test_a_model_that_the_box_lacks_is_answered_by_the_cloud_at_once() -> None:
    pools = await box_and_cloud()
    pools.pool.spill(lambda model, _plain: model == "large")
    assert pools.pool.try_lease(model="large") is None
    lease = await pools.pool.lease("large", wait_s=300.0)
    assert lease is not None
    assert pools.record("cloud").leases == 1
    with await pools.lease():
        assert on_box(pools) == 1
    again = pools.pool.try_lease(model="large")
    assert again is not None
    assert again.launch_id == lease.launch_id
    await pools.pool.aclose()

    assert pools.launches == {"cloud": 1}


@in_virtual_time
async def test_a_client_that_was_told_503_for_such_a_model_finds_the_cloud_coming() -> (
    None
):
    pools = await box_and_cloud()
    pools.pool.spill(lambda model, _plain: model == "large")
    for _ in range(9):
        assert await pools.pool.lease("large", wait_s=0.0) is None
        await asyncio.sleep(1.0)
    assert pools.starts == {"cloud": 1}
    await until(lambda: pools.record("cloud").state is State.READY, 300.0)
    assert pools.pool.try_lease(model="large") is not None
    await pools.pool.aclose()


@in_virtual_time
async def test_a_model_that_no_offer_has_starts_nothing() -> None:
    pools = await box_and_cloud()
    pools.pool.spill(lambda *_: False)
    with await pools.lease():
        assert on_box(pools) == 1  # which refuses it in its own words
    await asyncio.sleep(HOUR_S)
    await pools.pool.aclose()

    assert pools.starts == {"cloud": 0}


@in_virtual_time
async def test_where_all_servers_are_of_others_a_request_waits_for_one_to_come() -> (
    None
):
    pools = SeveralOffers((), most=0, box=True, policy=PoolPolicy(min_instances=1))
    pools.probes["box"].answers = False
    waiting = asyncio.ensure_future(pools.pool.lease("m", wait_s=60.0))
    await asyncio.sleep(30.0)
    assert not waiting.done()
    pools.probes["box"].answers = True

    assert await waiting is not None
    await pools.pool.aclose()
