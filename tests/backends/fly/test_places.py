"""Room: another host, another region; and what is left behind."""

import pytest

from ollama_proxy.backends.fly.machines import Volume
from ollama_proxy.backends.fly.places import Place, place_in
from ollama_proxy.base.errors import (
    BackendError,
    CapacityError,
    ConflictError,
    SpecError,
)
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Phase
from tests.backends.fly.rig import Rig
from tests.fakes.fly.cloud import FakeVolume

LAUNCH, NEXT = LaunchId("l0123456789abcdef"), LaunchId("lfedcba9876543210")

pytestmark = pytest.mark.usefixtures("without_pace")


async def until_started(rig: Rig, launch_id: LaunchId, **settings: object) -> None:
    """Start as the controller does: again and again, while that may help."""
    backend = rig.open(**settings)
    for _ in range(6):
        try:
            await backend.start(launch_id)
        except (CapacityError, ConflictError):
            continue
        break
    assert (await backend.inspect(launch_id)).detail
    await backend.renew(launch_id, serves=True)
    await backend.aclose()


async def test_a_region_without_room_is_passed_over(rig: Rig) -> None:
    rig.cloud.full = {"fra"}
    await until_started(rig, LAUNCH, fallback_regions="ams")

    assert [one.region for one in rig.cloud.running()] == ["ams"]
    assert [one.region for one in rig.cloud.volumes()] == ["ams"]


async def test_without_room_anywhere_nothing_is_left(rig: Rig) -> None:
    rig.cloud.full = {"fra"}
    backend = rig.open()
    with pytest.raises(CapacityError, match="add regions to FLY_FALLBACK_REGIONS"):
        await backend.start(LAUNCH)
    await backend.stop(LAUNCH)
    await backend.aclose()

    assert rig.cloud.paid == []
    assert rig.cloud.volumes() == []


async def test_a_volume_is_made_where_its_machine_has_room(rig: Rig) -> None:
    await until_started(rig, LAUNCH)
    (machine,), (volume,) = rig.cloud.machines(), rig.cloud.volumes()

    assert volume.compute == machine.config["guest"]


async def the_volume_at_rest(rig: Rig) -> FakeVolume:
    """Start and stop an instance; return the volume that it leaves."""
    await until_started(rig, LAUNCH)
    backend = rig.open()
    await backend.stop(LAUNCH)
    await backend.inspect(LAUNCH)
    await backend.aclose()
    (first,) = rig.cloud.volumes()
    return first


async def test_a_volume_on_a_full_host_is_copied_to_another(rig: Rig) -> None:
    first = await the_volume_at_rest(rig)
    first.host_is_full = True
    await until_started(rig, NEXT)
    (running,) = rig.cloud.running()
    (volume,) = rig.cloud.volumes()

    assert volume.source == first.id
    assert running.volume == volume.id


async def test_a_start_that_is_refused_at_first_is_repeated(rig: Rig) -> None:
    rig.cloud.timing.prepare_s = 9.0
    backend = rig.open()
    with pytest.raises(BackendError):
        await backend.start(LAUNCH)
    rig.clock.ahead_s += 10.0
    await backend.start(LAUNCH)
    running = len(rig.cloud.running())
    await backend.stop(LAUNCH)
    await backend.aclose()

    assert (running, rig.cloud.made) == (1, 1)


async def test_what_was_never_started_is_destroyed_and_not_forgotten(
    rig: Rig,
) -> None:
    rig.cloud.timing.prepare_s = 9.0
    backend = rig.open()
    with pytest.raises(BackendError):
        await backend.start(LAUNCH)
    (machine,) = rig.cloud.machines()
    machine.starts_itself_at = rig.cloud.now() + 7200.0
    await backend.stop(LAUNCH)
    rig.clock.ahead_s += 8000.0
    await backend.aclose()

    assert rig.cloud.paid == []


@pytest.mark.parametrize("fault", ["408-after", "lost-after", "html-502-after"])
async def test_what_was_made_without_an_answer_is_not_given_up_with_its_launch(
    rig: Rig, fault: str
) -> None:
    rig.server.script["Machines_create"] = [fault]
    backend = rig.open()
    with pytest.raises(BackendError):
        await backend.start(LAUNCH)
    rig.clock.ahead_s += 20.0  # it was made with a lease of 15 s, whose nonce is lost
    await backend.stop(LAUNCH)
    await backend.aclose()

    assert rig.cloud.made == 1
    assert rig.cloud.paid == []


@pytest.mark.parametrize("name", ["Machines_list", "Volumes_list"])
async def test_an_empty_list_may_be_null(rig: Rig, name: str) -> None:
    rig.server.script[name] = ["null"] * 3
    backend = rig.open()
    await backend.start(LAUNCH)
    running = len(rig.cloud.running())
    await backend.stop(LAUNCH)
    await backend.aclose()

    assert running == 1
    assert rig.cloud.paid == []


async def test_a_machine_that_served_and_failed_is_not_kept(rig: Rig) -> None:
    await until_started(rig, LAUNCH)
    (machine,) = rig.cloud.machines()
    machine.forced = "failed"
    backend = rig.open()
    await backend.stop(LAUNCH)
    await backend.aclose()

    assert machine.doing == "destroy"


