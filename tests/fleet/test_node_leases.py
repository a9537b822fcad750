"""Leases on nodes: which one has the model and room, and what becomes of its leases."""

import asyncio
from collections import Counter
from unittest import mock

from ollama_proxy.core.nodes.node_state import NodeState
from ollama_proxy.fleet.lease import Lease
from ollama_proxy.upstream.endpoint import Upstream
from tests.fleet.houses import Neighbourhood, Reports, a_node
from tests.virtual_time import in_virtual_time


@in_virtual_time
async def test_a_request_goes_to_a_node_that_has_its_model() -> None:
    homes = Neighbourhood(a_node("attic", ["llama3"]), a_node("cellar", ["qwen:7b"]))

    assert homes.node_of("llama3:latest") == "attic"
    assert homes.node_of("llama3") == "attic"
    assert homes.node_of("qwen:7b") == "cellar"
    assert homes.node_of("qwen") is None
    assert homes.node_of(None) in {"attic", "cellar"}
    await homes.pool.aclose()


@in_virtual_time
async def test_a_lease_on_a_node_says_how_it_is_reached() -> None:
    homes = Neighbourhood(a_node("attic"))
    with homes.claim() as lease:
        assert lease.upstream == Upstream("http://attic.lan:8001")
        assert (lease.node_id, lease.serves_all) == ("attic", True)
        assert homes.house.own_in_flight("attic") == 1
        assert homes.pool.in_flight == 1
    assert homes.house.own_in_flight("attic") == 0
    assert homes.pool.ready_count == 1
    assert homes.pool.is_ready
    assert homes.pool.ready_upstream() is None
    await homes.pool.aclose()


@in_virtual_time
async def test_a_node_gets_as_many_requests_as_it_tells_or_as_the_offer_says() -> None:
    told = Neighbourhood(a_node(slots=3))
    offered = Neighbourhood(a_node(), slots=2)
    unknown = Neighbourhood(a_node())
    numbers = []
    for homes in (told, offered, unknown):
        while homes.pool.try_lease(model="m"):
            pass
        numbers.append(homes.pool.in_flight)
        assert homes.pool.try_lease(model="m", takes_slot=False) is not None
        await homes.pool.aclose()

    assert numbers == [3, 2, 1]


@in_virtual_time
async def test_a_node_that_offers_text_only_gets_plain_requests_alone() -> None:
    homes = Neighbourhood(a_node("former", serves_all=False))

    assert homes.node_of() is None
    assert homes.node_of(plain=True) == "former"
    assert homes.pool.observe(model="m") is None
    await homes.pool.aclose()


@in_virtual_time
async def test_a_node_that_was_tried_is_not_tried_again() -> None:
    homes = Neighbourhood(a_node("attic"), a_node("cellar"))
    with homes.claim() as first:
        second = homes.node_of(without={first.launch_id})
    assert second not in {None, first.node_id}
    both = {node.record.launch_id for node in homes.house.nodes}
    assert homes.node_of(without=both) is None
    await homes.pool.aclose()


@in_virtual_time
async def test_a_degraded_node_gets_one_request_that_decides() -> None:
    retried = a_node(slots=4, state=NodeState.DEGRADED)
    homes = Neighbourhood(retried)
    lease = homes.claim()

    assert homes.node_of() is None
    homes.house.put(a_node(slots=4))
    assert homes.node_of() == "attic"
    lease.release()
    await homes.pool.aclose()


@in_virtual_time
async def test_a_node_that_takes_no_work_keeps_the_requests_that_it_has() -> None:
    homes = Neighbourhood(a_node())
    with homes.claim() as lease:
        homes.house.put(a_node(takes_work=False, is_draining=True))
        assert not lease.was_cut
        assert homes.node_of() is None
        assert homes.house.own_in_flight("attic") == 1
    assert homes.house.own_in_flight("attic") == 0
    await homes.pool.aclose()


@in_virtual_time
async def test_requests_of_a_node_that_is_gone_or_began_anew_are_cut() -> None:
    homes = Neighbourhood(a_node("attic"), a_node("cellar", ["n"]))
    gone, anew = homes.claim(), homes.claim("n")
    homes.house.remove("attic")
    homes.house.put(a_node("cellar", ["n"], boot_id="b2"))

    assert gone.was_cut
    assert anew.was_cut
    with homes.claim("n") as next_one:
        anew.release()
        assert homes.house.own_in_flight("cellar") == 1
        assert next_one.launch_id != anew.launch_id
    gone.release()
    assert homes.pool.in_flight == 0
    await homes.pool.aclose()


@in_virtual_time
async def test_how_a_request_ended_is_reported() -> None:
    homes = Neighbourhood(a_node())
    with homes.claim() as lease:
        lease.answered()  # before anything takes it in
    reports = homes.house.reports = Reports()
    with homes.claim() as lease:
        lease.failed("refused")
        lease.check_now()
    with homes.claim() as lease:
        lease.answered()

    assert reports.said == [("attic", "refused"), ("attic", "answered")]
    await homes.pool.aclose()


@in_virtual_time
async def test_the_first_byte_may_take_longer_if_the_model_has_to_be_loaded() -> None:
    homes = Neighbourhood(a_node("attic", loaded=frozenset({"m:latest"})))
    with homes.claim() as lease:
        assert lease.first_byte_limit_s("m", 120.0) == 120.0
        assert lease.first_byte_limit_s("n", 120.0) == 420.0
    former = Neighbourhood(a_node("attic", loaded=None))
    with former.claim() as lease:
        assert lease.first_byte_limit_s("m", 120.0) == 420.0
    await homes.pool.aclose()
    await former.pool.aclose()


