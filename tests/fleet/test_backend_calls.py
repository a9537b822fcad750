"""Reports of launches that are given up, in virtual time."""

import asyncio
from pathlib import Path

import pytest
import structlog

from ollama_proxy.base import log
from ollama_proxy.base.errors import TransientError
from ollama_proxy.core.lifecycle.record import Fault, LaunchId, Policy, State
from ollama_proxy.fleet.backend import Observation, Phase
from tests.fakes.cloud import CloudFaults, ReportingCloud
from tests.fakes.instance import InProcessBackend
from tests.fleet.rig import Deployment
from tests.proxy import ORDERS, running_proxy
from tests.virtual_time import in_virtual_time

START_S = 600.0
SECRET = "hunter2hunter"


class StuckDeployment(Deployment):
    """A proxy before a cloud that has reports, and a launch that never boots."""

    cloud: ReportingCloud

    def __init__(self) -> None:
        policy = Policy(start_timeout_s=START_S, failure_limit=1)
        cloud = ReportingCloud(faults=CloudFaults(never_boots=True))
        super().__init__(policy, cloud=cloud, load_s=0.0, secrets={SECRET})

    async def until_stopped(self) -> float:
        """Return how long after the wake the stop was called."""
        loop = asyncio.get_running_loop()
        woken_at = loop.time()
        await self.pool.wake()
        while "stop" not in self.cloud.calls:
            await asyncio.sleep(0.1)
        return loop.time() - woken_at

    def journal(self) -> list[tuple[str, str | None, str | None]]:
        lines = self.store.transitions
        return [(one.event, one.fault, one.report) for one in lines if one.report]


@in_virtual_time
async def test_a_launch_that_gets_no_further_is_reported_before_it_is_stopped() -> None:
    deployment = StuckDeployment()
    with structlog.testing.capture_logs() as lines:
        after_s = await deployment.until_stopped()
    text = deployment.cloud.report_text
    logged = [line["report"] for line in lines if line["event"] == log.LAUNCH_REPORT]
    await asyncio.sleep(10.0)
    fault = deployment.record.fault
    await deployment.pool.aclose()

    assert fault is not None
    assert fault.reason == "start_timeout"
    assert deployment.journal() == [("Failed", fault.message, text)]
    assert logged == [text]
    assert deployment.controller.report == text
    assert len(deployment.cloud.reports) == 1
    assert after_s < START_S + 5.0
    assert deployment.cloud.paid == 0


@pytest.mark.parametrize("fault", ["hangs", "clings"])
def test_a_report_that_does_not_come_delays_the_stop_by_its_bound(fault: str) -> None:
    @in_virtual_time
    async def asked() -> None:
        deployment = StuckDeployment()
        deployment.cloud.report_fault = fault
        after_s = await deployment.until_stopped()
        deployment.cloud.report_fault = ""
        await deployment.pool.aclose()

        assert START_S + 15.0 <= after_s < START_S + 20.0
        assert deployment.controller.report == (
            "no report of the instance came within 15 s"
        )

    asked()


@pytest.mark.parametrize("fault", [TransientError, KeyError])
def test_a_report_that_fails_becomes_a_sentence(fault: type[Exception]) -> None:
    @in_virtual_time
    async def asked() -> None:
        deployment = StuckDeployment()
        deployment.cloud.report_fault = fault(f"the guard said 502 to {SECRET}")
        after_s = await deployment.until_stopped()
        await deployment.pool.aclose()

        assert after_s < START_S + 5.0
        assert deployment.controller.report.startswith(
            "no report of the instance could be fetched: "
        )
        assert "the guard said 502 to ***" in deployment.controller.report

    asked()


