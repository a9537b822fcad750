"""Every state of an instance, and some unknown ones."""

import asyncio

import pytest

from ollama_proxy.backends.exoscale.instances import read_instance
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Phase
from tests.backends.exoscale.rig import Rig
from tests.fakes.exoscale.spec import SPEC

LAUNCH = LaunchId("l0123456789abcdef")
PHASES = {
    "starting": Phase.PENDING,
    "migrating": Phase.PENDING,
    "running": Phase.RUNNING,
    "stopping": Phase.FAILED,
    "stopped": Phase.FAILED,
    "error": Phase.FAILED,
    "destroying": Phase.FAILED,
    "expunging": Phase.FAILED,
    "destroyed": Phase.GONE,
}


def test_the_states_are_those_of_the_api() -> None:
    assert set(PHASES) == set(SPEC["components"]["schemas"]["instance-state"]["enum"])


@pytest.mark.parametrize("state", PHASES)
async def test_each_state_is_read_for_what_it_means(rig: Rig, state: str) -> None:
    backend = rig.open()
    await backend.start(LAUNCH)
    (instance,) = rig.cloud.instances.values()
    async with asyncio.timeout(5):
        while instance.id not in rig.guests.inside:
            await asyncio.sleep(0.01)
    instance.forced = None if state == "running" else state
    seen = await backend.inspect(LAUNCH)
    instance.forced = None
    await backend.stop(LAUNCH)
    await backend.aclose()

    assert seen.phase is PHASES[state]


async def test_a_state_that_nobody_has_heard_of_exists_and_is_paid_for(
    rig: Rig,
) -> None:
    backend = rig.open()
    await backend.start(LAUNCH)
    (instance,) = rig.cloud.instances.values()
    answer = {"id": instance.id, "state": "hibernating", "labels": instance.labels}
    record = backend._journal.get(LAUNCH)
    assert record is not None
    seen = await backend._inspect_resource(LAUNCH, record, read_instance(answer))
    await backend.stop(LAUNCH)
    await backend.aclose()

    assert seen.phase is Phase.PENDING
