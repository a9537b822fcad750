"""The nodes of a house first, and a cloud for what they can't take."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from ollama_proxy.core.lifecycle.events import Wake
from ollama_proxy.core.lifecycle.record import LaunchId, State
from ollama_proxy.core.nodes.node_state import NodeState
from ollama_proxy.core.pool_policy import PoolPolicy
from ollama_proxy.fleet.house import House
from ollama_proxy.fleet.house_models import HouseModels
from ollama_proxy.fleet.leased_instance import LeasedInstance
from tests.fleet.houses import Neighbourhood, a_house, a_node
from tests.fleet.pools import POLICY, SeveralOffers, until
from tests.virtual_time import in_virtual_time

MINUTE_S = 60.0
OFFLINE: dict[str, Any] = {"state": NodeState.OFFLINE, "takes_work": False}


class CloudModels:
    """Knows which models the cloud is known to have: what `OfferModels` tells."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def has_own(self, full_name: str) -> bool:
        return full_name in self.names

    def are_others_ready(self) -> bool:
        return False

    def is_lacking(self, _instance: LeasedInstance, full_name: str) -> bool:
        return full_name not in self.names

    def is_with_others(self, _full_name: str) -> bool:
        return False


@contextlib.asynccontextmanager
async def house_and_cloud(
    *nodes: str,
    cloud: CloudModels | None = None,
    boot_s: float = MINUTE_S,
    most: int = 1,
) -> AsyncIterator[tuple[House, SeveralOffers]]:
    """A house of nodes of one slot and the model m, and a slow cloud."""
    house = a_house()
    pools = SeveralOffers(
        ("cloud",),
        slots=4,
        houses=[house],
        most=most,
        policy=PoolPolicy(max_instances=most, max_starting=most),
        boot_s=boot_s,
        load_s=1.0,
        record_policy=replace(POLICY, idle_timeout_s=1800.0),
    )
    pools.clouds["cloud"].faults.boot_s = boot_s
    assert pools.pool.nodes is not None
    known = HouseModels(pools.pool.nodes, cloud or CloudModels("m:latest"))
    pools.pool.spill(known.spills, known.helps)
    for node_id in nodes:
        house.put(a_node(node_id, loaded=frozenset({"m:latest"})))
    yield house, pools
    await pools.pool.aclose()


async def client(
    pools: SeveralOffers, until_s: float, served: Counter[str], seconds: float = 20.0
) -> None:
    """Ask again and again, as a chat does, until a moment."""
    loop = asyncio.get_running_loop()
    while loop.time() < until_s:
        lease = await pools.pool.lease("m", wait_s=0.0)
        served["none" if lease is None else lease.node_id or "cloud"] += 1
        if lease is None:
            await asyncio.sleep(1.0)
            continue
        with lease:
            await asyncio.sleep(1.0)
            lease.mark_used()
            await asyncio.sleep(seconds)


@in_virtual_time
async def test_a_full_house_starts_a_cloud_that_leaves_once_the_house_is_free() -> None:
    """Ten minutes in which no request fails, and the meter at nothing at the end."""
    async with house_and_cloud("attic", "cellar") as (house, pools):
        now, served = asyncio.get_running_loop().time(), Counter[str]()
        crowd = [client(pools, now + 4 * MINUTE_S, served) for _ in range(6)]
        calm = client(pools, now + 10 * MINUTE_S, served)
        asked = [asyncio.ensure_future(one) for one in (*crowd, calm)]
        await asyncio.sleep(9.0)
        assert pools.starts == {"cloud": 0}
        await asyncio.sleep(3 * MINUTE_S)
        assert pools.paid == {"cloud": 1}
        by_cloud = served["cloud"]
        await asyncio.sleep(4 * MINUTE_S)
        assert pools.paid == {"cloud": 0}
        await asyncio.gather(*asked)
        assert house.own_in_flight("attic") == 0

    assert served["none"] == 0
    assert by_cloud > 10
    assert pools.launches == {"cloud": 1}
    assert pools.paid == {"cloud": 0}


