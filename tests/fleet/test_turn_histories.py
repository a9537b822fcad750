"""Seeded histories of callers at a pool: none is starved, none has two turns in a row.

Whatever comes, goes, leaves or is lost meanwhile, for each line that waits: every other
line of its priority or of a lower one gets at most one slot, one of a higher priority
only while its head start lasts, and once more.
"""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field

import pytest

from ollama_proxy.core.pool_policy import PoolPolicy
from ollama_proxy.core.waiting_order import LEVEL_S, Turn
from ollama_proxy.fleet.lease import Lease
from ollama_proxy.fleet.waiters import Ticket, Waiter, Waiters
from tests.fleet.pools import SeveralOffers
from tests.virtual_time import VirtualLoop

TURNS = 150


@dataclass(eq=False, slots=True)
class Asking:
    """One request: its line, and the task that waits for its slot.

    ``since``: when it came to wait. The first request of all comes to that only once
    its launch is written down.
    """

    turn: Turn
    since: float = 0.0
    task: "asyncio.Task[None] | None" = None
    lease: Lease | None = None
    waits: bool = False

    @property
    def stays(self) -> bool:
        return self.task is not None and not self.task.cancelling()


class Noted(Ticket):
    """A ticket that notes when its request came to wait."""

    def __init__(self, one: Asking, waiting: list[Asking]) -> None:
        super().__init__(one.turn)
        self._one, self._waiting = one, waiting

    def hand_out(self, waiters: Waiters, waiter: Waiter) -> None:
        super().hand_out(waiters, waiter)
        self._one.waits, self._one.since = True, waiter.since
        self._waiting.append(self._one)


@dataclass(slots=True)
class Callers:
    """Callers of several priorities that ask more than the slots there are."""

    pools: SeveralOffers
    rng: random.Random
    waiting: list[Asking] = field(default_factory=list)
    held: list[Asking] = field(default_factory=list)
    served_at: dict[Turn, float] = field(default_factory=dict)
    passed: dict[Turn, tuple[float, Counter[Turn]]] = field(default_factory=dict)
    served: int = 0

    def since(self, turn: Turn) -> float:
        """Return since when a line has waited: its first request, or its last slot."""
        first = next(one for one in self.waiting if one.turn == turn)
        return max(first.since, self.served_at.get(turn, -1.0))

    async def come(self, turns: list[Turn]) -> None:
        one = Asking(self.rng.choice(turns))
        one.task = asyncio.get_running_loop().create_task(self._ask(one))
        await asyncio.sleep(0.0)  # one cancelled before it began leaves no trace

    async def _ask(self, one: Asking) -> None:
        try:
            ticket = Noted(one, self.waiting)
            one.lease = await self.pools.pool.lease("m", wait_s=9000.0, ticket=ticket)
        finally:
            if one.waits and one.lease is not None:
                self._check(one)
            if one.lease is not None:
                one.lease.mark_used()
                self.held.append(one)
                self.served += 1
            if one.waits:
                self.waiting.remove(one)
            if not any(other.turn == one.turn for other in self.waiting):
                self.passed.pop(one.turn, None)

    def _check(self, one: Asking) -> None:
        """Compare a slot that is given away with what every other line is due."""
        now = asyncio.get_running_loop().time()
        first = next(o for o in self.waiting if o.turn == one.turn and o.stays)
        assert first is one, "it overtook an earlier one of its own line"
        for turn in {o.turn for o in self.waiting if o.stays} - {one.turn}:
            since = self.since(turn)
            if turn not in self.passed or self.passed[turn][0] != since:
                self.passed[turn] = (since, Counter())  # its first may have left
            passed = self.passed[turn][1]
            head_start_s = LEVEL_S * (one.turn.priority - turn.priority)
            if now > since + max(0.0, head_start_s):
                passed[one.turn] += 1
            assert passed[one.turn] <= 1, f"{one.turn} had two turns, {turn} none"
        self.served_at[one.turn] = now
        self.passed.pop(one.turn, None)

    def end(self) -> None:
        if self.held:
            one = self.held.pop(self.rng.randrange(len(self.held)))
            assert one.lease is not None
            one.lease.release()

    def leave(self) -> None:
        """Have a client leave; its line may have waited since later then."""
        if self.waiting:
            one = self.rng.choice(self.waiting)
            assert one.task is not None
            one.task.cancel()

    def lose(self) -> None:
        """Lose every instance; the requests on them end."""
        self.pools.clouds["only"].preempt()
        self.pools.pool.check_now()

    def release_lost(self) -> None:
        """Have requests on lost instances end; raise what a request has found wrong."""
        for other in self.waiting:
            assert other.task is not None
            if other.task.done() and not other.task.cancelled():
                other.task.result()
        for one in [o for o in self.held if o.lease is not None and o.lease.was_cut]:
            self.held.remove(one)
            assert one.lease is not None
            one.lease.release()


async def live(seed: int) -> None:
    rng = random.Random(seed)
    policy = PoolPolicy(max_instances=2, min_instances=2)
    pools = SeveralOffers(("only",), most=2, slots=2, policy=policy, boot_s=5.0)
    callers = Callers(pools, rng)
    turns = [
        Turn(f"caller {n}", rng.choice((0, 0, 1, 3))) for n in range(rng.randint(2, 7))
    ]
    crowd, slot_s = rng.choice((0.4, 0.5, 0.6)), rng.choice((0.5, 4.0, 15.0))
    for number in range(TURNS):
        roll = rng.random()
        if roll < crowd:
            newcomer = [Turn(f"newcomer {number}", rng.choice((0, 3)))]
            await callers.come(turns if rng.random() < 0.8 else newcomer)
        elif roll < 0.94:
            callers.end()
        elif roll < 0.99:
            callers.leave()
        else:
            callers.lose()
        await asyncio.sleep(rng.choice((0.0, 0.1, slot_s)))
        callers.release_lost()
    while callers.waiting or callers.held:
        callers.end()
        await asyncio.sleep(slot_s)
        callers.release_lost()
    assert callers.served > TURNS * 0.2
    assert pools.pool.in_flight == pools.pool.waiting == 0
    await pools.pool.aclose()


@pytest.mark.parametrize("seed", range(30))
def test_no_line_is_passed_twice(seed: int) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(live(seed))
