"""`deploy` and `delete` that are killed at any call are finished by the next ones."""

import asyncio
import contextlib
from dataclasses import replace
from pathlib import Path

import pytest

from ollama_proxy.backends.fly.calls import AppCalls
from ollama_proxy.base.errors import BackendError
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.store.memory import MemoryNotes
from tests.backends.fly.rig import IMAGE, Rig, fly_rig
from tests.crashes import Death, Killed
from tests.fakes.fly.cloud import FakeApp, FakeMachine

LAUNCH = LaunchId("l0123456789abcdef")
THEIRS = "2a09::7"
MOST_CALLS = 30
"""More calls than either command makes."""

pytestmark = pytest.mark.usefixtures("without_pace")


@pytest.fixture
def death(monkeypatch: pytest.MonkeyPatch) -> Death:
    plan = Death()
    plan.watch(monkeypatch, AppCalls, "call", MemoryNotes)
    return plan


async def run(rig: Rig, app: str, *, deploys: bool) -> None:
    """Run a command in a process of its own."""
    backend = rig.open(app=app)
    steps = backend.deploy(IMAGE) if deploys else backend.remove()
    try:
        async with asyncio.timeout(20):
            async for _ in steps:
                pass
    finally:
        await backend.aclose()


async def have_a_machine(rig: Rig, app: str) -> None:
    """Have a launch run on the deployment, whose proxy then ends."""
    backend = rig.open(app=app)
    await backend.start(LAUNCH)
    await backend.aclose()


def somebodys_app(rig: Rig) -> FakeMachine:
    """Let the app `llm` be one with a machine and an address of its own."""
    rig.app.addresses[THEIRS] = "v6"
    return rig.cloud.stranger(rig.app)


def cost(rig: Rig) -> float:
    """Return what volumes cost in an hour from now, in GB hours."""
    before = rig.cloud.gb_hours()
    rig.clock.ahead_s += 3600.0
    return round(rig.cloud.gb_hours() - before, 3)


@pytest.mark.parametrize("app", ["fresh", "llm"])
@pytest.mark.parametrize("deploys", [True, False])
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_what_a_killed_command_leaves_is_one_deployment_or_none(
    tmp_path: Path, death: Death, moment: str, deploys: bool, app: str
) -> None:
    for number in range(1, MOST_CALLS + 1):
        async with fly_rig(tmp_path / f"{number}", is_paced=False) as rig:
            rig.timing = replace(rig.timing, setup_pause_s=0.01)
            stranger = somebodys_app(rig)
            death.plan(moment, 0)
            if not deploys:
                await run(rig, app, deploys=True)
                await have_a_machine(rig, app)
            death.plan(moment, number)
            with contextlib.suppress(Killed):
                await run(rig, app, deploys=deploys)
            came = death.came
            death.plan(moment, 0)
            rig.clock.ahead_s += 20.0  # the lease of a machine may have been held
            await run(rig, app, deploys=True)
            there = rig.cloud.apps[app]
            kinds = sorted(there.addresses.values())
            volumes = len(rig.cloud.volumes())
            await run(rig, app, deploys=False)

            assert (volumes, kinds) == (1, ["shared_v4", "v6"]), number
            assert seen(rig, there) == ([], []), number
            assert list(rig.cloud.apps) == ["llm"], number
            assert rig.app.addresses == {THEIRS: "v6"}, number
            assert stranger.doing == "start", number
            assert cost(rig) == 0.0, number
        if not came:
            return
    raise AssertionError(f"{MOST_CALLS} calls are not enough to end a command")


def seen(rig: Rig, there: FakeApp) -> tuple[list[str], list[str]]:
    """Return machines of ours that are left, and volumes."""
    gone = {"destroying", "destroyed"}
    ours = [one for one in there.machines.values() if "ollama_proxy" in one.metadata]
    machines = [one.id for one in ours if rig.cloud.state(one) not in gone]
    return machines, [one.id for one in rig.cloud.volumes()]


@pytest.mark.parametrize("app", ["fresh", "llm"])
@pytest.mark.parametrize("fault", ["lost-after", "lost-before", "html-502-after"])
@pytest.mark.parametrize(
    "operation", ["Apps_create", "App_IPAssignments_create", "Volumes_create"]
)
async def test_a_lost_answer_to_deploy_leaves_nothing_after_delete(
    rig: Rig, operation: str, fault: str, app: str
) -> None:
    rig.timing = replace(rig.timing, setup_pause_s=0.01)
    stranger = somebodys_app(rig)
    rig.server.script[operation] = [fault]
    for _ in range(3):
        with contextlib.suppress(BackendError):
            await run(rig, app, deploys=True)
    there = rig.cloud.apps[app]
    await run(rig, app, deploys=False)

    assert seen(rig, there) == ([], [])
    assert list(rig.cloud.apps) == ["llm"]
    assert rig.app.addresses == {THEIRS: "v6"}
    assert stranger.doing == "start"


async def test_a_new_app_that_is_shown_late_and_whose_answer_was_lost_is_ours(
    rig: Rig,
) -> None:
    rig.timing = replace(rig.timing, setup_pause_s=0.01)
    rig.server.script["Apps_create"] = ["lost-after"]
    with contextlib.suppress(BackendError):
        await run(rig, "fresh", deploys=True)
    rig.server.script["Apps_show"] = ["404:app not found"] * 3
    await run(rig, "fresh", deploys=True)
    await run(rig, "fresh", deploys=False)

    assert list(rig.cloud.apps) == ["llm"]


async def test_an_app_whose_creation_was_refused_is_not_taken_for_ours(
    rig: Rig,
) -> None:
    rig.timing = replace(rig.timing, setup_pause_s=0.01)
    rig.server.script["Apps_create"] = ["409:try again"]
    with pytest.raises(BackendError):
        await run(rig, "theirs", deploys=True)
    rig.cloud.add_app("theirs")
    await run(rig, "theirs", deploys=True)
    await run(rig, "theirs", deploys=False)

    assert "theirs" in rig.cloud.apps
