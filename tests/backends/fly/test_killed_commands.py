"""`deploy` and `delete` that are killed at any call are finished by the next ones."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from ollama_proxy.backends.fly import premises
from ollama_proxy.backends.fly.api import FlyApi
from tests.backends.fly.rig import IMAGE, Rig, fly_rig
from tests.crashes import Killed, kill_around

MOST_CALLS = 14
"""More calls than either command makes."""

pytestmark = pytest.mark.usefixtures("without_pace")


async def run(rig: Rig, *, deploys: bool) -> None:
    """Run a command in a process of its own."""
    backend = rig.open(app="fresh")
    steps = backend.deploy(IMAGE) if deploys else backend.remove()
    try:
        async with asyncio.timeout(20):
            async for _ in steps:
                pass
    finally:
        await backend.aclose()


@pytest.fixture
def kill(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """Return what has the process killed before or after a call; 0: not at all."""
    monkeypatch.setattr(premises, "_PAUSE_S", 0.01)
    plan = kill_around(monkeypatch, FlyApi, "_call")

    def planned(moment: str, number: int) -> None:
        plan.update({"before": 0, "after": 0, "seen": 0, moment: number})

    return planned


@pytest.mark.parametrize("deploys", [True, False])
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_what_a_killed_command_leaves_is_one_deployment_or_none(
    tmp_path: Path, kill: Callable[[str, int], None], moment: str, deploys: bool
) -> None:
    for number in range(1, MOST_CALLS + 1):
        async with fly_rig(tmp_path / f"{number}") as rig:
            kill(moment, 0)
            if not deploys:
                await run(rig, deploys=True)
            kill(moment, number)
            with contextlib.suppress(Killed):
                await run(rig, deploys=deploys)
            kill(moment, 0)
            await run(rig, deploys=True)
            app = rig.cloud.apps["fresh"]
            volumes = len(rig.cloud.volumes())
            await run(rig, deploys=False)

            assert (volumes, len(app.addresses)) == (1, 0), number
            assert rig.cloud.volumes() == [], number
            assert "fresh" not in rig.cloud.apps, number
