"""A node that belongs to several pools gets only so many requests of all of them."""

import asyncio

from tests.fleet.houses import Neighbourhood, a_node
from tests.virtual_time import in_virtual_time


def two_pools(**facts: object) -> tuple[Neighbourhood, Neighbourhood]:
    """Two pools that a node belongs to, of which each serves other models."""
    first = Neighbourhood()
    second = Neighbourhood(uses=first.house.uses)
    for pool in (first, second):
        pool.house.put(a_node("attic", ["m", "n"], **facts))
    return first, second


async def close(*homes: Neighbourhood) -> None:
    for one in homes:
        await one.pool.aclose()


@in_virtual_time
async def test_a_slot_that_one_pool_has_taken_is_not_free_for_another() -> None:
    first, second = two_pools(slots=2)
    held = [first.claim("m"), second.claim("n")]

    assert first.node_of("m") is None
    assert second.node_of("n") is None
    held[0].release()
    assert second.node_of("n") == "attic"
    await close(first, second)


@in_virtual_time
async def test_a_request_waits_for_the_slot_that_another_pool_gives_back() -> None:
    first, second = two_pools()
    held = first.claim("m")
    waits = [
        asyncio.ensure_future(home.pool.lease("n", wait_s=0.0))
        for home in (second, first)
    ]
    await asyncio.sleep(5.0)
    assert not any(one.done() for one in waits)
    held.release()
    await asyncio.sleep(0)
    granted = [one for one in waits if one.done()]
    assert len(granted) == 1
    lease = granted[0].result()
    assert lease is not None
    lease.release()
    for one in await asyncio.gather(*waits):
        assert one is not None
        one.release()
    await close(first, second)


@in_virtual_time
async def test_a_pool_that_has_a_node_no_more_takes_none_of_its_slots() -> None:
    first, second = two_pools()
    held = first.claim("m")
    first.house.remove("attic")

    assert second.node_of("n") == "attic"
    held.release()
    with second.claim("n"):
        assert second.node_of("n") is None
    await close(first, second)


@in_virtual_time
async def test_a_node_that_began_anew_has_all_its_slots() -> None:
    first, second = two_pools()
    held = first.claim("m")
    for home in (first, second):
        home.house.put(a_node("attic", ["m", "n"], boot_id="b2"))

    assert second.node_of("n") == "attic"
    held.release()
    with first.claim("m"):
        assert second.node_of("n") is None
    await close(first, second)


@in_virtual_time
async def test_what_other_pools_have_a_node_do_counts_in_the_choice() -> None:
    first, second = two_pools(slots=4)
    second.house.put(a_node("cellar", ["n"], slots=4))
    with first.claim("m"):
        chosen = {second.node_of("n") for _ in range(4)}

    assert chosen == {"cellar"}
    await close(first, second)
