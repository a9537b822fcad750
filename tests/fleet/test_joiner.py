"""A server that somebody else manages is joined, and stays so."""

import asyncio
import random

from ollama_proxy.core.lifecycle.record import State
from ollama_proxy.fleet.backend import Traits
from tests.fakes.cloud import FakeCloud
from tests.fleet.pools import SeveralOffers
from tests.fleet.rig import Deployment
from tests.virtual_time import in_virtual_time


@in_virtual_time
async def test_a_server_that_is_there_anyway_is_joined_at_once_and_never_left() -> None:
    cloud = FakeCloud(traits=Traits(externally_managed=True, poll_s=1.0))
    deployment = Deployment(cloud=cloud)
    await asyncio.sleep(10)
    assert deployment.state is State.READY
    await asyncio.sleep(100_000)

    assert deployment.state is State.READY
    await deployment.pool.aclose()


class Least(random.Random):
    """Draws the least: a cloud with it takes no time worth mentioning."""

    def uniform(self, a: float, _b: float) -> float:
        return a


@in_virtual_time
async def test_the_first_request_after_a_restart_waits_for_the_box() -> None:
    pools = SeveralOffers(["cloud"], box=True)
    assert pools.box is not None
    pools.probes["box"].load_s, pools.box.rng = 0.5, Least()
    await pools.serve()
    await pools.restart()
    await asyncio.sleep(0.2)  # the record of the process before is at rest by now

    lease = await pools.pool.lease("m", wait_s=0.0)

    assert lease is not None
    lease.release()
    assert pools.launches == {"cloud": 0}
    await pools.pool.aclose()
