"""Leases and wakes: which instance a request gets, and what is launched for it."""

import asyncio
import random

import pytest

from ollama_proxy.base.errors import StoreError
from ollama_proxy.core.lifecycle.events import Wake
from ollama_proxy.core.lifecycle.record import LaunchId, Policy, Record, State
from ollama_proxy.core.pool_policy import PoolPolicy
from ollama_proxy.fleet.controller import Controller
from ollama_proxy.fleet.offer import Offer
from ollama_proxy.fleet.pool import Pool
from ollama_proxy.fleet.pool_slot import slots_of
from tests.fakes.cloud import FakeCloud
from tests.fakes.probe import FakeProbe
from tests.fakes.store import FaultyStore
from tests.fleet.rig import Deployment
from tests.virtual_time import LoopClock, in_virtual_time


@in_virtual_time
async def test_many_waiters_share_one_launch_and_one_load() -> None:
    deployment = Deployment()
    leases = await asyncio.gather(
        *(deployment.pool.lease("m", wait_s=60) for _ in range(500))
    )

    assert all(lease is not None for lease in leases)
    assert deployment.cloud.launches == 1
    assert deployment.probe.prepared == ["m"]
    assert deployment.pool.in_flight == 500
    await deployment.pool.aclose()


@in_virtual_time
async def test_without_a_disk_nothing_is_launched() -> None:
    deployment = Deployment()
    await asyncio.sleep(1)
    deployment.store.is_full = True
    with pytest.raises(StoreError, match="disk full"):
        await deployment.pool.lease("m", wait_s=60)

    assert deployment.cloud.calls.count("start") == 0
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_wake_while_stopping_is_carried_out_when_it_is_cold() -> None:
    deployment = Deployment()
    (await deployment.lease()).release()
    deployment.pool.stop()
    assert await deployment.pool.lease("m", wait_s=0) is None
    await asyncio.sleep(30)

    assert deployment.state is State.READY
    assert deployment.cloud.launches == 2
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_wish_in_the_same_second_changes_nothing_and_a_later_one_counts() -> (
    None
):
    deployment = Deployment()
    await deployment.pool.wake("m")
    woken = deployment.record
    await deployment.pool.wake("m")
    at_once = deployment.record
    await asyncio.sleep(1.5)
    await deployment.pool.wake("m")
    later = deployment.record

    assert woken.state is State.STARTING
    assert at_once is woken
    assert later.last_used == woken.last_used + 1.5
    await deployment.pool.aclose()


class TwoSlots:
    """A pool of two slots, each with a cloud of its own."""

    def __init__(self, *, wanted: int = 0) -> None:
        self.clouds = [FakeCloud(), FakeCloud()]
        self.store, self.probe = FaultyStore(), FakeProbe()
        self.controllers = [
            Controller(
                f"default-{number}",
                Offer("fake", cloud),
                store=self.store,
                launches=self.store,
                probe=self.probe,
                clock=LoopClock(),
                policy=Policy(),
                rng=random.Random(number),
            )
            for number, cloud in enumerate(self.clouds)
        ]
        self.pool = Pool(
            slots_of(self.controllers),
            store=self.store,
            clock=LoopClock(),
            max_waiting=9,
            policy=PoolPolicy(min_instances=wanted, max_instances=2),
        )
        self.pool.start()

    async def both_ready(self) -> None:
        for number, one in enumerate(self.controllers):
            await one.wake(Wake(LaunchId(f"l{number}")))
        await self.until_both_are_ready()

    async def until_both_are_ready(self) -> None:
        while {one.record.state for one in self.controllers} != {State.READY}:
            await asyncio.sleep(0.1)


@in_virtual_time
async def test_the_least_busy_instance_is_leased_where_none_is_to_spare() -> None:
    slots = TwoSlots(wanted=2)
    await slots.until_both_are_ready()
    leases = [slots.pool.try_lease() for _ in range(6)]
    busy = [one.record.leases for one in slots.controllers]
    for lease in leases[::2]:  # those of the first slot
        assert lease is not None
        lease.release()
    again = [slots.pool.try_lease() for _ in range(3)]
    await slots.pool.aclose()

    assert busy == [3, 3]
    first = leases[0]
    assert first is not None
    assert [lease and lease.launch_id for lease in again] == [first.launch_id] * 3


@in_virtual_time
async def test_one_of_two_gets_all_requests_where_the_other_is_to_spare() -> None:
    slots = TwoSlots()
    await slots.both_ready()
    for _ in range(4):
        slots.pool.try_lease()
    busy = [one.record.leases for one in slots.controllers]
    await slots.pool.aclose()

    assert sorted(busy) == [0, 4]


@in_virtual_time
async def test_a_wake_launches_one_instance_however_many_slots_there_are() -> None:
    slots = TwoSlots()
    await slots.pool.wake("m")
    states = [one.record.state for one in slots.controllers]
    lease = await slots.pool.lease("m", wait_s=60.0)
    await slots.pool.aclose()

    assert states == [State.STARTING, State.COLD]
    assert lease is not None
    assert [cloud.launches for cloud in slots.clouds] == [1, 0]


@in_virtual_time
async def test_a_wake_that_comes_by_itself_after_a_stop_is_no_launch_of_another() -> (
    None
):
    deployment = Deployment()
    would: dict[State, bool] = {}

    def note(_before: Record, after: Record) -> None:
        would[after.state] = deployment.pool.would_launch

    await deployment.pool.lease("m", wait_s=60)
    deployment.pool.stop()
    before = deployment.pool.would_launch
    await deployment.pool.wake()
    deployment.controller.subscribe(note)
    while deployment.state is not State.READY:
        await asyncio.sleep(1)
    await deployment.pool.aclose()

    assert before
    assert State.COLD in would
    assert not any(would.values())
