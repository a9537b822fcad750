"""A proxy that is killed between any two calls has one machine, and leaves none."""

import asyncio
from pathlib import Path

import pytest

from ollama_proxy.backends.base.provisioning_journal import SETTLE_S
from ollama_proxy.backends.fly.calls import AppCalls
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Phase
from tests.backends.fly.rig import Rig, fly_rig
from tests.crashes import Killed, kill_around

LAUNCH, NEXT = LaunchId("l0123456789abcdef"), LaunchId("lfedcba9876543210")
CALLS_OF_A_CREATION = 6
CALLS_OF_A_RESTART = 6

pytestmark = pytest.mark.usefixtures("without_pace")


@pytest.fixture
def killer(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    return kill_around(monkeypatch, AppCalls, "call")


async def lived_through(
    rig: Rig, launch_id: LaunchId, *, later_s: float, **settings: object
) -> None:
    """Let the next process begin: once the clock is past the old one's lease."""
    rig.clock.ahead_s += later_s
    backend = rig.open(**settings)
    await backend.start(launch_id)
    async with asyncio.timeout(5):
        while (await backend.inspect(launch_id)).phase is not Phase.RUNNING:
            await asyncio.sleep(0.05)
    await backend.renew(launch_id, serves=True)
    assert len(rig.cloud.paid) == 1
    await backend.stop(launch_id)
    assert (await backend.inspect(launch_id)).phase is Phase.GONE
    assert list(await backend.owned()) == []
    await backend.aclose()


@pytest.mark.parametrize("idle_action", ["stop", "destroy"])
@pytest.mark.parametrize("later_s", [20.0, SETTLE_S + 1.0])
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("number", range(1, CALLS_OF_A_CREATION + 1))
async def test_a_first_start_that_is_killed_makes_one_machine_in_the_end(
    tmp_path: Path,
    killer: dict[str, int],
    moment: str,
    number: int,
    later_s: float,
    idle_action: str,
) -> None:
    async with fly_rig(tmp_path, is_paced=False) as rig:
        killer[moment] = number
        backend = rig.open(idle_action=idle_action)
        with pytest.raises(Killed):
            await backend.start(LAUNCH)
        await backend.aclose()
        killer[moment] = 0
        await lived_through(rig, LAUNCH, later_s=later_s, idle_action=idle_action)

        assert rig.cloud.made == 1
        assert rig.cloud.paid == []
        assert len(rig.cloud.volumes()) == 1


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("number", range(1, CALLS_OF_A_RESTART + 1))
async def test_a_later_start_that_is_killed_starts_the_same_machine(
    tmp_path: Path, killer: dict[str, int], moment: str, number: int
) -> None:
    async with fly_rig(tmp_path, is_paced=False) as rig:
        await lived_through(rig, LAUNCH, later_s=0.0)
        killer |= {"seen": 0, moment: number}
        backend = rig.open()
        with pytest.raises(Killed):
            await backend.start(NEXT)
        await backend.aclose()
        killer[moment] = 0
        await lived_through(rig, NEXT, later_s=20.0)

        assert rig.cloud.made == 1
        assert rig.cloud.most_at_once == 1
        assert rig.cloud.paid == []


async def test_the_starts_take_the_calls_that_are_counted_here(
    tmp_path: Path, killer: dict[str, int]
) -> None:
    async with fly_rig(tmp_path, is_paced=False) as rig:
        backend = rig.open()
        await backend.start(LAUNCH)
        first = killer["seen"]
        await backend.renew(LAUNCH, serves=True)
        await backend.stop(LAUNCH)
        await backend.inspect(LAUNCH)
        killer["seen"] = 0
        await backend.start(NEXT)
        second = killer["seen"]
        await backend.stop(NEXT)
        await backend.aclose()

        assert (first, second) == (CALLS_OF_A_CREATION, CALLS_OF_A_RESTART)


async def test_a_lease_that_is_over_is_swept_by_anybody(tmp_path: Path) -> None:
    async with fly_rig(tmp_path, is_paced=False) as rig:
        backend, other = rig.open(), rig.open("somebodyelse")
        await backend.start(LAUNCH)
        none = await other.sweep_expired(dry_run=False)
        rig.clock.ahead_s += 3601.0
        listed = await other.sweep_expired(dry_run=True)
        paid = len(rig.cloud.paid)
        swept = await other.sweep_expired(dry_run=False)
        for one in (backend, other):
            await one.aclose()

        assert (none, paid) == ([], 1)
        assert len(listed) == len(swept) == 1
        assert rig.cloud.paid == []
