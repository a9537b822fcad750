"""Lists that lie, answers that are lost, restarts: never two, and none forgotten.

A slice of the seeds runs by default; ``LYING_SEEDS=0:300`` runs them all.
"""

import asyncio
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ollama_proxy.base.errors import BackendError
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Phase
from tests.backends.exoscale.rig import exoscale_rig
from tests.backends.fly.rig import fly_rig
from tests.backends.ovh.rig import ovh_rig

RIGS: dict[str, Callable[[Path], Any]] = {
    "exoscale": exoscale_rig,
    "fly": fly_rig,
    "ovh": ovh_rig,
}
CREATE = {"exoscale": "create-instance", "fly": "Machines_create", "ovh": "create"}
LIES = ("first page elsewhere", "one page lost", "empty once", "stale by 60 s")
FIRST, _, LAST = os.environ.get("LYING_SEEDS", "0:4").partition(":")
SEEDS = range(int(FIRST), int(LAST))


def lies(rig: Any, cloud: str, lie: str, dice: random.Random) -> None:
    """Have the lists of a cloud lie; a cloud without pages loses a part of a list."""
    server = rig.server
    if lie == "stale by 60 s":
        name = "list_lag_s" if cloud == "exoscale" else "lag_s"
        setattr(rig.cloud.timing, name, 60.0)
        return
    if cloud == "ovh":
        for _ in range(dice.randrange(1, 5)):
            rig.cloud.stranger()
        server.lists.first = dice.randrange(2)
        if lie == "first page elsewhere":
            server.lists.given = dice.randrange(3)


def told(server: Any, cloud: str, lie: str, dice: random.Random) -> None:
    """Arm the next lie, now and then."""
    if dice.random() > 0.4:
        return
    if cloud == "ovh":
        names = {"empty once": "empty", "one page lost": "one page lost"}
        server.lists.lie = names.get(lie, "")
        server.lists.times = 1
    elif lie in {"empty once", "one page lost", "first page elsewhere"}:
        operation = {"exoscale": "list-instances", "fly": "Machines_list"}[cloud]
        server.script[operation] = ["empty"]


async def lived(  # noqa: PLR0912 - one story, told in order
    rig: Any, cloud: str, seed: int
) -> list[int]:
    """Let launches begin and end in spite of all; return how many ran, at each step."""
    dice = random.Random(seed)
    lie = LIES[seed % len(LIES)]
    action = dice.choice(["stop", "destroy" if cloud != "ovh" else "delete"])
    settings: dict[str, Any] = {"idle_action": action}
    lies(rig, cloud, lie, dice)
    ran: list[int] = []
    backend = rig.open(**settings)
    for number in range(2):
        launch_id = LaunchId(f"l{seed:08d}{number:08d}")
        how = dice.choice(["lost-after", "lost-before", "lost-after", ""])
        if how:
            rig.server.script[CREATE[cloud]] = [how]
        wanted, accepted = True, False
        for _ in range(60):
            told(rig.server, cloud, lie, dice)
            if dice.random() < 0.2:  # the process ends, and another begins
                await backend.aclose()
                backend = rig.open(**settings)
                if cloud == "fly":
                    rig.server.seen.clear()  # paced by each process for itself
            try:
                if wanted and not accepted:
                    await backend.start(launch_id)
                    accepted = True
                elif wanted:
                    seen = await backend.inspect(launch_id)
                    wanted = seen.phase is Phase.PENDING or dice.random() < 0.5
                else:
                    await backend.stop(launch_id)
                    seen = await backend.inspect(launch_id)
                    if seen.phase is Phase.GONE:
                        break
            except BackendError:
                pass
            if dice.random() < 0.1:
                wanted = False
            ran.append(len(rig.cloud.paid))
            rig.clock.ahead_s += dice.choice([1.0, 5.0, 20.0, 60.0])
        else:
            raise AssertionError(f"seed {seed}: launch {number} is not over")
        ran.append(len(rig.cloud.paid))
        if rig.cloud.paid:
            raise AssertionError(f"seed {seed}: launch {number} is forgotten, {lie}")
    await backend.aclose()
    return ran


@pytest.mark.parametrize("cloud", RIGS)
async def test_lists_that_lie_make_no_second_one_and_hide_none(
    tmp_path: Path, cloud: str
) -> None:
    for seed in SEEDS:
        folder = tmp_path / str(seed)
        await asyncio.to_thread(folder.mkdir)
        async with RIGS[cloud](folder) as rig:
            ran = await lived(rig, cloud, seed)

        assert max(ran) <= 1, f"seed {seed}: {max(ran)} at once"
        assert ran[-1] == 0, f"seed {seed}"
