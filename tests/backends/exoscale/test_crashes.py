"""A proxy that is killed between any two calls buys one instance and leaves none."""

import asyncio
from pathlib import Path

import pytest

from ollama_proxy.backends.base.provisioning_journal import SETTLE_S
from ollama_proxy.backends.base.sightings import APART_S
from ollama_proxy.backends.exoscale.api import ExoscaleApi
from ollama_proxy.base.errors import OutcomeUnknownError
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Phase
from tests.backends.exoscale.rig import Rig, exoscale_rig
from tests.crashes import Killed, kill_around

LAUNCH = LaunchId("l0123456789abcdef")
CALLS_OF_A_START = 12


@pytest.fixture
def killer(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    return kill_around(monkeypatch, ExoscaleApi, "call_once")


async def started_again(rig: Rig) -> None:
    """Let the next process begin, with the clock past the time of doubt."""
    rig.clock.ahead_s += SETTLE_S + 1.0
    backend = rig.open()
    try:
        await backend.start(LAUNCH)
    except OutcomeUnknownError:  # one look that shows nothing is no proof
        rig.clock.ahead_s += APART_S + 1.0
        await backend.start(LAUNCH)
    async with asyncio.timeout(5):
        while (await backend.inspect(LAUNCH)).phase is not Phase.RUNNING:
            await asyncio.sleep(0.01)
    await backend.stop(LAUNCH)
    assert (await backend.inspect(LAUNCH)).phase is Phase.GONE
    assert list(await backend.owned()) == []
    await backend.aclose()


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("number", range(1, CALLS_OF_A_START + 1))
async def test_a_start_that_is_killed_buys_one_in_the_end(
    tmp_path: Path, killer: dict[str, int], moment: str, number: int
) -> None:
    async with exoscale_rig(tmp_path) as rig:
        killer[moment] = number
        backend = rig.open()
        with pytest.raises(Killed):
            await backend.start(LAUNCH)
        await backend.aclose()
        killer[moment] = 0
        await started_again(rig)

        assert rig.cloud.bought == 1
        assert rig.cloud.paid == []


async def test_a_start_takes_the_calls_that_are_counted_here(tmp_path: Path) -> None:
    async with exoscale_rig(tmp_path) as rig:
        backend = rig.open()
        await backend.start(LAUNCH)
        await backend.stop(LAUNCH)
        await backend.aclose()

        assert rig.server.calls.index("create-instance") + 1 == CALLS_OF_A_START


async def test_while_a_purchase_may_still_arrive_nothing_else_is_bought(
    tmp_path: Path, killer: dict[str, int]
) -> None:
    async with exoscale_rig(tmp_path) as rig:
        rig.cloud.timing.list_lag_s = 60.0
        killer["after"] = CALLS_OF_A_START
        backend = rig.open()
        with pytest.raises(Killed):
            await backend.start(LAUNCH)
        await backend.aclose()
        again = rig.open()
        with pytest.raises(OutcomeUnknownError):
            await again.start(LAUNCH)
        seen = await again.inspect(LAUNCH)
        rig.clock.ahead_s += 61.0
        await again.start(LAUNCH)
        await again.stop(LAUNCH)
        await again.aclose()

        assert seen.phase is Phase.PENDING
        assert rig.cloud.bought == 1
        assert rig.cloud.paid == []


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("number", [1, 2])
async def test_a_stop_that_is_killed_is_carried_out_by_the_next_process(
    tmp_path: Path, killer: dict[str, int], moment: str, number: int
) -> None:
    async with exoscale_rig(tmp_path) as rig:
        backend = rig.open()
        await backend.start(LAUNCH)
        killer |= {"seen": 0, moment: number}
        with pytest.raises(Killed):
            await backend.stop(LAUNCH)
        await backend.aclose()
        killer[moment] = 0
        again = rig.open()
        await again.stop(LAUNCH)
        seen = await again.inspect(LAUNCH)
        await again.aclose()

        assert seen.phase is Phase.GONE
        assert rig.cloud.paid == []


async def test_a_purchase_that_arrives_after_all_is_swept(tmp_path: Path) -> None:
    async with exoscale_rig(tmp_path) as rig:
        backend = rig.open()
        await backend.start(LAUNCH)
        (bought,) = rig.cloud.paid
        rig.cloud.add(bought.zone, dict(bought.body))
        strays = set(await backend.owned()) - {LAUNCH}
        for launch_id in strays:
            await backend.stop(launch_id)
        left = rig.cloud.paid
        await backend.stop(LAUNCH)
        await backend.aclose()

        assert len(strays) == 1
        assert left == [bought]
        assert rig.cloud.paid == []
