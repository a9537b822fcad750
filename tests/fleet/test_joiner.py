"""A server that somebody else manages is joined, and stays so."""

import asyncio

from ollama_proxy.core.lifecycle.record import State
from ollama_proxy.fleet.backend import Traits
from tests.fakes.cloud import FakeCloud
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
