"""One volume per machine after any fault, and no superfluous one."""

import asyncio
import contextlib
from pathlib import Path

import pytest

from ollama_proxy.backends.fly.backend import FlyBackend
from ollama_proxy.backends.fly.calls import AppCalls
from ollama_proxy.backends.fly.machines import Volume
from ollama_proxy.backends.fly.volumes import surplus
from ollama_proxy.base.errors import BackendError, SpecError
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Phase
from ollama_proxy.fleet.sweeper import sweep
from ollama_proxy.store.memory import MemoryStore
from tests.backends.fly.rig import IMAGE, Rig, fly_rig
from tests.crashes import Killed, kill_around

LAUNCH, NEXT = LaunchId("l0123456789abcdef"), LaunchId("lfedcba9876543210")
MOST_CALLS = 22
"""More calls than the longest start and its first renewal make."""

pytestmark = pytest.mark.usefixtures("without_pace")


async def serve(rig: Rig, backend: FlyBackend, launch_id: LaunchId) -> None:
    """Start as the controller does, until it serves, and renew as it does."""
    async with asyncio.timeout(10):
        while True:
            rig.clock.ahead_s += 10.0
            try:
                await backend.start(launch_id)
                seen = await backend.inspect(launch_id)
            except BackendError:
                continue
            if seen.phase is Phase.RUNNING:
                break
            await asyncio.sleep(0.02)
    for _ in range(3):
        rig.clock.ahead_s += 60.0
        await backend.renew(launch_id, serves=True)


async def rest(backend: FlyBackend, launch_id: LaunchId) -> None:
    async with asyncio.timeout(10):
        while True:
            await backend.stop(launch_id)
            if (await backend.inspect(launch_id)).phase is Phase.GONE:
                return


async def once(rig: Rig, launch_id: LaunchId, **settings: object) -> None:
    """Have a machine serve, and rest."""
    backend = rig.open(**settings)
    await serve(rig, backend, launch_id)
    await rest(backend, launch_id)
    await backend.aclose()


@pytest.mark.parametrize("idle_action", ["stop", "destroy"])
async def test_the_copy_stays_that_is_attached_and_its_source_goes(
    rig: Rig, idle_action: str
) -> None:
    rig.cloud.timing.prepare_s = 9.0  # the usual 412 after a creation
    await once(rig, LAUNCH, idle_action=idle_action)
    (source,) = rig.cloud.volumes()
    source.host_is_full = True
    await once(rig, NEXT, idle_action=idle_action)
    (copy,) = rig.cloud.volumes()

    assert copy.source == source.id
    assert rig.cloud.most_at_once == 1


async def test_one_empty_list_makes_no_second_volume(rig: Rig) -> None:
    await once(rig, LAUNCH, idle_action="destroy")
    (first,) = rig.cloud.volumes()
    rig.server.script["Volumes_list"] = ["empty"] * 3
    await once(rig, NEXT, idle_action="destroy")

    assert rig.cloud.volumes() == [first]
    assert len(rig.app.volumes) == 1


async def test_a_volume_that_a_lost_answer_left_goes_once_another_serves(
    rig: Rig,
) -> None:
    rig.server.script["Volumes_create"] = ["lost-after"]
    rig.server.script["Volumes_list"] = ["", "empty", "empty"]
    await once(rig, LAUNCH)

    assert len(rig.app.volumes) == 2
    assert len(rig.cloud.volumes()) == 1


async def test_a_machine_on_a_lost_host_goes_with_its_volume_when_that_is_back(
    rig: Rig,
) -> None:
    await once(rig, LAUNCH)
    (lost,) = rig.cloud.machines()
    lost.host_status, rig.cloud.hosts_refuse = "unreachable", True
    backend = rig.open()
    with pytest.raises(BackendError):
        await serve(rig, backend, NEXT)  # its renewal can't destroy the lost one
    meanwhile = len(rig.cloud.volumes())
    lost.host_status = "ok"
    await backend.renew(NEXT, serves=True)
    await backend.renew(NEXT, serves=True)
    await rest(backend, NEXT)
    await backend.aclose()
    left = [one.name for one in rig.cloud.machines() if one.doing != "destroy"]

    assert (meanwhile, len(rig.cloud.volumes())) == (2, 1)
    assert left == ["ollama-proxy-1"]