@in_virtual_time
async def test_a_person_who_stops_it_does_not_wait_for_the_report() -> None:
    deployment = StuckDeployment()
    deployment.cloud.report_fault = "hangs"
    await deployment.pool.wake()
    await asyncio.sleep(START_S + 4.0)
    asked = list(deployment.cloud.reports)
    deployment.pool.stop()
    await asyncio.sleep(0.01)
    calls = list(deployment.cloud.calls)
    await deployment.pool.aclose()

    assert len(asked) == 1
    assert calls[-1] == "stop"
    assert deployment.record.fault is None


@in_virtual_time
async def test_a_launch_that_moves_on_during_the_report_is_not_given_up() -> None:
    deployment = StuckDeployment()
    deployment.cloud.report_fault = "hangs"
    await deployment.pool.wake()
    await asyncio.sleep(START_S + 4.0)
    for instance in deployment.cloud.instances.values():
        instance.boots_at = 0.0
    await asyncio.sleep(30.0)
    state = deployment.record.state
    await deployment.pool.aclose()

    assert len(deployment.cloud.reports) == 1
    assert state is State.READY


@in_virtual_time
async def test_the_end_of_the_proxy_does_not_wait_for_a_report() -> None:
    deployment = StuckDeployment()
    deployment.cloud.report_fault = "hangs"
    await deployment.pool.wake()
    await asyncio.sleep(START_S + 4.0)
    begun = asyncio.get_running_loop().time()
    await deployment.pool.aclose()

    assert asyncio.get_running_loop().time() - begun < 0.1
    assert deployment.record.state is State.STARTING


@in_virtual_time
async def test_a_model_that_can_not_be_loaded_has_a_report() -> None:
    deployment = StuckDeployment()
    deployment.cloud.faults.never_boots = False
    deployment.probe.fault = Fault("load", "the model 'm' could not be loaded: oom")
    await deployment.until_stopped()
    await deployment.pool.aclose()

    text = deployment.cloud.report_text
    assert deployment.journal() == [("Failed", deployment.probe.fault.message, text)]


@in_virtual_time
async def test_a_report_that_is_there_is_not_asked_for() -> None:
    deployment = StuckDeployment()
    deployment.cloud.faults.never_boots = False
    deployment.cloud.end = Observation(Phase.FAILED, detail="no driver", report="log")
    await deployment.until_stopped()
    await deployment.pool.aclose()

    assert deployment.cloud.reports == []
    assert deployment.controller.report == "log"


@in_virtual_time
async def test_a_launch_that_is_ready_ends_the_report_of_the_one_before() -> None:
    deployment = StuckDeployment()
    await deployment.until_stopped()
    await asyncio.sleep(10.0)
    deployment.cloud.faults.never_boots = False
    await deployment.pool.wake(forced=True)
    await asyncio.sleep(10.0)
    state = deployment.record.state
    await deployment.pool.aclose()

    assert state is State.READY
    assert deployment.controller.report == ""


class UnbootableBackend(InProcessBackend):
    """Has an instance that stays at one step, and a report of it."""

    async def inspect(self, launch_id: LaunchId) -> Observation:
        seen = await super().inspect(launch_id)
        return seen if seen.phase is Phase.GONE else Observation(Phase.PENDING)

    async def report(self, launch_id: LaunchId) -> str:
        return f"last step of {launch_id}: toolkit"


async def test_status_and_journal_carry_the_report(tmp_path: Path) -> None:
    async with running_proxy(
        tmp_path, backend=UnbootableBackend(), OLLAMA_PROXY_START_TIMEOUT="1s"
    ) as proxy:
        before = await proxy.status()
        await proxy.parts.pool.wake()
        await proxy.until(lambda: proxy.state == "cool-down", within_s=20.0)
        status = await proxy.status()
        async with proxy.session.get(f"{proxy.url}/-/journal", headers=ORDERS) as reply:
            lines = (await reply.json())["transitions"]

    failed = next(line for line in lines if line["event"] == "Failed")
    assert before["report"] is None
    assert status["report"] == f"last step of {failed['launch_id']}: toolkit"
    assert failed["report"] == status["report"]
    assert "made no progress for 1 s" in status["error"]
