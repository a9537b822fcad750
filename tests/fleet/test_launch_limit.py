"""Launches that fail for a reason that stays, or too often: none is bought."""

import asyncio
import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from ollama_proxy.base.errors import (
    BackendError,
    CapacityError,
    CredentialsError,
    ProgramError,
    SpecError,
)
from ollama_proxy.cli.status_view import render_status
from ollama_proxy.core.lifecycle.deadlines import is_given_up
from ollama_proxy.core.lifecycle.record import Fault, LaunchId, Policy, State
from ollama_proxy.fleet.backend import Observation, Phase, Traits
from tests.core.lifecycle.test_launch_limit import DAY_S, POLICY
from tests.fakes.cloud import FakeCloud
from tests.fakes.instance import InProcessBackend
from tests.fleet.pools import until
from tests.fleet.rig import Deployment
from tests.proxy import ORDERS, generate, running_proxy
from tests.virtual_time import in_virtual_time

NO_DRIVER = Observation(Phase.FAILED, detail="no driver", reason="driver")
NO_IMAGE = Observation(Phase.FAILED, detail="no image", reason="image")
BROKEN = Observation(Phase.FAILED, detail="it does not come up")


class PaidDeployment(Deployment):
    """A proxy whose launches are paid for, and limited."""

    def __init__(self, policy: Policy = POLICY, traits: Traits | None = None) -> None:
        cloud = FakeCloud() if traits is None else FakeCloud(traits=traits)
        super().__init__(policy, cloud=cloud, load_s=0.0, models=["m"])

    async def ask_for(self, length_s: float) -> None:
        """Let a client ask each second; it takes no answer but a 503."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + length_s
        while loop.time() < ends_at:
            assert await self.pool.lease("m", wait_s=0.0) is None
            await asyncio.sleep(1.0)


@in_virtual_time
async def test_a_driver_that_never_works_is_paid_for_twice_in_a_day() -> None:
    deployment = PaidDeployment()
    deployment.cloud.end = NO_DRIVER
    await deployment.ask_for(240)
    assert deployment.cloud.launches == 2
    await asyncio.sleep(DAY_S - 600)
    await deployment.ask_for(240)
    assert deployment.cloud.launches == 2
    await deployment.ask_for(240)

    assert deployment.cloud.launches == 3
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_fault_that_nobody_can_name_is_paid_for_five_times_for_good() -> None:
    deployment = PaidDeployment()
    deployment.cloud.end = BROKEN
    await deployment.ask_for(240)
    assert deployment.cloud.launches == 5
    await deployment.ask_for(3 * 3600)

    assert deployment.cloud.launches == 5
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_person_starts_one_more_and_the_hour_still_counts() -> None:
    deployment = PaidDeployment()
    deployment.cloud.end = BROKEN
    await deployment.ask_for(240)
    await deployment.pool.wake(forced=True)
    await deployment.ask_for(240)

    assert deployment.cloud.launches == 6
    await deployment.pool.aclose()


@in_virtual_time
async def test_what_was_asked_during_a_stop_in_vain_is_not_bought_a_day_later() -> None:
    deployment = PaidDeployment()
    deployment.cloud.end = NO_IMAGE
    await deployment.pool.wake()
    await until(lambda: deployment.state is State.STOPPING, 60.0)
    assert await deployment.pool.lease("m", wait_s=0.0) is None
    assert not deployment.pool.would_launch
    deployment.cloud.end = None
    await asyncio.sleep(DAY_S + 600)

    assert deployment.record.state is State.COLD
    assert deployment.cloud.launches == 1
    await deployment.pool.aclose()


async def launches_after_one_that_ended_so(end: Observation) -> int:
    """Return how many there are if it is asked for during the stop, and mended."""
    deployment = PaidDeployment()
    deployment.cloud.end = end
    await deployment.pool.wake()
    await until(lambda: deployment.state is State.STOPPING, 60.0)
    assert await deployment.pool.lease("m", wait_s=0.0) is None
    await until(lambda: deployment.state is State.COOLDOWN, 60.0)
    deployment.cloud.end = None
    await deployment.pool.wake(forced=True)
    with await deployment.lease() as lease:
        lease.mark_used()
    await asyncio.sleep(7200)
    await deployment.pool.aclose()
    return deployment.cloud.launches


@in_virtual_time
async def test_what_was_asked_during_a_stop_is_not_bought_after_the_next_launch() -> (
    None
):
    assert await launches_after_one_that_ended_so(NO_IMAGE) == 2
    assert await launches_after_one_that_ended_so(BROKEN) == 2


async def state_after_an_order_during_the_stop(error: BackendError) -> State:
    """Return the state a minute after an order that comes while a launch fails."""
    deployment = PaidDeployment(replace(POLICY, backoff_s=500.0, backoff_max_s=500.0))
    deployment.cloud.start_error = error
    await deployment.pool.wake()
    await until(lambda: deployment.state is State.STOPPING, 60.0)
    deployment.cloud.start_error = None
    await deployment.pool.wake(forced=True)
    await asyncio.sleep(60)
    await deployment.pool.aclose()
    return deployment.record.state


@in_virtual_time
async def test_an_order_during_the_stop_of_a_failed_launch_waits_for_no_back_off() -> (
    None
):
    no_key, no_room = CredentialsError("expired"), CapacityError("no room")

    assert await state_after_an_order_during_the_stop(no_key) is State.READY
    assert await state_after_an_order_during_the_stop(no_room) is State.READY


@in_virtual_time
async def test_once_it_is_mended_a_person_wakes_it_and_requests_do_again() -> None:
    deployment = PaidDeployment()
    deployment.cloud.end = BROKEN
    await deployment.ask_for(240)
    deployment.cloud.end = None
    await deployment.pool.wake(forced=True)
    with await deployment.lease() as lease:
        lease.mark_used()
    assert deployment.record.paid_launches == ()
    deployment.pool.stop()
    await asyncio.sleep(10)

    assert await deployment.pool.lease("m", wait_s=60) is not None
    assert deployment.cloud.launches == 7
    await deployment.pool.aclose()


@in_virtual_time
async def test_who_waits_is_told_at_once_when_requests_are_locked_out() -> None:
    deployment = PaidDeployment()
    deployment.cloud.end = NO_DRIVER
    begun = asyncio.get_running_loop().time()
    assert await deployment.pool.lease("m", wait_s=3600) is None
    assert asyncio.get_running_loop().time() - begun < 30
    assert await deployment.pool.lease("m", wait_s=3600) is None

    assert asyncio.get_running_loop().time() - begun < 30
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_restart_changes_no_verdict_and_new_settings_end_it() -> None:
    deployment = PaidDeployment()
    deployment.cloud.end = NO_DRIVER
    await deployment.ask_for(60)
    await deployment.restart()
    await deployment.ask_for(60)
    assert deployment.cloud.launches == 2
    deployment.models = ["another"]
    await deployment.restart()
    await deployment.ask_for(2)

    assert deployment.cloud.launches == 3
    await deployment.pool.aclose()


@in_virtual_time
async def test_the_hour_goes_on_over_a_restart() -> None:
    deployment = PaidDeployment()
    deployment.cloud.end = BROKEN
    await deployment.ask_for(8)
    assert 1 <= deployment.cloud.launches < 5
    for _ in range(10):
        await deployment.restart()
        await deployment.ask_for(60)

    assert deployment.cloud.launches == 5
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_cloud_that_has_no_such_image_is_asked_once() -> None:
    deployment = PaidDeployment()
    deployment.cloud.start_error = SpecError("there is no template 'x'")
    await deployment.ask_for(60)
    await asyncio.sleep(DAY_S - 600)
    await deployment.ask_for(60)

    assert deployment.cloud.calls.count("start") == 1
    assert deployment.record.lockout is not None
    await deployment.pool.aclose()


@pytest.mark.parametrize("error", [CredentialsError("no"), ProgramError("no")])
def test_what_may_be_mended_elsewhere_is_tried_again_after_the_back_off(
    error: BackendError,
) -> None:
    @in_virtual_time
    async def asked() -> None:
        deployment = PaidDeployment()
        deployment.cloud.start_error = error
        await deployment.ask_for(3)
        assert is_given_up(deployment.record, POLICY)
        deployment.cloud.start_error = None
        assert deployment.cloud.calls.count("start") == 1
        await asyncio.sleep(60)

        assert await deployment.pool.lease("m", wait_s=60) is not None
        await deployment.pool.aclose()

    asked()


@in_virtual_time
async def test_a_configured_model_that_no_registry_has_is_tried_once() -> None:
    deployment = PaidDeployment()
    deployment.probe.fault = Fault("pull", "no such model", final=True)
    await deployment.ask_for(3600)

    assert deployment.cloud.launches == 1
    await deployment.pool.aclose()


@pytest.mark.parametrize(
    "traits", [Traits(child_process=True), Traits(externally_managed=True)]
)
def test_what_costs_nothing_is_not_counted(traits: Traits) -> None:
    @in_virtual_time
    async def asked() -> None:
        deployment = PaidDeployment(traits=replace(traits, poll_s=1.0))
        deployment.cloud.end = BROKEN
        await deployment.ask_for(600)

        assert deployment.cloud.launches > 5
        assert deployment.record.lockout is None
        await deployment.pool.aclose()

    asked()


@in_virtual_time
async def test_three_deaths_of_the_proxy_with_its_instance_are_no_failures() -> None:
    deployment = PaidDeployment(traits=Traits(child_process=True, poll_s=1.0))
    deployment.cloud.faults.boot_s = 30.0
    for _ in range(3):
        await deployment.pool.lease("m", wait_s=0.0)
        await asyncio.sleep(5)
        assert deployment.record.state is State.STARTING
        await deployment.pool.aclose()
        deployment.cloud.preempt()
        deployment.pool = deployment._open()
        await asyncio.sleep(5)

    assert (deployment.record.state, deployment.record.fault) == (State.COLD, None)
    assert await deployment.pool.lease("m", wait_s=120) is not None
    await deployment.pool.aclose()


@in_virtual_time
async def test_a_launch_that_is_stopped_before_the_cloud_answers_counts() -> None:
    deployment = PaidDeployment()
    for _ in range(9):
        await deployment.pool.lease("m", wait_s=0.0)
        await asyncio.sleep(0.005)  # the call to the cloud is under way
        deployment.pool.stop()
        await asyncio.sleep(5)

    assert deployment.cloud.launches == 5
    await deployment.pool.aclose()


@in_virtual_time
async def test_what_the_cloud_refuses_does_not_count() -> None:
    deployment = PaidDeployment()
    deployment.cloud.start_error = CapacityError("no room")
    await deployment.ask_for(600)

    assert deployment.cloud.calls.count("start") > 5
    assert deployment.record.paid_launches == ()
    assert deployment.record.lockout is None
    await deployment.pool.aclose()


class WithoutImage(InProcessBackend):
    """A paid cloud that has no such image until somebody brings it."""

    def __init__(self) -> None:
        super().__init__()
        self.traits = replace(self.traits, child_process=False)
        self.has_image = False

    async def start(self, launch_id: LaunchId) -> None:
        if not self.has_image:
            raise SpecError("there is no image 'x:1'")
        await super().start(launch_id)


async def test_status_the_503_and_the_screen_say_what_to_do(tmp_path: Path) -> None:
    backend = WithoutImage()
    async with running_proxy(tmp_path, backend=backend) as proxy:
        await proxy.parts.pool.wake()
        await proxy.until(lambda: proxy.state == "cool-down")
        status = await proxy.status()
        async with proxy.session.post(
            f"{proxy.url}/api/generate", json=generate()
        ) as reply:
            said = await reply.json()
            assert "Retry-After" not in reply.headers
        assert proxy.state == "cool-down"
        backend.has_image = True
        async with proxy.session.post(f"{proxy.url}/-/wake", headers=ORDERS) as reply:
            assert reply.status == 200
        await proxy.until(lambda: proxy.state == "ready")
        ready = await proxy.status()

    assert status["lockout"]["reason"] == "final"
    assert status["lockout"]["ends_in_s"] == pytest.approx(DAY_S, abs=5)
    assert (status["launches_unserved"], status["launch_limit"]) == (0, 5)
    for told in (status["error"], said["error"]):
        assert "there is no image 'x:1'" in told
        assert "`ollama-proxy wake` or changes its settings, or 24 h pass" in told
    assert (said["status"], said["provisioning"]) == ("error", False)
    assert (said["retry_after"], status["retry_after"]) == (None, None)
    assert (ready["lockout"], ready["error"]) == (None, None)
    assert ready["launches_unserved"] == 1
    shown = io.StringIO()
    Console(file=shown, width=200).print(render_status(ready, "http://x:1"))
    assert "1 in the last hour without a request served, of 5 at most" in (
        shown.getvalue()
    )
