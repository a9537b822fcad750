"""The registry and a pool together: what requests do to a node, and it to them."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from ollama_proxy.base.tasks import start_task
from ollama_proxy.fleet.lease import Lease
from ollama_proxy.fleet.pool import Pool
from tests.core.nodes.beats import our_beat
from tests.fakes.store import FaultyStore
from tests.hub.nodes import Hub
from tests.virtual_time import LoopClock, in_virtual_time

MODEL = "llama3"


@asynccontextmanager
async def pool_of(hub: Hub) -> AsyncIterator[Pool]:
    """Run a pool whose only instances are the nodes of a hub, and let time pass."""
    pool = Pool(
        (),
        store=FaultyStore(),
        clock=LoopClock(),
        max_waiting=100,
        houses=[*hub.houses.values()],
        rng=random.Random(1),
    )
    pool.start()
    async with asyncio.TaskGroup() as tasks:
        ticking = tasks.create_task(hub.registry.run())
        yield pool
        ticking.cancel()
    await pool.aclose()


def hub_in_loop_time() -> Hub:
    hub = Hub(time=LoopClock())
    hub.links.serves_all = True
    return hub


def leases_of(pool: Pool) -> list[Lease]:
    """Return as many leases as the nodes have slots now; give them back."""
    found = []
    while (lease := pool.try_lease(model=MODEL)) is not None:
        found.append(lease)
    for lease in found:
        lease.release()
    return found


def fail(pool: Pool, times: int) -> None:
    for _ in range(times):
        lease = pool.try_lease(model=MODEL)
        assert lease is not None
        lease.failed("it refused the connection")
        lease.release()


@dataclass
class SleepyClock(LoopClock):
    """The time of the loop, and that in which the machine slept."""

    asleep_s: float = 0.0

    def now(self) -> float:
        return super().now() + self.asleep_s


@in_virtual_time
async def test_a_hub_that_slept_counts_no_silence_for_that_time() -> None:
    clock = SleepyClock()
    hub = Hub(time=clock)
    hub.links.serves_all = True
    async with pool_of(hub) as pool:
        hub.ours()
        lease = pool.try_lease(model=MODEL)
        await asyncio.sleep(50.5)
        clock.asleep_s = 8 * 3600.0
        await asyncio.sleep(35)
        online = hub.status()
        was_cut = lease is None or lease.was_cut
        await asyncio.sleep(10)

        assert (online, was_cut, hub.status()) == ("online", False, "offline")


@in_virtual_time
async def test_a_node_that_fails_fast_gets_nothing_after_its_third_failure() -> None:
    hub = hub_in_loop_time()
    async with pool_of(hub) as pool:
        hub.ours()
        fail(pool, 3)

        assert hub.status() == "degraded"
        assert leases_of(pool) == []


@in_virtual_time
async def test_a_degraded_node_gets_one_try_at_a_time_and_one_success_heals() -> None:
    hub = hub_in_loop_time()
    async with pool_of(hub) as pool:
        hub.ours(seq=1)
        fail(pool, 3)
        await asyncio.sleep(31)
        hub.ours(seq=2)
        assert len(leases_of(pool)) == 1

        fail(pool, 1)
        assert leases_of(pool) == []
        await asyncio.sleep(31)
        hub.ours(seq=3)
        lease = pool.try_lease(model=MODEL)
        assert lease is not None
        assert pool.try_lease(model=MODEL) is None
        lease.answered()
        lease.release()

        assert hub.status() == "online"
        assert len(leases_of(pool)) == 4


@in_virtual_time
async def test_an_offline_node_gets_nothing_and_its_next_beat_brings_it_back() -> None:
    hub = hub_in_loop_time()
    async with pool_of(hub) as pool:
        hub.ours(seq=1)
        await asyncio.sleep(89)
        assert len(leases_of(pool)) == 4
        await asyncio.sleep(3)
        assert leases_of(pool) == []
        hub.ours(seq=2)
        assert len(leases_of(pool)) == 4


@in_virtual_time
async def test_a_node_that_is_removed_cuts_its_requests() -> None:
    hub = hub_in_loop_time()
    async with pool_of(hub) as pool:
        hub.ours()
        lease = pool.try_lease(model=MODEL)
        assert lease is not None
        hub.registry.remove("box")

        assert pool.ready_count == 0
        assert lease.was_cut


@in_virtual_time
async def test_a_drained_node_ends_what_it_has_and_gets_no_more() -> None:
    hub = hub_in_loop_time()
    async with pool_of(hub) as pool:
        hub.ours()
        lease = pool.try_lease(model=MODEL)
        assert lease is not None
        hub.registry.drain("box", is_drained=True)

        assert not lease.was_cut
        assert leases_of(pool) == []
        assert hub.registry.listed()[0]["active_jobs"] == 1
        lease.release()
        assert hub.registry.listed()[0]["active_jobs"] == 0


@in_virtual_time
async def test_a_request_that_waits_gets_the_node_that_registers() -> None:
    hub = hub_in_loop_time()
    async with pool_of(hub) as pool:
        hub.ours(draining=True)
        waiting = start_task(pool.lease(MODEL, wait_s=60.0))
        await asyncio.sleep(5)
        hub.hear(our_beat(seq=2))
        found = await waiting

        assert isinstance(found, Lease)
        found.release()