async def test_a_volume_that_was_detached_late_is_found_by_the_next_sweep(
    rig: Rig,
) -> None:
    await once(rig, LAUNCH)
    api = rig.api()
    spare = await api.create_volume("ollama_0123456789abcdef", "fra", 8, guest={})
    await api.aclose()
    backend = rig.open()
    listed = await sweep(backend, MemoryStore(), dry_run=True)
    await sweep(backend, MemoryStore())
    again = await sweep(backend, MemoryStore())
    await backend.aclose()

    assert (listed, again) == ([f"volume-{spare.id}"], [])
    assert len(rig.cloud.volumes()) == 1


async def test_what_volumes_cost_ends_with_the_deployment(rig: Rig) -> None:
    await once(rig, LAUNCH)
    backend = rig.open()
    rig.clock.ahead_s += 3600.0
    async with asyncio.timeout(20):
        told = [step async for step in backend.remove()]
    await backend.aclose()
    cost = rig.cloud.gb_hours()
    rig.clock.ahead_s += 3600.0

    assert told[-1] == "nothing of this deployment is left"
    assert 8.0 <= cost < 9.0
    assert rig.cloud.gb_hours() == cost


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("idle_action", ["stop", "destroy"])
async def test_a_move_to_another_host_is_mended_wherever_it_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, idle_action: str
) -> None:
    plan = kill_around(monkeypatch, AppCalls, "call")
    for number in range(1, MOST_CALLS + 1):
        async with fly_rig(tmp_path / f"{number}", is_paced=False) as rig:
            plan |= {"before": 0, "after": 0}
            await once(rig, LAUNCH, idle_action=idle_action)
            rig.cloud.volumes()[0].host_is_full = True
            plan |= {"seen": 0, moment: number}
            backend = rig.open(idle_action=idle_action)
            with contextlib.suppress(Killed):
                await serve(rig, backend, NEXT)
            await backend.aclose()
            plan |= {"before": 0, "after": 0}
            rig.clock.ahead_s += 20.0
            await once(rig, NEXT, idle_action=idle_action)

            assert len(rig.cloud.volumes()) == 1, number
            assert rig.cloud.most_at_once == 1, number
            assert rig.cloud.paid == [], number


def volume(number: int, holder: str | None = None) -> Volume:
    return Volume(f"vol_{number}", created_at=f"{number}", attached_machine_id=holder)


@pytest.mark.parametrize(
    ("volumes", "held", "best", "keep", "goes"),
    [
        ([volume(1)], set(), None, True, []),
        ([volume(1)], set(), None, False, ["vol_1"]),
        ([volume(1), volume(2)], set(), None, True, ["vol_2"]),
        ([volume(1), volume(2)], set(), "vol_2", True, ["vol_1"]),
        ([volume(1), volume(2, "m")], set(), "vol_1", True, ["vol_1"]),
        ([volume(1), volume(2)], {"vol_2"}, None, True, ["vol_1"]),
        ([volume(1, "m"), volume(2, "n")], set(), None, False, []),
    ],
)
def test_what_nobody_needs_is_told_from_what_there_is(
    volumes: list[Volume], held: set[str], best: str | None, keep: bool, goes: list[str]
) -> None:
    found = surplus(volumes, held=held, best=best, keep=keep)

    assert [one.id for one in found] == goes


async def test_volumes_of_an_app_that_is_not_set_any_more_are_not_forgotten(
    rig: Rig,
) -> None:
    await once(rig, LAUNCH)
    rig.cloud.add_app("other")
    backend = rig.open(app="other")
    said = "the app 'llm' has volumes of this state folder .vol_.*FLY_APP=llm"
    with pytest.raises(SpecError, match=said):
        await backend.start(NEXT)
    with pytest.raises(SpecError, match=said):
        _ = [step async for step in backend.deploy(IMAGE)]
    with pytest.raises(SpecError, match=said):
        _ = [step async for step in backend.remove()]
    await backend.aclose()
    other = rig.cloud.apps["other"]
    backend = rig.open()
    _ = [step async for step in backend.remove()]
    await backend.aclose()

    assert (other.addresses, other.machines) == ({}, {})
    assert rig.cloud.volumes() == []
