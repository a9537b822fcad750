"""What a pool of several offers says of itself, in its 503s and in ``/status``."""

import asyncio
import random

from ollama_proxy.base.errors import CapacityError, CredentialsError
from ollama_proxy.core.lifecycle.estimates import Estimates
from ollama_proxy.core.lifecycle.record import State
from ollama_proxy.core.lifecycle.stage_estimates import StageEstimates
from ollama_proxy.serving.pool_status import PoolStatus
from ollama_proxy.store.memory import MemoryStages
from tests.fleet.pools import SeveralOffers, until
from tests.virtual_time import LoopClock, in_virtual_time

NO_ROOM = CapacityError("no GPU is free in vienna")
NONE_EITHER = CapacityError("no host has room in geneva")


class Disk:
    """Writes everything."""

    problem: str | None = None


def status_of(pools: SeveralOffers) -> PoolStatus:
    return PoolStatus(
        name="default",
        pool=pools.pool,
        models=("m",),
        serves=("*",),
        estimates=Estimates(pools.store),
        stage_estimates=StageEstimates(MemoryStages()),
        clock=LoopClock(),
        rng=random.Random(1),
        disk=Disk(),
    )


@in_virtual_time
async def test_an_offer_without_room_is_no_error_of_the_pool_that_has_another() -> None:
    pools = SeveralOffers()
    pools.clouds["first"].start_error = NO_ROOM
    await pools.serve()
    pools.pool.stop()
    await asyncio.sleep(20.0)
    status = status_of(pools)
    told = status.waiting()
    await pools.pool.aclose()

    foremost = status.foremost()
    assert foremost is not None
    assert foremost.offer.name == "second"
    assert told.status == "provisioning"
    assert "about to start" in told.message


@in_virtual_time
async def test_without_room_anywhere_every_offer_and_the_next_try_are_named() -> None:
    pools = SeveralOffers()
    pools.clouds["first"].start_error = NO_ROOM
    pools.clouds["second"].start_error = NONE_EITHER
    assert await pools.pool.lease("m", wait_s=70.0) is None  # both were asked twice
    pools.clouds["first"].start_error = None
    await asyncio.sleep(10.0)
    pools.pool.stop()
    told = status_of(pools).waiting()
    await pools.pool.aclose()

    assert told.status == "error"
    assert "first: no GPU is free in vienna; second: no host has room in geneva" in (
        told.message
    )
    assert told.retry_after is not None


@in_virtual_time
async def test_the_next_try_is_that_of_the_offer_that_is_asked_first() -> None:
    pools = SeveralOffers()
    first, second = pools.clouds["first"], pools.clouds["second"]
    first.start_error = NO_ROOM
    await pools.serve()  # the first is passed over for a minute
    pools.pool.stop()
    await asyncio.sleep(70.0)
    second.start_error = NONE_EITHER
    assert await pools.pool.lease("m", wait_s=5.0) is None  # now for two; that for one
    told = status_of(pools).waiting()
    await pools.pool.aclose()

    assert "next try in 5" in told.message  # of the second, within the minute
    assert told.retry_after is not None
    assert told.retry_after <= 60


@in_virtual_time
async def test_offers_that_are_all_off_ask_for_a_person_with_every_reason() -> None:
    pools = SeveralOffers()
    for name, cloud in pools.clouds.items():
        cloud.start_error = CredentialsError(f"the key of {name} is refused")
    assert await pools.pool.lease("m", wait_s=600.0) is None
    told = status_of(pools).waiting()
    foremost = status_of(pools).foremost()
    assert foremost is not None
    state = foremost.record.state
    await pools.pool.aclose()

    assert state in {State.COOLDOWN, State.STOPPING}
    assert told.status == "error"
    assert "the key of first is refused" in told.message
    assert "the key of second is refused" in told.message
    assert "ollama-proxy wake" in told.message
    assert told.retry_after is None


@in_virtual_time
async def test_each_instance_tells_how_far_its_launch_is_and_when_it_stops() -> None:
    pools = SeveralOffers(("first", "second"))
    for cloud in pools.clouds.values():
        cloud.faults.boot_s = 40.0
    status = status_of(pools)
    await pools.pool.wake()
    await asyncio.sleep(20.0)
    early = status.body()["instances"]
    await until(lambda: pools.pool.ready_count == 1)
    await asyncio.sleep(100.0)
    idle = status.body()["instances"]
    await pools.pool.aclose()

    assert [one["stops_in_s"] for one in early] == [None]
    assert early[0]["detail"] == "booting"
    assert 0.0 < early[0]["progress"] < 1.0
    assert [one["progress"] for one in idle] == [None]
    assert [one["detail"] for one in idle] == [None]
    assert [one["stops_in_s"] for one in idle] == [200.0]


@in_virtual_time
async def test_a_box_that_nobody_stops_has_no_countdown() -> None:
    pools = SeveralOffers(box=True)
    status = status_of(pools)
    await until(lambda: pools.pool.ready_count == 1)
    told = status.body()["instances"]
    await pools.pool.aclose()

    assert [one["stops_in_s"] for one in told] == [None]
    assert told[0]["idle_for_s"] is not None
