"""Instances of ours that no record names are stopped."""

import asyncio

import pytest

from ollama_proxy.base.errors import TransientError
from ollama_proxy.core.lifecycle.record import LaunchId
from tests.fakes.cloud import FakeCloud
from tests.fleet.pools import SeveralOffers
from tests.fleet.rig import Deployment
from tests.virtual_time import in_virtual_time


@in_virtual_time
async def test_an_instance_nobody_remembers_is_swept() -> None:
    deployment = Deployment()
    await asyncio.sleep(5)
    await deployment.cloud.start(LaunchId("stray"))
    assert await deployment.pool.sweeper.sweep(dry_run=True) == ["stray"]
    assert deployment.cloud.paid == 1
    await asyncio.sleep(700)

    assert deployment.cloud.paid == 0
    await deployment.pool.aclose()


@in_virtual_time
async def test_one_stray_that_can_not_be_stopped_shields_no_other() -> None:
    class Locked(FakeCloud):
        async def stop(self, launch_id: LaunchId) -> None:
            if launch_id == "l1":
                raise TransientError("locked")
            await super().stop(launch_id)

    cloud = Locked()
    for name in ("l1", "l2", "l3"):
        await cloud.start(LaunchId(name))
    deployment = Deployment(cloud=cloud)
    await asyncio.sleep(60)

    assert list(cloud.instances) == ["l1"]
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_cloud_that_lists_nothing_shields_no_stray_of_the_next_offer() -> None:
    pools = SeveralOffers()
    first, second = pools.clouds["first"], pools.clouds["second"]
    first.faults.list_fails = 1.0
    await asyncio.sleep(5)
    for cloud in (first, second):
        await cloud.start(LaunchId("stray"))
    await asyncio.sleep(700)

    assert (first.paid, second.paid) == (1, 0)
    with pytest.raises(TransientError, match="the list failed"):
        await pools.pool.sweeper.sweep()
    await pools.pool.aclose()