async def test_spare_volumes_are_tidied_but_for_the_oldest(
    rig: Rig,
) -> None:
    backend = rig.open(idle_action="destroy")
    api = rig.api()
    made = []
    for name, region in (("ollama_0123456789abcdef", "fra"),) * 3 + (("x", "fra"),):
        made.append(await api.create_volume(name, region, 8, guest={}))
    await api.aclose()
    await backend.tidy()
    await backend.aclose()

    left = {volume.id for volume in rig.cloud.volumes()}
    assert left == {made[0].id, made[3].id}


async def test_a_shortage_makes_no_volume_more_however_often_it_is_tried(
    rig: Rig,
) -> None:
    rig.cloud.full = {"fra", "ams"}
    backend = rig.open(fallback_regions="ams")
    for number in range(5):
        launch_id = LaunchId(f"l{number}")
        with pytest.raises(CapacityError):
            await backend.start(launch_id)
        await backend.stop(launch_id)
        await backend.inspect(launch_id)
    await backend.aclose()

    assert rig.cloud.volumes() == []
    assert rig.cloud.paid == []


async def test_models_move_with_the_machine_to_a_region_that_has_room(
    rig: Rig,
) -> None:
    first = await the_volume_at_rest(rig)
    rig.cloud.full = {"fra"}
    await until_started(rig, NEXT, fallback_regions="ams")
    (volume,) = rig.cloud.volumes()

    assert (volume.region, volume.source) == ("ams", first.id)
    assert [one.region for one in rig.cloud.running()] == ["ams"]


async def test_a_copied_volume_goes_even_if_its_first_deletion_fails(rig: Rig) -> None:
    await until_started(rig, LAUNCH)
    backend = rig.open()
    await backend.stop(LAUNCH)
    await backend.inspect(LAUNCH)
    (first,) = rig.cloud.volumes()
    first.host_is_full = True
    for _ in range(3):
        try:
            await backend.start(NEXT)
        except (CapacityError, ConflictError):
            continue
        break
    rig.server.script["Volume_delete"] = ["500"]
    with pytest.raises(BackendError):
        await backend.renew(NEXT, serves=True)
    before = len(rig.cloud.volumes())
    await backend.renew(NEXT, serves=True)
    await backend.aclose()

    assert (before, len(rig.cloud.volumes())) == (2, 1)
    assert first.deleted_at is not None


async def test_a_machine_without_a_volume_gets_one_when_that_is_wanted(
    rig: Rig,
) -> None:
    await until_started(rig, LAUNCH, volume_gb=0)
    backend = rig.open(volume_gb=0)
    await backend.stop(LAUNCH)
    await backend.inspect(LAUNCH)
    await backend.aclose()
    backend = rig.open()
    for _ in range(3):
        try:
            await backend.start(NEXT)
        except BackendError:
            continue
        break
    (running,) = rig.cloud.running()
    await backend.stop(NEXT)
    await backend.aclose()

    assert running.volume is not None
    assert rig.cloud.most_at_once == 1


async def test_a_passing_refusal_of_an_app_named_after_volumes_is_no_lack_of_room(
    rig: Rig,
) -> None:
    rig.cloud.apps["ollama-volumes"] = rig.cloud.apps.pop("llm")
    await until_started(rig, LAUNCH, app="ollama-volumes")
    backend = rig.open(app="ollama-volumes")
    await backend.stop(LAUNCH)
    await backend.inspect(LAUNCH)
    told = "412:machine still active, refusing to start"
    rig.server.script["Machines_start"] = [told]
    with pytest.raises(ConflictError):
        await backend.start(NEXT)
    await backend.start(NEXT)
    await backend.stop(NEXT)
    await backend.aclose()

    assert rig.cloud.made == 1


async def test_a_host_out_of_reach_keeps_no_launch_from_another(rig: Rig) -> None:
    await until_started(rig, LAUNCH)
    backend = rig.open()
    await backend.stop(LAUNCH)
    await backend.inspect(LAUNCH)
    (lost,) = rig.cloud.machines()
    lost.host_status = "unreachable"
    await backend.start(NEXT)
    running = [one.name for one in rig.cloud.running()]
    await backend.stop(NEXT)
    await backend.aclose()

    assert running == ["ollama-proxy-1"]


async def test_an_app_that_is_not_there_is_said_to_be_so(rig: Rig) -> None:
    backend = rig.open(app="nobody")
    with pytest.raises(SpecError, match="have `ollama-proxy deploy` make it"):
        await backend.start(LAUNCH)
    owned = await backend.owned()
    await backend.stop(LAUNCH)
    seen = await backend.inspect(LAUNCH)
    await backend.aclose()

    assert (list(owned), seen.phase) == ([], Phase.GONE)


def test_a_volume_comes_first_and_its_copy_once_its_host_was_full() -> None:
    there = Volume("vol_1", "ollama_x", region="fra", size_gb=8)

    assert place_in("fra", [there], set()) == Place("fra", volume="vol_1")
    assert place_in("fra", [there], {"vol_1"}) == Place("fra", copy_of="vol_1")
    assert place_in("ams", [there], set()) == Place("ams", copy_of="vol_1")
    assert place_in("ams", [], set()) == Place("ams")
