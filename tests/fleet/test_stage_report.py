"""The stages of a launch: in /status, the log, metrics, estimates."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog.testing

from ollama_proxy.base import log
from ollama_proxy.core.lifecycle.boot_stages import Timeline
from ollama_proxy.core.lifecycle.record import LaunchId, Record, State
from ollama_proxy.fleet.stage_report import StageReport
from tests.backends.exoscale.rig import Rig, exoscale_rig
from tests.fakes.exoscale.cloud import Timing
from tests.fakes.instance import InProcessBackend
from tests.proxy import RunningProxy, running_proxy

TOLD = "booting 0\nguard 31\nguard.end 50\ndriver 51\ndriver.end 171\nready 205\n"
STEPS = ["booting", "guard", "guard", "driver", "driver", "driver", "ollama", "ready"]


async def launched(rig: Rig, folder: Path) -> dict[str, Any]:
    async with running_proxy(
        folder, backend=rig.open(), clock=rig.clock, OLLAMA_MODEL="tiny"
    ) as proxy:
        await proxy.wake()
        status = await proxy.status()
        status["metrics"] = await metrics(proxy)
        proxy.parts.pool.stop()
        await proxy.until(lambda: not rig.cloud.paid)
    return status


async def metrics(proxy: RunningProxy) -> str:
    async with proxy.session.get(f"{proxy.url}/metrics") as reply:
        return await reply.text()


def count(told: str, stage: str, backend: str = "local") -> float:
    label = f'{{backend="{backend}",stage="{stage}"}} '
    name = "ollama_proxy_boot_stage_seconds_count"
    (line,) = [one for one in told.splitlines() if one.startswith(name + label)]
    return float(line.rpartition(" ")[2])


async def test_a_launch_tells_its_stages_everywhere(tmp_path: Path) -> None:
    async with exoscale_rig(tmp_path / "c", Timing(boot_s=0.1)) as rig:
        rig.guests.stages, rig.guests.told_stages = STEPS, TOLD
        debug = structlog.make_filtering_bound_logger("debug")
        structlog.configure(wrapper_class=debug)  # the fixture's are warnings alone
        with structlog.testing.capture_logs() as logged:
            status = await launched(rig, tmp_path / "p")
    seen = [one["stage"] for one in status["stages"]]
    (line,) = [one for one in logged if one["event"] == log.LAUNCH_STAGES]
    ended = [one["stage"] for one in logged if one["event"] == log.STAGE_ENDED]

    assert seen[:5] == ["creating", "booting", "guard", "driver", "ollama"]
    assert seen[-1] == "loading"
    assert ended == seen
    assert list(line["stages"]) == seen
    assert line["instance"] == {"booting": 31.0, "guard": 19.0, "driver": 120.0}
    assert {"stage": "driver", "begun_s": 51.0, "seconds": 120.0} in (
        status["instance_stages"]
    )
    for stage in ("creating", "driver", "loading"):
        assert count(status["metrics"], stage) == 1
    assert count(status["metrics"], "toolkit") == 0


@pytest.mark.parametrize(
    "told",
    [
        None,
        "",
        "<html>" * 10_000,
        'driver"} 1\nready 2\n',
        "driver 1\n" * 100_000,
        "\udcff",
    ],
)
async def test_an_instance_that_tells_no_stages_or_lies_serves_all_the_same(
    tmp_path: Path, told: str | None
) -> None:
    async with exoscale_rig(tmp_path / "c") as rig:
        rig.guests.told_stages = told
        status = await launched(rig, tmp_path / "p")

    assert status["instance_status"] == "ready"
    assert {one["stage"] for one in status["instance_stages"]} <= {"driver"}


async def test_the_stages_add_up_to_the_time_since_the_wake(tmp_path: Path) -> None:
    backend = InProcessBackend(boot_s=0.2)
    async with running_proxy(tmp_path, backend=backend, OLLAMA_MODEL="tiny") as proxy:
        await proxy.wake()
        status = await proxy.status()
        record = proxy.parts.pool.controllers[0].record
    whole_s = record.since - record.woken_at

    assert sum(one["seconds"] for one in status["stages"]) == pytest.approx(
        whole_s, abs=0.3
    )
    assert status["instance_stages"] == []


async def test_the_estimate_follows_the_stage(tmp_path: Path) -> None:
    """After a boot that takes far too long, the later stages keep their times."""
    backend = InProcessBackend(boot_s=0.05)
    async with running_proxy(tmp_path, backend=backend, OLLAMA_MODEL="tiny") as proxy:
        launch = {"creating": 2.0, "booting": 3.0, "loading": 40.0}
        proxy.store.stages.add("local", launch)
        proxy.store.add_launch("local", 45.0)
        backend.boot_s = 60.0
        await proxy.parts.pool.wake()
        await proxy.until(lambda: proxy.state == "starting")
        first = (await proxy.status())["eta_s"]
        await asyncio.sleep(0.3)
        later = (await proxy.status())["eta_s"]
        backend.boot_s = 0.0
        await proxy.until(lambda: proxy.state == "ready")

    assert 44.0 <= first <= 45.0
    assert 43.0 <= later < first


async def test_without_a_history_of_stages_the_whole_launches_tell(
    tmp_path: Path,
) -> None:
    backend = InProcessBackend(boot_s=60.0)
    async with running_proxy(tmp_path, backend=backend) as proxy:
        proxy.store.add_launch("local", 90.0)
        await proxy.parts.pool.wake()
        await proxy.until(lambda: proxy.state == "starting")
        eta_s = (await proxy.status())["eta_s"]
        backend.boot_s = 0.0
        await proxy.until(lambda: proxy.state == "ready")

    assert 85.0 <= eta_s <= 90.0


@pytest.mark.parametrize(
    ("is_whole", "adopted", "teaches"),
    [(True, False, True), (False, False, False), (True, True, False)],
)
def test_only_a_launch_that_was_seen_from_its_wake_teaches_anything(
    is_whole: bool, adopted: bool, teaches: bool
) -> None:
    taught: list[Mapping[str, float]] = []

    class Notebook:
        def observe_stage(self, backend: str, stage: str, seconds: float) -> None:
            taught.append({stage: seconds})

        def add(self, offer: str, stages: Mapping[str, float]) -> None:
            taught.append(stages)

    timeline, notebook = Timeline(), Notebook()
    starting = Record(State.STARTING, launch_id=LaunchId("l1"), adopted=adopted)
    timeline.see(Record() if is_whole else starting, starting, 5.0)
    ready = replace(starting, state=State.READY, since=9.0)
    timeline.see(starting, ready, 9.0)
    report = StageReport("a", timeline, counts=notebook, learner=notebook)
    report.on_transition(starting, ready)

    assert bool(taught) is teaches
