"""Requests that wait for a slot get it in turn, and know their place."""

import asyncio
from collections import Counter
from collections.abc import Coroutine
from functools import partial
from typing import Any, cast

from ollama_proxy.base.tasks import TaskOwner
from ollama_proxy.base.timing import STANDARD
from ollama_proxy.core.waiting_order import Turn
from ollama_proxy.fleet.lease import Lease
from ollama_proxy.fleet.waiters import Ticket, Waiters, Wants
from tests.fleet.pools import SeveralOffers
from tests.virtual_time import in_virtual_time


class Kinds:
    """Requests of several kinds, each of which only its own free slots will do for."""

    def __init__(self, **free: int) -> None:
        self.free = free
        self.asked = Counter[str]()
        self.tasks = TaskOwner()
        self.waiters = Waiters(
            9000,
            has_room=lambda: max(self.free.values()) > 0,
            tasks=self.tasks,
            timing=STANDARD,
        )

    def wait(self, kind: str) -> asyncio.Future[Lease | None]:
        waiting = self.waiters.wait(
            partial(self._claim, kind),
            99.0,
            Wants.TO_WAKE,
            is_ready=lambda: True,
            kind=kind,
        )
        return asyncio.ensure_future(waiting)

    def _claim(self, kind: str) -> Lease | None:
        self.asked[kind] += 1
        if self.free[kind] == 0:
            return None
        self.free[kind] -= 1
        return cast("Lease", kind)


class Asking:
    """Requests that wait for the one slot of a pool, named by their line."""

    def __init__(self) -> None:
        self.pools = SeveralOffers(("only",), slots=1)
        self.served: list[str] = []
        self.tickets: dict[str, Ticket] = {}
        self.tasks: dict[str, asyncio.Task[Lease | None]] = {}

    async def ask(self, name: str, priority: int = 0, wait_s: float = 0.0) -> None:
        """Ask for a slot; the name begins with that of the caller."""
        ticket = self.tickets[name] = Ticket(Turn(name[0], priority))
        asking = self.pools.pool.lease("m", wait_s=wait_s, ticket=ticket)
        self.tasks[name] = asyncio.ensure_future(self._serve(name, asking))
        await asyncio.sleep(0.001)

    async def _serve(
        self, name: str, asking: Coroutine[Any, Any, Lease | None]
    ) -> Lease | None:
        lease = await asking
        if lease is not None:
            self.served.append(name)
        return lease

    async def serve_all(self, first: Lease, slot_s: float = 1.0) -> list[str]:
        """Give the slot from one to the next, until nobody waits."""
        lease: Lease | None = first
        while lease is not None:
            await asyncio.sleep(slot_s)
            lease.release()
            await asyncio.sleep(0.001)
            done = [one for one in self.served if self.tasks[one].done()]
            held = self.tasks[done[-1]].result() if done else None
            lease = held if held is not lease else None
        return self.served


@in_virtual_time
async def test_slots_go_to_each_caller_in_turn_and_to_the_higher_priority_first() -> (
    None
):
    asking = Asking()
    first = await asking.pools.lease()
    for name in ("a1", "a2", "a3", "b1", "b2"):
        await asking.ask(name)
    for name in ("z1", "z2"):
        await asking.ask(name, priority=1)
    places = {name: ticket.position for name, ticket in asking.tickets.items()}

    assert sorted(places, key=lambda one: places[one] or 0) == [
        *("z1", "z2", "a1", "b1", "a2", "b2", "a3")
    ]
    assert sorted(place or 0 for place in places.values()) == [1, 2, 3, 4, 5, 6, 7]
    assert await asking.serve_all(first) == [
        *("z1", "z2", "a1", "b1", "a2", "b2", "a3")
    ]
    await asking.pools.pool.aclose()


@in_virtual_time
async def test_the_place_that_is_told_is_the_one_that_the_next_request_gets() -> None:
    asking = Asking()
    first = await asking.pools.lease()
    assert asking.pools.pool.next_position(Turn("b")) == 1
    for name in ("a1", "a2", "a3"):
        await asking.ask(name)
    told = asking.pools.pool.next_position(Turn("b"))
    others = [
        asking.pools.pool.next_position(one)
        for one in (Turn("a"), Turn("c"), Turn("c", 1), Turn("c", -1))
    ]
    await asking.ask("b1")
    await asyncio.sleep(2.0)

    assert told == asking.tickets["b1"].position == 2
    assert others == [4, 2, 1, 4]
    await asking.serve_all(first)
    await asking.pools.pool.aclose()


@in_virtual_time
async def test_places_are_right_again_a_second_after_somebody_left() -> None:
    asking = Asking()
    first = await asking.pools.lease()
    for name in ("a1", "b1", "c1"):
        await asking.ask(name)
    assert asking.tickets["c1"].position == 3
    assert asking.pools.pool.next_position(Turn("d")) == 4
    asking.tasks["a1"].cancel()
    await asyncio.sleep(1.5)

    assert asking.tickets["c1"].position == 2
    assert asking.pools.pool.next_position(Turn("d")) == 3
    await asking.serve_all(first)
    await asking.pools.pool.aclose()


@in_virtual_time
async def test_one_of_a_kind_is_asked_where_nothing_is_free_for_it() -> None:
    kinds = Kinds(own=0, any=0)
    own = [kinds.wait("own") for _ in range(3000)]
    everybody = [kinds.wait("any") for _ in range(3)]
    await asyncio.sleep(0.0)
    kinds.free["any"] = 2
    kinds.waiters.grant()
    await asyncio.sleep(0.0)

    assert [one.done() for one in everybody] == [True, True, False]
    assert kinds.asked["own"] == 1
    kinds.free["own"] = 1
    kinds.waiters.grant()
    await asyncio.sleep(0.0)
    assert [one.done() for one in own[:2]] == [True, False]
    for one in (*own, *everybody):
        one.cancel()
    await kinds.tasks.aclose()


@in_virtual_time
async def test_a_newcomer_with_room_of_its_own_does_not_ask_all_that_wait() -> None:
    kinds = Kinds(own=0, any=1)
    own = [kinds.wait("own") for _ in range(1000)]
    await asyncio.sleep(0.0)
    assert kinds.asked["own"] == 1
    newcomers = [kinds.wait("any"), kinds.wait("any")]
    await asyncio.sleep(0.0)
    await asyncio.sleep(0.0)

    assert [one.done() for one in newcomers] == [True, False]
    assert kinds.asked == {"own": 1, "any": 1}
    kinds.free["any"] = 1
    kinds.waiters.grant()
    await asyncio.sleep(0.0)
    assert newcomers[1].done()
    for one in own:
        one.cancel()
    await kinds.tasks.aclose()
