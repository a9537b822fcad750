"""A launch that a person waits for no longer frees its slot; the sweep looks for it."""

import asyncio

from ollama_proxy.base.errors import OutcomeUnknownError
from ollama_proxy.core.lifecycle.events import Abandoned
from ollama_proxy.core.lifecycle.record import LaunchId, State
from tests.fakes.cloud import CloudFaults
from tests.fleet.pools import SeveralOffers
from tests.virtual_time import in_virtual_time

FIRST = LaunchId("l1")


@in_virtual_time
async def test_an_abandoned_launch_frees_its_slot_and_is_swept_if_it_turns_up() -> None:
    pools = SeveralOffers()
    first = pools.clouds["first"]
    first.start_error = OutcomeUnknownError("the answer was lost")
    assert await pools.pool.lease("m", wait_s=100.0) is None
    pools.controller("first").apply(Abandoned(FIRST))
    assert pools.record("first").state is State.COLD
    assert FIRST not in pools.store.launch_ids()
    first.start_error = None
    await pools.serve()
    assert pools.store.launch_ids() == {"l2"}
    first._create(FIRST)  # it turns up after all
    await asyncio.sleep(700.0)
    await pools.pool.aclose()

    assert FIRST not in first.instances
    lines = [one for one in pools.store.journal() if one.launch_id == FIRST]
    assert lines[0].event == "Abandoned"
    assert pools.store.remembers(FIRST)


@in_virtual_time
async def test_a_stop_that_never_ends_is_abandoned_as_well() -> None:
    pools = SeveralOffers(("only", "other"))
    await pools.serve()
    pools.clouds["only"].faults = CloudFaults(stop_fails=1.0)
    pools.pool.stop()
    assert await pools.pool.lease("m", wait_s=300.0) is None
    pools.controller("only").apply(Abandoned(FIRST))
    await pools.serve()
    pools.clouds["only"].faults = CloudFaults()
    await asyncio.sleep(700.0)
    await pools.pool.aclose()

    assert FIRST not in pools.clouds["only"].instances


@in_virtual_time
async def test_an_abandoned_launch_counts_as_one_in_vain_after_a_restart_too() -> None:
    pools = SeveralOffers(("only",), most=2)
    pools.clouds["only"].start_error = OutcomeUnknownError("the answer was lost")
    for number in range(1, 6):
        assert await pools.pool.lease("m", wait_s=5.0) is None
        pools.controller("only").apply(Abandoned(LaunchId(f"l{number}")))
        await pools.restart()
    assert await pools.pool.lease("m", wait_s=5.0) is None
    await pools.pool.aclose()

    asked = {launch_id for _, launch_id in pools.clouds["only"].asked}
    assert asked == {f"l{number}" for number in range(1, 6)}


@in_virtual_time
async def test_after_an_abandoned_launch_none_follows_unless_somebody_asks() -> None:
    pools = SeveralOffers()
    pools.clouds["first"].start_error = OutcomeUnknownError("the answer was lost")
    assert await pools.pool.lease("m", wait_s=100.0) is None
    pools.controller("first").apply(Abandoned(FIRST))
    pools.clouds["first"].start_error = None
    await asyncio.sleep(60.0)

    assert pools.store.launch_ids() == set()
    await pools.pool.aclose()
