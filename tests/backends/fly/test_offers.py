"""What the settings of an offer say to its machines."""

import asyncio
from pathlib import Path

import pytest

from ollama_proxy.backends.fly.backend import FlyBackend
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Phase
from tests.backends.driving import started, until
from tests.backends.fly.rig import fly_rig

FIRST, SECOND = LaunchId("l0123456789abcdef"), LaunchId("lfedcba9876543210")
THIRD = LaunchId("l00000000000000ab")


async def running(backend: FlyBackend, launch_id: LaunchId) -> None:
    await started(backend, launch_id)
    await until(backend, launch_id, Phase.RUNNING)


async def stopped(backend: FlyBackend, launch_id: LaunchId) -> None:
    await until(backend, launch_id, Phase.GONE, stops=True)


async def test_the_variables_of_an_offer_reach_ollama_and_change_with_it(
    tmp_path: Path,
) -> None:
    async with fly_rig(tmp_path, is_paced=False) as rig:
        rig.environment = {"OLLAMA_NUM_PARALLEL": "4", "OLLAMA_KEEP_ALIVE": "30m"}
        backend = rig.open()
        await backend.start(FIRST)
        (machine,) = rig.cloud.paid
        first, spec = machine.environment, machine.metadata["ollama_proxy_spec"]
        await backend.stop(FIRST)
        await backend.aclose()
        rig.environment = {"OLLAMA_NUM_PARALLEL": "2"}
        backend = rig.open()
        changed = backend.traits.spec
        await backend.stop(FIRST)
        await backend.aclose()

    assert (
        first.items()
        >= {"OLLAMA_NUM_PARALLEL": "4", "OLLAMA_KEEP_ALIVE": "30m"}.items()
    )
    assert changed != spec


@pytest.mark.parametrize("idle_action", ["stop", "destroy"])
@pytest.mark.parametrize("is_first", [True, False])
async def test_two_launches_at_once_have_a_machine_and_a_volume_each(
    tmp_path: Path, idle_action: str, *, is_first: bool
) -> None:
    async with fly_rig(tmp_path, is_paced=False) as rig:
        backend = rig.open(idle_action=idle_action)
        if not is_first:
            await running(backend, FIRST)
            await stopped(backend, FIRST)
        rig.server.calls.clear()
        await asyncio.gather(running(backend, SECOND), running(backend, THIRD))
        made = rig.server.calls.count("Machines_create")
        found, paid = set(await backend.owned()), len(rig.cloud.paid)
        volumes = {one.volume for one in rig.cloud.paid}
        for launch_id in (SECOND, THIRD):
            await stopped(backend, launch_id)
        await backend.aclose()

    assert found == {SECOND, THIRD}
    assert (paid, len(volumes)) == (2, 2)
    assert made == 2