@in_virtual_time
async def test_a_cloud_gets_nothing_while_a_node_has_a_free_slot() -> None:
    async with house_and_cloud("attic", "cellar") as (_, pools):
        held = [await pools.lease() for _ in range(2)]
        waits = asyncio.ensure_future(pools.pool.lease("m", wait_s=0.0))
        await until(waits.done)
        assert pools.record("cloud").state is State.READY
        for lease in held:
            lease.release()
        leases = [await pools.lease() for _ in range(2)]

    assert {lease.node_id for lease in leases} == {"attic", "cellar"}


@in_virtual_time
async def test_a_node_of_many_comes_before_several_instances_that_cost() -> None:
    house = a_house()
    pools = SeveralOffers(("cloud",), most=4, slots=4, houses=[house], load_s=1.0)
    for slot in range(4):
        await pools.controller("cloud", slot).wake(Wake(LaunchId(f"by-hand{slot}")))
    await until(lambda: pools.pool.ready_count == 4)
    for n in range(8):
        house.put(a_node(f"n{n}", loaded=frozenset()))
    leases = [await pools.lease() for _ in range(8)]
    ninth = await pools.lease()
    await pools.pool.aclose()

    assert {one.node_id for one in leases} == {f"n{n}" for n in range(8)}
    assert ninth.node_id is None


@pytest.mark.parametrize("boot_s", [60.0, 300.0])
@in_virtual_time
async def test_a_node_whose_slots_another_pool_has_taken_is_no_capacity(
    boot_s: float,
) -> None:
    """A request for another model waits as it would before an empty house."""
    async with house_and_cloud("attic", boot_s=boot_s) as (house, pools):
        other = Neighbourhood(a_node("attic", ["n"], slots=1), uses=house.uses)
        held = other.claim("n")
        waits = asyncio.ensure_future(pools.pool.lease("m", wait_s=0.0))
        await asyncio.sleep(9.0)
        assert pools.starts == {"cloud": 0}
        await asyncio.sleep(3.0)
        assert pools.starts == {"cloud": 1}
        lease = await waits
        held.release()
        assert lease is not None
        lease.release()
        await asyncio.sleep(2 * boot_s)
        await other.pool.aclose()

    assert lease.node_id is None
    assert pools.paid == {"cloud": 0}


@in_virtual_time
async def test_a_node_is_preferred_again_half_a_minute_after_it_failed() -> None:
    async with house_and_cloud("attic") as (_, pools):
        held = await pools.lease()
        waits = asyncio.ensure_future(pools.pool.lease("m", wait_s=0.0))
        await until(waits.done)
        held.failed("refused")
        held.release()
        with await pools.lease() as lease:
            after_failure = lease.node_id
        again = pools.pool.try_lease(held.launch_id, model="m")
        assert again is not None
        with again:
            again.mark_used()
        await asyncio.sleep(31.0)
        with await pools.lease() as lease:
            later = lease.node_id

    assert (after_failure, later) == (None, "attic")


@in_virtual_time
async def test_an_empty_house_starts_a_cloud_as_one_that_is_down() -> None:
    async with house_and_cloud() as (_, pools):
        waits = asyncio.ensure_future(pools.pool.lease("m", wait_s=10 * MINUTE_S))
        await asyncio.sleep(9.0)
        assert pools.starts == {"cloud": 0}
        lease = await waits

    assert lease is not None
    assert lease.node_id is None


@in_virtual_time
async def test_a_house_whose_agents_are_silent_for_eight_seconds_buys_nothing() -> None:
    async with house_and_cloud("attic") as (house, pools):
        house.put(a_node("attic", **OFFLINE))
        waits = asyncio.ensure_future(pools.pool.lease("m", wait_s=MINUTE_S))
        await asyncio.sleep(8.0)
        house.put(a_node("attic"))
        lease = await waits
        assert lease is not None
        await asyncio.sleep(10 * MINUTE_S)
        lease.release()

    assert pools.starts == {"cloud": 0}


