"""`deploy` and `delete` that are killed at any call are finished by the next ones."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ollama_proxy.backends.ovh.command import OvhaiCommand
from ollama_proxy.backends.ovh.rest import RestDriver
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.store.memory import MemoryNotes
from tests.backends.ovh.rig import IMAGE, Rig, ovh_rig
from tests.crashes import Death, Killed
from tests.fakes.ovh.cloud import FakeApp, Timing

LAUNCH = LaunchId("l0123456789abcdef")
OTHER = IMAGE.replace("0.32.15", "0.33.0")
MOST_CALLS = 40
"""More calls than either command makes."""
STEP_S = 20.0
"""So much passes between two moments of a test, as lost answers take minutes."""
TIMING = Timing(scale_s=STEP_S, stop_s=STEP_S, delete_s=STEP_S, deleted_s=STEP_S)


@pytest.fixture
def death(monkeypatch: pytest.MonkeyPatch) -> Death:
    plan = Death()
    plan.watch(monkeypatch, RestDriver, "_call", MemoryNotes)
    plan.watch(monkeypatch, OvhaiCommand, "run", MemoryNotes)
    return plan


async def run(rig: Rig, image: str | None) -> None:
    """Deploy an image, or delete everything, in a process of its own."""
    backend = rig.open(image=None)
    steps = backend.remove() if image is None else backend.deploy(image)
    try:
        async with asyncio.timeout(60):
            async for _ in steps:
                pass
    finally:
        await backend.aclose()


@contextlib.asynccontextmanager
async def passing_time(rig: Rig) -> AsyncIterator[None]:
    async def let_time_pass() -> None:
        while True:
            await asyncio.sleep(0.01)
            rig.clock.ahead_s += STEP_S

    passing = asyncio.get_running_loop().create_task(let_time_pass())
    try:
        yield
    finally:
        passing.cancel()
        await asyncio.gather(passing, return_exceptions=True)


async def begun(rig: Rig) -> FakeApp:
    """Deploy the old image and have it run; return a stranger's app."""
    stranger = rig.cloud.stranger()
    await run(rig, IMAGE)
    backend = rig.open(image=None)
    await backend.start(LAUNCH)
    await backend.aclose()
    return stranger


def seen(rig: Rig, stranger: FakeApp) -> str:
    """Return what there is of ours and what was done to the stranger's, in words."""
    cloud = rig.cloud
    there = [app for app in cloud.apps.values() if cloud.state(app) != "DELETED"]
    ours = sorted(app.spec["image"] for app in there if app is not stranger)
    done = [what for _, what in stranger.changes if stranger in there]
    return f"{ours}, {len(rig.cloud.paid)} billed, the stranger's: {done}"


async def left(
    folder: Path, driver: str, death: Death, moment: str, *images: str | None
) -> dict[str, list[int]]:
    """Kill a command before or after each of its calls, and let the next one end.

    Returns the remaining apps, each with the call at which the first was killed.
    ``images``: of the two commands; None deletes everything.
    """
    found: dict[str, list[int]] = {}
    killed, last = images
    for number in range(1, MOST_CALLS):
        place = folder / f"{number}"
        async with ovh_rig(place, driver, TIMING) as rig, passing_time(rig):
            death.plan(moment, 0)
            stranger = await begun(rig)
            death.plan(moment, number)
            with contextlib.suppress(Killed):
                await run(rig, killed)
            is_last = not death.came
            death.plan(moment, 0)
            await run(rig, last)
            found.setdefault(seen(rig, stranger), []).append(number)
        if is_last:
            break
    return found


DEPLOYED = f"['{OTHER}'], 0 billed, the stranger's: ['start']"
DELETED = "[], 0 billed, the stranger's: ['start']"
AFTER = {
    "deploy, then deploy": (OTHER, OTHER, DEPLOYED),
    "deploy, then delete": (OTHER, None, DELETED),
    "delete, then delete": (None, None, DELETED),
    "delete, then deploy": (None, OTHER, DEPLOYED),
}


PLAYED = [("rest", commands) for commands in AFTER]
PLAYED += [("cli", "deploy, then deploy"), ("cli", "delete, then delete")]
"""The command is a process for each call, and so slow."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(("driver", "commands"), PLAYED)
async def test_what_a_killed_command_leaves_is_ended_by_the_next(
    tmp_path: Path, death: Death, driver: str, commands: str, moment: str
) -> None:
    first, last, expected = AFTER[commands]
    found = await left(tmp_path, driver, death, moment, first, last)

    assert list(found) == [expected], found
    assert len(found[expected]) > 6
