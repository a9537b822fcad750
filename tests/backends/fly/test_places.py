"""Room: another host, another region; and what is left behind."""

from pathlib import Path

import pytest

from ollama_proxy.backends.fly.machines import Volume
from ollama_proxy.backends.fly.places import Place, places
from ollama_proxy.errors import BackendError, CapacityError
from ollama_proxy.record import LaunchId
from tests.backends.fly.rig import Rig, fly_rig

LAUNCH, NEXT = LaunchId("l0123456789abcdef"), LaunchId("lfedcba9876543210")

pytestmark = pytest.mark.usefixtures("without_pace")


@pytest.fixture
async def roomy(rig: Rig) -> Rig:
    rig.server.limits = False
    return rig


async def until_started(rig: Rig, launch_id: LaunchId, **settings: object) -> None:
    """Start as the controller does: again and again, while that may help."""
    backend = rig.open(**settings)
    for _ in range(6):
        try:
            await backend.start(launch_id)
        except CapacityError:
            continue
        break
    assert (await backend.inspect(launch_id)).detail
    await backend.renew(launch_id, serves=True)
    await backend.aclose()


async def test_a_region_without_room_is_passed_over(roomy: Rig) -> None:
    roomy.cloud.full = {"fra"}
    await until_started(roomy, LAUNCH, fallback_regions="ams")

    assert [one.region for one in roomy.cloud.running()] == ["ams"]
    assert [one.region for one in roomy.cloud.volumes()] == ["ams"]


async def test_without_room_anywhere_nothing_is_left_but_a_volume(roomy: Rig) -> None:
    roomy.cloud.full = {"fra"}
    backend = roomy.open()
    with pytest.raises(CapacityError):
        await backend.start(LAUNCH)
    await backend.stop(LAUNCH)
    await backend.aclose()

    assert roomy.cloud.paid == []
    assert len(roomy.cloud.volumes()) == 1


async def test_a_volume_on_a_full_host_is_copied_to_another(roomy: Rig) -> None:
    await until_started(roomy, LAUNCH)
    backend = roomy.open()
    await backend.stop(LAUNCH)
    await backend.inspect(LAUNCH)
    await backend.aclose()
    (first,) = roomy.cloud.volumes()
    first.host_is_full = True
    await until_started(roomy, NEXT)
    (running,) = roomy.cloud.running()
    (volume,) = roomy.cloud.volumes()

    assert volume.source == first.id
    assert running.volume == volume.id


async def test_a_start_that_is_refused_at_first_is_repeated(roomy: Rig) -> None:
    roomy.cloud.timing.prepare_s = 9.0
    backend = roomy.open()
    with pytest.raises(BackendError):
        await backend.start(LAUNCH)
    roomy.clock.ahead_s += 10.0
    await backend.start(LAUNCH)
    running = len(roomy.cloud.running())
    await backend.stop(LAUNCH)
    await backend.aclose()

    assert (running, roomy.cloud.made) == (1, 1)


async def test_what_was_never_started_is_destroyed_and_not_forgotten(
    roomy: Rig,
) -> None:
    roomy.cloud.timing.prepare_s = 9.0
    backend = roomy.open()
    with pytest.raises(BackendError):
        await backend.start(LAUNCH)
    (machine,) = roomy.cloud.machines()
    machine.starts_itself_at = roomy.cloud.now() + 7200.0
    await backend.stop(LAUNCH)
    roomy.clock.ahead_s += 8000.0
    await backend.aclose()

    assert roomy.cloud.paid == []


async def test_spare_volumes_are_tidied_but_for_one(tmp_path: Path) -> None:
    async with fly_rig(tmp_path) as rig:
        rig.server.limits = False
        backend = rig.open(idle_action="destroy")
        api = rig.api()
        for _ in range(3):
            await api.create_volume("ollama_0123456789abcdef", "fra", 8)
        await api.create_volume("theirs", "fra", 8)
        await api.aclose()
        await backend.tidy()
        await backend.aclose()

        names = sorted(volume.name for volume in rig.cloud.volumes())
        assert names == ["ollama_0123456789abcdef", "theirs"]


def test_places_are_tried_in_order() -> None:
    there = Volume("vol_1", "ollama_x", region="fra", size_gb=8)

    assert places(["fra", "ams"], [there], with_volume=True) == [
        Place("fra", volume="vol_1"),
        Place("fra", copy_of="vol_1"),
        Place("ams"),
    ]
    assert places(["fra"], [there], with_volume=False) == [
        Place("fra", with_volume=False)
    ]