@in_virtual_time
async def test_a_model_that_no_node_has_is_the_clouds_at_once() -> None:
    async with house_and_cloud("attic", cloud=CloudModels("m:latest", "large:70b")) as (
        _,
        pools,
    ):
        waits = asyncio.ensure_future(pools.pool.lease("large:70b", wait_s=0.0))
        await asyncio.sleep(5.0)
        assert pools.starts == {"cloud": 1}
        lease = await pools.pool.lease("large:70b", wait_s=10 * MINUTE_S)
        assert await waits is None

    assert lease is not None
    assert lease.node_id is None


PLAIN: dict[str, Any] = {"serves_all": False}
UNREACHED: dict[str, Any] = {"upstream": None, "serves_all": False}


@in_virtual_time
async def test_what_nodes_that_have_not_joined_can_not_do_is_the_clouds() -> None:
    async with house_and_cloud() as (house, pools):
        house.put(a_node("attic", **PLAIN))
        plain = await pools.pool.lease("m", wait_s=0.0, plain=True)
        assert plain is not None
        assert await pools.pool.lease("m", wait_s=0.0, takes_slot=False) is None
        assert await pools.pool.lease("m", wait_s=0.0, yields=True) is None
        await asyncio.sleep(10 * MINUTE_S)
        assert pools.starts == {"cloud": 0}
        waits = asyncio.ensure_future(pools.pool.lease("m", wait_s=10 * MINUTE_S))
        await asyncio.sleep(5.0)
        assert pools.starts == {"cloud": 1}
        lease = await waits
        assert lease is not None
        lease.release()
        await asyncio.sleep(10 * MINUTE_S)

    assert (plain.node_id, lease.node_id) == ("attic", None)
    assert pools.paid == {"cloud": 0}


@pytest.mark.parametrize("facts", [{}, OFFLINE, UNREACHED])
@in_virtual_time
async def test_a_node_that_has_joined_or_may_have_keeps_its_requests(
    facts: dict[str, Any],
) -> None:
    """A chat waits for it, whatever nodes there are besides that take none."""
    async with house_and_cloud() as (house, pools):
        house.put(a_node("attic", **PLAIN))
        house.put(a_node("cellar", **facts))
        if not facts:
            busy = await pools.pool.lease("m", wait_s=0.0)
            assert busy is not None
        waits = asyncio.ensure_future(pools.pool.lease("m", wait_s=MINUTE_S))
        await asyncio.sleep(8.0)
        house.put(a_node("cellar", slots=2))
        lease = await waits
        await asyncio.sleep(10 * MINUTE_S)

    assert lease is not None
    assert lease.node_id == "cellar"
    assert pools.starts == {"cloud": 0}


@in_virtual_time
async def test_a_model_of_nodes_that_are_all_busy_or_away_is_the_clouds_in_time() -> (
    None
):
    """A node with other models is no help, however idle it is."""
    async with house_and_cloud() as (house, pools):
        house.put(a_node("attic", ["other"], slots=8))
        house.put(a_node("cellar", ["m"], **OFFLINE))
        refused = await pools.pool.lease("m", wait_s=0.0)
        await asyncio.sleep(9.0)
        assert pools.starts == {"cloud": 0}
        await asyncio.sleep(3.0)
        assert pools.starts == {"cloud": 1}
        lease = await pools.pool.lease("m", wait_s=10 * MINUTE_S)

    assert refused is None
    assert lease is not None
    assert lease.node_id is None