@in_virtual_time
async def test_a_load_that_took_long_may_take_twice_as_long() -> None:
    homes = Neighbourhood(a_node(loaded=frozenset()))
    for _ in range(20):
        homes.house.put(a_node(loaded=frozenset()))
        with homes.claim() as lease:
            await asyncio.sleep(1000.0)
            lease.mark_used()
    homes.house.put(a_node(loaded=frozenset()))
    with homes.claim() as lease:
        assert 2000.0 < lease.first_byte_limit_s("m", 120.0) <= 2120.0
        lease.mark_used()
        assert lease.first_byte_limit_s("m", 120.0) == 120.0
    await homes.pool.aclose()


@in_virtual_time
async def test_a_model_that_is_loaded_for_a_request_is_in_memory_once_it_answers() -> (
    None
):
    homes = Neighbourhood(a_node(slots=2, loaded=frozenset()))
    with homes.claim() as lease:
        homes.house.put(a_node(slots=2, loaded=frozenset()))
        assert lease.first_byte_limit_s("m", 10.0) == 310.0
        lease.mark_used()
        homes.house.put(a_node(slots=2, loaded=frozenset()))
        assert lease.first_byte_limit_s("m", 10.0) == 10.0
    await homes.pool.aclose()


@in_virtual_time
async def test_a_request_waits_for_the_slot_of_a_node_with_its_model() -> None:
    homes = Neighbourhood(a_node("attic", ["m"]), a_node("cellar", ["n"]))
    held = homes.claim("m")
    waits = asyncio.ensure_future(homes.pool.lease("m", wait_s=0.0))
    await asyncio.sleep(5.0)
    other = await homes.pool.lease("n", wait_s=0.0)
    assert other is not None
    assert (other.node_id, waits.done()) == ("cellar", False)
    held.release()
    lease = await waits
    assert lease is not None
    assert lease.node_id == "attic"
    await homes.pool.aclose()


@in_virtual_time
async def test_a_request_that_no_node_will_do_for_keeps_no_other_from_its_slot() -> (
    None
):
    homes = Neighbourhood(a_node("attic"))
    tried = homes.claim("m")
    waits = [
        asyncio.ensure_future(homes.pool.lease("m", wait_s=60.0, **asked))
        for asked in ({"without_nodes": True}, {"without": [tried.launch_id]}, {})
    ]
    await asyncio.sleep(1.0)
    tried.release()
    await asyncio.sleep(1.0)

    assert [one.done() for one in waits] == [False, False, True]
    await homes.pool.aclose()
    assert [one is None for one in await asyncio.gather(*waits)] == [True, True, False]


@in_virtual_time
async def test_a_request_that_may_wait_gets_the_node_that_joins_for_it() -> None:
    homes = Neighbourhood(a_node("cellar", ["n"]))
    waits = asyncio.ensure_future(homes.pool.lease("m", wait_s=60.0))
    none = await homes.pool.lease("m", wait_s=0.0)
    await asyncio.sleep(5.0)
    assert not waits.done()
    homes.house.put(a_node("attic", ["m"]))
    lease = await waits

    assert none is None
    assert lease is not None
    assert lease.node_id == "attic"
    await homes.pool.aclose()


@in_virtual_time
async def test_a_request_waits_no_longer_for_a_slot_of_a_node_that_is_gone() -> None:
    homes = Neighbourhood(a_node("attic"))
    held = homes.claim()
    waits = asyncio.ensure_future(homes.pool.lease("m", wait_s=0.0))
    await asyncio.sleep(5.0)
    assert not waits.done()
    homes.house.remove("attic")

    assert await waits is None
    held.release()
    await homes.pool.aclose()


@in_virtual_time
async def test_a_model_that_a_node_has_no_more_is_not_asked_of_it() -> None:
    homes = Neighbourhood(a_node("attic", ["m", "n"]))
    homes.house.put(a_node("attic", ["n"]))

    assert homes.node_of("m") is None
    assert homes.node_of("n") == "attic"
    await homes.pool.aclose()


@in_virtual_time
async def test_a_hundred_requests_at_once_spread_over_the_nodes() -> None:
    homes = Neighbourhood(*(a_node(f"n{i}", slots=4) for i in range(5)))
    waits = [
        asyncio.ensure_future(homes.pool.lease("m", wait_s=60.0)) for _ in range(100)
    ]
    await asyncio.sleep(0)
    per_node: Counter[str | None] = Counter()
    done: set[asyncio.Future[Lease | None]] = set()
    most = 0
    while len(done) < 100:
        await asyncio.sleep(0.1)
        for one in waits:
            if one.done() and one not in done:
                done.add(one)
                lease = one.result()
                assert lease is not None
                per_node[lease.node_id] += 1
                asyncio.get_running_loop().call_later(1.0, lease.release)
        most = max(
            most, *(homes.house.own_in_flight(node) for node in map(str, per_node))
        )
    await homes.pool.aclose()

    assert most <= 4
    assert per_node == {f"n{i}": 20 for i in range(5)}


@in_virtual_time
async def test_nodes_that_come_have_nothing_planned_where_nothing_waits() -> None:
    """Each plan looks at all nodes: 1 000 that join would cost a million looks."""
    homes = Neighbourhood()
    await asyncio.sleep(1)
    with mock.patch.object(homes.pool._leasing, "node_facts", return_value=()) as looks:
        for number in range(100):
            homes.house.put(a_node(f"n{number}"))
            await asyncio.sleep(0.1)
        alone = looks.call_count
    await homes.pool.aclose()

    assert alone <= 2
