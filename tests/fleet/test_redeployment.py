"""Orders to deploy or delete on a running pool, in virtual time."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from ollama_proxy.base.errors import (
    ConflictError,
    SpecError,
    StartupError,
    TransientError,
)
from ollama_proxy.core.lifecycle.record import LaunchId, State
from ollama_proxy.core.pool_policy import PoolPolicy
from ollama_proxy.fleet.backend import Unchanged
from ollama_proxy.fleet.redeployment import Redeployment
from tests.fakes.cloud import FakeCloud
from tests.fleet.pools import SeveralOffers
from tests.fleet.rig import Deployment
from tests.virtual_time import in_virtual_time


class DeployableCloud(FakeCloud):
    """A cloud in which an image is deployed; each step takes ten seconds."""

    fault: Exception | None = None
    is_there = False
    ended_at: float | None = None
    stays_until = 0.0

    async def stop(self, launch_id: LaunchId) -> None:
        if asyncio.get_running_loop().time() >= self.stays_until:
            await super().stop(launch_id)

    async def deploy(self, image: str) -> AsyncIterator[str]:
        if self.fault is not None:
            raise self.fault
        if self.is_there:
            yield Unchanged("it is there")
            return
        try:
            yield f"making {image}"
            self.traits = replace(self.traits, spec=image)
            await asyncio.sleep(10)
            yield "made"
        finally:
            self.ended_at = asyncio.get_running_loop().time()

    async def remove(self) -> AsyncIterator[str]:
        yield "deleting"
        await asyncio.sleep(10)

    async def deployed(self) -> list[str]:
        return []


def deployable() -> tuple[Deployment, DeployableCloud]:
    cloud = DeployableCloud()
    return Deployment(cloud=cloud), cloud


async def told(deployment: Deployment, image: str | None) -> list[str]:
    steps: list[str] = []

    async def tell(step: str) -> None:
        steps.append(step)

    await Redeployment([deployment.pool], redeployed=lambda: None).run(image, tell)
    return steps


@in_virtual_time
async def test_requests_meanwhile_wake_nothing_and_the_next_one_does() -> None:
    deployment, cloud = deployable()
    with await deployment.pool.lease("m", wait_s=60) or pytest.fail("no lease"):
        pass
    order = asyncio.get_running_loop().create_task(told(deployment, "a:1"))
    await asyncio.sleep(8)
    meanwhile = await deployment.pool.lease("m", wait_s=60)
    launches = cloud.launches
    steps = await order
    after = await deployment.pool.lease("m", wait_s=60)

    assert meanwhile is None
    assert launches == 1
    assert steps[0] == "making a:1"
    assert steps[1].startswith("the proxy stops its instance")
    assert after is not None
    assert cloud.launches == 2
    after.release()
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_launch_under_way_is_stopped_before_anything_is_looked_for() -> None:
    deployment, _ = deployable()
    await deployment.pool.wake("m")
    steps = await told(deployment, None)

    assert steps[0].startswith("the proxy stops its instance")
    assert steps[1] == "deleting"
    assert deployment.state is State.COLD
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_refused_image_ends_nothing_and_requests_wake_again() -> None:
    deployment, cloud = deployable()
    cloud.fault = SpecError("no such image")
    lease = await deployment.pool.lease("m", wait_s=60)
    with pytest.raises(SpecError):
        await told(deployment, "a:1")

    assert lease is not None
    assert not lease.was_cut
    assert deployment.state is State.READY
    assert deployment.pool.try_lease() is not None
    await deployment.pool.aclose()


@in_virtual_time
async def test_what_is_meant_already_leaves_the_instance_alone() -> None:
    deployment, cloud = deployable()
    cloud.is_there = True
    lease = await deployment.pool.lease("m", wait_s=60)
    steps = await told(deployment, "a:1")

    assert steps == ["it is there"]
    assert lease is not None
    assert deployment.state is State.READY
    await deployment.pool.aclose()


@in_virtual_time
async def test_streams_end_before_the_instance_does() -> None:
    deployment, _ = deployable()
    lease = await deployment.pool.lease("m", wait_s=60)
    assert lease is not None
    order = asyncio.get_running_loop().create_task(told(deployment, "a:1"))
    await asyncio.sleep(30)
    draining, was_cut = deployment.state, lease.was_cut
    lease.release()
    await order

    assert draining is State.DRAINING
    assert not was_cut
    assert deployment.state is State.COLD
    await deployment.pool.aclose()


@in_virtual_time
async def test_an_instance_that_stays_is_waited_for_no_longer_than_its_limit() -> None:
    deployment, cloud = deployable()
    with await deployment.pool.lease("m", wait_s=60) or pytest.fail("no lease"):
        pass
    begun = asyncio.get_running_loop().time()
    cloud.stays_until = begun + 5000.0
    with pytest.raises(TransientError, match="may cost money; the proxy goes on"):
        await told(deployment, "a:1")
    took_s = asyncio.get_running_loop().time() - begun
    woken = deployment.pool.would_launch
    await asyncio.sleep(6000)

    limit_s = 900.0 + deployment.policy.drain_timeout_s
    assert took_s == pytest.approx(limit_s, abs=2.0)
    assert deployment.state is State.COLD
    assert woken
    await deployment.pool.aclose()


@in_virtual_time
async def test_what_is_made_from_now_on_is_known_once_the_last_one_is_gone() -> None:
    deployment, cloud = deployable()
    with await deployment.pool.lease("m", wait_s=60) or pytest.fail("no lease"):
        pass
    taken: list[str] = []

    async def tell(_step: str) -> None:
        pass

    redeployment = Redeployment(
        [deployment.pool],
        redeployed=lambda: taken.append(str(cloud.traits.spec)),
        limit_s=10 - deployment.pool.controllers[0].policy.drain_timeout_s,
    )
    cloud.stays_until = asyncio.get_running_loop().time() + 2000.0
    cloud.traits = replace(cloud.traits, spec="b:1")
    with pytest.raises(TransientError):
        await redeployment.run(None, tell)
    early = list(taken)
    await asyncio.sleep(6000)

    assert (early, taken) == ([], ["b:1"])
    await deployment.pool.aclose()


@in_virtual_time
async def test_an_order_that_is_broken_off_ends_what_it_made_at_once() -> None:
    deployment, cloud = deployable()

    async def tell(step: str) -> None:
        if step.startswith("making"):
            await asyncio.sleep(3600)

    redeployment = Redeployment([deployment.pool], redeployed=lambda: None)
    order = asyncio.get_running_loop().create_task(redeployment.run("a:1", tell))
    await asyncio.sleep(5)
    order.cancel()
    await asyncio.gather(order, return_exceptions=True)

    assert order.cancelled()
    assert cloud.ended_at == asyncio.get_running_loop().time()
    assert deployment.pool.would_launch
    await deployment.pool.aclose()


@in_virtual_time
async def test_an_order_to_wake_meanwhile_is_refused_and_not_lost() -> None:
    deployment, cloud = deployable()
    order = asyncio.get_running_loop().create_task(told(deployment, "a:1"))
    await asyncio.sleep(1)
    with pytest.raises(ConflictError, match="wake afterwards"):
        await deployment.pool.wake(forced=True)
    await order

    assert cloud.launches == 0
    await deployment.pool.aclose()


@in_virtual_time
async def test_an_order_to_wake_another_pool_of_the_backend_is_refused_too() -> None:
    deployment, cloud = deployable()
    other = Deployment(cloud=cloud)
    await asyncio.sleep(5)

    async def tell(_step: str) -> None:
        with pytest.raises(ConflictError, match="wake afterwards"):
            await other.pool.wake(forced=True)

    pools = [deployment.pool, other.pool]
    await Redeployment(pools, redeployed=lambda: None).run("a:1", tell)

    assert cloud.launches == 0
    await other.pool.wake(forced=True)
    await deployment.pool.aclose()
    await other.pool.aclose()


@in_virtual_time
async def test_every_instance_of_a_pool_is_gone_before_anything_is_removed() -> None:
    policy = PoolPolicy(min_instances=2, max_instances=2, max_starting=2)
    pools = SeveralOffers(("first",), most=2, policy=policy)
    await pools.pool.aclose()
    pools.clouds["first"] = cloud = DeployableCloud()
    pools.pool = pools.open()
    await asyncio.sleep(120)
    assert cloud.paid == 2
    steps: list[tuple[str, int]] = []

    async def tell(step: str) -> None:
        steps.append((step, cloud.paid))

    await Redeployment([pools.pool], redeployed=lambda: None).run(None, tell)

    assert [step.startswith("the proxy stops") for step, _ in steps[:2]] == [True] * 2
    assert [paid for _, paid in steps[2:]] == [0] * len(steps[2:])
    assert len(steps) > 2
    await pools.pool.aclose()


@in_virtual_time
async def test_steps_hold_no_secret() -> None:
    deployment, _ = deployable()
    deployment.secrets.add("token-of-registry")
    steps = await told(deployment, "a:1@token-of-registry")

    assert "token-of-registry" not in str(steps)
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_second_order_and_a_sweep_are_refused_meanwhile() -> None:
    deployment, _ = deployable()
    redeployment = Redeployment([deployment.pool], redeployed=lambda: None)

    async def tell(_step: str) -> None:
        pass

    order = asyncio.get_running_loop().create_task(redeployment.run("a:1", tell))
    await asyncio.sleep(1)
    with pytest.raises(ConflictError, match="already"):
        await redeployment.run(None, tell)
    with pytest.raises(ConflictError, match="sweep afterwards"):
        await deployment.pool.sweeper.sweep()
    await order
    assert await deployment.pool.sweeper.sweep() == []
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_backend_with_nothing_to_deploy_says_so() -> None:
    deployment = Deployment()
    with pytest.raises(StartupError, match="has nothing to be deployed"):
        await told(deployment, "a:1")
    await deployment.pool.aclose()