@in_virtual_time
async def test_a_crowd_for_a_model_of_nodes_alone_starts_nothing() -> None:
    async with house_and_cloud(cloud=CloudModels("m:latest")) as (house, pools):
        house.put(a_node("attic", ["own"]))
        held = await pools.pool.lease("own", wait_s=0.0)
        crowd = [
            asyncio.ensure_future(pools.pool.lease("own", wait_s=0.0))
            for _ in range(50)
        ]
        await asyncio.sleep(10 * MINUTE_S)
        assert held is not None
        house.put(a_node("attic", ["own"], slots=50, **OFFLINE))
        late = asyncio.ensure_future(pools.pool.lease("own", wait_s=MINUTE_S))
        await asyncio.sleep(30.0)
        house.put(a_node("attic", ["own"], slots=52))
        leases = await asyncio.gather(late)

    assert pools.starts == {"cloud": 0}
    assert leases[0] is not None
    assert all(one.done() for one in crowd)


@in_virtual_time
async def test_a_model_of_the_cloud_buys_nothing_for_those_that_wait_for_a_node() -> (
    None
):
    """They may get a slot of the node before an instance could help them."""
    cloud = CloudModels("m:latest", "large:70b")
    async with house_and_cloud("attic", cloud=cloud, most=4) as (_, pools):
        held = await pools.lease()
        crowd = [
            asyncio.ensure_future(pools.pool.lease("m", wait_s=0.0)) for _ in range(40)
        ]
        waits = asyncio.ensure_future(pools.pool.lease("large:70b", wait_s=600.0))
        await asyncio.sleep(8.0)
        at_once = pools.starts["cloud"]
        await asyncio.sleep(4.0)
        in_time = pools.starts["cloud"]
        held.release()
        for one in [*crowd, waits]:
            lease = await one
            assert lease is not None
            lease.release()

    assert (at_once, in_time) == (1, 4)


@in_virtual_time
async def test_a_model_that_the_cloud_lacks_waits_for_its_node() -> None:
    async with house_and_cloud(cloud=CloudModels("m:latest")) as (house, pools):
        house.put(a_node("attic", ["own"]))
        held = await pools.pool.lease("own", wait_s=0.0)
        assert held is not None
        crowd = [
            asyncio.ensure_future(pools.pool.lease("m", wait_s=10 * MINUTE_S))
            for _ in range(2)
        ]
        waits = asyncio.ensure_future(pools.pool.lease("own", wait_s=0.0))
        await until(lambda: all(one.done() for one in crowd))
        await asyncio.sleep(MINUTE_S)
        assert not waits.done()
        held.release()
        lease = await waits

    assert lease is not None
    assert lease.node_id == "attic"


PACE_S = {"quick": 4.0, "usual": 8.0, "slow": 16.0}


async def work(
    pools: SeveralOffers, until_s: float, rng: random.Random, served: Counter[str]
) -> None:
    """Have one request after the other answered, which take longer or shorter."""
    loop = asyncio.get_running_loop()
    while loop.time() < until_s:
        lease = await pools.pool.lease("m", wait_s=0.0)
        assert lease is not None
        with lease:
            lease.mark_used()
            node, length = str(lease.node_id), rng.lognormvariate(-0.125, 0.5)
            await asyncio.sleep(PACE_S[node] * length)
        served[node] += 1


@pytest.mark.parametrize("clients", [1, 3, 6, 24])
@pytest.mark.parametrize("slots", [1, 4])
@in_virtual_time
async def test_boxes_of_different_speed_get_their_share_of_the_work(
    clients: int, slots: int
) -> None:
    """From a single client to more than there are slots, within a tenth."""
    house = a_house()
    pools = SeveralOffers((), most=0, houses=[house])
    for name in PACE_S:
        house.put(a_node(name, slots=slots, loaded=frozenset({"m:latest"})))
    rng, served = random.Random(clients), Counter[str]()
    end = asyncio.get_running_loop().time() + 5400.0
    await asyncio.gather(*(work(pools, end, rng, served) for _ in range(clients)))
    await pools.pool.aclose()

    whole = sum(1.0 / pace for pace in PACE_S.values())
    for name, pace in PACE_S.items():
        assert served[name] / served.total() == pytest.approx(1 / pace / whole, rel=0.1)
