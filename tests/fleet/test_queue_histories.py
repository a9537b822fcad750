"""Seeded histories of the queue for slots: nobody is forgotten, nor overtaken."""

import asyncio
import random
from dataclasses import dataclass, field

import pytest

from ollama_proxy.core.pool_policy import PoolPolicy
from ollama_proxy.fleet.lease import Lease
from tests.fleet.pools import SeveralOffers
from tests.virtual_time import VirtualLoop

TURNS = 100


@dataclass(slots=True)
class Queue:
    """Clients that come, get a slot, give it back or walk away, as a seed has it."""

    pools: SeveralOffers
    rng: random.Random
    waiting: list[int] = field(default_factory=list)
    held: dict[int, Lease] = field(default_factory=dict)
    tasks: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    number: int = 0

    async def come(self) -> None:
        self.number += 1
        self.waiting.append(self.number)
        asking = self._ask(self.number)
        self.tasks[self.number] = asyncio.get_running_loop().create_task(asking)
        await asyncio.sleep(
            0.0
        )  # one that is cancelled before it began leaves no trace

    async def _ask(self, number: int) -> None:
        lease = None
        try:
            lease = await self.pools.pool.lease("m", wait_s=3600.0)
        finally:
            place = self.waiting.index(number)
            if lease is not None:
                ahead = [one for one in self.waiting[:place] if self.stays(one)]
                assert not ahead, f"{number} overtook {ahead}"
                lease.mark_used()
                self.held[number] = lease
            self.waiting.remove(number)

    def stays(self, number: int) -> bool:
        return not self.tasks[number].cancelling() and not self.tasks[number].done()

    def end(self) -> None:
        if self.held:
            self.held.pop(self.rng.choice(list(self.held))).release()

    def leave(self) -> None:
        if self.waiting:
            self.tasks[self.rng.choice(self.waiting)].cancel()

    async def lose(self) -> None:
        """Lose every instance; the requests on them end."""
        self.pools.clouds["only"].preempt()
        self.pools.pool.check_now()
        await asyncio.sleep(self.rng.choice((0.0, 5.0, 60.0)))
        for number in [n for n, lease in self.held.items() if lease.was_cut]:
            self.held.pop(number).release()

    async def turn(self) -> None:
        """Let several things happen before anybody looks, then look."""
        for _ in range(self.rng.choice((1, 1, 3))):
            roll = self.rng.random()
            if roll < 0.45:
                await self.come()
            elif roll < 0.8:
                self.end()
            elif roll < 0.97:
                self.leave()
            else:
                await self.lose()
            if self.rng.random() < 0.5:
                await asyncio.sleep(0.0)
        await asyncio.sleep(0.05)
        await self.look()

    async def look(self) -> None:
        leasing = self.pools.pool._leasing
        most = max(one.record.leases for one in self.pools.pool.controllers)
        assert most <= 2, "more requests on an instance than it has slots"
        assert not (leasing.has_room and self.pools.pool.waiting), "a lost wake-up"
        for task in [one for one in self.tasks.values() if one.done()]:
            if not task.cancelled():
                task.result()


async def live(seed: int) -> None:
    rng = random.Random(seed)
    policy = PoolPolicy(max_instances=2, min_instances=rng.choice((0, 2)))
    pools = SeveralOffers(("only",), most=2, slots=2, policy=policy, boot_s=5.0)
    queue = Queue(pools, rng)
    for _ in range(TURNS):
        await queue.turn()
    for _ in range(1000):
        queue.end()
        await asyncio.sleep(0.5)
    await queue.look()
    assert not queue.waiting
    assert pools.pool.in_flight == pools.pool.waiting == 0
    await pools.pool.aclose()


@pytest.mark.parametrize("seed", range(20))
def test_a_free_slot_and_a_waiting_request_never_go_together(seed: int) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(live(seed))
