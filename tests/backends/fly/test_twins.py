"""A proxy on a copy of the state folder ends nothing of the first; lists may lie."""

import pytest

from ollama_proxy.base.errors import BackendError, TwinError
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.sweeper import sweep
from ollama_proxy.store.memory import MemoryStore
from tests.backends.fly.rig import Rig

LAUNCH, NEXT = LaunchId("l0123456789abcdef"), LaunchId("lfedcba9876543210")

pytestmark = pytest.mark.usefixtures("without_pace")


class Copy(MemoryStore):
    """The state of a folder that was copied before the first one's launch."""

    def remembers(self, launch_id: LaunchId) -> bool:
        return launch_id == NEXT


async def begun(rig: Rig) -> None:
    """Have a first proxy's machine run, and go on with a copy of its folder."""
    first = rig.open()
    await first.start(LAUNCH)
    await first.aclose()
    rig.notes.clear()
    rig.remembers = Copy().remembers


@pytest.mark.parametrize("lie", ["empty", "page-lost"])
async def test_a_name_that_is_taken_by_a_twin_is_no_reason_to_end_its_machine(
    rig: Rig, lie: str
) -> None:
    await begun(rig)
    second = rig.open()
    rig.server.script["Machines_list"] = [lie]
    with pytest.raises(TwinError, match="copy of this state folder"):
        await second.start(NEXT)
    await second.aclose()

    assert [one.metadata["ollama_proxy_launch"] for one in rig.cloud.paid] == [LAUNCH]
    assert rig.cloud.made == 1


@pytest.mark.parametrize("lie", ["empty", "page-lost"])
@pytest.mark.parametrize("number", [0, 1, 2])
async def test_a_sweep_that_is_shown_a_twin_in_one_list_alone_leaves_it(
    rig: Rig, lie: str, number: int
) -> None:
    await begun(rig)
    second = rig.open()
    rig.server.script["Machines_list"] = [""] * number + [lie]
    for _ in range(2):
        await sweep(second, Copy(), now=rig.clock.wall())
    await second.aclose()

    assert [one.metadata["ollama_proxy_launch"] for one in rig.cloud.paid] == [LAUNCH]


async def test_the_volume_of_a_twin_that_makes_its_machine_is_no_spare_one(
    rig: Rig,
) -> None:
    await begun(rig)
    second = rig.open()
    rig.server.script["Machines_list"] = ["empty"] * 3
    await second.tidy()
    with pytest.raises(BackendError):
        await second.start(NEXT)
    await second.aclose()

    assert len(rig.cloud.volumes()) == 1


@pytest.mark.parametrize("lie", ["", "empty", "page-lost"])
async def test_a_deletion_leaves_what_a_copy_of_the_state_folder_lives_by(
    rig: Rig, lie: str
) -> None:
    await begun(rig)
    second = rig.open()
    rig.server.script["Machines_list"] = [lie]
    with pytest.raises(TwinError, match=rf"\(launch {LAUNCH}\)"):
        async for _ in second.remove():
            pass
    await second.aclose()

    assert [one.metadata["ollama_proxy_launch"] for one in rig.cloud.paid] == [LAUNCH]
    assert len(rig.cloud.volumes()) == 1
