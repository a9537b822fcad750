"""A proxy that is killed between any two calls has one app and leaves none running."""

import asyncio
from pathlib import Path

import pytest

from ollama_proxy.backends.base.provisioning_journal import SETTLE_S
from ollama_proxy.backends.base.sightings import APART_S
from ollama_proxy.backends.ovh.rest import RestDriver
from ollama_proxy.base.errors import OutcomeUnknownError
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Phase
from tests.backends.ovh.rig import Rig, ovh_rig
from tests.crashes import Killed, kill_around

LAUNCH, NEXT = LaunchId("l0123456789abcdef"), LaunchId("lfedcba9876543210")
CALLS_OF_A_CREATION = 6
CALLS_OF_A_RESTART = 7


@pytest.fixture
def killer(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    return kill_around(monkeypatch, RestDriver, "_call")


async def lived_through(rig: Rig, launch_id: LaunchId, **settings: object) -> None:
    """Let the next process begin, with the clock past the time of doubt."""
    rig.clock.ahead_s += SETTLE_S + 1.0
    backend = rig.open(**settings)
    try:
        await backend.start(launch_id)
    except OutcomeUnknownError:  # one look that shows nothing is no proof
        rig.clock.ahead_s += APART_S + 1.0
        await backend.start(launch_id)
    async with asyncio.timeout(5):
        while (await backend.inspect(launch_id)).phase is not Phase.RUNNING:
            await asyncio.sleep(0.01)
    assert len(rig.cloud.paid) == 1
    await backend.stop(launch_id)
    assert (await backend.inspect(launch_id)).phase is Phase.GONE
    assert list(await backend.owned()) == []
    await backend.aclose()


@pytest.mark.parametrize("idle_action", ["stop", "delete"])
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("number", range(1, CALLS_OF_A_CREATION + 1))
async def test_a_first_start_that_is_killed_makes_one_app_in_the_end(
    tmp_path: Path, killer: dict[str, int], moment: str, number: int, idle_action: str
) -> None:
    async with ovh_rig(tmp_path) as rig:
        killer[moment] = number
        backend = rig.open(idle_action=idle_action)
        if number <= CALLS_OF_A_CREATION - (idle_action == "delete"):
            with pytest.raises(Killed):
                await backend.start(LAUNCH)
        else:
            await backend.start(LAUNCH)
        await backend.aclose()
        killer[moment] = 0
        await lived_through(rig, LAUNCH, idle_action=idle_action)

        assert rig.cloud.made == 1
        assert rig.cloud.paid == []


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("number", range(1, CALLS_OF_A_RESTART + 1))
async def test_a_later_start_that_is_killed_starts_the_same_app(
    tmp_path: Path, killer: dict[str, int], moment: str, number: int
) -> None:
    async with ovh_rig(tmp_path) as rig:
        await lived_through(rig, LAUNCH)
        killer |= {"seen": 0, moment: number}
        backend = rig.open()
        with pytest.raises(Killed):
            await backend.start(NEXT)
        await backend.aclose()
        killer[moment] = 0
        await lived_through(rig, NEXT)

        assert rig.cloud.made == 1
        assert rig.cloud.paid == []


async def test_the_starts_take_the_calls_that_are_counted_here(
    tmp_path: Path, killer: dict[str, int]
) -> None:
    async with ovh_rig(tmp_path) as rig:
        backend = rig.open()
        await backend.start(LAUNCH)
        first = killer["seen"]
        await backend.stop(LAUNCH)
        await backend.inspect(LAUNCH)
        killer["seen"] = 0
        await backend.start(NEXT)
        second = killer["seen"]
        await backend.stop(NEXT)
        await backend.aclose()

        assert (first, second) == (CALLS_OF_A_CREATION, CALLS_OF_A_RESTART)


async def test_while_a_creation_may_still_arrive_no_other_is_asked_for(
    tmp_path: Path, killer: dict[str, int]
) -> None:
    async with ovh_rig(tmp_path) as rig:
        rig.cloud.timing.lag_s = 60.0
        killer["after"] = CALLS_OF_A_CREATION
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
        assert rig.cloud.made == 1
        assert rig.cloud.paid == []


async def test_an_app_whose_start_is_not_shown_yet_is_stopped_all_the_same(
    tmp_path: Path,
) -> None:
    async with ovh_rig(tmp_path) as rig:
        await lived_through(rig, LAUNCH)
        rig.clock.ahead_s += 100.0  # so that what trails shows it stopped
        rig.cloud.timing.lag_s = 60.0
        backend = rig.open()
        await backend.start(NEXT)
        await backend.stop(NEXT)
        seen = await backend.inspect(NEXT)
        rig.clock.ahead_s += SETTLE_S + 1.0
        later = await backend.inspect(NEXT)
        await backend.aclose()

        assert seen.phase is Phase.PENDING
        assert later.phase is Phase.GONE
        assert rig.cloud.paid == []


async def test_a_creation_that_arrives_after_all_is_swept(tmp_path: Path) -> None:
    async with ovh_rig(tmp_path) as rig:
        backend = rig.open()
        await backend.start(LAUNCH)
        (first,) = rig.cloud.paid
        late = dict(first.spec) | {"labels": dict(first.labels)}
        rig.cloud.add(first.region, late)
        strays = set(await backend.owned()) - {LAUNCH}
        for launch_id in strays:
            await backend.stop(launch_id)
        left = rig.cloud.paid
        await backend.stop(LAUNCH)
        await backend.aclose()

        assert len(strays) == 1
        assert left == [first]
        assert rig.cloud.paid == []


async def test_an_app_of_other_settings_is_not_started_and_is_swept(
    tmp_path: Path,
) -> None:
    async with ovh_rig(tmp_path) as rig:
        await lived_through(rig, LAUNCH)
        backend = rig.open(gpu_model="L40S")
        await backend.start(NEXT)
        flavors = [app.spec["resources"]["flavor"] for app in rig.cloud.paid]
        for stray in set(await backend.owned()) - {NEXT}:
            await backend.stop(stray)
        await backend.stop(NEXT)
        await backend.aclose()
        there = [app for app in rig.cloud.apps.values() if rig.cloud.is_there(app)]

        assert flavors == ["l40s-1-gpu"]
        assert [app.spec["resources"]["flavor"] for app in there] == ["l40s-1-gpu"]


async def test_what_lost_our_labels_is_left_alone(tmp_path: Path) -> None:
    async with ovh_rig(tmp_path) as rig:
        backend = rig.open()
        await backend.start(LAUNCH)
        (app,) = rig.cloud.paid
        app.spec["labels"] = {}
        with pytest.raises(Exception, match="does not carry our labels"):
            await backend.stop(LAUNCH)
        await backend.aclose()

        assert [what for _, what in app.changes] == ["start"]


async def test_a_lease_that_is_over_is_swept_by_anybody(tmp_path: Path) -> None:
    async with ovh_rig(tmp_path) as rig:
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
