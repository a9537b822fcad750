"""A proxy that was killed: what the next one on its state makes of the instance."""

import asyncio

from ollama_proxy.core.lifecycle.record import Policy, State
from tests.fleet.rig import Deployment
from tests.virtual_time import in_virtual_time


@in_virtual_time
async def test_a_crash_in_mid_stream_leaves_no_instance_that_seems_idle() -> None:
    deployment = Deployment()
    lease = await deployment.lease()
    lease.mark_used()
    await asyncio.sleep(3600)
    await deployment.restart()  # nothing released the lease
    await asyncio.sleep(5)

    assert deployment.state is State.READY
    assert deployment.cloud.launches == 1
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_crash_right_after_the_first_token_is_one_in_mid_stream() -> None:
    deployment = Deployment()
    lease = await deployment.lease()
    await asyncio.sleep(299)
    lease.mark_used()
    await asyncio.sleep(2)
    await deployment.restart()
    await asyncio.sleep(5)

    assert deployment.state is State.READY
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_crash_in_mid_stream_is_survived_with_a_short_idle_time_too() -> None:
    deployment = Deployment(Policy(idle_timeout_s=6))
    lease = await deployment.lease()
    await asyncio.sleep(3)
    lease.mark_used()
    await asyncio.sleep(7)
    await deployment.restart()
    await asyncio.sleep(3)

    assert deployment.state is State.READY
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_crash_while_requests_come_to_nothing_prolongs_nothing() -> None:
    deployment = Deployment()
    await deployment.lease()
    await asyncio.sleep(3600)
    await deployment.restart()
    await asyncio.sleep(5)

    assert deployment.cloud.paid == 0
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_restarted_proxy_adopts_the_same_instance() -> None:
    deployment = Deployment()
    (await deployment.lease()).release()
    launch_id = deployment.record.launch_id
    await deployment.restart()
    await asyncio.sleep(5)

    assert deployment.state is State.READY
    assert deployment.record.launch_id == launch_id
    assert deployment.cloud.launches == 1
    await deployment.pool.aclose()
