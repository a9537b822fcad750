"""`deploy --replace` that is killed at any call is finished by the next one."""

import asyncio
import contextlib
from pathlib import Path

import pytest

from ollama_proxy.backends.ovh.rest import RestDriver
from ollama_proxy.store.memory import MemoryNotes
from tests.backends.ovh.rig import IMAGE, Rig, ovh_rig
from tests.backends.ovh.test_killed_commands import MOST_CALLS, TIMING, passing_time
from tests.crashes import Death, Killed
from tests.fakes.ovh.cloud import FakeApp

NAME = "ollama"


@pytest.fixture
def death(monkeypatch: pytest.MonkeyPatch) -> Death:
    plan = Death()
    plan.watch(monkeypatch, RestDriver, "_call", MemoryNotes)
    return plan


async def replace(rig: Rig, app_id: str) -> None:
    """Deploy over an app of our name, in a process of its own."""
    backend = rig.open(image=None, app_name=NAME)
    try:
        async with asyncio.timeout(20):
            async for _ in backend.deploy_over(IMAGE, {app_id}):
                pass
    finally:
        await backend.aclose()


def seen(rig: Rig, stranger: FakeApp, namesake: FakeApp) -> str:
    """Return what there is, what is billed and what became of the stranger's."""
    cloud = rig.cloud
    there = [app for app in cloud.apps.values() if cloud.state(app) != "DELETED"]
    ours = sorted(app.spec["image"] for app in there if app is not stranger)
    done = [what for _, what in stranger.changes]
    kept = "kept" if namesake in there else "gone"
    return f"{ours}, {len(cloud.paid)} billed, the namesake {kept}, theirs: {done}"


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_what_a_killed_replacement_leaves_is_ended_by_the_next(
    tmp_path: Path, death: Death, moment: str
) -> None:
    found: dict[str, list[int]] = {}
    for number in range(1, MOST_CALLS):
        async with (
            ovh_rig(tmp_path / str(number), "rest", TIMING) as rig,
            passing_time(rig),
        ):
            death.plan(moment, 0)
            stranger, namesake = rig.cloud.stranger(), rig.cloud.stranger()
            namesake.spec["name"] = NAME
            death.plan(moment, number)
            with contextlib.suppress(Killed):
                await replace(rig, namesake.id)
            is_last = not death.came
            death.plan(moment, 0)
            await replace(rig, namesake.id)
            found.setdefault(seen(rig, stranger, namesake), []).append(number)
        if is_last:
            break

    wanted = f"['{IMAGE}'], 0 billed, the namesake gone, theirs: ['start']"
    assert list(found) == [wanted], found
    assert len(found[wanted]) > 6
