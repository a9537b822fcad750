"""A launch is brought to readiness, and its instance watched until it is lost."""

import asyncio

from ollama_proxy.core.lifecycle.record import Fault, Policy, Progress, Stage, State
from ollama_proxy.fleet.backend import Observation, Phase
from tests.fleet.rig import Deployment
from tests.virtual_time import in_virtual_time


@in_virtual_time
async def test_progress_keeps_a_slow_launch_alive() -> None:
    deployment = Deployment(Policy(start_timeout_s=600))
    deployment.probe.steps = [
        Progress(Stage.PULLING, n / 10, "huge") for n in range(10)
    ]
    deployment.probe.step_s = 500.0
    lease = await deployment.pool.lease("m", wait_s=6000)

    assert lease is not None
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_model_that_does_not_fit_is_told_and_the_instance_stopped() -> None:
    deployment = Deployment()
    deployment.probe.fault = Fault("load", "the model 'm' could not be loaded: oom")
    await deployment.pool.wake()
    await asyncio.sleep(8)

    assert deployment.cloud.paid == 0
    assert deployment.state is State.COOLDOWN
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_silent_instance_is_lost_after_three_probes() -> None:
    deployment = Deployment()
    await deployment.lease()
    deployment.probe.answers = False
    await asyncio.sleep(60)

    assert deployment.cloud.calls.count("stop") >= 1
    assert deployment.cloud.paid == 0
    await deployment.pool.aclose()


@in_virtual_time
async def test_silence_that_a_backend_explains_is_forgiven_for_five_minutes() -> None:
    deployment = Deployment()
    await deployment.lease()
    deployment.probe.answers = False
    upstream = deployment.controller.upstream
    deployment.cloud.end = Observation(Phase.RUNNING, upstream, problem="locked out")
    await asyncio.sleep(290)
    forgiven = deployment.state
    await asyncio.sleep(60)

    assert forgiven is State.READY
    assert deployment.cloud.paid == 0
    await deployment.pool.aclose()


@in_virtual_time
async def test_an_instance_that_sends_bytes_is_not_silent() -> None:
    deployment = Deployment()
    lease = await deployment.lease()
    deployment.probe.answers = False
    for _ in range(120):
        lease.mark_alive()
        await asyncio.sleep(5)

    assert deployment.state is State.READY
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_nudge_finds_a_vanished_instance_at_once() -> None:
    deployment = Deployment()
    lease = await deployment.lease()
    deployment.cloud.preempt()
    lease.check_now()
    await asyncio.sleep(1)

    assert deployment.state in {State.STOPPING, State.COOLDOWN, State.COLD}
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_burst_of_refused_requests_is_one_failure_not_three() -> None:
    deployment = Deployment()
    lease = await deployment.lease()
    deployment.probe.answers = False
    for _ in range(50):
        lease.check_now()
        await asyncio.sleep(0.01)
    assert deployment.state is State.READY
    deployment.probe.answers = True
    await asyncio.sleep(60)

    assert deployment.state is State.READY
    await deployment.pool.aclose()
