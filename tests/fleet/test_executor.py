"""Starts and stops are repeated until the cloud has answered clearly."""

import asyncio

import structlog

from ollama_proxy.base import log
from ollama_proxy.base.errors import CapacityError, CredentialsError, TransientError
from ollama_proxy.core.lifecycle.record import LaunchId, Policy, State
from tests.fakes.cloud import FakeCloud
from tests.fleet.rig import Deployment
from tests.virtual_time import in_virtual_time


@in_virtual_time
async def test_a_launch_that_fails_is_tried_again_while_somebody_waits() -> None:
    deployment = Deployment()
    deployment.cloud.start_error = CapacityError("no GPU left in this zone")
    waiting = asyncio.ensure_future(deployment.pool.lease("m", wait_s=200))
    await asyncio.sleep(5)
    assert deployment.state is State.COOLDOWN
    deployment.cloud.start_error = None

    assert await waiting is not None
    assert deployment.cloud.calls.count("start") == 2
    await deployment.pool.aclose()


@in_virtual_time
async def test_at_the_limit_of_failures_nobody_waits_in_vain() -> None:
    deployment = Deployment()
    deployment.cloud.start_error = CapacityError("no GPU left in this zone")
    begun = asyncio.get_running_loop().time()
    lease = await deployment.pool.lease("m", wait_s=3600)

    assert lease is None
    assert asyncio.get_running_loop().time() - begun < 60
    assert deployment.cloud.calls.count("start") == 3
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_fault_that_only_a_person_mends_is_not_tried_again() -> None:
    deployment = Deployment()
    deployment.cloud.start_error = CredentialsError("the key has expired")
    lease = await deployment.pool.lease("m", wait_s=3600)
    await asyncio.sleep(7200)

    assert lease is None
    assert deployment.cloud.calls.count("start") == 1
    deployment.cloud.start_error = None
    await deployment.pool.wake(forced=True)
    await asyncio.sleep(10)
    assert deployment.state is State.READY
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_launch_that_never_boots_is_given_up_at_the_start_timeout() -> None:
    deployment = Deployment(Policy(start_timeout_s=600))
    deployment.cloud.faults.never_boots = True
    await deployment.pool.wake()
    await asyncio.sleep(590)
    assert deployment.cloud.paid == 1
    await asyncio.sleep(30)

    assert deployment.cloud.paid == 0
    fault = deployment.record.fault
    assert fault is not None
    assert fault.reason == "start_timeout"
    await deployment.pool.aclose()


def _stop_error(deployment: Deployment) -> str | None:
    return deployment.record.stop_error


@in_virtual_time
async def test_a_stop_that_fails_is_asked_again_until_the_cloud_agrees() -> None:
    deployment = Deployment()
    (await deployment.lease()).release()
    deployment.cloud.faults.stop_fails = 1.0
    deployment.pool.stop()
    await asyncio.sleep(30)
    assert _stop_error(deployment) is not None
    deployment.cloud.faults.stop_fails = 0.0
    await asyncio.sleep(120)

    assert deployment.cloud.paid == 0
    assert _stop_error(deployment) is None
    await deployment.pool.aclose()


async def told_of_a_stop_that_fails(fault: type[Exception]) -> str:
    """Return what the record and the log say of a stop whose error names a token."""

    class Telling(FakeCloud):
        async def stop(self, launch_id: LaunchId) -> None:
            raise fault("the token open-sesame was refused")

    deployment = Deployment(cloud=Telling(), secrets={"open-sesame"})
    (await deployment.lease()).release()
    deployment.pool.stop()
    with structlog.testing.capture_logs() as logs:
        await asyncio.sleep(10)
    await deployment.pool.aclose()
    calls = [one for one in logs if one["event"] == log.INSTANCE_CALL_FAILED]
    return f"{_stop_error(deployment)} {calls}"


@in_virtual_time
async def test_a_stop_that_fails_tells_no_secret() -> None:
    for fault in (TransientError, KeyError):
        told = await told_of_a_stop_that_fails(fault)

        assert "the token *** was refused" in told
        assert "sesame" not in told


@in_virtual_time
async def test_a_start_call_that_outlives_its_stop_leaves_nothing() -> None:
    deployment = Deployment()
    await deployment.pool.wake()
    await asyncio.sleep(0.005)
    assert deployment.cloud.calls == ["start"]
    deployment.pool.stop()
    await asyncio.sleep(30)

    assert deployment.cloud.paid == 0
    assert deployment.state is State.COLD
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_stop_that_the_cloud_accepts_and_forgets_is_told() -> None:
    class Forgetful(FakeCloud):
        async def stop(self, launch_id: LaunchId) -> None:
            self.calls.append("stop")

    deployment = Deployment(cloud=Forgetful())
    (await deployment.lease()).release()
    deployment.pool.stop()
    await asyncio.sleep(400)

    assert "still there" in (_stop_error(deployment) or "")
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_backend_that_keeps_crashing_ends_the_launch() -> None:
    class Broken(FakeCloud):
        async def start(self, launch_id: LaunchId) -> None:
            raise KeyError("zone")

    deployment = Deployment(cloud=Broken())
    await deployment.pool.wake()
    with structlog.testing.capture_logs() as logs:
        await asyncio.sleep(20)

    fault = deployment.record.fault
    assert fault is not None
    assert fault.message == "KeyError in start: 'zone'"
    assert logs
    await deployment.pool.aclose()


@in_virtual_time
async def test_an_owner_that_crashes_begins_again() -> None:
    deployment = Deployment()
    lease = await deployment.lease()
    executor = deployment.controller._executor
    whole = executor._until_something_happens

    async def crash(_work: object) -> None:
        executor._until_something_happens = whole  # type: ignore[method-assign]  # once
        raise RuntimeError("on purpose")

    executor._until_something_happens = crash  # type: ignore[method-assign,assignment]  # once
    with structlog.testing.capture_logs() as logs:
        lease.release()
        await asyncio.sleep(400)

    crashed = [entry["task"] for entry in logs if entry["event"] == log.TASK_CRASHED]
    assert crashed == ["owner"]
    assert deployment.cloud.paid == 0
    await deployment.pool.aclose()
