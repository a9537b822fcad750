"""Slots: how many requests an instance gets at a time, and the queue for them."""

import asyncio
from collections import Counter
from dataclasses import replace

import pytest

from ollama_proxy.base.errors import HoldLimitError
from ollama_proxy.core.lifecycle.record import State
from ollama_proxy.core.pool_policy import PoolPolicy
from ollama_proxy.fleet.lease import Lease
from ollama_proxy.fleet.waiters import Ticket
from tests.fleet.pools import POLICY, SeveralOffers, until
from tests.virtual_time import in_virtual_time


async def full(pools: SeveralOffers, count: int) -> list[Lease]:
    """Take every slot of the instances that are ready then."""
    return [await pools.lease() for _ in range(count)]


@in_virtual_time
async def test_a_slot_is_waited_for_beyond_any_hold() -> None:
    pools = SeveralOffers(("only",), slots=2)
    first, _ = await full(pools, 2)
    waiting = asyncio.ensure_future(pools.pool.lease("m", wait_s=0.0))
    await asyncio.sleep(500.0)
    assert not waiting.done()
    assert pools.pool.try_lease() is None
    first.release()
    lease = await waiting
    assert lease is not None
    assert pools.pool.in_flight == 2
    await pools.pool.aclose()


@in_virtual_time
async def test_freed_slots_go_to_those_that_wait_in_the_order_of_arrival() -> None:
    pools = SeveralOffers(("only",), slots=2)
    held = await full(pools, 2)
    served: list[int] = []

    async def ask(number: int) -> None:
        with await pools.lease(0.0):
            served.append(number)
            await asyncio.sleep(1.0)

    asking = []
    for number in range(20):
        asking.append(asyncio.ensure_future(ask(number)))
        await asyncio.sleep(0.01)
    for lease in held:
        lease.release()
        assert pools.pool.try_lease() is None  # a newcomer overtakes nobody
    await asyncio.gather(*asking)
    await pools.pool.aclose()

    assert served == list(range(20))
    assert pools.pool.in_flight == 0


@in_virtual_time
async def test_each_freed_slot_lets_exactly_one_go() -> None:
    pools = SeveralOffers(("only",), slots=2)
    held = await full(pools, 2)
    waits = [asyncio.ensure_future(pools.pool.lease("m", wait_s=0.0)) for _ in range(5)]
    await asyncio.sleep(1.0)
    held[0].release()
    await asyncio.sleep(1.0)
    await pools.pool.aclose()

    assert sum(one.done() for one in waits) == 1 + 4  # the end lets the others go
    granted = [one.result() for one in waits if one.result() is not None]
    assert granted == [waits[0].result()]


@in_virtual_time
async def test_the_slot_of_a_client_that_leaves_as_it_is_granted_goes_to_the_next() -> (
    None
):
    pools = SeveralOffers(("only",), slots=1)
    [held] = await full(pools, 1)
    leaving = asyncio.ensure_future(pools.pool.lease("m", wait_s=0.0))
    staying = asyncio.ensure_future(pools.pool.lease("m", wait_s=0.0))
    await asyncio.sleep(1.0)
    held.release()  # it is granted in this turn of the loop
    leaving.cancel()
    lease = await staying

    assert lease is not None
    assert pools.pool.in_flight == 1
    await pools.pool.aclose()


@in_virtual_time
async def test_a_client_that_leaves_the_queue_takes_no_slot() -> None:
    pools = SeveralOffers(("only",), slots=1)
    [held] = await full(pools, 1)
    leaving = asyncio.ensure_future(pools.pool.lease("m", wait_s=0.0))
    staying = asyncio.ensure_future(pools.pool.lease("m", wait_s=0.0))
    await asyncio.sleep(1.0)
    leaving.cancel()
    await asyncio.sleep(1.0)
    assert pools.pool.waiting == 1
    held.release()

    assert await staying is not None
    await pools.pool.aclose()


@in_virtual_time
async def test_reads_and_pulls_take_no_slot() -> None:
    pools = SeveralOffers(("only",), slots=1)
    [held] = await full(pools, 1)
    waiting = asyncio.ensure_future(pools.pool.lease("m", wait_s=0.0))
    await asyncio.sleep(1.0)
    others = [
        pools.pool.observe(),
        pools.pool.try_lease(takes_slot=False),
        pools.pool.duplicate(held),
        await pools.pool.lease(None, wait_s=0.0, takes_slot=False),
    ]
    assert None not in others
    for lease in others:
        assert lease is not None
        lease.release()
    assert not waiting.done()
    held.release()

    assert await waiting is not None
    await pools.pool.aclose()


@in_virtual_time
async def test_each_that_waits_knows_its_place() -> None:
    pools = SeveralOffers(("only",), slots=1)
    [held] = await full(pools, 1)
    tickets = [Ticket() for _ in range(3)]
    assert pools.pool.next_position() == 1
    waits = []
    for ticket in tickets:
        asking = pools.pool.lease("m", wait_s=0.0, ticket=ticket)
        waits.append(asyncio.ensure_future(asking))
    await asyncio.sleep(1.0)
    before = [ticket.position for ticket in tickets]
    held.release()
    await asyncio.sleep(1.0)
    after = [ticket.position for ticket in tickets]
    assert pools.pool.next_position() == 3
    await pools.pool.aclose()

    assert before == [1, 2, 3]
    assert after == [None, 1, 2]


@in_virtual_time
async def test_no_more_may_wait_for_a_slot_than_the_bound() -> None:
    pools = SeveralOffers(("only",), slots=1, max_waiting=2)
    await full(pools, 1)
    waits = [asyncio.ensure_future(pools.pool.lease("m", wait_s=0.0)) for _ in range(2)]
    await asyncio.sleep(1.0)
    with pytest.raises(HoldLimitError, match="2 requests wait already"):
        await pools.pool.lease("m", wait_s=0.0)
    await pools.pool.aclose()
    await asyncio.gather(*waits)


@in_virtual_time
async def test_who_waited_for_a_slot_is_told_when_its_instance_is_lost() -> None:
    """One that may wait for a start gets the next instance instead."""
    pools = SeveralOffers(("only",), slots=1)
    await full(pools, 1)
    hasty = asyncio.ensure_future(pools.pool.lease("m", wait_s=0.0))
    patient = asyncio.ensure_future(pools.pool.lease("m", wait_s=600.0))
    await asyncio.sleep(1.0)
    pools.clouds["only"].preempt()
    pools.probes["only"].answers = False
    pools.pool.check_now()
    await asyncio.sleep(20.0)
    assert await hasty is None
    pools.probes["only"].answers = True

    assert await patient is not None
    await pools.pool.aclose()


@in_virtual_time
async def test_forty_long_chats_get_three_instances_and_leave_none() -> None:
    policy = PoolPolicy(max_instances=3, max_starting=2, keep_extra_s=20.0)
    pools = SeveralOffers(("only",), most=3, slots=4, policy=policy, boot_s=5.0)
    cloud = pools.clouds["only"]
    busiest: Counter[str] = Counter()
    answered = 0

    async def chat() -> None:
        nonlocal answered
        with await pools.lease(600.0) as lease:
            lease.mark_used()
            held = Counter(
                one.record.launch_id or ""
                for one in pools.pool.controllers
                for _ in range(one.record.leases)
            )
            busiest.update({k: max(0, v - busiest[k]) for k, v in held.items()})
            await asyncio.sleep(30.0)
            answered += 1

    await asyncio.gather(*(chat() for _ in range(40)))
    assert answered == 40
    assert (cloud.most_paid, cloud.launches) == (3, 3)
    assert max(busiest.values()) == 4
    await asyncio.sleep(60.0)
    assert cloud.paid == 1  # the extra ones have gone
    await asyncio.sleep(400.0)
    await pools.pool.aclose()

    assert cloud.paid == 0
    assert len(busiest) == 3


@in_virtual_time
async def test_only_so_many_instances_start_at_a_time() -> None:
    policy = PoolPolicy(max_instances=4, max_starting=2)
    pools = SeveralOffers(("only",), most=4, slots=1, policy=policy)
    pools.clouds["only"].faults.boot_s = 400.0
    pools.store.reserve_s = 5.0
    waits = [
        asyncio.ensure_future(pools.pool.lease("m", wait_s=2000.0)) for _ in range(99)
    ]
    most = 0
    for _ in range(100):
        await asyncio.sleep(1.0)
        starting = [
            one.is_reserving or one.record.state is State.STARTING
            for one in pools.pool.controllers
        ]
        most = max(most, sum(starting))
    await pools.pool.aclose()
    await asyncio.gather(*waits)

    assert most == 2
    assert pools.starts["only"] == 2


@in_virtual_time
async def test_as_many_as_are_to_stay_are_there_from_the_start_and_stay() -> None:
    policy = PoolPolicy(min_instances=1, max_instances=2, keep_extra_s=20.0)
    pools = SeveralOffers(("only",), most=2, slots=1, policy=policy)
    await asyncio.sleep(20.0)
    assert pools.pool.ready_count == 1
    leases = await full(pools, 1)
    leases.append(await pools.lease(3600.0))
    for lease in leases:
        lease.mark_used()
        lease.release()
    await asyncio.sleep(4 * 3600.0)
    assert pools.paid == {"only": 1}
    await pools.restart()
    await asyncio.sleep(4 * 3600.0)
    assert pools.paid == {"only": 1}
    pools.clouds["only"].preempt()
    await asyncio.sleep(120.0)
    await pools.pool.aclose()

    assert pools.paid == {"only": 1}


@in_virtual_time
async def test_a_person_stops_what_is_to_stay_until_somebody_asks_again() -> None:
    policy = PoolPolicy(min_instances=1, max_instances=2)
    pools = SeveralOffers(("only",), most=2, policy=policy)
    await until(lambda: pools.pool.is_ready)
    pools.pool.stop()
    await asyncio.sleep(3600.0)
    assert pools.paid == {"only": 0}
    await pools.serve()
    await asyncio.sleep(3600.0)
    await pools.pool.aclose()

    assert pools.paid == {"only": 1}


@pytest.mark.no_cover  # thousands of plans, in hours of virtual time
@in_virtual_time
async def test_nobody_asks_for_a_day_and_nothing_is_started() -> None:
    pools = SeveralOffers(("a", "b", "c"), most=4, slots=4)
    await asyncio.sleep(86_400.0)
    await pools.pool.aclose()

    assert pools.starts == {"a": 0, "b": 0, "c": 0}


@in_virtual_time
async def test_a_limit_reached_by_launches_under_way_ends_once_one_of_them_serves() -> (
    None
):
    pools = SeveralOffers(
        ("only",),
        most=4,
        slots=1,
        record_policy=replace(POLICY, launch_limit=2),
        load_s=60.0,
        boot_s=60.0,
    )
    waiting = [
        asyncio.ensure_future(pools.pool.lease("m", wait_s=600.0)) for _ in range(40)
    ]
    await asyncio.sleep(30.0)
    assert pools.launches == {"only": 2}
    assert pools.pool.obstacles()["only"].is_off
    await until(waiting[0].done)
    served = waiting[0].result()
    assert served is not None
    served.mark_used()

    assert pools.pool.obstacles() == {}
    await until(lambda: pools.launches == {"only": 4})
    for one in waiting:
        one.cancel()
    await pools.pool.aclose()
